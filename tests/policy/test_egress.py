"""The egress policy: exactly what is stated is allowed, in every spelling, and nothing else."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.policy.addresses import address_is_public
from bot_bottle.policy.egress import canonical_host, canonical_pattern, decide, matches, names_allowed
from bot_bottle.policy.model import EgressPolicy, Route

LABELS = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,8}[a-z0-9_])?", fullmatch=True)
HOSTS = (
    st.lists(LABELS, min_size=1, max_size=4).map(".".join).filter(lambda host: canonical_host(host) == host)
)
PATTERNS = HOSTS | HOSTS.map(lambda host: "*." + host)
PORTS = st.sampled_from((80, 443, 8443))
PROTOCOLS = st.sampled_from(("https", "http"))
ROUTES = st.builds(
    lambda host, port, protocol: Route(host=host, port=port, protocol=protocol), PATTERNS, PORTS, PROTOCOLS
)
POLICIES = st.lists(ROUTES, max_size=4).map(lambda routes: EgressPolicy(routes=tuple(routes)))


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("Example.ORG", "example.org"),
        ("example.org.", "example.org"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("bücher\u3002example", "xn--bcher-kva.example"),
        ("\uff45xample.org", "example.org"),
        ("my_bucket.example.org", "my_bucket.example.org"),
        ("localhost", "localhost"),
        ("1.example.org", "1.example.org"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
    ],
)
def test_a_name_has_one_spelling(text: str, host: str) -> None:
    assert canonical_host(text) == host


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "..", "example..org", ".example.org", "example.org..", "*.example.org", "exa mple.org", " example.org",
        "example.org ", "example.org\n", "example.org\0.evil.test", "example.org%00", "example.org%2eevil.test",
        "user@example.org", "user:pass@example.org", "example.org:443", "example.org/", "example.org?", "example.org#",
        "example.org\\", "[::1]", "::1", "::ffff:127.0.0.1", "[::ffff:7f00:1]", "fe80::1%eth0",
        "127.0.0.1", "127.0.0.1.", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0x7f.1", "0X7F.1",
        "017700000001", "0177.0.0.1", "0177.1", "0x", "1.2.3.4.5", "example.1", "example.0x1", "256.256.256.256",
        "①②⑦.0.0.1", "１２７.0.0.1", "１２７｡０｡０｡１", "a" * 64 + ".example", "a." * 130 + "example", "-a.example", "a-.example",
        "faß.example", "σς.example", "a\u200db.example", "a\u200cb.example", "a\u202eb.example", "\ud800.example",
        "xn--a\u00e4.example" + "x" * 2000, "exa\u00admple\u2024org\u2025",
    ],
)  # fmt: skip
def test_what_is_no_name_has_none(text: str) -> None:
    assert canonical_host(text) is None


@given(st.text(max_size=80))
def test_every_text_gets_an_answer_that_is_its_own_spelling(text: str) -> None:
    host = canonical_host(text)
    if host is not None:
        assert canonical_host(host) == host
        assert host.isascii()
        assert len(host) <= 253
        with pytest.raises(OSError, match="illegal IP"):
            socket.inet_aton(host)


@given(st.integers(0, 2**32 - 1), st.data())
def test_no_notation_of_an_address_is_a_name(number: int, data: st.DataObject) -> None:
    octets = number.to_bytes(4, "big")
    write = st.sampled_from(
        (str, hex, lambda n: "0" + oct(n)[2:], lambda n: hex(n).upper().replace("X", "x"))
    )
    parts = data.draw(st.integers(1, 4))
    last = int.from_bytes(octets[parts - 1 :], "big")
    written = [data.draw(write)(n) for n in (*octets[: parts - 1], last)]
    text = ".".join(written) + data.draw(st.sampled_from(("", ".")))
    assert canonical_host(text) is None
    assert not decide(
        EgressPolicy(routes=(Route(host=text, port=443),)), host=text, port=443, protocol="https"
    ).allowed


def spellings(host: str) -> st.SearchStrategy[str]:
    """Other ways to write the same or nearly the same name."""
    cased = st.lists(st.booleans(), min_size=len(host), max_size=len(host)).map(
        lambda ups: "".join(c.upper() if up else c for c, up in zip(host, ups, strict=True))
    )
    noise = st.sampled_from(
        ("", ".", "..", " ", "\0", "%00", ":443", "/", "@", "#", "\t", "\r\n", "\u200b", "\u3002")
    )
    return st.builds(lambda text, before, after: before + text + after, cased, noise, noise)


@given(POLICIES, HOSTS, PORTS, PROTOCOLS, st.data())
def test_no_spelling_of_a_refused_host_is_allowed(
    policy: EgressPolicy, host: str, port: int, protocol: str, data: st.DataObject
) -> None:
    spelling = data.draw(spellings(host))
    meant = decide(policy, host=host, port=port, protocol=protocol)
    as_spelt = decide(policy, host=spelling, port=port, protocol=protocol)
    assert not as_spelt.allowed or (meant.allowed and as_spelt.wanted.host == host)


def stated(policy: EgressPolicy, host: str, port: int, protocol: str) -> bool:
    """The same question, answered label by label."""
    for route in policy.routes:
        if (route.port, route.protocol) != (port, protocol):
            continue
        wanted, asked = route.host.split("."), host.split(".")
        if wanted[0] == "*":
            if len(asked) > len(wanted) - 1 and asked[-(len(wanted) - 1) :] == wanted[1:]:
                return True
        elif wanted == asked:
            return True
    return False


@given(POLICIES, st.data())
def test_exactly_what_is_stated_is_allowed(policy: EgressPolicy, data: st.DataObject) -> None:
    known = [route.host.removeprefix("*.") for route in policy.routes] or ["example"]
    near = st.sampled_from(known)
    host = data.draw(HOSTS | near | near.map(lambda name: "a." + name) | near.map(lambda name: "a" + name))
    port, protocol = data.draw(PORTS), data.draw(PROTOCOLS)
    decision = decide(policy, host=host, port=port, protocol=protocol)
    assert decision.allowed == stated(policy, host, port, protocol)
    assert (decision.route is not None) == decision.allowed
    if decision.allowed:
        assert names_allowed(policy, host)


@given(st.text(max_size=40), st.integers(-5, 70000), st.text(max_size=6), POLICIES)
def test_every_question_gets_an_answer(host: str, port: int, protocol: str, policy: EgressPolicy) -> None:
    decide(policy, host=host, port=port, protocol=protocol)


def test_an_empty_policy_allows_nothing() -> None:
    decision = decide(EgressPolicy(), host="example.org", port=443, protocol="https")
    assert (decision.allowed, decision.reason) == (False, "host_not_allowed")


@pytest.mark.parametrize(
    ("host", "port", "protocol", "reason"),
    [
        ("example.org", 443, "https", "allowed"),
        ("example.org", 80, "https", "port_not_allowed"),
        ("example.org", 443, "http", "protocol_not_allowed"),
        ("a.example.org", 443, "https", "host_not_allowed"),
        ("notexample.org", 443, "https", "host_not_allowed"),
        ("example.org.evil.test", 443, "https", "host_not_allowed"),
        ("127.1", 443, "https", "address_literal"),
        ("[::1]", 443, "https", "address_literal"),
        ("a b", 443, "https", "not_a_host_name"),
    ],
)
def test_the_reason_says_what_is_in_the_way(host: str, port: int, protocol: str, reason: str) -> None:
    policy = EgressPolicy(routes=(Route(host="example.org", port=443),))
    assert decide(policy, host=host, port=port, protocol=protocol).reason == reason


def test_the_most_exact_route_counts() -> None:
    hosts = ("*.org", "*.example.org", "a.example.org", "*.b.example.org")
    policy = EgressPolicy(routes=tuple(Route(host=host, port=443) for host in hosts))
    for host, pattern in (
        ("a.example.org", "a.example.org"),
        ("c.b.example.org", "*.b.example.org"),
        ("b.example.org", "*.example.org"),
        ("x.org", "*.org"),
    ):
        route = decide(policy, host=host, port=443, protocol="https").route
        assert route is not None
        assert route.host == pattern


def test_a_pattern_is_a_name_or_everything_below_one() -> None:
    assert canonical_pattern("*.Example.org.") == "*.example.org"
    assert canonical_pattern("Example.org") == "example.org"
    for text in ("*", "*.", "*.*.org", "a.*.org", "*a.org", "**.org", "*.127.1"):
        assert canonical_pattern(text) is None
    assert not matches("*.example.org", "example.org")
    assert not matches("*.example.org", ".example.org")


PRIVATE = """0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.255 168.63.129.16 169.254.169.254
172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.19.255.255 198.51.100.1
203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
:: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::8.8.8.8 64:ff9b::8.8.8.8 64:ff9b:1::1 100::1 2001::1 2001:2::1
2001:10::1 2001:20::1 2001:db8::1 2002:7f00:1:: 2002:808:808:: 3fff::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1 fec0::1
ff02::1 fe80::1%lo""".split()
PUBLIC = """1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255
169.255.0.0 172.15.255.255 172.32.0.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255
2001:4860:4860::8888 2606:4700::1111 2a00:1450::1 2003::1""".split()


@pytest.mark.parametrize("ip", PRIVATE)
def test_an_address_that_is_not_public(ip: str) -> None:
    assert not address_is_public(ip)


@pytest.mark.parametrize("ip", PUBLIC)
def test_an_address_that_is_public(ip: str) -> None:
    assert address_is_public(ip)


@given(st.integers(0, 2**32 - 1))
def test_no_address_that_the_standard_library_calls_private_is_public(number: int) -> None:
    import ipaddress

    address = ipaddress.IPv4Address(number)
    if address.is_private or address.is_multicast or address.is_reserved or address.is_link_local:
        assert not address_is_public(str(address))


@given(st.integers(0, 2**128 - 1) | st.integers(0x2000 << 112, 0x3FFF << 112))
def test_no_v6_address_that_the_standard_library_calls_private_is_public(number: int) -> None:
    import ipaddress

    address = ipaddress.IPv6Address(number)
    special = address.ipv4_mapped or address.sixtofour or address.teredo
    if address.is_private or address.is_multicast or address.is_reserved or address.is_link_local or special:
        assert not address_is_public(str(address))


@given(st.text(max_size=30))
def test_what_is_no_address_is_not_public(text: str) -> None:
    assert address_is_public(text) in (True, False)
