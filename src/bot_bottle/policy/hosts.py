"""Which host a text names: one spelling of each name, and none of anything else. Pure and total."""

import re
from functools import lru_cache

MAX_HOST = 253
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_DEVIATIONS = frozenset("\u00df\u1e9e\u03c2\u200c\u200d")
"""Letters that IDNA 2003 and 2008 map to different names: whoever means such a host writes its `xn--` form."""


def canonical_host(text: str) -> str | None:
    """The one spelling of a host name: lower case, no trailing dot, punycode. None for anything that is not a name.

    Addresses are no names, in whatever notation (`127.1`, `0x7f000001`, `017700000001`, `[::1]`): as in the URL standard,
    a name whose last label is a number is an address.
    """
    return _canonical(text) if 0 < len(text) <= 4 * MAX_HOST else None


@lru_cache(maxsize=256)
def _canonical(text: str) -> str | None:
    if not text.isascii():
        ascii_text = _punycode(text)
        if ascii_text is None:
            return None
        text = ascii_text
    host = text.lower().removesuffix(".")
    if len(host) > MAX_HOST or _HOST.fullmatch(host) is None:
        return None
    return None if _NUMBER.fullmatch(host.rpartition(".")[2]) else host


def _punycode(text: str) -> str | None:
    if _DEVIATIONS.intersection(text):
        return None
    try:
        return text.encode("idna").decode("ascii")
    except (UnicodeError, IndexError):
        return None


def canonical_pattern(text: str) -> str | None:
    """A route's host in its one spelling: a name, or `*.` and a name. None for anything else."""
    wildcard = text.startswith("*.")
    host = canonical_host(text[2:] if wildcard else text)
    if host is None:
        return None
    return f"*.{host}" if wildcard else host


def matches(pattern: str, host: str) -> bool:
    """Whether the canonical `host` is what `pattern` names; `*.` stands for one or more whole labels."""
    if pattern.startswith("*."):
        return len(host) > len(pattern) - 1 and host.endswith(pattern[1:])
    return host == pattern


def why_no_name(host: str) -> str:
    """The reason code for a text that `canonical_host` refuses."""
    last = host.lower().removesuffix(".").rpartition(".")[2]
    is_address = ":" in host or host.startswith("[") or _NUMBER.fullmatch(last) is not None
    return "address_literal" if is_address else "not_a_host_name"
