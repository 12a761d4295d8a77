"""Show the record of what happened: starts, ends, and every decision of the door."""

import argparse

from bot_bottle.cli import arguments as common
from bot_bottle.cli.console import Console
from bot_bottle.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bot_bottle.events import Event


_HASHES = ("policy", "previous", "authority", "row", "decision", "grant_row", "shown")


def arguments(parser: argparse.ArgumentParser) -> None:
    common.bottle(parser, nargs="?")
    parser.add_argument("--all", "-a", action="store_true", help="the events of every bottle")
    parser.add_argument("--follow", "-f", action="store_true", help="go on until the bottle has ended")


def run(options: argparse.Namespace, console: Console) -> int:
    from bot_bottle.operate import record

    if options.all == bool(options.bottle):
        raise UsageError(
            "No bottle was named", resolution="Name one, or ask for those of every bottle with --all."
        )
    store = record.open_store() if options.all else record.existing_store()
    run_id = None if options.all else record.find_run(store, options.bottle).id
    assert store is not None
    with store:
        try:
            for event in (record.follow_events if options.follow else record.events)(store, run_id):
                console.data(_json(event) if console.as_json else _line(event, with_run=options.all))
        except KeyboardInterrupt:
            # Following has no other end than this one, so it is no failure.
            return 0 if options.follow else 130
    return 0


def _json(event: "Event") -> str:
    import json

    return json.dumps(event._asdict())


def _line(event: "Event", *, with_run: bool) -> str:
    import time

    from bot_bottle.operate.text import visible

    at = time.strftime("%H:%M:%S", time.localtime(event.at)) + f".{int(event.at * 1000) % 1000:03d}"
    day = time.strftime("%Y-%m-%d ", time.localtime(event.at))
    run_id = f"{visible(event.run):<16} " if with_run else ""
    place, rest = _place(event)
    data = "  ".join([place] * bool(place) + [f"{key}={_short(key, value)}" for key, value in rest.items()])
    return f"{day}{at}  {run_id}{visible(event.kind):<16} {visible(data)}".rstrip()


def _place(event: "Event") -> "tuple[str, dict[str, object]]":
    """What a decision of the door is about, as a request is written, and what else the event says."""
    data = dict(event.data)
    if event.kind.partition(".")[0] not in ("egress", "dns") or not data.get("host"):
        return "", data
    protocol, host, port = (data.pop(name, "") for name in ("protocol", "host", "port"))
    method, path = data.pop("method", ""), data.pop("path", "")
    where = f"{protocol}://{host}" if protocol else f"{host}"
    where += f":{port}{path}" if port else f"{path}"
    words = [f"{method} {where}" if method else where]
    reason = str(data.pop("reason", ""))
    if reason not in ("", "allowed", "done"):
        words.append(reason)
    return "  ".join(words), data


def _short(key: object, value: object) -> str:
    """A value as a person reads it; `--json` has it whole."""
    if isinstance(value, dict):
        return ",".join(f"{name}:{_short(name, part)}" for name, part in value.items())
    if isinstance(value, list):
        return ",".join(_short("", part) for part in value) or "none"
    if isinstance(value, float):
        return f"{value:.3f}"
    return str(value)[:12] if key in _HASHES else str(value)
