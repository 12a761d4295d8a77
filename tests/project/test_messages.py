"""What the program says reads alike everywhere: errors are sentences, and every option says what it does."""

import argparse
import ast
import inspect
from pathlib import Path

import pytest

import bot_bottle
from bot_bottle import errors
from bot_bottle.cli.main import command_parser, names

SOURCES = Path(bot_bottle.__file__).parent
KINDS = {name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, Exception)}
PROGRAMS = ("npm ", "bot-bottle")


def briefs(tree: ast.AST):
    """Line and beginning of every brief that is written where it is raised."""
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and call.args and getattr(call.func, "id", "") in KINDS:
            text = call.args[0].values[0] if isinstance(call.args[0], ast.JoinedStr) else call.args[0]
            if isinstance(text, ast.Constant):
                yield call.lineno, str(text.value)


def test_every_error_begins_with_a_capital_letter():
    small = [
        f"{path.relative_to(SOURCES)}:{line}: {text}"
        for path in SOURCES.rglob("*.py")
        for line, text in briefs(ast.parse(path.read_text()))
        if text[0].islower() and not text.startswith(PROGRAMS)
    ]
    assert not small


def actions(parser: argparse.ArgumentParser):
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from actions(inner)
        else:
            yield action


@pytest.mark.parametrize("name", names())
def test_every_command_describes_itself_and_every_option(name):
    parser = command_parser(name)
    assert parser.description
    assert parser.description[0].isupper()
    assert not [action.dest for action in actions(parser) if not action.help]
    assert "--json" in parser.format_help()


@pytest.mark.parametrize("name", ["start", "plan", "exec"])
def test_a_command_that_takes_more_after_two_dashes_shows_it(name):
    assert " [-- " in command_parser(name).format_usage()
