"""What the Docker tests make images from: contexts in a folder, all of them marked so that they can be found again."""

import itertools
import os
from pathlib import Path

from bot_bottle.plan.model import ImageSpec
from support.engine import BASE

_numbers = itertools.count()


def nonce() -> str:
    """Text that no image has had in it before, so that no builder remembers it."""
    return f"{os.getpid()}-{next(_numbers)}-{os.urandom(4).hex()}"


def written(folder: Path, dockerfile: str, **files: str) -> ImageSpec:
    """A Dockerfile and its context in `folder`, `{base}` in it standing for the tests' base image."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Dockerfile").write_text(dockerfile.format(base=BASE))
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return ImageSpec(dockerfile=str(folder / "Dockerfile"), context=str(folder))
