"""The command line's front door: finds the command, imports only that one, turns every error into words and a code.

Start-up is a feature (`docs/performance.md`), so a command's module is imported when it is called, and `--help` is made
from the table below without importing any.
"""

import gc
import os
import sys
from importlib import import_module
from types import SimpleNamespace

from bot_bottle import __version__
from bot_bottle.cli import exits
from bot_bottle.cli.console import Console
from bot_bottle.errors import BotBottleError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

if "gettext" in sys.modules:
    import argparse
else:
    # argparse takes translations from there; importing that and looking for ours, which there are none of, takes 2 ms.
    plain = SimpleNamespace(gettext=str, ngettext=lambda one, many, number: one if number == 1 else many)
    sys.modules["gettext"] = plain  # type: ignore[assignment]
    import argparse

    del sys.modules["gettext"]

GROUPS: dict[str, dict[str, str]] = {
    "Run": {
        "start": "run an agent in a bottle, in this repository",
        "attach": "connect the terminal to a running bottle",
        "exec": "run a command inside a running bottle",
        "stop": "stop a bottle in order",
        "branch": "copy a stopped bottle, to go on with both",
        "resize": "change what a stopped bottle may use",
        "list": "show the bottles that run",
        "logs": "show what the agent printed",
        "demo": "watch a real agent work in a bottle",
    },
    "Egress": {
        "egress": "show what it reaches, allowed and refused, live",
        "reload": "put the bottle's file in force while it runs",
        "learn": "write the least policy that a run needed",
        "metrics": "print figures for Prometheus",
    },
    "Decide": {
        "inbox": "see what agents ask for, live, and decide it",
        "approvals": "list, show, approve and reject what agents ask for",
    },
    "Work": {
        "diff": "show what the agent changed in its copy",
        "apply": "apply these changes to the repository",
        "fetch": "bring the branches of its clone to the repository",
    },
    "Record": {
        "events": "show what happened, as it happens",
        "verify": "check that the record was not changed",
        "cleanup": "remove what dead bottles left",
    },
    "Set up": {
        "init": "write a first bottle and agent",
        "validate": "check bottles and agents",
        "plan": "show what would run and what it may reach",
        "schema": "print the JSON Schema of the files, for editors",
        "provider": "install and list agent tools",
        "doctor": "check what this machine can do",
        "completion": "print a shell's completion script",
        "version": "print the version",
    },
}
HIDDEN = ("names",)
GLOBAL = ("--help", "-h", "--json", "--quiet", "-q")
"""Options that may stand before the command; `--version` is one by itself."""


def names() -> list[str]:
    """Every command, hidden ones not."""
    return [name for group in GROUPS.values() for name in group]


class Formatter(argparse.HelpFormatter):
    """As wide as the terminal; asks by itself, since argparse imports shutil for that with every parser."""

    def __init__(self, prog: str) -> None:
        try:
            columns = os.get_terminal_size().columns
        except OSError:
            columns = 80
        super().__init__(prog, width=max(40, min(columns, 100)) - 2)


class Parser(argparse.ArgumentParser):
    """Raises UsageError where argparse would exit by itself. `tail` is what may stand after `--`."""

    tail = ""

    def format_usage(self) -> str:
        usage = super().format_usage()
        return f"{usage.rstrip()} [-- {self.tail}]\n" if self.tail else usage

    def format_help(self) -> str:
        if self.tail and self.usage is None:
            self.usage = self.format_usage().removeprefix("usage: ").rstrip()
            self.tail = ""
        return super().format_help()

    def error(self, message: str) -> "NoReturn":
        raise UsageError(message[:1].upper() + message[1:], resolution=f"Try: {self.prog} --help")


def global_options(parser: argparse.ArgumentParser) -> None:
    """The options that may stand before or after the command."""
    quiet = argparse.SUPPRESS
    parser.add_argument("--json", action="store_true", default=quiet, help="data as JSON, errors too")
    parser.add_argument(
        "--quiet", "-q", action="store_true", default=quiet, help="no progress, only data and warnings"
    )


def command_parser(name: str) -> Parser:
    """The parser of one command; imports its module."""
    module = import_module(f"bot_bottle.cli.commands.{name.replace('-', '_')}")
    parser = Parser(
        prog=f"bot-bottle {name}", description=module.__doc__, allow_abbrev=False, formatter_class=Formatter
    )
    module.arguments(parser)
    global_options(parser)
    parser.tail = getattr(module, "TAKES_TAIL", "")
    parser.set_defaults(run_command=module.run, tail=(), takes_tail=bool(parser.tail))
    return parser


