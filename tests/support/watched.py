"""A run whose agent asks for what a test tells it to, and says what came of it."""

import json
import subprocess

from support.bottles import write_script
from support.place import Place
from support.upstreams import Upstream

LOOP = """
set -f
while read what < asks; do
  [ "$what" = end ] && exit 0
  curl -sS -m 5 -o /dev/null -w '%{http_code}' $what > answers 2>/dev/null
done
"""


class Watched:
    """`run` is its id, once it was started; `upstream` is there from the beginning."""

    run = ""

    def __init__(self, place: Place, cli) -> None:
        self.place, self.cli = place, cli
        self.upstream = Upstream().__enter__()

    def write_agent(self) -> None:
        """The agent `ask`, which works on the workspace itself."""
        self.place.run(["mkfifo", "asks", "answers"])
        write_script(self.place, "ask", LOOP)

    def reaches(self, what: str) -> str:
        """The status that curl gets for `what`; 000 for none."""
        return self.place.run(_asked(what)).stdout.strip()

    def begin(self, what: str) -> "subprocess.Popen[str]":
        """Has the agent ask for `what`, and does not wait for what comes of it."""
        return subprocess.Popen(
            self.place.argv(_asked(what)), cwd=self.place.workspace, env=self.place.environment,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def events(self, kind: str) -> list[dict]:
        lines = self.cli("events", self.run, "--json").stdout.splitlines()
        return [event["data"] for event in map(json.loads, lines) if event["kind"] == kind]

    def close(self) -> None:
        self.cli("stop", "ask", "--now")
        self.upstream.__exit__()


def _asked(what: str) -> list[str]:
    return ["sh", "-c", f"echo '{what}' > asks; cat answers"]
