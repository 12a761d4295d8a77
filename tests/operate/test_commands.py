"""The commands that show what is remembered: data on stdout, conversation on stderr, hostile text made harmless."""

import argparse
import io
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console as Terminal
from support_changes import Run

from bot_bottle.cli.commands import apply, diff, egress, events, logs, verify
from bot_bottle.cli.commands import list as list_command
from bot_bottle.cli.console import Console
from bot_bottle.errors import NotFoundError, SandboxError, StateError, UsageError
from bot_bottle.events import NewEvent
from bot_bottle.host import locks
from bot_bottle.operate import record
from bot_bottle.operate.runs import wait_for_exit
from bot_bottle.operate.text import path_text, visible, visible_bytes
from bot_bottle.operate.traffic import Row

SOURCES = Path(__file__).resolve().parents[2] / "src"
ESCAPES = "\x1b]0;owned\x07\x1b[2J\u202egnp.exe\x9b31m\r"


@pytest.fixture(autouse=True)
def own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg" / "bot-bottle"


def call(command, *words: str, as_json: bool = False) -> int:
    parser = argparse.ArgumentParser()
    command.arguments(parser)
    return command.run(parser.parse_args(words), Console(as_json=as_json))


def program(command: str, *words: str) -> list[str]:
    code = """
import argparse, importlib, sys
from bot_bottle.cli.console import Console
command = importlib.import_module("bot_bottle.cli.commands." + sys.argv[1])
parser = argparse.ArgumentParser()
command.arguments(parser)
sys.exit(command.run(parser.parse_args(sys.argv[2:]), Console()))
"""
    return [sys.executable, "-c", code, command, *words]


def environment(state: Path) -> dict[str, str]:
    return {
        "PYTHONPATH": str(SOURCES),
        "PATH": os.environ["PATH"],
        "XDG_STATE_HOME": str(state.parent),
        "TZ": "UTC",
    }


def on_a_terminal(state: Path, *words: str) -> bytes:
    """What the command puts on a terminal."""
    outer, inner = pty.openpty()
    child = subprocess.Popen(
        program(*words), env=environment(state), stdin=inner, stdout=inner, stderr=subprocess.DEVNULL
    )
    os.close(inner)
    said = b""
    while True:
        try:
            block = os.read(outer, 65536)
        except OSError:
            break
        if not block:
            break
        said += block
    child.wait()
    os.close(outer)
    return said


def remember(run: Run, *what: NewEvent, **changes: object) -> None:
    with record.open_store() as store:
        store.record(what, run.record._replace(**changes))


def alive(run: Run):
    Path(run.record.run_path).mkdir(exist_ok=True)
    return locks.hold(locks.keeper_lock(run.record.run_path))


def test_with_no_store_there_is_nothing_and_none_is_made(own_state, capsys):
    assert call(list_command) == 0
    assert call(list_command, as_json=True) == 0
    assert call(verify) == 0
    with pytest.raises(NotFoundError):
        call(events, "fixer")
    assert "[]" in capsys.readouterr().out
    assert not own_state.exists()


def test_list_shows_living_runs_and_lost_ones(run, capsys):
    remember(run)
    call(list_command)
    shown = capsys.readouterr().out
    assert "fixer-ab12" in shown
    assert "lost" in shown
    held = alive(run)
    call(list_command, as_json=True)
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["id"], found["state"], found["workspace"]) == ("fixer-ab12", "running", str(run.source))
    held.release()
    with record.open_store() as store:
        store.update_run("fixer-ab12", state="ended", exit_code=3, outcome=f"failed: {ESCAPES}")
    call(list_command)
    assert "fixer" not in capsys.readouterr().out
    call(list_command, "--all")
    shown = capsys.readouterr().out
    assert "failed: \\x1b]0;owned" in shown
    assert "(3)" in shown
    assert "\x1b" not in shown


def test_events_are_shown_one_a_line_and_cleaned(run, capsys):
    remember(
        run,
        NewEvent("fixer-ab12", 5.5, "run.started", {}),
        NewEvent("fixer-ab12", 6.25, "egress.refused", {"host": ESCAPES}),
    )
    call(events, "fixer")
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) == 2
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "egress.refused   \\x1b]0;owned\\x07" in shown
    call(events, "--all", as_json=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["number"] for line in lines] == [1, 2]
    assert lines[1]["data"]["host"] == ESCAPES
    for wrong in ([], ["fixer", "--all"]):
        with pytest.raises(UsageError):
            call(events, *wrong)


