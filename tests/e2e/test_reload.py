"""A bottle's file changed while the agent works: live at once, confirmed, recorded, and never half."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from support.backends import on_every_backend
from support.bottles import write_bottle, write_script
from support.bundles import bundles
from support.place import program, python
from support.waiting import wait_for
from support.watched import LOOP, Watched

pytestmark = pytest.mark.namespace


class Reloaded(Watched):
    """A run whose agent asks for what it is told to, and what its bottle's file may say."""

    def write(self, *hosts: str, **more) -> None:
        routes = [self.route(host) for host in hosts]
        write_bottle(self.place, egress={"routes": routes, **more})

    def route(self, host: str) -> dict:
        name, _, port = host.partition(":")
        return {
            "host": name,
            "protocol": "http",
            "upstream": self.upstream.where,
            **({"port": int(port)} if port else {}),
        }

    def start(self) -> str:
        self.write_agent()
        done = self.cli("start", "ask", "--headless", "--detach", "--json", "--workspace", "mount")
        assert done.code == 0, done.stderr
        self.run = json.loads(done.stdout)["id"]
        return self.run

    def reload(self, *words: str):
        return self.cli("reload", self.run, "--json", *words)


@pytest.fixture
def watched(place, cli, repository):
    made = Reloaded(place, cli)
    yield made
    made.close()


def test_what_the_file_allows_is_live_when_reload_says_so(watched):
    watched.write("one.example.org")
    watched.start()
    assert watched.reaches("http://one.example.org/") == "200"
    assert watched.reaches("http://two.example.org/") == "403"
    watched.write("two.example.org")
    done = watched.reload()
    assert done.code == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["applied"] is said["changed"] is True
    assert said["restarted"] is False
    assert ["two.example.org" in said["added"][0], "one.example.org" in said["removed"][0]] == [True, True]
    assert watched.reaches("http://one.example.org/") == "403"
    assert watched.reaches("http://two.example.org/") == "200"
    [event] = watched.events("policy.changed")
    assert (event["policy"], event["previous"]) == (said["policy"], said["previous"])
    assert f"uid {watched.place.uid}" in event["who"]
    assert event["why"] == "reload of bottle default"
    assert watched.cli("verify").code == 0


@on_every_backend
def test_a_port_that_no_route_named_before_is_opened(watched):
    watched.write("one.example.org")
    watched.start()
    ask = "--noproxy * http://one.example.org:8123/"
    assert watched.reaches(ask) == "000"
    watched.write("one.example.org", "one.example.org:8123")
    assert json.loads(watched.reload().stdout)["restarted"] is False
    assert watched.reaches(ask) == "200"
    watched.write("one.example.org")
    assert watched.reload().code == 0
    assert watched.reaches(ask) == "000"


@on_every_backend
def test_a_port_that_the_agent_has_taken_is_refused_by_name(watched):
    watched.write("one.example.org")
    watched.start()
    listener = "import socket; s=socket.create_server(('0.0.0.0', 8124)); print('up', flush=True); s.accept()"
    holder = subprocess.Popen(
        watched.place.argv([str(program()), "exec", watched.run, "--", "python3", "-c", listener]),
        env=watched.place.environment, cwd=watched.place.workspace, stdout=subprocess.PIPE, stdin=-3,
    )  # fmt: skip
    assert holder.stdout.readline() == b"up\n"
    watched.write("one.example.org:8124")
    done = watched.reload()
    assert done.code == 78
    assert "8124" in done.stderr
    assert watched.reaches("http://one.example.org/") == "200"
    assert watched.events("policy.refused")[0]["in_force"]
    holder.kill()
    holder.communicate()


def test_a_file_that_is_wrong_leaves_everything_as_it_was(watched):
    watched.write("one.example.org")
    run = watched.start()
    for keys in ({"egress": {"rutes": []}}, {"egress": {"routes": [{"host": "127.0.0.1"}]}}, {"image": "x"}):
        write_bottle(watched.place, **keys)
        done = watched.cli("reload", run)
        assert done.code in (65, 78), done.stderr
    assert watched.reaches("http://one.example.org/") == "200"
    assert watched.events("policy.changed") == []


