"""An agent that is refused, asks and is answered, in a real bottle: what it is told is what its door does, at that moment."""

import contextlib
import json
import subprocess

import pytest

from bot_bottle.testing.asking import Asker
from support.backends import on_every_backend
from support.bottles import write_bottle
from support.place import python
from support.waiting import wait_for
from support.watched import Watched

pytestmark = pytest.mark.namespace

URL = "http://one.example.org/new"


class Supervised(Watched):
    """A run whose agent asks for what it is told to, and whose keeper can be asked as the agent would."""

    def __init__(self, place, cli, *more: str, egress: dict | None = None, **keys) -> None:
        super().__init__(place, cli)
        where = self.upstream.where
        route = {"host": "one.example.org", "protocol": "http", "paths": ["/old"], "upstream": where}
        self.file = write_bottle(place, egress={"routes": [route], **(egress or {})}, **keys)
        self.write_agent()
        self.keeper = subprocess.Popen(
            place.argv([*python(), "-m", "bot_bottle.testing.asking", "ask", *more]),
            env=place.environment, cwd=place.workspace, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=-3,
        )  # fmt: skip
        line = self.keeper.stdout.readline()
        assert line, self.keeper.stderr.read().decode()
        said = json.loads(line)
        self.run, self.run_path = said["id"], said["run_path"]
        self.asker = Asker(self.run_path)

    def reaches(self, what: str = URL) -> str:
        return super().reaches(what)

    def begin(self, what: str = URL) -> "subprocess.Popen[str]":
        return super().begin(what)

    def waits(self) -> dict:
        """What waits, once something does."""
        return wait_for(lambda: json.loads(self.approvals("list").stdout), "a proposal")[0]

    def approvals(self, *words: str, **options):
        return self.cli("approvals", *words, "--json", **options)

    def shown(self, *words: str) -> dict:
        [found] = json.loads(self.approvals("list").stdout)
        return json.loads(self.approvals("show", found["id"], *words).stdout) if words else found

    def shown_all(self) -> dict[str, str]:
        """The states of all that was ever asked for."""
        return {each["id"]: each["state"] for each in json.loads(self.approvals("list", "--all").stdout)}

    def close(self) -> None:
        self.asker.close()
        super().close()
        with contextlib.suppress(ProcessLookupError):
            self.keeper.kill()
        self.keeper.wait()
        self.keeper.stdout.close()
        self.keeper.stderr.close()


@pytest.fixture
def watched(place, cli, repository):
    made = Supervised(place, cli)
    yield made
    made.close()


@on_every_backend
def test_refused_asked_approved_and_the_same_request_succeeds(watched):
    assert watched.reaches() == "403"
    call = watched.asker.ask("pipelock-block", urls=[URL], reason="I need it")
    assert watched.asker.answer(call)["state"] == "pending"
    assert watched.reaches() == "403"
    shown = watched.shown()
    assert shown["effect"]["requests"] >= 1
    assert shown["effect"]["hosts"] == 1
    assert ["/new" in line for line in shown["added"]] == [True]
    done = watched.approvals("approve", f"{shown['id']}@{shown['digest']}")
    assert json.loads(done.stdout)[0]["state"] == "applied", done.stderr
    assert watched.reaches() == "200"
    answer = watched.asker.final(call)
    assert (answer["state"], answer["message"][:8]) == ("applied", "APPROVED")
    [grant] = json.loads(watched.approvals("grants").stdout)
    assert watched.approvals("withdraw", grant["id"]).code == 0
    assert watched.reaches() == "403"
    assert watched.cli("verify").code == 0


def test_rejected_it_stays_refused_and_a_variant_is_answered_alike(watched):
    call = watched.asker.ask("pipelock-block", urls=[URL])
    watched.asker.answer(call)
    shown = watched.shown()
    assert watched.approvals("reject", shown["id"], "--reason", "use the old one").code == 0
    answer = watched.asker.final(call)
    assert answer["state"] == "rejected"
    assert "use the old one" in answer["message"]
    again = watched.asker.final(
        watched.asker.ask("pipelock-block", hosts=["one.example.org"], protocol="http")
    )
    assert (again["state"], again["proposal"]) == ("rejected", shown["id"])
    assert watched.reaches() == "403"


def test_an_approval_needs_the_digest_of_what_was_shown(watched):
    watched.asker.answer(watched.asker.ask("pipelock-block", urls=[URL]))
    shown = watched.shown()
    assert watched.approvals("approve", shown["id"]).code == 64
    wrong = json.loads(watched.approvals("approve", f"{shown['id']}@{'0' * 64}").stdout)
    assert (wrong[0]["state"], "look again" in wrong[0]["problem"]) == ("pending", True)
    other_terms = watched.approvals("approve", f"{shown['id']}@{shown['digest']}", "--for", "30m")
    assert (other_terms.code, json.loads(other_terms.stdout)[0]["state"]) == (1, "pending")
    assert watched.reaches() == "403"


def test_an_operator_narrows_it_before_approving(watched):
    call = watched.asker.ask("pipelock-block", hosts=["one.example.org"], protocol="http")
    watched.asker.answer(call)
    shown = watched.shown()
    text = shown["routes"].replace("protocol: http", 'protocol: http, methods: [GET], paths: ["/new"]')
    watched.place.write("narrow", text)
    narrow = ("--routes", str(watched.place.home / "narrow"), "--for", "2m")
    digest = watched.shown(*narrow)["digest"]
    done = watched.approvals("approve", f"{shown['id']}@{digest}", *narrow)
    assert json.loads(done.stdout)[0]["state"] == "applied", done.stderr
    assert watched.reaches() == "200"
    assert watched.reaches("http://one.example.org/else") == "403"
    assert watched.asker.final(call)["until"] > 0


