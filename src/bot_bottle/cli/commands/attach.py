"""Connect the terminal to a running bottle; one that was stopped with --keep is started again. Ctrl-] leaves it running."""

import argparse

from bot_bottle.cli import arguments as common
from bot_bottle.cli.console import Console


def arguments(parser: argparse.ArgumentParser) -> None:
    """The bottle."""
    common.bottle(parser, "run")


def run(options: argparse.Namespace, console: Console) -> int:
    """Attaches until the agent ends or the operator leaves."""
    from bot_bottle.operate.runs import StartRequest, find, kept_run

    record = find(options.run)
    if kept_run(record.id):
        from bot_bottle.cli.commands.start import start_kept

        return start_kept(StartRequest(record.id, record.workspace), console, detach=False)
    copied = record.workspace_mode == "copy"
    return attach_to(record.run_path, record.id, console, owner=False, copied=copied)


def attach_to(run_path: str, run_id: str, console: Console, *, owner: bool, copied: bool) -> int:
    """Relays the terminal. The owner's terminal going away stops the bottle; another's does not."""
    from bot_bottle.operate.attach import attach

    console.say(f"bot-bottle: this is {run_id}; Ctrl-] leaves it running")
    ended = attach(run_path, owner=owner)
    if ended is None:
        # The agent's cursor may be anywhere in a line.
        console.say(f"\nbot-bottle: {run_id} goes on; bot-bottle attach {run_id} comes back to it")
        return 0
    for warning in ended.warnings:
        console.warn(warning)
    more = f"; bot-bottle diff {run_id} shows what it changed" if copied else ""
    console.say(f"bot-bottle: {run_id} ended, exit code {ended.code}{more}")
    return ended.code
