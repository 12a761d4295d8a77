"""An agent whose push is refused asks for exactly that, and what a person answers is what the gate does, at that moment."""

import json
import os

import pytest
from tests.e2e.test_asking_inside import CLIENT, events, start, told, waiting

from support import gitleaks as real
from support.bottles import write_agent, write_bottle
from support.gitservers import git, make_upstream
from support.waiting import wait_for

pytestmark = pytest.mark.namespace

TOKEN = "ghp_" + "9pX3kqv8TzRnWmYc2dLs5bHf7gJt1aUe4iOo"
HELPERS = f"""
import re, subprocess
TOKEN = "{TOKEN}"

def git(*words):
    done = subprocess.run(["git", *words], capture_output=True, text=True, cwd="/workspace")
    return done.returncode, done.stderr

def commit(path, text):
    os.makedirs(os.path.dirname("/workspace/" + path) or ".", exist_ok=True)
    open("/workspace/" + path, "w").write(text)
    git("add", "-A"); assert git("commit", "-qm", "Change it")[0] == 0

def push(ref="bot/x"):
    return git("push", "-q", "origin", "HEAD:refs/heads/" + ref)

def ask(**wanted):
    asked = call("git-block", **{{"operation": "push", "remote": "origin", "reason": "the task", **wanted}})
    while asked["status"] == "pending":
        time.sleep(0.05)
        asked = call("supervise-await", proposal=asked["proposal_id"])
    return asked

def until(path):
    while not os.path.exists(path):
        time.sleep(0.02)
"""


@pytest.fixture
def upstream(place):
    if not (found := real.program()):
        pytest.skip(real.missing())
    place.programs.mkdir(exist_ok=True)
    (place.programs / "gitleaks").symlink_to(found)
    made = make_upstream(place.root / "srv/project.git")
    for each in (made, *made.rglob("*")):
        os.chown(each, place.uid, place.uid)
    return made


def write(place, upstream, code):
    remote = {"name": "origin", "url": str(upstream), "local": True}
    user = {"name": "Bot", "email": "bot@example.org"}
    write_bottle(place, "git", workspace="clone", supervise=True, git={"user": user, "remotes": [remote]})
    write_agent(place, "git", ["python3", "-c", CLIENT + HELPERS + code], bottle="git")


def answer(cli, *terms):
    """What is asked, approved on these terms as it is shown."""
    wait_for(lambda: waiting(cli), "the agent to ask", within=60)
    [asked] = waiting(cli)
    shown = json.loads(cli("approvals", "show", asked["id"], "--json", *terms).stdout)
    done = cli("approvals", "approve", f"{shown['id']}@{shown['digest']}", "--json", *terms)
    assert done.code == 0, done.stderr
    return shown


def test_a_path_that_is_granted_once_passes_once_and_no_other_does(place, cli, repository, upstream):
    write(place, upstream, """
commit(".github/workflows/x.yml", "on: push\\n")
tell(first=push())
tell(status=ask(path=".github/workflows/x.yml")["status"])
tell(second=push())
commit(".github/workflows/x.yml", "on: [push]\\n")
tell(third=push())
""")  # fmt: skip
    run = start(cli, "git")
    shown = answer(cli, "--for", "once")
    assert shown["added"] == ["- git origin: change .github/workflows/x.yml"]
    said = {name: value for line in told(cli, run) for name, value in line.items()}
    assert said["first"][0] != 0
    assert "path-ci" in said["first"][1]
    assert said["status"] == "applied"
    assert said["second"][0] == 0, said["second"]
    assert said["third"][0] != 0
    assert git(upstream, "show", "bot/x:.github/workflows/x.yml") == "on: push"
    assert [one["why"] for one in events(cli, run, "grant.ended")] or events(cli, run, "proposal.applied")


