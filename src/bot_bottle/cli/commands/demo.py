"""Watch a real agent repair a program in a bottle, ask for what it lacks, hold no key, and be refused a way out.

At a terminal you decide what it asks for. Takes less than a minute.
"""

import argparse
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bot_bottle.cli.console import Console

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.status import Status
    from rich.table import Table

    from bot_bottle.operate.demo import Demo
    from bot_bottle.operate.demo_record import Asked

_WIDEST = 100
_TELLING = 160
"""Characters of a failed call's result."""
_REFUSAL = re.compile(r'^\{"error": "refused", .*"reason": "(\w+)"')
_SUPERVISE = "mcp__supervise__"
_STATUS = re.compile(r'(?:Status: |\{"status": ?")(\w+)')
"""What an ask was answered with: the call itself may have succeeded, and the answer be a no."""
_COUNTED_AT_A_TERMINAL, _COUNTED = 20, 3
"""Seconds until the demo decides by itself: where somebody may be there, and where nobody is."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the demo's options."""
    parser.add_argument(
        "--keep", action="store_true", help="leave the repository and the records where they are"
    )


def run(options: argparse.Namespace, console: Console) -> int:
    """Runs the demo; 1 when the bug was not repaired or nothing was refused."""
    from bot_bottle.operate.demo import demo

    with _progress(console) as status:
        person = Person(console, status)
        shown = demo(keep=options.keep, person=person, api_key=os.environ.get("ANTHROPIC_API_KEY", ""))
    if console.as_json:
        console.json(_document(shown))
    else:
        console.data(_page(shown), ours=True)
    return 0 if shown.held else 1


class Person:
    """Whoever is at the terminal, if anybody. `status` is the spinner that shows what is going on, where there is one."""

    def __init__(self, console: Console, status: "Status | None") -> None:
        self._console = console
        self._status = status

    def report(self, text: str) -> None:
        """Says what is going on."""
        if self._status is not None:
            self._status.update(text)
            self._status.start()
        else:
            self._console.say(text)

    def decides(self, asked: "Asked") -> bool:
        """Counts down; whether somebody pressed Enter meanwhile. The spinner stands still until the next report: the inbox has the
        terminal meanwhile."""
        from bot_bottle.policy.difference import bare

        there = self._status is not None and sys.stdin.isatty() and sys.stdout.isatty()
        if self._status is not None:
            self._status.stop()
        self._console.say(f"The agent asks to {asked.title}:")
        for line in asked.added:
            self._console.say(f"  + {bare(line)}")
        return self._enter_pressed() if there else self._nobody()

    def _enter_pressed(self) -> bool:
        """With the seconds that are left, in one line."""
        import select

        for left in range(_COUNTED_AT_A_TERMINAL, 0, -1):
            sys.stderr.write(f"\rPress Enter to decide in the inbox; in {left:2} s the demo approves it. ")
            sys.stderr.flush()
            if select.select([sys.stdin], [], [], 1.0)[0]:
                sys.stdin.readline()
                return True
        sys.stderr.write("\n")
        self._console.say("Nobody pressed a key, so the demo approves it by itself.")
        return False

    def _nobody(self) -> bool:
        import time

        self._console.say(f"Nobody is at a terminal, so the demo approves it by itself in {_COUNTED} s.")
        time.sleep(_COUNTED)
        return False


def _document(shown: "Demo") -> dict[str, object]:
    return {
        "run": shown.run,
        "model": shown.model,
        "exit_code": shown.exit_code,
        "actions": [one._asdict() for one in shown.transcript.actions],
        "last_word": shown.transcript.last_word,
        "placeholder": shown.placeholder,
        "key_seen": shown.key_seen,
        "asked": [one._asdict() for one in shown.asked],
        "refusals": [one._asdict() for one in shown.refusals],
        "phases": {one.name: round(one.seconds, 3) for one in shown.phases},
        "diff": shown.diff,
        "fixed": shown.fixed,
        "tests": shown.tests,
        "pushed": list(shown.pushed),
        "gitleaks": shown.gitleaks,
        "kept": shown.kept,
        "held": shown.held,
    }


def _page(shown: "Demo") -> str:
    """The whole page as text, in colour when standard output is a terminal."""
    import io

    from rich.console import Console as Terminal

    width = min(shutil.get_terminal_size((80, 24)).columns, _WIDEST)
    out = io.StringIO()
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    terminal = Terminal(file=out, width=width, force_terminal=colour, no_color=not colour, highlight=False)
    diff = _diff(shown)
    parts = (
        _actions(shown),
        _key(shown),
        _asked(shown),
        _refusals(shown),
        _phases(shown),
        diff,
        _verdict(shown),
    )
    for part in parts:
        terminal.print(part, soft_wrap=part is diff)  # a wrapped diff could not be applied
        terminal.print()
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).rstrip()


