"""The supervise process as its keeper keeps it: it comes when somebody comes, goes when nobody does, and is believed nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bot_bottle.launch import supervise_process, supervisor
from bot_bottle.launch.supervisor import Timing
from support.mcp_clients import call, post, read_until, status
from support.supervised import DEADLINE, Supervised, descriptors, memory, until

SOURCE = Path(supervisor.__file__).parents[2]


def answered(server: Supervised) -> bytes:
    """What an ask is answered with, by a process that may have to be started first."""
    with post(server) as sock:
        return read_until(sock, lambda heard: b'"status":' in heard)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def died(server: Supervised) -> int:
    return len(server.told("supervise.died"))


# Coming and going


def test_nothing_runs_until_somebody_comes() -> None:
    with Supervised(expected=False) as server:
        server.desk.present = False
        assert server.pid == 0
        turns = server.loop.turns
        server.loop.soon(lambda: None)
        assert server.pid == 0
        assert b"pending" in answered(server)
        assert server.pid
        assert server.loop.turns - turns < 100, "the keeper waits, and does not spin"


def test_where_the_agents_tool_will_come_it_is_started_beforehand() -> None:
    with Supervised(expected=True) as server:
        assert server.wait_ready()


def test_when_nobody_comes_any_more_it_ends_and_the_next_one_starts_it_again() -> None:
    with Supervised(timing=Timing(idle=0.3)) as server:
        server.desk.present = False
        first = server.wait_ready()
        until(lambda: is_gone(first))
        until(lambda: server.pid == 0)
        assert b"pending" in answered(server)
        assert server.pid not in (0, first)
        assert died(server) == 0
        assert len(server.told("supervise.began")) == 1, "the record is told once"


def test_it_does_not_end_while_a_call_waits() -> None:
    with Supervised(timing=Timing(idle=0.2, progress=0.1)) as server:
        pid = server.wait_ready()
        with post(server) as sock:
            read_until(sock, lambda heard: heard.count(b"notifications/progress") >= 8)
            assert server.pid == pid
            server.decide("applied")
            assert b"applied" in read_until(sock, lambda heard: b'"status":"applied"' in heard)


def test_what_comes_just_when_it_ends_is_served_by_the_next() -> None:
    with Supervised(timing=Timing(idle=0.05)) as server:
        server.desk.present = False
        seen = set()
        for _ in range(15):
            assert b"pending" in answered(server)
            seen.add(server.pid)
        assert died(server) == 0


def test_killed_while_calls_wait_it_is_started_again_and_the_calls_are_told_of_as_gone() -> None:
    with Supervised(timing=Timing(progress=0.1)) as server:
        pid = server.wait_ready()
        waiting = [post(server) for _ in range(5)]
        until(lambda: server.desk.waiting == 5)
        os.kill(pid, signal.SIGKILL)
        for sock in waiting:
            read_until(sock)
            sock.close()
        until(lambda: server.desk.times_gone == 1)
        assert server.desk.waiting == 0
        assert [next(iter(message)) for message in server.desk.heard] == ["ask"] * 5, "nothing was withdrawn"
        server.desk.present = False
        assert b'"proposal_id":"p-pipelock-block"' in answered(server), "the same ask is the same proposal"
        assert server.pid not in (0, pid)
        assert server.told("supervise.died")[0]["times"] == 1


def test_one_that_dies_again_and_again_is_given_up_and_what_comes_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervise_process, "_START", "raise SystemExit(3)")
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.01)
    with Supervised() as server:
        until(lambda: died(server) == 1)
        for times in range(2, supervisor.DEATHS + 1):
            sock = socket.create_connection(("127.0.0.1", server.port), DEADLINE)
            until(lambda times=times: died(server) == times)
            sock.close()
        assert server.warnings == ["The supervise server died again and again; the agent can't ask any more."]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), DEADLINE)
        assert [told["times"] for told in server.told("supervise.died")] == list(
            range(1, supervisor.DEATHS + 1)
        )


def test_after_its_second_death_it_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise_process, "_START", "raise SystemExit(3)")
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 3600.0)
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE", 3600.0)
    with Supervised() as server:
        until(lambda: died(server) == 1)
        with socket.create_connection(("127.0.0.1", server.port), DEADLINE):
            until(lambda: died(server) == 2)
            turns = server.loop.turns
            for _ in range(20):
                server.loop.soon(lambda: None)
            assert (server.pid, died(server)) == (0, 2)
            assert server.loop.turns - turns < 60, "it waits, and does not spin"


def test_one_that_cannot_confine_itself_serves_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = "from bot_bottle.bundle import confine\ndef no(*_, **__): raise OSError(38, 'none')\nconfine.confine = no\n"
    start = supervise_process._START.replace("; from bot_bottle", "\n" + broken + "from bot_bottle")
    monkeypatch.setattr(supervise_process, "_START", start.replace("; sys.path", "\nsys.path"))
    with Supervised() as server:
        until(lambda: died(server) == 1)
        assert "none" in server.told("supervise.died")[0]["why"]
        assert server.told("supervise.began") == []


def test_one_that_never_gets_ready_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise_process, "_START", "import time; time.sleep(60)")
    monkeypatch.setattr(supervise_process, "READY_WITHIN", 0.2)
    with Supervised() as server:
        pid = until(lambda: server.pid)
        until(lambda: died(server) == 1)
        assert is_gone(pid)


def test_it_dies_with_its_keeper() -> None:
    code = (
        "import sys, time; sys.path[:0] = sys.argv[1:]\n"
        "from support.supervised import Supervised\n"
        "server = Supervised(); print(server.wait_ready(), flush=True); time.sleep(60)"
    )
    keeper = subprocess.Popen(
        [sys.executable, "-c", code, str(SOURCE), str(SOURCE.parent / "tests")], stdout=subprocess.PIPE
    )
    assert keeper.stdout
    pid = int(keeper.stdout.readline())
    keeper.kill()
    keeper.wait()
    keeper.stdout.close()
    until(lambda: is_gone(pid))


# What it has


def test_it_has_nothing_of_its_keepers_and_little_of_its_own() -> None:
    if os.geteuid() != 0:
        pytest.skip("a confined process can't be looked into but by root")
    os.environ["OPERATORS_KEY"] = "sk-operator"
    secret = "a secret of the vault " * 3
    try:
        with Supervised() as server:
            pid = server.wait_ready()
            assert b"sk-operator" not in Path(f"/proc/{pid}/environ").read_bytes()
            for place in ("cmdline", "environ"):
                assert server.token.encode() not in Path(f"/proc/{pid}/{place}").read_bytes()
            kinds = {target.partition(":")[0] for target in descriptors(pid)}
            assert kinds <= {"/dev/null", "socket", "anon_inode"}
            assert os.readlink(f"/proc/{pid}/cwd") == "/"
            assert os.getsid(pid) == pid
            status_of = dict(
                line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            )
            assert status_of["Uid"].split() == ["65534"] * 4
            assert status_of["Groups"].strip() == ""
            assert int(status_of["CapEff"], 16) == 0
            assert (status_of["NoNewPrivs"], status_of["Seccomp"]) == ("1", "2")
            assert holds(pid, server.token.encode()), "so that this search finds what is there"
            assert not holds(pid, secret.encode())
            assert memory(pid) < 64 * 1024
    finally:
        del os.environ["OPERATORS_KEY"]


def holds(pid: int, wanted: bytes) -> bool:
    """Whether a process has those bytes in its memory."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb") as content:
        for line in maps:
            words = line.split()
            if not words[1].startswith("rw"):
                continue
            start, end = (int(number, 16) for number in words[0].split("-"))
            try:
                content.seek(start)
                if wanted in content.read(end - start):
                    return True
            except (OSError, ValueError, OverflowError):
                continue
    return False


