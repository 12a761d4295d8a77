"""Where installed tools are on the host. Light: every start looks there."""

import os


def folder(data_root: str, tool: str) -> str:
    """Where the versions of `tool` are kept below `data_root`."""
    return os.path.join(data_root, "providers", tool)


def current(data_root: str, tool: str) -> str:
    """The link to the version of `tool` that runs use; it may not be there."""
    return os.path.join(folder(data_root, tool), "current")


def locate(data_root: str, tool: str) -> str:
    """The program of `tool` that runs use, by its real path; empty when it isn't installed."""
    program = os.path.realpath(os.path.join(current(data_root, tool), tool))
    return program if os.access(program, os.X_OK) else ""
