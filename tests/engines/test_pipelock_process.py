"""A running pipelock: proven before it is relied on, told its policy and believed only by its own word, ended with its keeper."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from bot_bottle.engines.pipelock import config, probe
from bot_bottle.engines.pipelock import process as process_module
from bot_bottle.errors import BotBottleError, HostError, SandboxError
from bot_bottle.policy.model import EgressPolicy, Route
from support.pipelock import STAND_IN
from support.waiting import wait_for

ONE = EgressPolicy(routes=(Route(host="one.example.org", port=443),), engine="pipelock")
TWO = EgressPolicy(routes=(Route(host="two.example.org", port=443),), engine="pipelock")
SOURCE = Path(__file__).resolve().parents[2] / "src"


def started(pipelock):
    pipelock.start()
    pipelock.wait_ready()
    return pipelock


def refusal(pipelock, host):
    """What it says of a CONNECT that it does not let through, as its log names it."""
    with socket.create_connection(("127.0.0.1", pipelock.port), 10) as sock:
        sock.sendall(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode())
        status = sock.recv(4096).split(b" ")[1]
    lines = []
    wait_for(lambda: lines.extend(pipelock.read() or ()) or lines, "a line of its log")
    return status, lines[0].text("scanner"), lines[0].text("reason")


def variant(folder, *changes):
    """The stand-in with some of its text replaced: a program that does not keep the contract."""
    text = STAND_IN.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "variant"
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_it_is_ready_with_exactly_our_config_and_nothing_of_the_probe_is_reported(made, program):
    pipelock = started(made(program, ONE))
    content = Path(pipelock.settings.folder, process_module.CONFIG).read_bytes()
    assert content == pipelock.config == config.render(ONE, port=pipelock.port)
    assert not [line for line in pipelock.read() or () if line.event == "blocked"]


def test_a_name_that_is_not_in_the_policy_is_refused_and_logged(made, program):
    status, _, reason = refusal(started(made(program, ONE)), "evil.example.org")
    assert status == b"403"
    assert "evil.example.org" in reason or "allowlist" in reason


def test_a_new_policy_is_in_force_when_apply_returns(made, program):
    pipelock = started(made(program, ONE))
    pipelock.apply(TWO)
    assert "allowlist" in refusal(pipelock, "one.example.org")[2]
    assert json.loads(pipelock.config)["api_allowlist"] == ["two.example.org"]
    pipelock.apply(EgressPolicy(engine="pipelock"))
    assert "allowlist" in refusal(pipelock, "two.example.org")[2]


def test_a_config_that_it_does_not_take_leaves_the_old_one_in_force(made, program, monkeypatch):
    pipelock = started(made(program, ONE))
    render = config.render
    monkeypatch.setattr(
        config,
        "render",
        lambda *a, **k: render(*a, **k).replace(b'"version"', b'"no_such_key": 1, "version"'),
    )
    with pytest.raises(SandboxError, match="refused a new config"):
        pipelock.apply(TWO)
    assert pipelock.config == render(ONE, port=pipelock.port)
    assert Path(pipelock.settings.folder, process_module.CONFIG).read_bytes() == pipelock.config
    assert "allowlist" in refusal(pipelock, "two.example.org")[2]


def test_a_reload_that_is_never_confirmed_ends_it_rather_than_leave_it_unknown(made, folder, monkeypatch):
    mute = variant(folder, ('say("config_reload", status="success"', 'say("config_reload", status="ignored"'))
    pipelock = started(made(mute, ONE))
    with pytest.raises(SandboxError, match="neither the new policy nor the old"):
        pipelock.apply(TWO)
    assert not probe.accepts(pipelock.port)


def test_the_digest_of_another_config_confirms_nothing(made, folder, monkeypatch):
    monkeypatch.setattr(process_module, "APPLY_WITHIN", 0.3)
    liar = variant(folder, ("config_hash=digest)", 'config_hash="0" * 64)'))
    pipelock = started(made(liar, ONE))
    with pytest.raises(SandboxError):
        pipelock.apply(TWO)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("config_hash=stand_in.digest", 'config_hash="0"'), "another config"),
        (
            ('listed = self.config["api_allowlist"]', 'listed = ["bot-bottle-probe.invalid"]'),
            "does not refuse",
        ),
        (('elif target.startswith("http://"):', 'elif target.startswith("http://x"):'), "does not refuse"),
        (('say("blocked"', 'say("seen"'), "record what it refused"),
        (('"version", "mode"', '"mode"'), "ended"),
    ],
    ids=["config", "allows all", "answers itself", "logs nothing", "refuses our keys"],
)
def test_a_program_that_does_not_keep_the_contract_is_not_relied_on(made, folder, monkeypatch, change, said):
    monkeypatch.setattr(process_module, "READY_WITHIN", 3.0)
    pipelock = made(variant(folder, change), ONE)
    pipelock.start()
    with pytest.raises(BotBottleError, match=said):
        pipelock.wait_ready()


def test_its_own_words_explain_why_it_did_not_start(made, folder):
    pipelock = made(variant(folder, ('"version", "mode"', '"mode"')), ONE)
    pipelock.start()
    with pytest.raises(SandboxError) as raised:
        pipelock.wait_ready()
    assert "field version not found" in raised.value.details


def test_a_port_that_another_program_took_is_not_ours(made, program, monkeypatch):
    pipelock = made(program, ONE)
    monkeypatch.setattr(probe, "own_uid", lambda uid: 12345)
    pipelock.start()
    with pytest.raises(HostError, match="took the port"):
        pipelock.wait_ready()


def test_its_end_is_seen_and_it_can_be_started_again_on_its_port(made, program):
    pipelock = started(made(program, ONE))
    os.kill(pipelock.pid, signal.SIGKILL)
    wait_for(lambda: pipelock.read() is None, "the end")
    pipelock.stop()
    port = pipelock.port
    assert started(pipelock).port == port


KEEPER = """
import sys
from bot_bottle.engines.pipelock.process import Pipelock, Settings
from bot_bottle.policy.model import EgressPolicy
pipelock = Pipelock(Settings(sys.argv[1], sys.argv[2], 1879048100, 1879048100), EgressPolicy())
pipelock.start()
pipelock.wait_ready()
print(pipelock.pid, pipelock.port, flush=True)
sys.stdin.read()
"""


def test_it_dies_with_its_keeper_however_that_ends(folder, program):
    keeper = subprocess.Popen(
        [sys.executable, "-c", KEEPER, program, str(folder / "config")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    pid, port = map(int, keeper.stdout.readline().split())
    keeper.send_signal(signal.SIGKILL)
    keeper.wait()
    keeper.stdout.close()
    keeper.stdin.close()
    wait_for(lambda: not Path(f"/proc/{pid}/exe").exists() or not probe.accepts(port), "the end of pipelock")
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "nothing of it to be left")


def test_who_it_is_and_what_it_was_given(made, program, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    pipelock = started(made(program, ONE))
    process = Path(f"/proc/{pipelock.pid}")
    status = dict(
        row.split(":\t", 1) for row in (process / "status").read_text().splitlines() if ":\t" in row
    )
    assert set(status["Uid"].split()) == {str(probe.own_uid(pipelock.settings.uid))}
    assert int(status["CapEff"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert b"sk-secret" not in (process / "environ").read_bytes()
    assert {number for number in os.listdir(process / "fd") if int(number) < 3} == {"0", "1", "2"}
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
        f"http://127.0.0.1:{pipelock.port}/health", timeout=10
    ) as own_page:
        assert own_page.status == 200  # the reason why nothing of the agent's may reach it unjudged


SNOOP = """#!/usr/bin/python3 -I
import os, socket, sys
def tried(what, act):
    try:
        act()
        print(what, "done", file=sys.stderr)
    except OSError as error:
        print(what, type(error).__name__, file=sys.stderr)