def test_fifty_waiting_calls_cost_the_keeper_next_to_nothing() -> None:
    with Supervised() as server:
        server.wait_ready()
        before = memory(os.getpid(), "Rss")
        waiting = [post(server) for _ in range(50)]
        until(lambda: server.desk.waiting == 50)
        assert memory(os.getpid(), "Rss") - before < 4096
        for sock in waiting:
            sock.close()
        until(lambda: not server.desk.waiting)


# What a process that was broken into might say


def says(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a program in the server's place that says on its line what `code` makes it say."""
    start = (
        "import socket, sys, time\nline = socket.socket(fileno=int(sys.argv[2]))\norder = line.recv(65536)\n"
    )
    monkeypatch.setattr(supervise_process, "_START", start + code)


LINES = {
    "not JSON": "b'nonsense\\n'",
    "a list": "b'[]\\n'",
    "a bomb": "b'[' * 60000 + b'\\n'",
    "not UTF-8": "b'\\xff\\xfe\\n'",
    "too long": "b'{\"ask\": 1, \"tool\": \"' + b'x' * 70000 + b'\"}\\n'",
    "without an end": "b'x' * 200000",
    "an empty line": "b'\\n'",
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_one_that_says_what_is_no_message_is_ended(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    says(f"line.sendall({line})\ntime.sleep(60)", monkeypatch)
    with Supervised() as server:
        until(lambda: died(server) == 1)
        assert server.desk.heard == []
        assert server.pid == 0


def test_what_it_says_in_a_flood_waits_and_the_keeper_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    line = b'{"leave": 1}\n'
    says(f"while True: line.sendall({line!r} * 1000)", monkeypatch)
    one_read = supervise_process.LONGEST_LINE // len(line) + 1
    with Supervised() as server:
        memory_before, began = memory(os.getpid(), "Rss"), time.monotonic()
        until(lambda: len(server.desk.heard) >= supervise_process.BURST)
        turns = server.loop.turns
        until(lambda: server.loop.turns > turns + 50)
        heard, passed = len(server.desk.heard), time.monotonic() - began
        room = supervise_process.BURST + passed * supervise_process.RATE
        assert heard < room + one_read, "no more is taken than that there is room for"
        assert memory(os.getpid(), "Rss") - memory_before < 64 * 1024


def test_one_that_does_not_read_is_ended_before_it_fills_the_keeper(monkeypatch: pytest.MonkeyPatch) -> None:
    says("line.sendall(b'{\"policy\": 1}\\n' * 200)\ntime.sleep(60)", monkeypatch)
    with Supervised() as server:
        server.desk.policy["allowed"] = ["x" * 60_000]
        until(lambda: died(server) == 1)
        assert server.pid == 0


def test_what_it_says_of_its_confinement_is_taken_only_in_its_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    confined = json.dumps(
        {"ready": True, "confined": {"seccomp": "x" * 1000, "uid": 7, "other": [1], "landlock": 5}}
    )
    says(f"line.sendall({confined.encode()!r} + b'\\n')\ntime.sleep(60)", monkeypatch)
    with Supervised() as server:
        until(lambda: server.told("supervise.began"))
        assert server.told("supervise.began") == [{"confined": {"uid": 7, "landlock": 5}}]


def test_its_answers_go_to_it_and_not_to_one_that_came_after_it() -> None:
    """A late answer to a process that has died is not said to the next, whose calls have the same numbers."""
    with Supervised() as server:
        pid = server.wait_ready()
        late: list[Any] = []
        hear = server.desk.hear
        server.desk.hear = lambda message, tell: late.append(tell) or hear(message, tell)  # type: ignore[method-assign]
        with post(server):
            until(lambda: late)
            os.kill(pid, signal.SIGKILL)
            until(lambda: died(server) == 1)
        with post(server) as sock:
            until(lambda: server.desk.waiting == 1)
            applied = {
                "to": 1,
                "proposal": "p",
                "state": "applied",
                "present": True,
                "message": "",
                "added": ["all"],
            }
            server.loop.soon(lambda: late[0](applied))
            with post(
                server, call("policy", {})
            ) as other:  # what came before has been heard once this is answered
                read_until(other, lambda heard: b'"status":"ok"' in heard)
            server.decide("rejected")
            assert b'"status":"rejected"' in read_until(sock, lambda heard: b'"status":' in heard)


# What a keeper that is mistaken might say to it


@pytest.mark.parametrize(
    "said",
    [{}, {"to": 99}, {"to": "1"}, {"to": 1}, {"to": [1], "state": "applied"}, {"to": 1, "state": ["applied"]},
     {"to": 1, "state": None},
     {"to": 1, "problem": {}}, {"to": 1, "state": "applied", "added": "all", "until": "x", "message": 5, "proposal": {}}],
)  # fmt: skip
def test_whatever_its_keeper_says_it_goes_on(said: dict[str, Any]) -> None:
    with Supervised() as server:
        pid = server.wait_ready()
        server.desk.silent = True
        with post(server) as sock:
            until(lambda: server.desk.asked("ask"))
            process = server.supervisor._process
            assert process
            server.loop.soon(lambda: process.tell(said))
            server.loop.soon(
                lambda: process.tell({"to": 1, "proposal": "p", "state": "rejected", "message": "no"})
            )
            heard = read_until(sock, lambda heard: b'"status":' in heard)
        assert (
            b'"status":"rejected"' in heard or b'"status":"error"' in heard or said.get("state") == "applied"
        )
        with post(server) as sock:
            assert status(sock) == 200
        assert server.pid == pid


@pytest.mark.parametrize("line", [b"nonsense\n", b"[]\n", b"\xff\n", b"\n", b"[" * 30000 + b"\n"])
def test_a_line_that_it_does_not_understand_is_answered_with_an_error(line: bytes) -> None:
    with Supervised() as server:
        pid = server.wait_ready()
        process = server.supervisor._process
        assert process
        server.loop.soon(lambda: process.waiting.extend(line) or process.flush())  # type: ignore[func-returns-value]
        until(lambda: server.desk.asked("error"))
        server.desk.present = False
        assert b"pending" in answered(server)
        assert server.pid == pid