def test_a_credential_that_was_not_read_at_the_start_is_refused_by_name(watched):
    watched.write("one.example.org")
    watched.start()
    api = {
        "host": "api.example.org",
        "protocol": "http",
        "upstream": "https://api.example.org",
        "credential": "key",
    }
    write_bottle(
        watched.place,
        egress={"routes": [api]},
        credentials={"key": {"from": {"env": "KEY"}, "header": "x-key"}},
    )
    done = watched.reload()
    assert done.code == 78
    assert "credentials.key" in done.stderr
    assert watched.reaches("http://one.example.org/") == "200"


def test_what_a_running_bundle_can_t_learn_comes_with_a_new_one(watched):
    """TLS of the bundle's own has to be loaded before it confines itself."""
    watched.write("one.example.org")
    watched.start()
    api = {"host": "api.example.org", "protocol": "http", "upstream": "https://api.example.org"}
    write_bottle(watched.place, egress={"routes": [watched.route("one.example.org"), api]})
    done = watched.reload()
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["restarted"] is True
    assert watched.reaches("http://one.example.org/") == "200"
    assert watched.reaches("http://two.example.org/") == "403"


@on_every_backend
def test_tls_that_is_opened_from_now_on_is_trusted_inside(watched):
    watched.write("one.example.org")
    watched.start()
    opened = {"host": "two.example.org", "paths": ["/a"]}
    write_bottle(watched.place, egress={"routes": [watched.route("one.example.org"), opened]})
    done = watched.reload()
    assert json.loads(done.stdout)["restarted"] is True, done.stderr
    assert watched.reaches("https://two.example.org/b") == "403"  # which curl takes only from whom it trusts
    more = {**opened, "paths": ["/c"], "host": "three.example.org"}
    write_bottle(watched.place, egress={"routes": [watched.route("one.example.org"), opened, more]})
    assert json.loads(watched.reload().stdout)["restarted"] is False
    assert watched.reaches("https://three.example.org/b") == "403"
    assert watched.reaches("https://two.example.org/b") == "403"


def test_check_changes_nothing(watched):
    watched.write("one.example.org")
    watched.start()
    watched.write("two.example.org")
    done = watched.reload("--check")
    assert json.loads(done.stdout)["applied"] is False
    assert watched.reaches("http://one.example.org/") == "200"
    assert watched.events("policy.changed") == []


def test_a_bundle_that_dies_later_comes_back_with_the_new_policy(watched):
    watched.write("one.example.org")
    watched.start()
    watched.write("two.example.org")
    assert watched.reload().code == 0
    [bundle] = bundles(watched.place)
    os.kill(bundle, signal.SIGKILL)
    wait_for(lambda: watched.events("door.opened"), "the door to be open again")
    assert watched.reaches("http://one.example.org/") == "403"
    assert watched.reaches("http://two.example.org/") == "200"


def test_a_bundle_that_does_not_answer_is_replaced_by_one_with_the_new_policy(watched):
    """Whatever keeps it from answering: the agent may have a hand in that."""
    watched.write("one.example.org")
    watched.start()
    [bundle] = bundles(watched.place)
    os.kill(bundle, signal.SIGSTOP)
    watched.write("two.example.org")
    done = watched.reload()
    assert done.code == 0
    assert json.loads(done.stdout)["restarted"] is True
    assert bundles(watched.place) != [bundle]
    assert watched.reaches("http://one.example.org/") == "403"
    assert watched.reaches("http://two.example.org/") == "200"
    [changed] = watched.events("policy.changed")
    assert changed["restarted"] is True


