"""Hosts and upstreams: one spelling, and nothing that could mean something else."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.manifest.hosts import UpstreamParts, canonical_host, parse_upstream


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("API.Example.ORG", "api.example.org"),
        ("example.org.", "example.org"),
        ("*.Example.org.", "*.example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("例え。example", "xn--r8jz45g.example"),
        ("my_bucket.example.org", "my_bucket.example.org"),
        ("db", "db"),
        ("1.example.org", "1.example.org"),
    ],
)
def test_a_host_has_one_spelling(written: str, meant: str) -> None:
    assert canonical_host(written) == meant
    assert canonical_host(meant) == meant


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("", "is empty"),
        (" example.org", "blanks around"),
        ("exa mple.org", "blank"),
        ("example.org\x00.evil.org", "invisible"),
        ("example.org\n", "blanks around"),
        ("exam\u202eple.org", "invisible"),
        ("exam\u200dple.org", "invisible"),
        ("https://example.org", "is a URL"),
        ("user@example.org", "has a user"),
        ("example.org/path", "has a path"),
        ("example.org?x", "has a path"),
        ("example.org\\x", "has a path"),
        ("example.org:443", "has a port"),
        ("*", "`*` where it can't be"),
        ("*.*.org", "`*` where it can't be"),
        ("a.*.org", "`*` where it can't be"),
        ("*example.org", "`*` where it can't be"),
        ("*.", "is empty"),
        (".", "empty part"),
        ("..", "empty part"),
        (".example.org", "empty part"),
        ("a..b", "empty part"),
        ("example.org..", "empty part"),
        ("127.0.0.1", "is an address"),
        ("127.0.0.1.", "is an address"),
        ("127.1", "is an address"),
        ("2130706433", "is an address"),
        ("0x7f.0.0.1", "is an address"),
        ("0x7f000001", "is an address"),
        ("\uff11\uff12\uff17.\uff10.\uff10.\uff11", "is an address"),
        ("①②⑦.0.0.1", "is an address"),
        ("*.0.0.1", "is an address"),
        ("::1", "is an address"),
        ("[::1]", "is an address"),
        ("fe80::1%eth0", "is an address"),
        ("localhost", "the bottle itself"),
        ("LOCALHOST.", "the bottle itself"),
        ("x.localhost", "the bottle itself"),
        ("*.localhost", "the bottle itself"),
        ("\uff4cocalhost", "the bottle itself"),
        ("straße.example", "`xn--` form"),
        ("ex℀mple.org", "no host name can have"),
        ("-a.org", "no host name can have"),
        ("a-.org", "no host name can have"),
        ("a,b.org", "no host name can have"),
        ("a%2eb.org", "no host name can have"),
        ("a" * 64 + ".org", "63 characters"),
        (".".join(["a" * 60] * 5), "253 characters"),
    ],
)
def test_what_is_no_plain_name_is_refused_with_a_reason(host: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        canonical_host(host)


@given(st.text(max_size=40) | st.from_regex(r"[a-zA-Z0-9.*_:/@-]{1,40}"))
def test_every_text_is_refused_or_gets_a_spelling_that_stays(text: str) -> None:
    try:
        once = canonical_host(text)
    except ValueError:
        return
    assert canonical_host(once) == once
    assert set(once) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.*")
    assert "*" not in once.removeprefix("*.")
    assert not once.rpartition(".")[2].isdigit()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("127.0.0.1:8080", UpstreamParts("127.0.0.1", 8080, False)),
        ("localhost:8080", UpstreamParts("localhost", 8080, False)),
        ("[::1]:8080", UpstreamParts("::1", 8080, False)),
        ("Model.Internal:1", UpstreamParts("model.internal", 1, False)),
        ("https://api.example.org", UpstreamParts("api.example.org", 443, True)),
        ("https://api.example.org:8443/", UpstreamParts("api.example.org", 8443, True)),
        ("http://[::1]", UpstreamParts("::1", 80, False)),
    ],
)
def test_an_upstream_is_a_place(written: str, meant: UpstreamParts) -> None:
    assert parse_upstream(written) == meant


@pytest.mark.parametrize(
    "text",
    [
        "", "example.org", "example.org:", "example.org:0", "example.org:65536", "example.org:x", "ftp://a.org",
        "https://user@a.org", "https://a.org/path", "::1:80", "[::1", "[x]:80", "127.1:80", "1.2.3.4.5:80",
        "*.a.org:80",
        "a b:80", "http://", "https://:443", "0x7f.1:80",
    ],
)  # fmt: skip
def test_an_upstream_that_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_upstream(text)


@given(st.text(max_size=30) | st.from_regex(r"(https?://)?[a-z0-9.\[\]:@/]{0,20}"))
def test_no_text_breaks_the_upstream_parser(text: str) -> None:
    try:
        parts = parse_upstream(text)
    except ValueError:
        return
    assert 1 <= parts.port <= 65535