def test_a_decision_is_shown_as_the_request_that_it_is_about(run, capsys):
    place = {"host": "api.example.org", "port": 443, "protocol": "https", "via": "tls"}
    said = {**place, "method": "GET", "path": "/v1", "reason": "path_not_allowed", "count": 2}
    remember(
        run,
        NewEvent("fixer-ab12", 1.0, "egress.refused", said),
        NewEvent("fixer-ab12", 2.0, "egress.closed", {**place, "reason": "done", "up": 3}),
        NewEvent("fixer-ab12", 3.0, "dns.refused", {"host": "x.example.org", "reason": "host_not_allowed"}),
        NewEvent(
            "fixer-ab12", 4.0, "policy.changed", {"policy": "ab" * 32, "previous": "cd" * 32, "path": "/x"}
        ),
    )
    call(events, "fixer")
    shown = [" ".join(line.split()[2:]) for line in capsys.readouterr().out.splitlines()]
    assert shown == [
        "egress.refused GET https://api.example.org:443/v1 path_not_allowed count=2 via=tls",
        "egress.closed https://api.example.org:443 up=3 via=tls",
        "dns.refused x.example.org host_not_allowed",
        "policy.changed path=/x policy=abababababab previous=cdcdcdcdcdcd",
    ]


def test_what_a_bottle_reaches_fits_the_terminal_and_leaves_out_empty_columns(run, capsys):
    place = {"host": "api.example.org", "port": 443, "protocol": "https"}
    remember(
        run,
        NewEvent("fixer-ab12", 1.0, "egress.allowed", place),
        NewEvent("fixer-ab12", 2.0, "egress.refused", {**place, "reason": "path_not_allowed", "count": 2}),
        NewEvent("fixer-ab12", 3.0, "dns.refused", {"host": f"x{ESCAPES}.example.org"}),
    )
    call(egress, "fixer")
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["WHERE", "ALLOWED", "REFUSED", "UP", "DOWN", "LAST", "WHY"]
    assert rows[0].startswith("x\\x1b]0;owned")
    assert rows[1].split()[:3] == ["https://api.example.org:443", "1", "2"]
    assert rows[1].endswith("path not allowed")
    found = [Row(**place, allowed=1, refused=2, up=2048, last=5.0, why="path_not_allowed", open=1)]
    for width, beside in ((80, False), (140, True)):
        out = io.StringIO()
        Terminal(file=out, width=width).print(egress._table("title", found, width, 20))
        line = next(line for line in out.getvalue().splitlines() if "api.example.org" in line)
        assert line.rstrip().endswith("path not allowed") == beside
        assert "path not allowed" in out.getvalue()
        assert "…" not in out.getvalue()


def test_following_events_goes_on_until_the_run_has_ended(run, own_state):
    remember(run, NewEvent("fixer-ab12", 1.0, "run.started", {}))
    held = alive(run)
    follower = subprocess.Popen(
        program("events", "fixer", "--follow"), env=environment(own_state), stdout=subprocess.PIPE, text=True
    )
    assert "run.started" in follower.stdout.readline()
    with record.open_store() as store:
        store.append([NewEvent("fixer-ab12", 2.0, "egress.allowed", {"host": "example.org"})])
        assert "example.org" in follower.stdout.readline()
        store.record([NewEvent("fixer-ab12", 3.0, "run.ended", {})], "fixer-ab12", state="ended")
    assert "run.ended" in follower.stdout.readline()
    assert follower.wait(timeout=10) == 0
    follower.stdout.close()
    held.release()


def test_following_a_run_whose_keeper_was_killed_ends(run, own_state):
    remember(run, NewEvent("fixer-ab12", 1.0, "run.started", {}))
    done = subprocess.run(
        program("events", "fixer", "-f"), env=environment(own_state), capture_output=True, timeout=20
    )
    assert b"run.started" in done.stdout
    assert done.returncode == 0