config = sys.argv[3]
tried("config", lambda: open(config).read())
tried("passwd", lambda: open("/etc/passwd").read())
tried("beside", lambda: open("BESIDE").read())
tried("rewrite", lambda: open(config, "a"))
tried("write", lambda: open("/tmp/pipelock-was-here", "w"))
tried("listen", lambda: socket.create_server(("127.0.0.1", 0)))
"""


def test_it_reads_its_config_and_no_other_file_and_writes_none(made, folder):
    if not process_module.landlock.version():
        pytest.skip("this kernel has no Landlock")
    beside = folder / "secret"
    beside.write_text("secret")
    beside.chmod(0o644)
    snoop = folder / "snoop"
    snoop.write_text(SNOOP.replace("BESIDE", str(beside)))
    snoop.chmod(0o755)
    pipelock = made(str(snoop), ONE)
    pipelock.start()
    with pytest.raises(SandboxError) as raised:
        pipelock.wait_ready()
    found = dict(row.split() for row in raised.value.details.splitlines())
    assert found.pop("config") == "done"
    if process_module.landlock.version() < 4:
        found.pop("listen")
    assert set(found.values()) == {"PermissionError"}, found


def test_a_flood_on_its_standard_error_stops_nothing(made, folder):
    start = "    host, _, port = stand_in"
    flood = '    guarded(lambda: [os.write(2, b"x" * 60000) for _ in range(9)])\n'
    started(made(variant(folder, (start, flood + start)), ONE))


def test_lines_that_are_not_its_own_are_counted_and_no_more(made, folder):
    page = 'answer(sock, 200, b"pipelock\'s own page")'
    noise = 'os.write(1, b"panic\\n" + b"y" * 200000 + b"\\n")'
    pipelock = started(made(variant(folder, (page, f"{page}, {noise}, say('anomaly')")), ONE))
    with socket.create_connection(("127.0.0.1", pipelock.port), 10) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\n\r\n")
        lines = []
        wait_for(lambda: lines.extend(pipelock.read() or ()) or lines, "what follows is read as before")
    assert [line.event for line in lines] == ["anomaly"]
    assert pipelock.unreadable == 2
