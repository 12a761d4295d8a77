"""Finding the bundles of running bottles."""

from pathlib import Path

from support.leftovers import processes
from support.place import Place


def bundles(place: Place) -> list[int]:
    """The bundles of the place's runs: the keepers' children that are confined and outside every sandbox."""
    found = []
    for keeper in processes(str(place.root), place.token):
        for child in Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split():
            lines = Path(f"/proc/{child}/status").read_text().splitlines()
            status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
            if (
                status["Seccomp"] == "2"
                and len(status["NSpid"].split()) == 1
                and status["Name"] == "bot-bottle"
            ):
                found.append(int(child))
    return found
