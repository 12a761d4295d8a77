"""`python -m bot_bottle` is `bot-bottle`."""

from bot_bottle.cli.main import entry

entry()
