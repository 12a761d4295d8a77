"""A company's proxy as it is written, and who is reached without it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.policy.addresses import name_is_private
from bot_bottle.policy.proxies import ProxyUrl, exceptions, goes_direct, read


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("http://proxy.example.org:3128", ProxyUrl("proxy.example.org", 3128, False)),
        ("http://proxy.example.org:3128/", ProxyUrl("proxy.example.org", 3128, False)),
        ("proxy.example.org:8080", ProxyUrl("proxy.example.org", 8080, False)),
        ("https://PROXY.example.org", ProxyUrl("proxy.example.org", 443, True)),
        ("http://[::1]:3128", ProxyUrl("::1", 3128, False)),
        ("http://me:p%40ss%3Aw%25@proxy:3128", ProxyUrl("proxy", 3128, False, b"me:p@ss:w%")),
        ("http://me@proxy:3128", ProxyUrl("proxy", 3128, False, b"me:")),
        ("socks5://proxy:1080", None),
        ("http://", None),
        ("http://proxy:0", None),
        ("http://proxy:99999", None),
        ("http://proxy:3128/path", None),
        ("http://proxy\n:3128", None),
        ("", None),
    ],
)
def test_a_proxy_is_read_or_is_none(text: str, meant: ProxyUrl | None) -> None:
    assert read(text) == meant


@given(st.text(max_size=60))
def test_no_text_breaks_the_reader_and_what_is_shown_holds_no_login(text: str) -> None:
    found = read(text)
    if found is not None:
        assert "@" not in found.shown
        assert read(found.shown) == found._replace(login=b"")


@pytest.mark.parametrize(
    ("entries", "host", "direct"),
    [
        ("example.org", "example.org", True),
        ("example.org", "a.example.org", True),
        (".example.org", "a.example.org", True),
        ("*.example.org", "a.example.org", True),
        ("EXAMPLE.ORG.", "example.org", True),
        ("example.org:443", "example.org", True),
        ("example.org:80", "example.org", False),
        ("example.org", "badexample.org", False),
        ("example.org", "example.org.evil.test", False),
        ("a.test, b.test  c.test", "c.test", True),
        ("*", "anything.test", True),
        ("", "example.org", False),
        (",,.,:443", "example.org", False),
        ("10.0.0.0/8,::1", "example.org", False),
    ],
)
def test_exceptions_hold_for_a_name_and_what_is_below_it(entries: str, host: str, direct: bool) -> None:
    assert goes_direct(exceptions(entries), host, 443) is direct


@pytest.mark.parametrize(
    "host", ["intranet", "a.local", "git.corp", "x.internal", "router.home.arpa", "a.localhost", "local"]
)
def test_a_name_that_can_only_be_ones_own_is_private(host: str) -> None:
    assert name_is_private(host)


@pytest.mark.parametrize(
    "host", ["example.org", "local.example.org", "notlocal.org", "corporate.org", "homearpa.org"]
)
def test_other_names_are_not(host: str) -> None:
    assert not name_is_private(host)
