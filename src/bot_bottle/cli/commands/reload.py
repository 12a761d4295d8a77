"""Read the bottle's file anew and put what it says under `egress:` in force in the running bottle, at once."""

import argparse

from bot_bottle.cli import arguments as common
from bot_bottle.cli.console import Console


def arguments(parser: argparse.ArgumentParser) -> None:
    common.bottle(parser)
    parser.add_argument("--check", action="store_true", help="only show what would change; change nothing")


def run(options: argparse.Namespace, console: Console) -> int:
    from bot_bottle.operate import policy

    found = policy.from_file(options.bottle)
    for note in found.notes:
        console.warn(note)
    if not console.as_json:
        show(found.added, found.removed, console)
    done = None if options.check else policy.apply(found)
    if console.as_json:
        outcome = (
            done._asdict() if done else {"policy": found.policy.fingerprint(), "previous": found.expecting}
        )
        difference = {"added": found.added, "removed": found.removed}
        console.json({"run": found.run.id, "applied": done is not None, **outcome, **difference})
    elif done is None:
        console.say("Nothing was changed.")
    elif not done.changed:
        console.say(
            f"Nothing to do: {found.run.id} enforces the `egress:` of its file already ({done.policy[:12]}); "
            "what else stands there counts at the next start."
        )
    else:
        ended = "; every connection ended, since a new bundle was needed" if done.restarted else ""
        console.say(f"In force in {found.run.id}, confirmed by its bundle: {done.policy[:12]}{ended}.")
    return 0


def show(added: list[str], removed: list[str], console: Console) -> None:
    """The difference between two policies."""
    from bot_bottle.policy.difference import bare

    lines = [f"+ {bare(line)}" for line in added] + [f"- {bare(line)}" for line in removed]
    if lines:
        console.data("\n".join(lines))
