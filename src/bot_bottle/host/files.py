"""Small files, whole. Stands for pathlib where every start passes: importing that costs 4 ms and a mebibyte."""

import os


def read(path: str) -> bytes:
    """The file's content. Raises OSError."""
    with open(path, "rb") as file:
        return file.read()


def beside(module_file: str, name: str) -> str:
    """The file `name` that is installed beside the module whose `__file__` is given."""
    return os.path.join(os.path.dirname(module_file), name)
