"""What would have to be granted, as the line that a person adds under `egress:`, `routes:`. Pure."""

import json
import re

from bot_bottle.typed import Protocol

USUAL_PORTS = {"https": 443, "http": 80}
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_NO_TEXT = frozenset(("null", "true", "false", "yes", "no", "on", "off", "y", "n"))
_METHOD = re.compile(r"[A-Z][A-Z-]{0,19}")


class Asked(Protocol):
    """What a line is about; `policy.egress.Wanted`."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def protocol(self) -> str: ...
    @property
    def method(self) -> str: ...


def for_connection(wanted: Asked) -> str | None:
    """The line that opens `wanted`, whose host is canonical; None where no line can."""
    parts = _place(wanted)
    return None if parts is None else _line(parts)


def for_request(wanted: Asked, path: str | None) -> str | None:
    """The line that opens no more than this method and canonical path there; None where no line can."""
    parts = _place(wanted)
    if parts is None or path is None or _METHOD.fullmatch(wanted.method) is None:
        return None
    return _line([*parts, f"methods: [{word(wanted.method)}]", f"paths: [{json.dumps(path)}]"])


def _place(wanted: Asked) -> list[str] | None:
    if not 0 < wanted.port < 65536 or wanted.protocol not in ("https", "http", "tcp"):
        return None
    parts = [f"host: {word(wanted.host)}"]
    if USUAL_PORTS.get(wanted.protocol) != wanted.port:
        parts.append(f"port: {wanted.port}")
    if wanted.protocol != "https":
        parts.append(f"protocol: {wanted.protocol}")
    return parts


def _line(parts: list[str]) -> str:
    return f"- {{{', '.join(parts)}}}"


def word(text: str) -> str:
    """`text` as YAML: bare where it can't be taken for anything else."""
    return text if _PLAIN.fullmatch(text) and text.lower() not in _NO_TEXT else json.dumps(text)
