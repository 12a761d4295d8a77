"""pipelock's log, read strictly: a line is one flat JSON object of its own making, or it is none.

What the agent wrote (hosts, paths, header values) stands in it, so nothing in a line is believed beyond its type, and
text goes into events only through `bundle.record`, which cleans it.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, NoReturn

from bot_bottle.policy.egress import canonical_host

LONGEST = 64 * 1024
VIA = "pipelock"
_CODE = re.compile(r"[a-z][a-z0-9_]{0,40}")
_URL = re.compile(r"(https?)://([^/?#@\s]*)(?:[/?#].*)?", re.DOTALL)
_AUTHORITY = re.compile(r"([^:@/\[\]\s]+)(?::([0-9]{1,5}))?")
_RELOAD = "CONFIG_RELOAD"

Event = tuple[str, dict[str, Any]]


class BadLine(ValueError):
    """Not a line that pipelock would write."""


class Line(NamedTuple):
    """`event` is pipelock's name for what happened."""

    event: str
    fields: Mapping[str, Any]

    def text(self, name: str) -> str:
        """The field as text; empty when there is none or it is something else."""
        value = self.fields.get(name)
        return value if isinstance(value, str) else ""

    def number(self, name: str) -> float:
        """The field as a number that is not negative; 0 when there is none or it is something else."""
        value = self.fields.get(name)
        fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**63
        return value if fits and value is not None else 0


class Reload(NamedTuple):
    """What pipelock said of a config: `taken` when the one with `digest` is in force, else why not."""

    taken: bool
    digest: str
    said: str


def parse(line: bytes) -> Line:
    """One line without its end. Raises BadLine."""
    if len(line) > LONGEST:
        raise BadLine("too long")
    try:
        fields = json.loads(line.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadLine("not JSON") from error
    if not isinstance(fields, dict) or fields.get("component") != "pipelock":
        raise BadLine("not of pipelock")
    event = fields.get("event")
    if not isinstance(event, str) or _CODE.fullmatch(event) is None:
        raise BadLine("no event")
    return Line(event, fields)


def startup(line: Line) -> str | None:
    """The digest of the config with which pipelock says that it starts; None for another line."""
    return line.text("config_hash") if line.event == "startup" else None


def reload(line: Line) -> Reload | None:
    """What the line says of a new config; None when it is about something else.

    pipelock writes the digest of a config that it did *not* take as well: only the status `success` counts.
    """
    if line.event == "config_reload":
        status = line.text("status")
        return Reload(status == "success", line.text("config_hash"), f"{status}: {line.text('detail')}")
    if line.event == "error" and line.text("method") == _RELOAD:
        return Reload(False, "", line.text("error"))
    return None


def event(line: Line) -> Event | None:
    """What happened in the words of bot-bottle's own events; None for what is no decision about traffic."""
    make = _EVENTS.get(line.event)
    return make(line) if make else None


def where(line: Line) -> dict[str, Any]:
    """Host, port and protocol that the line is about; a name that is none stays empty, and its text is never used."""
    target, url = line.text("target"), line.text("url")
    found = _URL.fullmatch(url)
    protocol, authority = (found[1], found[2]) if found else ("https", target)
    match = _AUTHORITY.fullmatch(authority)
    host = (canonical_host(match[1]) if match else None) or ""
    usual = 80 if protocol == "http" else 443
    port = int(match[2]) if match and match[2] else usual
    return {"host": host, "port": port if 0 < port < 65536 else 0, "protocol": protocol}


def _allowed(line: Line) -> Event:
    return "egress.allowed", {"via": VIA, **where(line), "reason": "allowed", **_method(line)}


def _closed(line: Line) -> Event:
    counts = {
        "bytes": int(line.number("total_bytes")),
        "seconds": round(line.number("duration_ms") / 1000, 3),
    }
    return "egress.closed", {"via": VIA, **where(line), **counts, "reason": "done"}


def _blocked(line: Line) -> Event:
    scanner = line.text("scanner")
    code = scanner if _CODE.fullmatch(scanner) else "other"
    return _refused(line, code, line.text("reason"))


def _found(line: Line) -> Event | None:
    """A scanner's own line, which says what it did: what it only warned of went through."""
    return _refused(line, line.event, "") if line.text("action") == "block" else None


def _stopped(line: Line) -> Event:
    return _refused(line, line.event, line.text("reason"))


def _refused(line: Line, code: str, detail: str) -> Event:
    said = {"detail": detail} if detail else {}
    return "egress.refused", {
        "via": VIA,
        **where(line),
        "reason": f"pipelock_{code}",
        **_method(line),
        **said,
    }


def _failed(line: Line) -> Event | None:
    if not (line.text("target") or line.text("url")):
        return None
    data = {"via": VIA, **where(line), "reason": "pipelock_error", "detail": line.text("error")}
    return "egress.failed", data


def _method(line: Line) -> dict[str, str]:
    method = line.text("method")
    return {"method": method} if method else {}


_EVENTS = {
    "allowed": _allowed,
    "forward_http": _allowed,
    "tunnel_open": _allowed,
    "tunnel_close": _closed,
    "blocked": _blocked,
    "body_dlp": _found,
    "header_dlp": _found,
    "response_scan": _found,
    "sni_mismatch": _stopped,
    "kill_switch_deny": _stopped,
    "error": _failed,
}


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are all different: of two with one name, readers disagree which counts."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise BadLine("a name twice")
        found[name] = value
    return found


def _no_constant(name: str) -> NoReturn:
    raise BadLine(f"{name} is no number")