def test_ctrl_c_while_following_is_a_clean_end(run, own_state):
    remember(run, NewEvent("fixer-ab12", 1.0, "run.started", {}))
    held = alive(run)
    follower = subprocess.Popen(
        program("events", "fixer", "-f"),
        env=environment(own_state),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert b"run.started" in follower.stdout.readline()
    follower.send_signal(signal.SIGINT)
    out, errors = follower.communicate(timeout=10)
    assert (follower.returncode, out, errors) == (0, b"", b"")
    held.release()


def test_verify_says_whole_or_what_is_not(run, capsys, own_state):
    remember(run, NewEvent("fixer-ab12", 1.0, "run.started", {}))
    call(verify)
    assert "whole: 1 event" in capsys.readouterr().out
    (own_state / "store.db.head").write_text(f"{9:020d} {'a' * 64}\n")
    with pytest.raises(StateError, match="cut off"):
        call(verify, as_json=True)
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_logs_are_raw_for_pipes_and_harmless_on_a_terminal(run, own_state):
    remember(run, state="ended")
    run.state.mkdir(parents=True)
    raw = b"plain\r\n\xc3\xa4 \xff" + ESCAPES.encode() + b"\n"
    (run.state / "output.log").write_bytes(raw)
    done = subprocess.run(program("logs", "fixer"), env=environment(own_state), capture_output=True)
    assert done.stdout == raw
    shown = on_a_terminal(own_state, "logs", "fixer")
    assert b"\x1b" not in shown
    assert "plain\r\nä \\xff\\x1b]0;owned\\x07\\x1b[2J\\u202egnp.exe\\x9b31m\r\n".encode() in shown
    assert b"\x1b[2J" in on_a_terminal(own_state, "logs", "fixer", "--raw")


def test_following_logs_shows_what_comes_until_the_end(run, own_state):
    remember(run)
    held = alive(run)
    follower = subprocess.Popen(
        program("logs", "fixer", "-f"), env=environment(own_state), stdout=subprocess.PIPE
    )
    run.state.mkdir(parents=True)
    with open(run.state / "output.log", "wb", buffering=0) as log:
        log.write(b"one\n")
        assert follower.stdout.readline() == b"one\n"
        log.write(b"two\n")
        assert follower.stdout.readline() == b"two\n"
        log.write(b"last")
    with record.open_store() as store:
        store.update_run("fixer-ab12", state="ended")
    assert follower.communicate(timeout=10)[0] == b"last"
    held.release()


def test_a_run_without_a_log_is_said(run):
    remember(run, state="ended")
    with pytest.raises(NotFoundError, match="has no log"):
        call(logs, "fixer")


def test_diff_is_a_patch_for_pipes_and_harmless_on_a_terminal(started, own_state, capsys):
    remember(started)
    (started.copy / "hello.py").write_text(f"{ESCAPES}\n")
    (started.copy / "Makefile").write_text("all:\n")
    done = subprocess.run(program("diff", "fixer"), env=environment(own_state), capture_output=True)
    assert done.stdout == started.changes().patch
    shown = on_a_terminal(own_state, "diff", "fixer")
    assert b"\x1b]0;" not in shown
    assert b"\x1b[2J" not in shown
    assert "\u202e".encode() not in shown
    assert b"\x1b[32m+\\x1b]0;owned" in shown
    call(diff, "fixer", "--stat")
    shown = capsys.readouterr().out
    assert "2 files, +" in shown
    assert "Makefile   <- make" in shown
    call(diff, "fixer", as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert [file["path"] for file in found["files"]] == ["Makefile", "hello.py"]
    assert found["flagged"][0]["path"] == "Makefile"


def test_apply_needs_a_yes_for_flagged_files(started, capsys):
    remember(started)
    (started.copy / "Makefile").write_text("all:\n")
    with pytest.raises(UsageError, match="do something on this machine later"):
        call(apply, "fixer")
    assert not (started.source / "Makefile").exists()
    assert call(apply, "fixer", "--check") == 0
    assert not (started.source / "Makefile").exists()
    capsys.readouterr()
    assert call(apply, "fixer", "--yes", as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["applied"] is True
    assert (started.source / "Makefile").exists()


@pytest.mark.parametrize(("answer", "applied"), [("y\n", True), ("\n", False), ("n\n", False)])
def test_apply_asks_at_a_terminal(started, own_state, answer, applied):
    remember(started)
    (started.copy / ".envrc").write_text("x\n")
    outer, inner = pty.openpty()
    child = subprocess.Popen(
        program("apply", "fixer"), env=environment(own_state), stdin=inner, stdout=inner, stderr=inner
    )
    os.close(inner)
    said = b""
    while b"[y/N]" not in said:
        said += os.read(outer, 4096)
    assert b".envrc: the shell runs it" in said
    os.write(outer, answer.encode())
    deadline = time.monotonic() + 60
    while child.poll() is None:
        assert time.monotonic() < deadline
        try:
            os.read(outer, 4096)
        except OSError:
            child.wait()
    os.close(outer)
    assert (started.source / ".envrc").exists() is applied
    assert child.returncode == (0 if applied else 1)


def test_text_is_made_visible():
    assert visible("plain ä 漢") == "plain ä 漢"
    assert visible("a\tb\n", keep="\n\t") == "a\tb\n"
    assert visible("\U000e0001\u2028\ufeff") == "\\U000e0001\\u2028\\ufeff"
    assert visible_bytes(b"\xff\x00") == "\\xff\\x00"
    assert path_text("a\nb\udcff") == "a\\x0ab\\xff"


def test_list_imports_nothing_heavy(run, own_state):
    remember(run)
    code = """
import sys
sys.argv = ["x", "list"]
import argparse
before = set(sys.modules)
from bot_bottle.cli.commands import list as command
from bot_bottle.cli.console import Console
parser = argparse.ArgumentParser()
command.arguments(parser)
command.run(parser.parse_args([]), Console())
print(sorted(set(sys.modules) - before))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(own_state), capture_output=True, text=True, check=True
    )
    loaded = done.stdout.splitlines()[-1]
    for heavy in (
        "typing",
        "contextlib",
        "datetime",
        "json",
        "hashlib",
        "dataclasses",
        "subprocess",
        "random",
        "asyncio",
        "pydantic",
        "yaml",
        "rich",
        "tempfile",
        "inspect",
    ):
        assert f"'{heavy}'" not in loaded


def test_a_keeper_that_goes_away_with_something_unread_is_said_plainly():
    ours, keepers = socket.socketpair()
    ours.send(b"unread")
    keepers.close()
    with ours, pytest.raises(SandboxError, match="went away"):
        wait_for_exit(ours)
