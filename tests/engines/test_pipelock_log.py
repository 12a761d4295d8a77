"""pipelock's log: read strictly, believed in nothing, and said in the words of our own events."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.bundle.record import Record
from bot_bottle.engines.pipelock import log

HOSTILE = '\x1b]0;owned\x07\n{"event":"x"}\u202e'


def line(event="blocked", **fields):
    return json.dumps({"level": "warn", "component": "pipelock", "event": event, **fields}).encode()


def said(event="blocked", **fields):
    return log.event(log.parse(line(event, **fields)))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b'"blocked"',
        b"Pipelock v2.3.0 starting",
        b'{"component":"pipelock"}',
        b'{"component":"other","event":"blocked"}',
        b'{"event":"blocked"}',
        b'{"component":"pipelock","event":7}',
        b'{"component":"pipelock","event":"Blocked!"}',
        b'{"component":"pipelock","event":"blocked","event":"allowed"}',
        b'{"component":"pipelock","event":"blocked","total_bytes":NaN}',
        b'{"component":"pipelock","event":"blocked"} {}',
        b'\xff{"component":"pipelock","event":"blocked"}',
        b"[" * 100_000,
        line(reason="x" * log.LONGEST),
    ],
)
def test_what_pipelock_would_not_write_is_no_line(text):
    with pytest.raises(log.BadLine):
        log.parse(text)


@given(st.one_of(st.binary(max_size=200), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.dictionaries(st.sampled_from(["component", "event", "target", "url", "x"]) | st.text(max_size=5), inner),
    max_leaves=10,
).map(lambda value: json.dumps(value).encode())))  # fmt: skip
def test_any_bytes_are_a_line_or_none(text):
    try:
        log.event(log.parse(text))
    except log.BadLine:
        return


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300) | st.lists(st.text())


@given(
    st.sampled_from(
        [
            "allowed",
            "forward_http",
            "tunnel_open",
            "tunnel_close",
            "blocked",
            "body_dlp",
            "error",
            "sni_mismatch",
        ]
    ),
    st.dictionaries(
        st.sampled_from(
            ["method", "url", "target", "scanner", "reason", "error", "action", "total_bytes", "duration_ms"]
        ),
        VALUES,
    ),
)
def test_whatever_stands_in_the_fields_an_event_is_whole_and_its_text_is_clean(event, fields):
    told = []

    class Keeper:
        def has_room(self):
            return True

        def tell(self, message):
            told.append(message)

    found = log.event(log.Line(event, fields))
    if found is None:
        return
    Record(Keeper(), clock=lambda: 0.0, later=lambda *_: None).event(*found)
    [message] = told
    assert message["event"] in ("egress.allowed", "egress.refused", "egress.failed", "egress.closed")
    data = message["data"]
    assert data["via"] == "pipelock"
    assert 0 <= data["port"] < 65536
    assert data["protocol"] in ("http", "https")
    assert {"host", "reason"} <= set(data)
    for value in data.values():
        if isinstance(value, str):
            assert value.replace("\ufffd", "").replace("\u2026", "").isascii()
            assert value.replace("\ufffd", "").replace("\u2026", "").isprintable()
    json.dumps(data, allow_nan=False)


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"target": "API.example.org:8443"}, ("api.example.org", 8443, "https")),
        ({"target": "api.example.org"}, ("api.example.org", 443, "https")),
        ({"url": "http://api.example.org/a?b=http://c"}, ("api.example.org", 80, "http")),
        ({"url": "http://api.example.org:8080/[redacted]"}, ("api.example.org", 8080, "http")),
        ({"url": "https://api.example.org"}, ("api.example.org", 443, "https")),
        ({"url": "http://user@evil.test/"}, ("", 443, "https")),
        ({"target": "127.0.0.1:443"}, ("", 443, "https")),
        ({"target": "a b:443"}, ("", 443, "https")),
        ({"target": "a.test:99999"}, ("a.test", 0, "https")),
        ({"target": ["a.test:443"]}, ("", 443, "https")),
        ({}, ("", 443, "https")),
    ],
)
def test_where_a_line_is_about(fields, where):
    assert tuple(log.where(log.parse(line(**fields))).values()) == where


def test_decisions_become_our_events():
    at = {"via": "pipelock", "host": "a.test", "port": 443, "protocol": "https"}
    assert said(method="CONNECT", target="a.test:443", scanner="ssrf", reason="private") == (
        "egress.refused",
        {**at, "reason": "pipelock_ssrf", "method": "CONNECT", "detail": "private"},
    )
    assert said("tunnel_open", target="a.test:443") == ("egress.allowed", {**at, "reason": "allowed"})
    assert said("tunnel_close", target="a.test:443", total_bytes=10, duration_ms=1500.0) == (
        "egress.closed",
        {**at, "bytes": 10, "seconds": 1.5, "reason": "done"},
    )
    assert said("error", target="a.test:443", error="dial tcp: refused")[0] == "egress.failed"
    assert said("header_dlp", url="http://a.test/", action="block")[1]["reason"] == "pipelock_header_dlp"


def test_what_was_only_warned_of_or_is_about_nothing_that_left_is_no_event():
    assert said("body_dlp", url="http://a.test/", action="warn") is None
    assert said("anomaly", url="http://a.test/") is None
    assert said("startup", listen="127.0.0.1:1") is None
    assert said("error", method="CONFIG_RELOAD", resource="/x", error="bad") is None


def test_a_scanners_name_that_is_no_code_does_not_become_one():
    assert said(target="a.test:443", scanner=HOSTILE)[1]["reason"] == "pipelock_other"


def test_only_a_success_is_a_config_that_was_taken():
    def reload(event, **fields):
        return log.reload(log.parse(line(event, **fields)))

    assert reload("config_reload", status="success", config_hash="ab", detail="") == (True, "ab", "success: ")
    assert not reload("config_reload", status="ignored", config_hash="ab").taken
    assert not reload("config_reload", config_hash="ab").taken
    assert not reload("error", method="CONFIG_RELOAD", error="unknown field").taken
    assert reload("error", target="a.test:443", error="x") is None
