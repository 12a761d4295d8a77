"""Run an agent in a bottle, in this repository. What stands after -- is added to the agent's command."""

import argparse
import os
import sys

from bot_bottle.cli.console import Console
from bot_bottle.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bot_bottle.launch.launcher import Outcome
    from bot_bottle.operate.runs import StartRequest

TAKES_TAIL = "ARGUMENT ..."


def arguments(parser: argparse.ArgumentParser) -> None:
    """What `start` takes; `plan` takes the same."""
    parser.add_argument(
        "agent",
        metavar="AGENT",
        help="an agent's file: ~/.bot-bottle/agents/AGENT.md, or in the repository; or a bottle that was stopped with --keep",
    )
    parser.add_argument(
        "--headless",
        action="store_true",
        help="no terminal: the agent does its work and ends, with its exit code",
    )
    parser.add_argument(
        "--prompt",
        "-p",
        default="",
        metavar="TEXT",
        help="what the agent is to do; - reads it from standard input",
    )
    parser.add_argument(
        "--detach", "-d", action="store_true", help="return as soon as the agent runs; attach to it later"
    )
    parser.add_argument("--bottle", metavar="NAME", help="another bottle than the one the agent's file names")
    parser.add_argument(
        "--workspace",
        choices=("mount", "copy", "clone"),
        help="mount: the repository itself; copy: a copy of it (default when headless); clone: a clone of its first remote",
    )


def request_from(options: argparse.Namespace) -> "StartRequest":
    """The use case's request."""
    from bot_bottle.operate.runs import StartRequest

    prompt = sys.stdin.read() if options.prompt == "-" else options.prompt
    try:
        folder = os.getcwd()
    except FileNotFoundError as error:
        raise UsageError(
            "The current folder does not exist any more", resolution="cd to the repository."
        ) from error
    return StartRequest(
        agent=options.agent,
        folder=folder,
        bottle=options.bottle,
        headless=options.headless,
        prompt=prompt,
        workspace=options.workspace,
        arguments=options.tail,
    )


def run(options: argparse.Namespace, console: Console) -> int:
    """Starts it and stays until it ends, unless detached."""
    if options.headless and not options.detach:
        return _headless(options, console)
    from bot_bottle.operate.runs import check_request

    request = request_from(options)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    check_request(request, detach=options.detach, terminal=terminal)
    return start_kept(request, console, detach=options.detach)


def _headless(options: argparse.Namespace, console: Console) -> int:
    from bot_bottle.operate import ahead

    early = ahead.bundle()  # before all other imports
    try:
        from bot_bottle.cli.progress import Progress
        from bot_bottle.operate.runs import start_here

        with Progress(quiet=console.quiet) as progress:
            outcome = start_here(
                request_from(options),
                early=early,
                foreground=not console.as_json,
                phase=progress.phase,
                ready=lambda _: progress.clear(),
                noted=progress.between(console.warn),
                said=progress.between(console.say),
            )
    finally:
        early.discard()
    tell(outcome, console)
    return outcome.exit_code if outcome.reason == "exited" else outcome.exit_code or 130


def tell(outcome: "Outcome", console: Console) -> None:
    """How it went: as data when asked for JSON, else a line of conversation."""
    if console.as_json:
        console.json(
            {
                "id": outcome.id,
                "exit_code": outcome.exit_code,
                "reason": outcome.reason,
                "phases": outcome.phases,
                "changed": outcome.changed,
                "warnings": outcome.warnings,
            }
        )
        return
    for warning in outcome.warnings:
        if warning not in outcome.told:
            console.warn(warning)
    more = f"; bot-bottle diff {outcome.id} shows what it changed" if outcome.changed else ""
    console.say(f"bot-bottle: {outcome.id} {outcome.reason}, exit code {outcome.exit_code}{more}")


def start_kept(request: "StartRequest", console: Console, *, detach: bool) -> int:
    """Starts it in a keeper of its own, and attaches unless `detach`."""
    from bot_bottle.cli.progress import Progress
    from bot_bottle.operate.detached import start_detached

    with Progress(quiet=console.quiet) as progress:
        begun = start_detached(
            request,
            phase=progress.phase,
            noted=progress.between(console.warn),
            said=progress.between(console.say),
            owner=not detach,
        )
    if detach:
        if console.as_json:
            console.json({"id": begun["id"], "phases": begun["phases"]})
        else:
            console.data(begun["id"])
        return 0
    from bot_bottle.cli.commands.attach import attach_to

    return attach_to(begun["run_path"], begun["id"], console, owner=True, copied=begun["copied"])
