"""Show the bottles that run."""

from bot_bottle.cli.console import Console

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from bot_bottle.operate.record import RunRecord


def arguments(parser: "argparse.ArgumentParser") -> None:
    parser.add_argument("--all", "-a", action="store_true", help="also those that have ended")


def run(options: "argparse.Namespace", console: Console) -> int:
    from bot_bottle.operate import record

    found = record.listed(everything=options.all)
    if console.as_json:
        console.json([_document(each, state) for each, state in found])
        return 0
    if not found:
        console.say("No bottle is running." if not options.all else "Nothing was run yet.")
        return 0
    headers = ["ID", "AGENT", "BOTTLE", "BACKEND", "STATE", "SINCE", "WORKSPACE"]
    console.table(
        [*headers, "OUTCOME"] if options.all else headers, [_row(*each, options.all) for each in found]
    )
    return 0


def _row(record: "RunRecord", state: str, everything: bool) -> list[str]:
    import time

    from bot_bottle.operate.text import path_text, visible

    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.started_at))
    row = [record.id, record.agent, record.bottle, record.backend, state, since, path_text(record.workspace)]
    if everything:
        code = f" ({record.exit_code})" if record.exit_code else ""
        row.append(visible(record.outcome) + code)
    return row


def _document(record: "RunRecord", state: str) -> dict[str, object]:
    """The record without what only cleaning up needs."""
    return {key: value for key, value in {**record._asdict(), "state": state}.items() if key != "traces"}
