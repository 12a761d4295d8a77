"""Keeps the traceback of an error that nobody foresaw."""

import os
import platform
import time
import traceback

from bot_bottle import __version__
from bot_bottle.host import paths


def save(argv: list[str]) -> str:
    """Writes the exception being handled to a file of its own (0600) and gives its path, or why that failed."""
    folder = os.path.join(paths.state_root(), "crashes")
    path = os.path.join(folder, f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt")
    head = (
        f"bot-bottle {__version__}, Python {platform.python_version()}, {platform.platform()}\n{argv!r}\n\n"
    )
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(head + traceback.format_exc())
    except OSError as error:
        return f"(not kept: {error})\n{traceback.format_exc()}"
    return path