def test_two_changes_at_once_follow_each_other_or_are_refused(watched):
    watched.write("one.example.org")
    run = watched.start()
    watched.write("two.example.org")
    argv = watched.place.argv([str(program()), "reload", run, "--json"])
    both = [
        subprocess.Popen(
            argv, env=watched.place.environment, cwd=watched.place.workspace, stdout=-3, stderr=-1
        )
        for _ in range(4)
    ]
    codes = [(process.communicate()[1], process.returncode) for process in both]
    assert {code for _, code in codes} <= {0, 78}, codes
    assert 0 in {code for _, code in codes}
    assert len(watched.events("policy.changed")) == 1
    assert watched.reaches("http://two.example.org/") == "200"


def test_figures_are_for_the_operator_alone(watched):
    watched.write("one.example.org")
    run = watched.start()
    watched.reaches("http://one.example.org/")
    watched.reaches("http://two.example.org/")
    where = watched.cli("metrics", "--socket", run).stdout.strip()
    assert Path(where).stat().st_mode & 0o777 == 0o600
    said = watched.place.run(["curl", "-sS", "--unix-socket", where, "http://bottle/metrics"]).stdout
    assert (
        f'bot_bottle_decisions_total{{run="{run}",agent="ask",bottle="default",kind="egress.refused",reason="host_not_allowed"}} 1'
        in said
    )
    health = watched.place.run(["curl", "-sS", "-i", "--unix-socket", where, "http://bottle/health"]).stdout
    assert health.startswith("HTTP/1.1 200 ")
    assert json.loads(health.splitlines()[-1])["status"] == "ok"
    everything = watched.cli("metrics").stdout
    assert everything.count("# TYPE bot_bottle_up gauge") == 1
    assert watched.cli("stop", run).code == 0
    ended = watched.cli("metrics", "--socket", run)
    assert (ended.code, ended.stdout, "does not run" in ended.stderr) == (66, "", True)
    again = watched.cli("egress", "ask")
    assert (again.code, run in again.stderr, "two.example.org" in again.stdout) == (0, True, True)


def test_figures_are_on_no_door(watched):
    watched.write("one.example.org")
    watched.start()
    for path in ("metrics", "health"):
        for ask in (f"http://127.0.0.1:3128/{path}", f"--noproxy * http://127.0.0.1:3128/{path}",
                    f"--noproxy * http://127.0.0.1/{path}"):  # fmt: skip
            assert watched.reaches(ask) in ("400", "403", "421")


def test_health_says_when_there_is_no_bundle_that_answers(watched):
    watched.write("one.example.org")
    run = watched.start()
    [bundle] = bundles(watched.place)
    os.kill(bundle, signal.SIGSTOP)
    where = watched.cli("metrics", "--socket", run).stdout.strip()
    health = watched.place.run(["curl", "-sS", "-i", "--unix-socket", where, "http://bottle/health"]).stdout
    assert health.startswith("HTTP/1.1 503 ")
    assert "bot_bottle_up{" in watched.cli("metrics", run).stdout
    os.kill(bundle, signal.SIGCONT)


def test_the_operators_view_adds_up(watched):
    watched.write("one.example.org")
    run = watched.start()
    for _ in range(3):
        watched.reaches("http://one.example.org/")
    watched.reaches("http://two.example.org/")

    def counted():
        """What is told of each host, once all of it is in the record."""
        rows = {row["host"]: row for row in json.loads(watched.cli("egress", run, "--json").stdout)["hosts"]}
        return rows if rows.get("one.example.org", {}).get("allowed") == 3 else None

    by_host = wait_for(counted, "three requests to be counted")
    assert by_host["one.example.org"]["down"] > 0
    assert by_host["two.example.org"]["refused"] == 1
    shown = watched.cli("egress", run)
    assert "two.example.org" in shown.stdout
    watched.place.run(["sh", "-c", "echo end > asks"])
    ended = watched.cli("egress", run, "--follow")
    assert "not running" in ended.stderr
    assert "one.example.org" in ended.stdout


