"""The commands as a person uses them, on a real bottle."""

import contextlib
import json
import os
import pty
import signal
import socket
import sqlite3

import pytest

from bot_bottle.launch import control
from support.backends import on_every_backend
from support.bottles import write_agent, write_bottle, write_script
from support.leftovers import processes
from support.place import program
from support.waiting import wait_for

pytestmark = pytest.mark.namespace


@pytest.fixture
def detached(place, cli, repository):
    """Starts an agent in the background and gives its id."""

    def start(name="sleeper", script="echo begun; sleep 600", **keys):
        write_script(place, name, script, **keys)
        done = cli("start", name, "--headless", "--detach", "--json")
        assert done.code == 0, done.stderr
        return json.loads(done.stdout)["id"]

    return start


@on_every_backend
def test_the_agents_output_and_exit_code_are_the_commands_own(place, cli, repository):
    write_script(place, "say", "echo out; echo err >&2; exit 7")
    done = cli("start", "say", "--headless", "--quiet")
    assert (done.code, done.stdout) == (7, "out\n")
    assert done.stderr == "err\n"


@on_every_backend
def test_a_killed_agent_is_128_and_the_signal(place, cli, repository):
    write_script(place, "die", "kill -9 $$")
    assert cli("start", "die", "--headless").code == 137


@on_every_backend
def test_a_detached_bottle_is_listed_logged_entered_and_stopped(place, cli, detached, nothing_left):
    run = detached()
    listed = json.loads(cli("list", "--json").stdout)
    assert [(item["id"], item["state"]) for item in listed] == [(run, "running")]
    wait_for(lambda: "begun" in cli("logs", run).stdout, "the agent's output")
    entered = cli("exec", run, "--", "sh", "-c", "cat; exit 3", stdin="through")
    assert (entered.code, entered.stdout) == (3, "through")
    stopped = cli("stop", "sleeper")
    assert stopped.code == 0, stopped.stderr
    assert json.loads(cli("list", "--json").stdout) == []
    nothing_left()
    assert cli("exec", run, "--", "true").code == 66


@on_every_backend
def test_what_is_executed_gets_no_file_of_the_operators(place, cli, detached, tmp_path):
    run = detached()
    script = place.write("script.sh", "ls -l /proc/self/fd; echo planted >/proc/self/fd/0; exit 0\n")
    out = place.write("out.txt", "earlier\n")
    words = f'{program()} exec {run} -- sh -s < "{script}" >> "{out}"'
    done = place.run(["sh", "-c", words])
    assert done.code == 0, done.stderr
    assert script.read_text().startswith("ls ")
    shown = [line.split()[-3:] for line in out.read_text().splitlines() if "->" in line]
    assert [number for number, _, _ in shown] == ["0", "1", "2", "3"]
    assert all(target.startswith("pipe:") for _, _, target in shown[:3])
    assert cli("stop", "--now", run).code == 0


@on_every_backend
def test_executed_commands_take_much_give_much_and_leave_processes_without_keeping_anybody(
    place, cli, detached
):
    run = detached()
    much = "x" * 3_000_000
    assert cli("exec", run, "--", "cat", stdin=much).stdout == much
    assert cli("exec", run, "--", "true", stdin=much).code == 0
    assert cli("exec", run, "--", "sh", "-c", "sleep 500 & echo left").stdout == "left\n"
    assert cli("stop", "--now", run).code == 0


@on_every_backend
def test_a_prompt_and_the_agents_text_reach_a_command_as_files(place, cli, repository):
    write_script(
        place, "read", 'cat "$BOT_BOTTLE_PROMPT_FILE" "$BOT_BOTTLE_INSTRUCTIONS_FILE"', body="Be brief."
    )
    done = cli("start", "read", "--headless", "--prompt", "-", stdin="Fix the 'bug'.\n")
    assert "Fix the 'bug'." in done.stdout
    assert "Be brief." in done.stdout


