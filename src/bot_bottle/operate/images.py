"""The images that were built for bottles, as a person gets rid of them."""

import os

from bot_bottle.errors import HostError
from bot_bottle.host import paths


def forget(in_use: frozenset[str] = frozenset()) -> list[str]:
    """Removes the images that were built for bottles and that none uses, where ever one was."""
    return [*([] if "smolmachines" in in_use else _of_machines()), *_of_engines()]


def _of_machines() -> list[str]:
    """Root file systems that were unpacked for microVMs."""
    folder = os.path.join(paths.state_root(), "images")
    if not os.path.isdir(folder):
        return []
    from bot_bottle.backends.smolmachines import images

    return images.forget(folder)


def _of_engines() -> list[str]:
    if not os.path.isdir(os.path.join(paths.cache_root(), "images")):
        return []
    from bot_bottle.backends.docker import engine, failures, images

    try:
        whole = engine.connect(os.environ)
    except HostError as error:
        return [f"the images of bottles stay: {error.brief}"]
    try:
        return images.forget(whole)
    except failures.kinds() as error:
        return [f"the images of bottles stay: {failures.said(error)}"]
    finally:
        whole.client.close()