def _table(title: str, *columns: tuple[str, int | None]) -> "Table":
    """A table with `columns` (heading, share of the width; None: as wide as it must be)."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, expand=True, pad_edge=False
    )
    for heading, ratio in columns:
        table.add_column(heading, ratio=ratio, overflow="fold", no_wrap=ratio is None)
    return table


def _actions(shown: "Demo") -> "RenderableType":
    from rich.text import Text

    table = _table("What the agent did", ("tool", None), ("what", 5), ("result", 4))
    for action in shown.transcript.actions:
        mark, style = {True: ("ok", "green"), False: ("failed", "yellow"), None: ("no answer", "red")}[
            action.ok
        ]
        if (status := _STATUS.match(action.result)) and action.tool.startswith(_SUPERVISE):
            mark, style = status[1], "green" if status[1] == "applied" else "yellow"
        outcome = Text(mark, style)
        if action.ok is False:
            outcome.append(f": {_telling(action.result)}", "default")
        table.add_row(Text(action.tool.removeprefix(_SUPERVISE)), Text(action.what), outcome)
    return table


def _telling(result: str) -> str:
    """The line of a failed call's result that says most: the last one, and of the door's refusal the reason."""
    lines = [line.strip() for line in result.splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    if refusal := _REFUSAL.search(last):
        return f"refused: {refusal[1].replace('_', ' ')}"
    return f"{last[:_TELLING]}…" if len(last) > _TELLING else last


def _key(shown: "Demo") -> "RenderableType":
    from rich.text import Text

    table = _table("The model's key", ("where", None), ("what was there", 1))
    table.add_row("in the bottle", Text(shown.placeholder or "(the agent did not look)"))
    demanded = "; it answers nobody without it" if shown.model == "scripted" else ""
    table.add_row("at the model", f"the key itself, put in outside{demanded}")
    return table


def _asked(shown: "Demo") -> "RenderableType":
    from rich.text import Text

    from bot_bottle.policy.difference import bare

    table = _table("What it asked for", ("decided by", None), ("the change", 4), ("outcome", 2))
    for one in shown.asked:
        lines = "\n".join(f"+ {bare(line)}" for line in one.added)
        good = one.state == "applied"
        outcome = f"in force after {one.seconds * 1000:.0f} ms" if good else one.state
        table.add_row(one.by, Text(lines), Text(outcome, "green" if good else "yellow"))
    if not shown.asked:
        table.add_row("", "(it asked for nothing)", "")
    return table


def _refusals(shown: "Demo") -> "RenderableType":
    from rich.text import Text

    table = _table("What it was refused", ("by", None), ("target", 2), ("why", 3))
    for one in shown.refusals:
        table.add_row(Text(one.via), Text(one.target), Text(one.reason.replace("_", " ")))
    return table


def _phases(shown: "Demo") -> "RenderableType":
    table = _table("Time", ("phase", None), ("seconds", 1))
    for phase in shown.phases:
        table.add_row(phase.name, f"{phase.seconds:8.3f}")
    return table


def _diff(shown: "Demo") -> "RenderableType":
    from rich.text import Text

    from bot_bottle.operate.transcript import clean

    text = Text("The diff it left\n\n", "bold")
    styles = {"+": "green", "-": "red", "@": "cyan"}
    for line in clean(shown.diff, 20_000).splitlines():
        text.append(line + "\n", styles.get(line[:1], "default"))
    text.rstrip()
    return text


def _verdict(shown: "Demo") -> "RenderableType":
    from rich.text import Text

    who = "a scripted model" if shown.model == "scripted" else shown.model
    refused = len(shown.refusals)
    ways = f"{'1 thing was' if refused == 1 else f'{refused} things were'} refused, as listed above."
    key = "The model's key was put in outside; the agent held"
    key += " a placeholder." if shown.placeholder else " none."
    text = Text(f"Claude Code, with {who}, in run {shown.run}:", "bold")
    for good, yes, no in (
        (shown.fixed, "The bug is repaired: the tests pass in a second bottle.", "The bug is not repaired."),
        (not shown.key_seen, key, "The agent showed the model's key."),
        (refused > 0, ways, "Nothing was refused."),
        *[_answer(one, answered=shown.answered) for one in shown.asked],
        *(
            [(True, "A secret on its way to an allowed host was found, and not sent.", "")]
            if shown.secret_stopped
            else []
        ),
        *[
            (True, f"Its work went through the git gate, to the branch {one} of its upstream.", "")
            for one in shown.pushed
        ],
        *(
            [(True, f"A push with a secret in it was refused{_alone(shown)}.", "")]
            if shown.push_stopped
            else []
        ),
    ):
        text.append(f"\n{'✓' if good else '✗'} {yes if good else no}", "green" if good else "red")
    if not shown.fixed:
        text.append(f"\n  {_telling(shown.tests)}", "default")
    if shown.kept:
        text.append(f"\nEverything is in {shown.kept}", "default")
    return text


def _alone(shown: "Demo") -> str:
    return "" if shown.gitleaks else " (by our own search alone: gitleaks is not installed here)"


def _answer(asked: "Asked", *, answered: bool) -> tuple[bool, str, str]:
    """Whether an ask came out as it was decided; a line for either."""
    if asked.state == "applied":
        yes = f"It asked, {asked.by} approved, and the same request went through."
    else:
        answer = "nobody answered" if asked.by == "nobody" else f"{asked.by} did not approve"
        yes = f"It asked, {answer}, and it went on without."
    return answered, yes, f"It asked, {asked.by} decided, and what followed was something else."


@contextmanager
def _progress(console: Console) -> Iterator["Status | None"]:
    """A spinner with what is going on, on a terminal; elsewhere none: each part is a line there."""
    if console.quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console as Terminal

    with Terminal(stderr=True).status("Starting") as shown:
        yield shown
