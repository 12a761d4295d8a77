"""Twenty real bottles that ask for sixteen things each, at once, and one person who decides."""

import contextlib
import json
import subprocess

import pytest

from bot_bottle.testing.asking import Asker
from support.bottles import write_bottle, write_script
from support.place import python

pytestmark = [pytest.mark.namespace, pytest.mark.slow, pytest.mark.timeout(400)]

BOTTLES, ASKS = 20, 16


class Crowd:
    """Their keepers, each of which can be asked as its agent would."""

    def __init__(self, place) -> None:
        route = {"host": "one.example.org", "paths": ["/old"]}
        write_bottle(place, egress={"routes": [route]})
        write_script(place, "ask", "exec sleep 600")
        argv = place.argv([*python(), "-m", "bot_bottle.testing.asking", "ask", "unlimited"])
        self.keepers = [
            subprocess.Popen(
                argv, env=place.environment, cwd=place.workspace, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
            )
            for _ in range(BOTTLES)
        ]  # fmt: skip
        self.askers = [Asker(json.loads(keeper.stdout.readline())["run_path"]) for keeper in self.keepers]

    def largest(self) -> int:
        """Resident memory of the largest keeper, in KiB."""
        found = []
        for keeper in self.keepers:
            with open(f"/proc/{keeper.pid}/status") as file:
                status = dict(line.split(":", 1) for line in file.read().splitlines())
            found.append(int(status["VmRSS"].split()[0]))
        return max(found)

    def close(self) -> None:
        for asker in self.askers:
            asker.close()
        for keeper in self.keepers:
            with contextlib.suppress(ProcessLookupError):
                keeper.kill()
            keeper.wait()
            keeper.stdout.close()


def test_twenty_bottles_with_sixteen_asks_each_are_decided_at_once(place, cli, repository):
    crowd = Crowd(place)
    try:
        calls = [
            (asker, asker.ask("pipelock-block", urls=[f"https://one.example.org/{n}"], reason="to read it"))
            for n in range(ASKS)
            for asker in crowd.askers
        ]
        answers = [asker.answer(call) for asker, call in calls]
        assert [answer for answer in answers if answer.get("state") != "pending"] == []
        waiting = json.loads(cli("approvals", "list", "--json").stdout)
        assert len(waiting) == BOTTLES * ASKS
        assert {len(each["alike"]) for each in waiting} == {BOTTLES - 1}
        assert crowd.largest() < 100 * 1024
        done = cli("approvals", "approve", "--json", *(f"{each['id']}@{each['digest']}" for each in waiting))
        assert {each["state"] for each in json.loads(done.stdout)} == {"applied"}, done.stderr
        assert {asker.final(call)["state"] for asker, call in calls} == {"applied"}
        assert crowd.largest() < 100 * 1024
        assert cli("verify").code == 0
    finally:
        crowd.close()
        assert cli("cleanup").code == 0