@on_every_backend
def test_headless_works_on_a_copy_that_can_be_shown_and_applied(place, cli, repository):
    write_script(
        place,
        "edit",
        "echo changed >> hello.txt; echo new > new.txt; mkdir -p deep/er; echo x > deep/er/file",
    )
    ended = json.loads(cli("start", "edit", "--headless", "--json").stdout)
    assert (repository / "hello.txt").read_text() == "hello\n"
    shown = cli("diff", ended["id"])
    assert "+changed" in shown.stdout
    assert cli("apply", ended["id"], "--yes").code == 0
    assert (repository / "hello.txt").read_text() == "hello\nchanged\n"
    assert (repository / "deep/er/file").read_text() == "x\n"
    assert (repository / "new.txt").stat().st_uid == place.uid


@on_every_backend
def test_a_mounted_workspace_is_the_repository_itself_and_its_files_stay_the_owners(place, cli, repository):
    write_script(place, "edit", "echo changed >> hello.txt; echo new > new.txt; id -u")
    done = cli("start", "edit", "--headless", "--workspace", "mount")
    assert done.code == 0, done.stderr
    assert (repository / "hello.txt").read_text() == "hello\nchanged\n"
    assert (repository / "new.txt").stat().st_uid == place.uid


@on_every_backend
def test_an_agent_leaves_no_setuid_file_in_a_mounted_workspace(place, cli, repository):
    write_script(
        place,
        "plant",
        "cp /bin/true planted; chmod u+s planted; chmod 4755 planted; install -m 6755 /bin/true other; true",
    )
    cli("start", "plant", "--headless", "--workspace", "mount")
    modes = [path.stat().st_mode & 0o6000 for path in repository.iterdir()]
    assert set(modes) == {0}


def test_every_decision_is_an_event_and_the_record_is_whole(place, cli, repository):
    write_script(place, "dial", "curl -sS -m 5 http://refused.example.org/; exit 0")
    ended = json.loads(cli("start", "dial", "--headless", "--json").stdout)
    lines = [json.loads(line) for line in cli("events", ended["id"], "--json").stdout.splitlines()]
    kinds = [line["kind"] for line in lines]
    assert kinds[0] == "run.planned"
    assert kinds[-1] == "run.ended"
    assert "refused.example.org" in json.dumps([line for line in lines if line["kind"] == "egress.refused"])
    assert cli("verify").code == 0
    with sqlite3.connect(place.home / ".local/state/bot-bottle/store.db") as store:
        store.executescript("DROP TRIGGER IF EXISTS events_no_update; PRAGMA writable_schema=1;")
        names = [row[0] for row in store.execute("SELECT name FROM sqlite_master WHERE type='trigger'")]
        for name in names:
            store.execute(f"DROP TRIGGER {name}")
        store.execute("UPDATE events SET data = replace(data, 'refused.example.org', 'allowed.example.org')")
    store.close()
    broken = cli("verify")
    assert broken.code != 0


@on_every_backend
def test_limits_are_kept_or_refused(place, cli, repository):
    write_bottle(place, resources={"memory": "64MiB", "pids": 64})
    write_agent(place, "eat", ["python3", "-c", "x = bytearray(512 << 20); print(len(x))"])
    done = cli("start", "eat", "--headless")
    assert done.code in (137, 78), done.stderr
    assert "536870912" not in done.stdout
    if place.uid and place.backend == "namespace":  # an engine keeps it for everybody
        assert "resources.memory" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["start", "nobody", "--headless"], 66, "nobody"),
        (["start"], 64, "AGENT"),
        (["strat"], 64, "start"),
        (["stop", "nothing-here"], 66, "nothing-here"),
        (["diff", "nothing-here"], 66, "nothing-here"),
        (["start", "sleeper"], 64, "--headless"),
        (["start", "sleeper", "--bottle", "none", "--headless"], 66, "none"),
    ],
)
def test_bad_input_is_one_clear_message_with_a_code_by_kind(place, cli, repository, words, code, said):
    write_script(place, "sleeper", "sleep 1")
    done = cli(*words)
    assert (done.code, said in done.stderr, "Traceback" in done.stderr) == (code, True, False), done.stderr


