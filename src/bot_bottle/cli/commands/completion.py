"""Print a shell's completion script. Use it with: source <(bot-bottle completion bash)"""

import argparse

from bot_bottle.cli.commands.names import KINDS
from bot_bottle.cli.console import Console

NAMES = {
    "AGENT": "agents",
    "BOTTLE": "runs",
    "PROPOSAL": "proposals",
    "PROPOSAL[@DIGEST]": "proposals",
    "GRANT": "grants",
}
PAST = ("apply", "diff", "egress", "events", "learn", "logs")
"""Commands that look at runs that have ended, too."""
PREAMBLE = {
    "bash": "\n".join(
        f'_bot_bottle_{kind}() {{ COMPREPLY=($(compgen -W "$(bot-bottle names {kind} 2>/dev/null)" -- "$1")); '
        f'bot-bottle names {kind} 2>/dev/null | grep -- "^$1"; }}'
        for kind in KINDS
    ),
    "zsh": "\n".join(
        f'_bot_bottle_{kind}() {{ compadd -- ${{(f)"$(bot-bottle names {kind} 2>/dev/null)"}}; }}'
        for kind in KINDS
    ),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The shell."""
    parser.add_argument("shell", choices=("bash", "zsh"), help="which shell's")


def run(options: argparse.Namespace, console: Console) -> int:
    """Prints it. Builds every command's parser, so it is the one command that imports them all."""
    import shtab

    from bot_bottle.cli.main import GROUPS, command_parser, global_options

    whole = argparse.ArgumentParser(prog="bot-bottle")
    global_options(whole)
    commands = whole.add_subparsers(dest="command")
    for group in GROUPS.values():
        for name, summary in group.items():
            made = command_parser(name)
            commands.add_parser(name, help=summary, parents=[made], add_help=False)
            for action in _all_actions(made):
                kind = NAMES.get(str(action.metavar)) or ("bottles" if action.dest == "bottle" else "")
                if kind == "runs" and name in PAST:
                    kind = "past"
                if kind:
                    action.complete = {"bash": f"_bot_bottle_{kind}", "zsh": f"_bot_bottle_{kind}"}  # type: ignore[attr-defined]
    console.data(shtab.complete(whole, shell=options.shell, preamble=PREAMBLE[options.shell]))
    return 0


def _all_actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Those of a command and of what it is divided into."""
    found = list(parser._actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += [each for inner in action.choices.values() for each in inner._actions]
    return found
