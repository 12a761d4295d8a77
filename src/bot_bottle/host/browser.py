"""Opens a link in the operator's browser, without its key on a command line that others of this machine could read."""

import contextlib
import html
import os
import tempfile
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def opened(link: str, announce: Callable[[str], None]) -> Iterator[None]:
    """While in it, there is a file of the operator's own (0600) that leads on to `link`; a browser is told to open it."""
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        announce("There is no display to open a browser on: open the link yourself.")
        yield
        return
    import webbrowser

    folder = os.environ.get("XDG_RUNTIME_DIR") or None
    with tempfile.NamedTemporaryFile("w", prefix="bot-bottle-inbox-", suffix=".html", dir=folder) as file:
        target = html.escape(link, quote=True)
        file.write(
            f'<!doctype html><meta http-equiv="refresh" content="0;url={target}"><title>Inbox</title>\n'
        )
        file.flush()
        # Some browsers come back only when they are closed.
        threading.Thread(target=webbrowser.open, args=(f"file://{file.name}",), daemon=True).start()
        yield
