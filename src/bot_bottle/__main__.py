"""`python -m bot_bottle` is `bot-bottle`."""

import sys

from bot_bottle.cli.main import main

sys.exit(main())