def test_errors_are_json_when_asked(place, cli):
    done = cli("start", "nobody", "--headless", "--json")
    assert json.loads(done.stderr)["error"]["kind"] == "not-found"


def test_a_repository_cannot_grant_itself_anything(place, cli, repository):
    write_script(place, "agent", "true")
    write_bottle(place, "wide", egress={"routes": [{"host": "example.org"}]})
    folder = repository / ".bot-bottle/agents"
    folder.mkdir(parents=True)
    (folder / "evil.md").write_text('---\nprovider: command\ncommand: ["true"]\nbottle: wide\n---\n')
    done = cli("start", "evil", "--headless")
    assert done.code == 65, done.stderr
    assert cli("start", "evil", "--bottle", "wide", "--headless").code == 0


@on_every_backend
def test_an_owners_terminal_that_stands_still_slows_the_agent_and_ends_nothing(place, repository):
    write_script(place, "flood", "yes | head -c 6000000; read go; exit 5")
    argv = place.argv([str(program()), "start", "flood"])
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(repository)
        os.execvpe(argv[0], argv, place.environment)
    sizes: list[int] = []

    def stands_still() -> bool:
        logs = list((place.home / ".local/state/bot-bottle/runs").glob("*/output.log"))
        sizes.append(logs[0].stat().st_size if logs else 0)
        return sizes[-1] > 0 and len(set(sizes[-20:])) == 1 and len(sizes) > 20

    wait_for(stands_still, "the agent to wait for its reader")
    seen = 0
    while seen < 9_000_000:  # two bytes became three on the way through the terminal
        seen += len(os.read(terminal, 65536))
    # Only now may the agent end: what a terminal holds when its session ends, the kernel throws away.
    os.write(terminal, b"\n")
    with contextlib.suppress(OSError):  # EIO: the end of a terminal
        while os.read(terminal, 65536):
            pass
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    os.close(terminal)


@on_every_backend
@pytest.mark.parametrize("attempt", range(3))
def test_an_agent_that_ends_at_once_began_with_its_owners_terminal(place, repository, attempt):
    write_script(place, "quick", 'test "$(stty size)" = "24 80" && exit 3; exit 4')
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(repository)
        argv = place.argv([str(program()), "start", "quick"])
        os.execvpe(argv[0], argv, place.environment)
    seen = b""
    with contextlib.suppress(OSError):  # EIO: the end of a terminal
        while data := os.read(terminal, 65536):
            seen += data
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3, seen


def test_no_name_or_message_talks_to_the_terminal(place, cli, repository):
    write_script(place, "fine", "true")
    odd = repository.parent / "odd\x1b]0;t\x07\u202e"
    (odd / ".bot-bottle/agents").mkdir(parents=True)
    (odd / ".bot-bottle/agents/wrong\x1b[31m.md").write_text("---\n---\n")
    (odd / ".bot-bottle/agents/bad.md").write_text('---\nskills: ["a\\u202e"]\n---\n')
    for words in (["start", "bad", "--headless"], ["validate"], ["start", "x\x1b[31m"], ["plan", "fine"],
                  ["validate", "--json"], ["plan", "fine", "--json"]):  # fmt: skip
        done = place.run([program(), *words], cwd=odd)
        shown = done.stdout + done.stderr
        assert shown.replace("\n", "").isprintable(), (words, shown)
        if "--json" in words:
            assert "odd\\x1b" in str(json.loads(done.stdout))


