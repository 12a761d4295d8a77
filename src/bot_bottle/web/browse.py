"""Opens the link in the operator's browser, without its key on a command line that others of this machine can read."""

import contextlib
import html
import os
import tempfile
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def opened(link: str, announce: Callable[[str], None]) -> Iterator[None]:
    """While in it, there is a file of the operator's own (0600) that leads on to `link`; a browser is told to open it."""
    import webbrowser

    folder = os.environ.get("XDG_RUNTIME_DIR") or None
    with tempfile.NamedTemporaryFile("w", prefix="bot-bottle-inbox-", suffix=".html", dir=folder) as file:
        target = html.escape(link, quote=True)
        file.write(
            f'<!doctype html><meta http-equiv="refresh" content="0;url={target}"><title>Inbox</title>\n'
        )
        file.flush()
        if not webbrowser.open(f"file://{file.name}"):
            announce("No browser could be opened: open the link yourself.")
        yield