def help_text() -> str:
    """What `bot-bottle --help` prints."""
    lines = [
        "usage: bot-bottle [--json] [--quiet] COMMAND ...\n       bot-bottle --version",
        "",
        "Run a coding agent in a bottle: no network but one door.",
    ]
    for title, commands in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {name:<12}{summary}" for name, summary in commands.items())]
    return "\n".join([*lines, "", "bot-bottle COMMAND --help says more. First steps: init, doctor, start."])


def split(argv: list[str]) -> tuple[list[str], str | None, list[str]]:
    """Global options, the command, and the rest."""
    for index, word in enumerate(argv):
        if not word.startswith("-"):
            return argv[:index], word, argv[index + 1 :]
    return argv, None, []


def dispatch(argv: list[str], console: Console) -> int:
    """Runs the command that `argv` names."""
    before, name, rest = split(argv)
    if "--version" in before or "-V" in before:
        console.data(f"bot-bottle {__version__}")
        return 0
    if "--help" in before or "-h" in before or name in (None, "help"):
        if name == "help" and rest:
            return dispatch([rest[0], "--help"], console)
        unknown = [word for word in before if word not in GLOBAL]
        if unknown:
            raise UsageError(f"There is no option {unknown[0]!r}", resolution="Try: bot-bottle --help")
        console.data(help_text())
        return exits.OK if name == "help" or {"--help", "-h"}.intersection(before) else exits.USAGE
    if name not in names() and name not in HIDDEN:
        import difflib

        near = difflib.get_close_matches(str(name), names(), 1)
        hint = f"Did you mean {near[0]}?" if near else "bot-bottle --help lists the commands."
        raise UsageError(f"There is no command {name!r}", resolution=hint)
    ours, tail = (rest[: rest.index("--")], rest[rest.index("--") + 1 :]) if "--" in rest else (rest, [])
    options = command_parser(str(name)).parse_args([*before, *ours])
    if tail and not options.takes_tail:
        raise UsageError(f"`{name}` takes nothing after --", resolution=f"Try: bot-bottle {name} --help")
    options.tail = tuple(tail)
    code: int = options.run_command(options, console)
    return code


def report(error: BotBottleError, console: Console) -> int:
    """Says `error` on stderr, as JSON when asked, and gives its exit code."""
    kind, code = exits.kind_and_code(error)
    if console.as_json:
        import json

        shape = {"kind": kind, "brief": error.brief, "details": error.details, "resolution": error.resolution}
        sys.stderr.write(json.dumps({"error": shape, "exit_code": code}) + "\n")
    else:
        details = "\n".join(f"  {line}" for line in error.details.splitlines())
        console.warn("\n".join(part for part in (error.brief, details, error.resolution) if part))
    return code


def _open_standard() -> None:
    """Streams that were closed when we were started lead nowhere: else the next file opened would become one of them."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nothing = os.open(os.devnull, os.O_RDWR)
            if nothing != number:
                os.dup2(nothing, number)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


def main(argv: list[str] | None = None) -> int:
    """The whole program: never raises, returns the exit code."""
    _open_standard()
    words = sys.argv[1:] if argv is None else argv
    ours = words[: words.index("--")] if "--" in words else words
    console = Console(as_json="--json" in ours, quiet="--quiet" in ours or "-q" in ours)
    try:
        return dispatch(words, console)
    except BotBottleError as error:
        return report(error, console)
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output went away: that is their right, and nothing to report. What is left goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception:  # noqa: BLE001 - the process boundary: what nobody foresaw becomes a log and one line
        from bot_bottle.host.crash import save

        where = save(words)
        console.warn(f"Something went wrong that should not have\n  The details are in {where}")
        return exits.INTERNAL


def entry() -> "NoReturn":
    """What the installed command runs: `main`, and then the end at once.

    Tearing the interpreter down takes a quarter of what `list` takes, and nothing of ours waits for it: files are closed by
    those who opened them, and no handler is registered for the exit.
    """
    gc.disable()  # a tenth of the imports' time; whoever goes on for long turns it on again (`launch/launcher.py`)
    code = main()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        pass  # whoever read it went away: their right
    except (OSError, ValueError):
        code = code or exits.UNWRITABLE
    os._exit(code)


if __name__ == "__main__":
    entry()
