"""A disk that is full for the keeper of a real bottle: what is decided is enforced, said once recorded, and nothing is lost."""

import json

import pytest
from test_approvals import URL, Supervised  # type: ignore[import-not-found]

from support.killing import alive
from support.place import Done
from support.waiting import wait_for

pytestmark = pytest.mark.namespace


@pytest.fixture
def watched(place, cli, repository):
    made = Supervised(place, cli)
    yield made
    made.close()


class Full:
    """While in it, the keeper's writes to files fail, as on a disk that is full (EFBIG where that has ENOSPC)."""

    def __init__(self, watched: Supervised) -> None:
        self._watched = watched

    def __enter__(self) -> None:
        done = self._limit("1:unlimited")
        assert done.code == 0, done.stderr

    def __exit__(self, *_: object) -> None:
        self._limit("unlimited:unlimited")

    def _limit(self, bytes_: str) -> Done:
        keeper = self._watched.keeper.pid
        return self._watched.place.run(["prlimit", "--pid", str(keeper), f"--fsize={bytes_}"])


def test_what_is_decided_meanwhile_is_enforced_and_said_once_it_is_recorded(watched):
    call = watched.asker.ask("pipelock-block", urls=[URL], reason="to read it")
    watched.asker.answer(call)
    shown = watched.shown()
    with Full(watched):
        done = watched.approvals("approve", f"{shown['id']}@{shown['digest']}", "--wait", "0")
        assert json.loads(done.stdout)[0]["state"] == "approved", done.stderr
        wait_for(lambda: watched.reaches() == "200", "the policy to be enforced")
        assert not [each for each in watched.asker.heard if each.get("final")]
        assert watched.shown_all()[shown["id"]] == "approved"
        refused = watched.asker.final(watched.asker.ask("pipelock-block", hosts=["two.example.org"]))
        assert "could not be stored" in refused["problem"]
        assert alive(watched.keeper.pid)
    assert watched.asker.final(call)["state"] == "applied"
    assert watched.shown_all() == {shown["id"]: "applied"}
    [changed] = watched.events("policy.changed")
    assert ["/new" in line for line in changed["added"]] == [True]
    [late] = watched.events("record.late")
    assert (late["why"] != "", late["lost"]) == (True, 0)
    assert watched.reaches() == "200"
    assert watched.cli("verify").code == 0


def test_a_run_that_ends_meanwhile_says_so_and_cleanup_closes_what_it_left(watched):
    call = watched.asker.ask("pipelock-block", urls=[URL], reason="to read it")
    watched.asker.answer(call)
    shown = watched.shown()
    with Full(watched):
        watched.approvals("approve", f"{shown['id']}@{shown['digest']}", "--wait", "0")
        wait_for(lambda: watched.reaches() == "200", "the policy to be enforced")
        watched.place.run(["sh", "-c", "echo end > asks"])
        watched.keeper.wait(60)
    assert watched.keeper.returncode != 0, "it could not say in the record how it ended"
    assert b"disk" in watched.keeper.stderr.read()
    wait_for(lambda: watched.cli("cleanup").code == 0, "cleanup")
    [row] = json.loads(watched.approvals("list", "--all").stdout)
    assert (row["state"], "recorded" in json.dumps(row)) == ("failed", True)
    assert watched.cli("verify").code == 0