def test_a_finding_passes_by_its_fingerprint_until_that_is_withdrawn(place, cli, repository, upstream):
    write(place, upstream, """
commit("tests/data.txt", "token = " + TOKEN + "\\n")
code, said = push()
tell(first=(code, said))
prints = set(re.findall("data.txt:1.*fingerprint ([0-9a-f]{20})", said))
tell(prints=sorted(prints), status=[ask(fingerprint=one)["status"] for one in prints])
tell(second=push())
until("/tmp/withdrawn")
commit("tests/data.txt", "once more: token = " + TOKEN + "\\n")
tell(third=push())
""")  # fmt: skip
    run = start(cli, "git")
    answer(cli)
    wait_for(lambda: git(upstream, "branch", "--list", "bot/x"), "the push to arrive", within=60)
    [grant] = json.loads(cli("approvals", "grants", "--json").stdout)
    assert cli("approvals", "withdraw", grant["id"]).code == 0
    assert cli("exec", run, "--", "touch", "/tmp/withdrawn").code == 0
    said = {name: value for line in told(cli, run) for name, value in line.items()}
    assert said["first"][0] != 0
    assert TOKEN not in said["first"][1]
    assert len(said["prints"]) == 1
    assert said["status"] == ["applied"]
    assert said["second"][0] == 0, said["second"]
    assert said["third"][0] != 0
    applied, decided = (json_time(cli, run, f"proposal.{kind}") for kind in ("applied", "approved"))
    assert 0 <= applied - decided < 1
    assert TOKEN not in cli("events", run, "--json").stdout


def json_time(cli, run, kind):
    lines = map(json.loads, cli("events", run, "--json").stdout.splitlines())
    return next(event["at"] for event in lines if event["kind"] == kind)


def test_a_ref_is_granted_by_its_name(place, cli, repository, upstream):
    write(place, upstream, """
commit("fix.txt", "fixed\\n")
tell(first=push("release"))
tell(status=ask(ref="release")["status"])
tell(second=push("release"), other=push("release2"))
""")  # fmt: skip
    run = start(cli, "git")
    answer(cli, "--for", "10m")
    said = {name: value for line in told(cli, run) for name, value in line.items()}
    assert said["first"][0] != 0
    assert (said["status"], said["second"][0]) == ("applied", 0)
    assert said["other"][0] != 0
    assert git(upstream, "show", "release:fix.txt") == "fixed"


ACTS = {
    "force": """
def act():
    git("commit", "-q", "--amend", "-m", str(time.time()))
    return git("push", "-q", "--force", "origin", "HEAD:refs/heads/bot/x")
""",
    "delete": """
def act():
    push()
    return git("push", "-q", "origin", ":refs/heads/bot/x")
""",
}


@pytest.mark.parametrize("operation", ACTS)
def test_what_takes_something_from_the_upstream_is_granted_once(place, cli, repository, upstream, operation):
    write(place, upstream, f"""{ACTS[operation]}
def head():
    return subprocess.check_output(["git", "rev-parse", "HEAD"], text=True, cwd="/workspace").strip()

commit("fix.txt", "fixed\\n")
tell(made=push())
tell(first=act())
tell(status=ask(operation="{operation}", ref="bot/x")["status"])
tell(second=act(), head=head())
until("/tmp/seen")
tell(third=act())
""")  # fmt: skip
    run = start(cli, "git")

    def there() -> str:
        return git(upstream, "for-each-ref", "--format=%(objectname)", "refs/heads/bot/x")

    wait_for(lambda: waiting(cli), "the agent to ask", within=60)
    before = there()  # before the answer: after it, the push may come at any moment
    assert before
    shown = answer(cli, "--for", "once")
    assert len(shown["added"]) == 1
    assert operation in shown["added"][0]
    wait_for(lambda: there() != before, "the push to arrive", within=60)
    left = there()
    assert cli("exec", run, "--", "touch", "/tmp/seen").code == 0
    said = {name: value for line in told(cli, run) for name, value in line.items()}
    assert said["made"][0] == 0, said["made"]
    assert said["first"][0] != 0
    assert f"[ref-{operation}]" in said["first"][1]
    assert (said["status"], said["second"][0]) == ("applied", 0), said["second"]
    assert left == (said["head"] if operation == "force" else "")
    assert said["third"][0] != 0, said["third"]
    assert f"[ref-{operation}]" in said["third"][1]
    assert there() == said["head"]  # not forced once more; the branch that is made anew is not deleted