def test_what_is_granted_for_good_is_in_the_file_and_stays_after_a_reload(watched):
    watched.asker.answer(watched.asker.ask("pipelock-block", urls=[URL]))
    shown = watched.shown("--for", "manifest")
    done = watched.approvals("approve", f"{shown['id']}@{shown['digest']}", "--for", "manifest")
    assert json.loads(done.stdout)[0]["state"] == "applied", done.stderr
    assert "/new" in watched.file.read_text()
    assert watched.cli("reload", watched.run).code == 0
    assert watched.reaches() == "200"
    [grant] = json.loads(watched.approvals("grants").stdout)
    assert watched.approvals("withdraw", grant["id"]).code == 0
    assert watched.reaches() == "200"


def test_a_reload_leaves_what_was_granted_and_shows_only_what_it_changes(watched):
    watched.asker.answer(watched.asker.ask("pipelock-block", urls=[URL]))
    shown = watched.shown()
    watched.approvals("approve", f"{shown['id']}@{shown['digest']}")
    route = {"host": "two.example.org", "protocol": "http"}
    write_bottle(watched.place, egress={"routes": [route]})
    said = json.loads(watched.cli("reload", watched.run, "--json").stdout)
    assert ["two.example.org" in line for line in said["added"]] == [True]
    assert ["/old" in line for line in said["removed"]] == [True]
    assert watched.reaches() == "200"
    assert watched.reaches("http://one.example.org/old") == "403"


@on_every_backend
def test_a_killed_keeper_leaves_nothing_open_after_cleanup(watched):
    watched.asker.answer(watched.asker.ask("pipelock-block", urls=[URL]))
    watched.asker.answer(watched.asker.ask("pipelock-block", urls=["http://one.example.org/other"]))
    first, second = json.loads(watched.approvals("list").stdout)
    assert (
        json.loads(watched.approvals("approve", f"{first['id']}@{first['digest']}").stdout)[0]["state"]
        == "applied"
    )
    watched.keeper.kill()
    watched.keeper.wait()
    wait_for(lambda: watched.cli("cleanup").code == 0, "cleanup")
    states = {each["id"]: each["state"] for each in json.loads(watched.approvals("list", "--all").stdout)}
    assert states == {first["id"]: "applied", second["id"]: "withdrawn"}
    assert json.loads(watched.approvals("grants").stdout) == []
    assert watched.cli("verify").code == 0


def test_fifty_calls_that_wait_for_sixteen_proposals_are_no_burden(place, cli, repository):
    watched = Supervised(place, cli, "unlimited")
    try:
        calls = [watched.asker.ask("pipelock-block", urls=[f"http://one.example.org/{n}"]) for n in range(16)]
        ids = [watched.asker.answer(call)["proposal"] for call in calls]
        calls += [watched.asker.wait_for(ids[n % 16]) for n in range(50)]
        for call in calls:
            assert watched.asker.answer(call)["state"] == "pending"
        with open(f"/proc/{watched.keeper.pid}/status") as file:
            status = dict(line.split(":", 1) for line in file.read().splitlines())
        assert int(status["VmRSS"].split()[0]) < 100 * 1024
        every = json.loads(watched.approvals("list").stdout)
        done = watched.approvals("approve", *(f"{each['id']}@{each['digest']}" for each in every))
        assert {each["state"] for each in json.loads(done.stdout)} == {"applied"}, done.stderr
        assert {watched.asker.final(call)["state"] for call in calls} == {"applied"}
        assert len(watched.events("policy.changed")) == 1
        assert watched.reaches("http://one.example.org/7") == "200"
        assert watched.cli("verify").code == 0
    finally:
        watched.close()


class Inbox:
    """An operator who is there, as a process."""

    def __init__(self, place) -> None:
        code = "from bot_bottle.operate.presence import present\nwith present(): print('there', flush=True); input()"
        self.process = subprocess.Popen(
            place.argv([*python(), "-c", code]),
            env=place.environment, cwd=place.workspace, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdout.readline() == b"there\n"

    def close(self) -> None:
        self.process.communicate(b"\n")


@pytest.fixture
def asking(place, cli, repository):
    """A bottle whose policy asks for what it does not allow on one host."""
    made = Supervised(place, cli, supervise=True, egress={"ask": ["one.example.org"]})
    yield made
    made.close()


@on_every_backend
def test_a_request_that_waits_goes_on_when_it_is_approved_and_is_asked_for_again_next_time(asking):
    inbox = Inbox(asking.place)
    try:
        with asking.begin() as request:
            shown = asking.waits()
            assert (shown["kind"], shown["for"]["scope"]) == ("request", "once")
            assert '"/new"' in shown["added"][0]
            done = asking.approvals("approve", f"{shown['id']}@{shown['digest']}")
            assert json.loads(done.stdout)[0]["state"] == "applied", done.stderr
            assert request.communicate()[0].strip() == "200"
        wait_for(lambda: json.loads(asking.approvals("grants").stdout) == [], "the grant to be used up")
        with asking.begin() as request:
            shown = asking.waits()
            asking.approvals("reject", shown["id"], "--reason", "once is enough")
            assert request.communicate()[0].strip() == "403"
        assert asking.reaches() == "403"  # answered from the refusal, without another question
        assert json.loads(asking.approvals("list").stdout) == []
        assert asking.cli("verify").code == 0
    finally:
        inbox.close()


def test_with_nobody_there_a_request_is_refused_at_once_and_a_late_yes_counts_for_the_next(asking):
    assert asking.reaches() == "403"
    shown = asking.waits()
    done = asking.approvals("approve", f"{shown['id']}@{shown['digest']}")
    assert json.loads(done.stdout)[0]["state"] == "applied", done.stderr
    assert asking.reaches() == "200"
    assert asking.reaches() == "403"
