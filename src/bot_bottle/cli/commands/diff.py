"""Show what a run changed in its copy of the workspace, as a patch."""

import argparse

from bot_bottle.cli import arguments as common
from bot_bottle.cli.console import Console

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bot_bottle.operate.changes import ChangedFile, Changes

_COLOURS = (
    ("diff ", "1"),
    ("index ", "1"),
    ("--- ", "1"),
    ("+++ ", "1"),
    ("@@", "36"),
    ("+", "32"),
    ("-", "31"),
)


def arguments(parser: argparse.ArgumentParser) -> None:
    common.bottle(parser)
    parser.add_argument("--stat", action="store_true", help="only the files and how many lines changed")


def run(options: argparse.Namespace, console: Console) -> int:
    from bot_bottle.operate import record
    from bot_bottle.operate.changes import compute

    store = record.existing_store()
    found = record.find_run(store, options.bottle)
    assert store is not None
    store.close()
    changes = compute(found)
    for line in changes.left_out:
        console.warn(f"not looked at: {_clean(line)}")
    if console.as_json:
        console.json({"run": found.id, **as_data(changes)})
    elif options.stat:
        console.data("\n".join(stat_lines(changes)))
    elif console.on_terminal:
        show_flagged(changes, console)
        console.data(coloured(changes.patch), ours=True)
    else:
        console.raw(changes.patch)
    return 0


def as_data(changes: "Changes") -> "dict[str, Any]":
    """The changes as JSON has them: everything but the patch itself."""
    files = [
        {**file._asdict(), "path": _clean(file.path), "old_path": _clean(file.old_path)}
        for file in changes.files
    ]
    return {
        "files": files,
        "insertions": changes.insertions,
        "deletions": changes.deletions,
        "flagged": [{"path": _clean(flag.path), "reason": flag.reason} for flag in changes.flagged],
        "left_out": [_clean(line) for line in changes.left_out],
        "patch_bytes": len(changes.patch),
    }


def show_flagged(changes: "Changes", console: Console) -> None:
    """Names the files that do something on the host later, before anything else is shown."""
    if changes.flagged:
        console.warn("look at these first; they do something on this machine later:")
        for flag in changes.flagged:
            console.say(f"  {_clean(flag.path)}: {flag.reason}")


def stat_lines(changes: "Changes") -> list[str]:
    """A line for each file, and the sum."""
    flagged = {flag.path: flag.reason for flag in changes.flagged}
    lines = [f"{file.status} {_lines_of(file):>14}  {_names_of(file)}" for file in changes.files]
    marked = [
        f"{line}   <- {flagged[file.path]}" if file.path in flagged else line
        for line, file in zip(lines, changes.files, strict=True)
    ]
    count = len(changes.files)
    return [*marked, f"{count} file{'s' * (count != 1)}, +{changes.insertions} -{changes.deletions} lines"]


def _lines_of(file: "ChangedFile") -> str:
    return "binary" if file.insertions is None else f"+{file.insertions} -{file.deletions}"


def _names_of(file: "ChangedFile") -> str:
    mode = (
        f" ({file.old_mode} -> {file.new_mode})"
        if file.status in "MRT" and file.old_mode != file.new_mode
        else ""
    )
    renamed = f"{_clean(file.old_path)} -> " if file.status == "R" else ""
    return f"{renamed}{_clean(file.path)}{mode}"


def _clean(text: str) -> str:
    from bot_bottle.operate.text import path_text

    return path_text(text)


def coloured(patch: bytes) -> str:
    """The patch for a terminal: nothing in it but text, and colours of ours."""
    import os

    from bot_bottle.operate.text import visible_bytes

    lines = visible_bytes(patch, keep="\n\t").split("\n")
    if os.environ.get("NO_COLOR"):
        return "\n".join(lines)
    return "\n".join(_coloured_line(line) for line in lines)


def _coloured_line(line: str) -> str:
    code = next((code for start, code in _COLOURS if line.startswith(start)), "")
    return f"\x1b[{code}m{line}\x1b[m" if code else line