def test_an_observing_bottle_is_loud_and_what_it_needed_is_learned(watched):
    closed = {**watched.route("two.example.org"), "paths": ["/known"]}
    write_bottle(
        watched.place, egress={"routes": [watched.route("one.example.org"), closed], "mode": "observe"}
    )
    write_script(watched.place, "ask", LOOP)
    assert "THIS BOTTLE IS OPEN" in watched.cli("plan", "ask", "--headless").stdout
    run = watched.start()
    assert watched.reaches("http://one.example.org/") == "200"
    assert watched.reaches("http://two.example.org/new") == "200"
    assert watched.reaches("http://two.invalid/x") == "502"  # let through, but there is no such host
    assert watched.reaches("https://three.invalid:8443/") == "000"
    assert watched.reaches("http://192.0.2.7/") == "403"
    assert watched.reaches("http://localhost/") in ("403", "000")
    wait_for(lambda: len(watched.events("egress.observed")) > 1, "what was observed")
    assert [event["reason"] for event in watched.events("egress.observed")][:2] == [
        "path_not_allowed",
        "host_not_allowed",
    ]
    done = watched.cli("learn", run, "--json")
    assert done.code == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["observing"] is True
    assert [line for line in said["routes"] if "two.example.org" in line and '"/new"' in line]
    assert not any(name in line for line in said["routes"] for name in ("invalid", "192.0.2.7"))
    assert watched.cli("learn", run, "--write").code == 64
    assert watched.cli("learn", run, "--write", "--yes").code == 0
    shown = watched.cli("reload", run)
    assert shown.code == 0, shown.stderr
    assert "- mode: observe" in shown.stdout
    assert watched.reaches("http://four.invalid/") == "403"
    assert "needed nothing" in watched.cli("learn", run).stderr or "# " in watched.cli("learn", run).stdout


DRIVER = Path(__file__).with_name("reload_driver.py")
STEPS = ("before the order", "after the order", "after the answer", "after the record")


@pytest.mark.parametrize("step", STEPS)
def test_a_keeper_that_is_killed_on_the_way_has_applied_nothing_that_it_said(watched, step):
    watched.write("one.example.org")
    watched.write_agent()
    argv = watched.place.argv([*python(), "-c", DRIVER.read_text(), "ask", step])
    keeper = subprocess.Popen(
        argv,
        env=watched.place.environment,
        cwd=watched.place.workspace,
        stdout=subprocess.PIPE,
        text=True,
        stdin=-3,
    )
    watched.run = keeper.stdout.readline().strip()
    watched.write("two.example.org")
    done = watched.reload()
    keeper.communicate(timeout=20)
    assert keeper.returncode == -signal.SIGKILL
    assert done.code == 71, done
    assert '"applied": true' not in done.stdout
    assert len(watched.events("policy.changed")) == (step == "after the record")
    assert watched.cli("cleanup").code == 0
    assert watched.cli("verify").code == 0


@pytest.mark.parametrize("answer", ["another", "nonsense", "refused", "death"])
def test_a_bundle_that_lies_changes_nothing(watched, answer):
    watched.write("one.example.org")
    watched.write_agent()
    argv = watched.place.argv([*python(), "-c", DRIVER.read_text(), "ask", f"bundle {answer}"])
    keeper = subprocess.Popen(
        argv,
        env=watched.place.environment,
        cwd=watched.place.workspace,
        stdout=subprocess.PIPE,
        text=True,
        stdin=-3,
    )
    watched.run = keeper.stdout.readline().strip()
    watched.write("two.example.org")
    done = watched.reload()
    assert done.code == 78, done.stderr
    assert watched.reaches("http://one.example.org/") == "200"
    assert watched.reaches("http://two.example.org/") == "403"
    assert watched.events("policy.changed") == []
    assert watched.events("policy.refused")
    watched.place.run(["sh", "-c", "echo end > asks"])
    keeper.communicate(timeout=20)