def test_a_workspace_whose_path_is_not_utf8_is_refused_in_words(place, cli, repository):
    write_script(place, "fine", "true")
    odd = os.fsencode(repository.parent) + b"/odd\xff"
    os.mkdir(odd)
    done = place.run([program(), "start", "fine", "--headless"], cwd=os.fsdecode(odd))
    assert (done.code, "UTF-8" in done.stderr) == (69, True), done.stderr


def test_a_client_that_talks_nonsense_ends_no_bottle(place, cli, detached):
    run = detached()
    path = place.home / ".local/state/bot-bottle/run" / run / "keeper.sock"
    for kind, payload in (
        (control.RESIZE, b"x"),
        (control.HELLO, b"[]"),
        (control.HELLO, b"[" * 200_000),
        (control.HELLO, b'{"want": "attach", "rows": 1000000000, "columns": 5}'),
        (control.HELLO, b'{"want": "exec", "argv": []}'),
        (b"?", b""),
    ):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(control.frame(kind, payload))
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
    assert cli("exec", run, "--", "echo", "here").stdout == "here\n"
    assert cli("stop", "--now", run).code == 0


def test_a_headless_agent_does_not_talk_to_the_terminal(place, cli, repository):
    write_script(place, "talk", r"printf '\033]0;title\007gr\303'; sleep 0.2; printf '\274n\n'")
    words = f"{program()} start talk --headless --quiet"
    done = place.run(["script", "-qec", words, "/dev/null"])
    assert done.stdout.replace("\r", "") == "\\x1b]0;title\\x07grün\n"
    assert "\x1b]0;title\x07grün" in cli("start", "talk", "--headless", "--quiet").stdout


@on_every_backend
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_trouble(place, cli, repository, closed):
    write_script(place, "fine", "exit 3")
    done = place.run(["sh", "-c", f"{program()} start fine --headless {closed}"])
    assert done.code == 3, done.stderr


@on_every_backend
def test_a_keeper_that_stands_still_is_killed_when_told_to_stop_now(place, cli, detached, monkeypatch):
    run = detached()
    [keeper] = [
        pid for pid, words in processes(str(place.root), place.token).items() if "start sleeper" in words
    ]
    os.kill(keeper, signal.SIGSTOP)
    stopped = cli("stop", "--now", run, timeout=60)
    assert stopped.code == 0, stopped.stderr
    place.assert_nothing_left()
    assert json.loads(cli("list", "--all", "--json").stdout)[0]["state"] == "ended"


PLANTS = (
    "git config core.fsmonitor 'touch /tmp/x'",
    "echo evil > .git/hooks/post-checkout",
    "echo /x > .git/commondir",
    "mv .git .hidden; mkdir .git",
)


@pytest.mark.parametrize("plant", PLANTS)
def test_a_change_of_what_the_persons_own_git_acts_on_is_said(place, cli, repository, plant):
    write_script(place, "plant", plant)
    write_script(
        place,
        "work",
        "echo fine > new.txt; git add new.txt; git -c user.name=a -c user.email=a@example.org commit -qm x",
    )
    honest = cli("start", "work", "--headless", "--workspace", "mount")
    assert (honest.code, "your own git" in honest.stderr) == (0, False), honest.stderr
    done = cli("start", "plant", "--headless", "--workspace", "mount")
    assert "your own git acts on" in done.stderr, done.stderr
    assert "workspace.flagged" in cli("events", "--all", "--json").stdout


def test_changes_that_are_too_much_for_a_patch_leave_the_copy_and_the_agents_exit_code(
    place, cli, repository
):
    write_script(place, "fill", "truncate -s 3G big; echo small > small; exit 7")
    done = cli("start", "fill", "--headless")
    assert done.code == 7, done.stderr
    assert "stays at" in done.stderr
    [kept] = place.home.rglob("runs/*/workspace")
    assert (kept / "small").read_text() == "small\n"
    assert cli("cleanup", "--forget").code == 0
    assert not kept.exists()
