"""Arguments that many commands take."""

import argparse


def bottle(
    parser: argparse.ArgumentParser, name: str = "bottle", *, nargs: str | None = None, more: str = ""
) -> None:
    """BOTTLE, which names a run; `more` is added to its help."""
    says = "a run's id, the beginning of it, or the agent's name if only one run fits"
    parser.add_argument(name, metavar="BOTTLE", nargs=nargs, help=says + more)
