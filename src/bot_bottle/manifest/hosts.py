"""What a host in a route may look like, and its one spelling. Pure.

Every check is on the canonical spelling, so that a name that only looks harmless before it is folded is
refused as well.
"""

import re
from typing import NamedTuple

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
_FOLDED_AWAY = "ßς\u200c\u200d"
"""Characters that old and new IDN rules turn into different names."""

UPSTREAM_FORMS = "`HOST:PORT`, `http://HOST[:PORT]` or `https://HOST[:PORT]`"


class UpstreamParts(NamedTuple):
    host: str
    port: int
    tls: bool


def canonical_host(text: str) -> str:
    """The one spelling of a route's host: lower case, punycode, no final dot.

    Raises ValueError, which says what to write.
    """
    wildcard = text.startswith("*.")
    name = _canonical_name(text[2:] if wildcard else text)
    if name == "localhost" or name.endswith(".localhost"):
        raise ValueError(
            "is the bottle itself, seen from inside; to reach a server on this machine, give the route a "
            "name of its own (host: model.internal) and `upstream: 127.0.0.1:PORT`"
        )
    canonical = "*." + name if wildcard else name
    if len(canonical) > 253:
        raise ValueError("is too long: a name has 253 characters at most")
    return canonical


def _canonical_name(text: str) -> str:
    _refuse_url_parts(text)
    if any(character in text for character in _FOLDED_AWAY):
        raise ValueError("has a letter that programs encode differently; write the name in its `xn--` form")
    name = _punycode(text).lower().removesuffix(".")
    labels = name.split(".")
    if not name or "" in labels:
        raise ValueError("has an empty part between dots; write a name such as `api.example.org`")
    if len(name) > 253:
        raise ValueError("is too long: a name has 253 characters at most")
    for label in labels:
        if len(label) > 63:
            raise ValueError("is too long: each part between dots has 63 characters at most")
        if not _LABEL.fullmatch(label):
            raise ValueError(f"has a part that no host name can have: `{label}`")
    if _NUMERIC.fullmatch(labels[-1]):
        raise ValueError(
            "is an address; a route names a host. To reach an address, give the route a name and "
            "`upstream: ADDRESS:PORT`"
        )
    return name


def _refuse_url_parts(text: str) -> None:
    if not text or text != text.strip():
        raise ValueError("is empty or has blanks around it; write a name such as `api.example.org`")
    if any(not character.isprintable() or character.isspace() for character in text):
        raise ValueError(
            "has a blank or an invisible character in it; write a name such as `api.example.org`"
        )
    if "://" in text:
        raise ValueError("is a URL; write only the name in it (`protocol:` and `paths:` say the rest)")
    if "@" in text:
        raise ValueError("has a user in it (`@`); write only the name behind it")
    if any(character in text for character in "/?#\\"):
        raise ValueError("has a path in it; write only the name, and the path under `paths:`")
    if "*" in text:
        raise ValueError(
            "has `*` where it can't be: `*.example.org` is every name below example.org, nothing else works"
        )
    if text.count(":") == 1 and text.rpartition(":")[2].isdigit():
        raise ValueError("has a port in it; write it under `port:`")
    if ":" in text or "[" in text:
        raise ValueError(
            "is an address; a route names a host. To reach an address, give the route a name and "
            "`upstream: '[ADDRESS]:PORT'`"
        )


def _punycode(text: str) -> str:
    if text.isascii():
        return text
    try:
        return text.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise ValueError("is no name that IDN can encode; write it in its `xn--` form") from error


def parse_upstream(text: str) -> UpstreamParts:
    """Where an `upstream:` leads; names and addresses are both right here.

    Raises ValueError, which says what to write.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    if scheme not in ("", "http", "https"):
        raise ValueError(f"must be {UPSTREAM_FORMS}")
    rest = rest.removesuffix("/") if scheme else rest
    host, port = _host_and_port(rest)
    if port is None:
        if not scheme:
            raise ValueError(f"has no port; write {UPSTREAM_FORMS}")
        port = 443 if scheme == "https" else 80
    return UpstreamParts(host, port, scheme == "https")


def _host_and_port(text: str) -> tuple[str, int | None]:
    bracketed = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::([0-9]{1,5}))?", text)
    plain = re.fullmatch(r"([^\[\]:]+)(?::([0-9]{1,5}))?", text)
    match = bracketed or plain
    if match is None:
        raise ValueError(f"must be {UPSTREAM_FORMS}; an IPv6 address stands in brackets")
    port = None if match[2] is None else int(match[2])
    if port is not None and not 1 <= port <= 65535:
        raise ValueError("has a port that is not within 1 and 65535")
    return _address(match[1]) if bracketed else _name_or_address(match[1]), port


def _name_or_address(text: str) -> str:
    if re.fullmatch(r"[0-9.]+", text):
        return _address(text)
    return "localhost" if text.lower() == "localhost" else _canonical_name(text)


def _address(text: str) -> str:
    import ipaddress

    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError(f"has `{text}`, which is no address") from None
