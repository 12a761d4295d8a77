"""Check what this machine can do, and say what to do about the rest."""

import argparse

from bot_bottle.cli.console import Console


def arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def run(options: argparse.Namespace, console: Console) -> int:
    """Prints every check; 1 when bottles can't run here."""
    from bot_bottle.operate.doctor import examine

    found = examine()
    if console.as_json:
        console.json([item._asdict() for item in found])
    else:
        width = max(len(item.name) for item in found) + 2
        for item in found:
            mark = {"ok": "ok", "note": "note", "missing": "MISSING"}[item.status]
            console.data(f"{mark:<8}{item.name:<{width}}{item.seen}")
            for line in item.do.splitlines():
                console.data(f"{'':<{8 + width}}{line}")
    missing = any(item.status == "missing" for item in found)
    if not console.as_json:
        console.say("Bottles can't run here yet." if missing else "Bottles can run here.")
    return int(missing)
