"""The store keeps what it acknowledged, for any number of writers, and says what is wrong when it can't."""

import ast
import json
import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot_bottle.errors import NotFoundError, StateError
from bot_bottle.events import NewEvent
from bot_bottle.state.model import RunRecord
from bot_bottle.state.store import Store

SOURCES = Path(__file__).resolve().parents[2] / "src"


def a_run(run_id: str = "fixer-ab12", **changes: object) -> RunRecord:
    record = RunRecord(
        id=run_id,
        agent=run_id.rsplit("-", 1)[0],
        bottle="dev",
        backend="namespace",
        state="starting",
        workspace="/somewhere",
        workspace_mode="copy",
        run_path=f"/run/{run_id}",
        state_path=f"/state/{run_id}",
        started_at=1000.5,
    )
    return record._replace(**changes)


def an_event(number: int = 0, run: str = "fixer-ab12") -> NewEvent:
    return NewEvent(run, 1000.0 + number, "run.started", {"n": number})


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "state" / "store.db")


def program(code: str, *arguments: str, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={"PYTHONPATH": str(SOURCES), "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_what_the_type_checker_sees_of_a_run_is_what_there_is():
    tree = ast.parse((SOURCES / "bot_bottle/state/model.py").read_text())
    (seen,) = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == "RunRecord"]
    fields = [node for node in seen.body if isinstance(node, ast.AnnAssign)]
    defaults = {node.target.id: ast.literal_eval(node.value) for node in fields if node.value}
    assert tuple(node.target.id for node in fields) == RunRecord._fields
    assert defaults == RunRecord._field_defaults


def test_what_was_appended_is_read_back_as_one_chain(path):
    with Store.open(path) as store:
        first = store.append([an_event(1), an_event(2)])
        second = store.append([an_event(3, run="other-cd34")])
        assert store.events() == [*first, *second]
        assert [event.number for event in first + second] == [1, 2, 3]
        assert second[0].previous == first[1].digest
        assert store.events("fixer-ab12", after=1) == [first[1]]
        assert store.events(limit=1) == [first[0]]
        assert store.verify() == (True, 3, None, "")


def test_folder_and_files_are_closed_to_other_users(path):
    with Store.open(path) as store:
        store.append([an_event()])
        folder = Path(path).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for file in folder.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_a_folder_that_was_open_is_closed(path):
    folder = Path(path).parent
    folder.mkdir(mode=0o755)
    Store.open(path).close()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="not run as root")
@pytest.mark.parametrize("whose", ["folder", "file"])
def test_another_users_store_is_refused(path, whose):
    Store.open(path).close()
    os.chown(Path(path).parent if whose == "folder" else path, 12345, -1)
    with pytest.raises(StateError, match="belongs to another user"):
        Store.open(path)


def test_a_link_in_the_stores_place_is_refused(path, tmp_path):
    Path(path).parent.mkdir(mode=0o700)
    Path(path).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError, match="is not a file"):
        Store.open(path)


def test_a_newer_store_is_refused_and_left_alone(path):
    Store.open(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA user_version = 99")
    raw.close()
    with pytest.raises(StateError, match="newer bot-bottle"):
        Store.open(path)


def test_of_an_agents_runs_that_have_all_ended_the_latest_is_meant_where_that_is_asked_for(path):
    with Store.open(path) as store:
        for at, name in enumerate(("fixer-ab12", "fixer-b9cd", "fixer2-b9ce")):
            store.add_run(a_run(name, started_at=1000.0 + at, agent=name.partition("-")[0]))
            store.update_run(name, state="ended")
        assert store.run("fixer", latest=True).id == "fixer-b9cd"
        for reference, latest in (("fixer", False), ("f", True)):
            with pytest.raises(NotFoundError, match="fits several runs"):
                store.run(reference, latest=latest)
        store.add_run(a_run("fixer-c000", started_at=1.0))
        assert store.run("fixer", latest=True).id == "fixer-c000"


def test_what_is_left_to_its_process_is_there_for_the_next(path):
    code = "import os, sys; from bot_bottle.state.store import Store; store = Store.open(sys.argv[1])\n"
    code += "from bot_bottle.events import NewEvent\n"
    code += (
        "store.append([NewEvent('r', 1.0, 'run.started', {'n': 1})]); store.leave(); del store; os._exit(0)"
    )
    for number in range(1, 40):
        process = program(code, path)
        assert process.communicate()[1] == ""
        if number % 13 == 0:
            with Store.open(path) as store:
                assert len(store.events()) == number
                assert store.verify().ok
    assert Path(path + ".head").read_text().startswith(f"{39:020d} ")


def test_a_run_is_found_by_id_prefix_or_agent(path):
    with Store.open(path) as store:
        for name in ("fixer-ab12", "fixer-b9cd", "writer-x2y3"):
            store.add_run(a_run(name))
        assert store.run("fixer-ab12").id == "fixer-ab12"
        assert store.run("fixer-b").id == "fixer-b9cd"
        assert store.run("writer").id == "writer-x2y3"
        with pytest.raises(NotFoundError, match="fits several runs"):
            store.run("fixer")
        store.update_run("fixer-ab12", state="ended", ended_at=2000.0, exit_code=0, outcome="exited")
        assert store.run("fixer").id == "fixer-b9cd"
        for nothing in ("nobody", "", "%", "fixer-____"):
            with pytest.raises(NotFoundError, match="There is no run"):
                store.run(nothing)


def test_an_agents_name_goes_before_a_longer_agents_prefix(path):
    with Store.open(path) as store:
        store.add_run(a_run("fix-ab12"))
        store.add_run(a_run("fixer-ab12"))
        assert store.run("fix").id == "fix-ab12"


def test_a_run_goes_forward_only_and_an_ended_one_stays(path):
    with Store.open(path) as store:
        store.add_run(a_run())
        assert store.update_run("fixer-ab12", state="running")
        assert not store.update_run("fixer-ab12", state="starting")
        assert store.update_run("fixer-ab12", state="stopping")
        assert not store.update_run("fixer-ab12", state="running")
        assert store.update_run("fixer-ab12", state="ended", exit_code=3, outcome="stopped")
        assert not store.update_run("fixer-ab12", state="ended", exit_code=0)
        assert not store.update_run("fixer-ab12", outcome="else")
        assert (store.run("fixer-ab12").exit_code, store.run("fixer-ab12").outcome) == (3, "stopped")


def test_a_refused_change_records_none_of_its_events(path):
    with Store.open(path) as store:
        assert store.record([an_event(1)], a_run())
        assert store.record([an_event(2)], "fixer-ab12", state="ended")
        assert not store.record([an_event(3)], "fixer-ab12", state="running")
        with pytest.raises(StateError, match="can't be added"):
            store.record([an_event(4)], a_run())
        with pytest.raises(NotFoundError):
            store.record([an_event(5)], "nobody-ab12", state="running")
        assert [event.data["n"] for event in store.events()] == [1, 2]
        assert store.verify().ok


def test_only_an_ended_run_is_forgotten_and_its_events_stay(path):
    with Store.open(path) as store:
        store.record([an_event(1)], a_run())
        with pytest.raises(StateError, match="has not ended"):
            store.forget_run("fixer-ab12")
        store.update_run("fixer-ab12", state="ended")
        store.forget_run("fixer-ab12")
        store.forget_run("fixer-ab12")
        assert store.runs() == []
        assert len(store.events("fixer-ab12")) == 1


def test_runs_are_filtered_by_state(path):
    with Store.open(path) as store:
        store.add_run(a_run("a-1111"))
        store.add_run(a_run("b-2222", state="running", started_at=1.0))
        assert [run.id for run in store.runs()] == ["b-2222", "a-1111"]
        assert [run.id for run in store.runs(["running", "stopping"])] == ["b-2222"]
        assert store.runs([]) == []


ACKNOWLEDGE = """
import sys
from bot_bottle.events import NewEvent
from bot_bottle.state.store import Store
store = Store.open(sys.argv[1])
for n in range(int(sys.argv[2])):
    chained = store.append([NewEvent("w-" + sys.argv[3], float(n), "run.started", {"n": n})] * 2)
    sys.stdout.write(f"{chained[-1].number} {chained[-1].digest}\\n")
    sys.stdout.flush()
"""


def test_kill_while_writing_loses_nothing_acknowledged_and_leaves_the_chain_whole(path):
    acknowledged: dict[int, str] = {}
    for turn in range(15):
        writer = program(ACKNOWLEDGE, path, "100000", str(turn))
        for _ in range(1 + turn * 3):
            number, digest = writer.stdout.readline().split()
            acknowledged[int(number)] = digest
        writer.send_signal(signal.SIGKILL)
        for line in writer.stdout.read().splitlines():
            if line.count(" ") == 1 and len(line.split()[1]) == 64:
                acknowledged[int(line.split()[0])] = line.split()[1]
        writer.wait()
        writer.stdout.close()
        writer.stderr.close()
        with Store.open(path) as store:
            assert store.verify().ok
    with Store.open(path) as store:
        kept = {event.number: event.digest for event in store.events()}
    assert acknowledged.items() <= kept.items()
    assert len(acknowledged) > 100


def test_eight_writers_at_once_make_one_chain(path):
    writers = [program(ACKNOWLEDGE, path, "25", str(name)) for name in range(8)]
    numbers = []
    for writer in writers:
        said, errors = writer.communicate(timeout=100)
        assert writer.returncode == 0, errors
        numbers += [int(line.split()[0]) for line in said.splitlines()]
    with Store.open(path) as store:
        assert store.verify() == (True, 8 * 25 * 2, None, "")
    assert len(set(numbers)) == 8 * 25


DECIDE = """
import sys
from bot_bottle.state.store import Store
with Store.open(sys.argv[1]) as store:
    sys.stdin.read()
    print(store.update_run("fixer-ab12", state="ended", outcome=sys.argv[2]))
"""


def test_of_many_that_end_a_run_one_wins(path):
    with Store.open(path) as store:
        store.add_run(a_run())
    racers = [program(DECIDE, path, str(name), stdin=subprocess.PIPE) for name in range(6)]
    answers = [racer.communicate(timeout=100)[0].strip() for racer in racers]
    assert sorted(answers) == ["False"] * 5 + ["True"]


def test_a_full_disk_is_said_and_nothing_recorded_is_lost(path):
    with Store.open(path) as store:
        kept = store.append([an_event(1)])
    code = """
import resource, signal, sys
from bot_bottle.errors import StateError
from bot_bottle.events import NewEvent
from bot_bottle.state.store import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = Store.open(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))
try:
    for n in range(100):
        store.append([NewEvent("w", 1.0, "run.started", {"text": "x" * 5000})])
except StateError as error:
    print(str(error))
"""
    writer = program(code, path)
    said, errors = writer.communicate(timeout=60)
    assert "full" in said, (said, errors)
    assert "Free some space" in said
    with Store.open(path) as store:
        assert store.verify().ok
        assert store.events()[:1] == list(kept)
        store.append([an_event(2)])
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 100000


@pytest.mark.skipif(os.geteuid() != 0, reason="not run as root")
def test_a_full_file_system_is_said_when_opening_and_when_writing(tmp_path):
    script = """
mount -t tmpfs -o size=200k none "$1" && exec "$2" -c '
import sys
from bot_bottle.errors import StateError
from bot_bottle.events import NewEvent
from bot_bottle.state.store import Store
try:
    store = Store.open(sys.argv[1] + "/store.db")
    for n in range(1000):
        store.append([NewEvent("w", 1.0, "run.started", {"text": "x" * 3000})])
except StateError as error:
    print(str(error))
open(sys.argv[1] + "/filler", "wb").close()
try:
    Store.open(sys.argv[1] + "/more/store.db")
except StateError as error:
    print(str(error))
' "$1"
"""
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", str(tmp_path), sys.executable],
        env={"PYTHONPATH": str(SOURCES), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.count("The disk is full") + done.stdout.count("may be full") == 2, done


def test_a_locked_store_is_said(path, monkeypatch):
    monkeypatch.setattr("bot_bottle.state.store.BUSY_SECONDS", 0.05)
    with Store.open(path) as store, Store.open(path) as other:
        other._connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(StateError, match="locked"):
            store.append([an_event()])
        other._connection.execute("ROLLBACK")
        store.append([an_event()])


def test_a_file_that_is_no_store_is_said_and_left_alone(path):
    Path(path).parent.mkdir(mode=0o700)
    Path(path).write_text("these are my notes, " * 100)
    with pytest.raises(StateError, match="not a store"):
        Store.open(path)
    assert Path(path).read_text().startswith("these are my notes")


def test_a_folder_that_can_not_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="can't be opened"):
        Store.open(str(tmp_path / "file" / "store.db"))


def test_a_store_is_not_used_across_a_fork(path):
    with Store.open(path) as store:
        child = os.fork()
        if child == 0:
            try:
                store.append([an_event()])
            except StateError:
                os._exit(0)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        store.append([an_event()])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.dictionaries(st.text(), JSON, max_size=5) | st.dictionaries(st.integers(), JSON, max_size=3),
    at=st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**40), 2**40),
)
def test_any_event_reads_back_as_it_was_chained(tmp_path, data, at):
    with Store.open(str(tmp_path / "state" / "store.db")) as store:
        (event,) = store.append([NewEvent("any-ab12", at, "run.started", data)])
        assert store.events(after=event.number - 1) == [event]
        assert event.data == json.loads(json.dumps(data))
        assert store.verify().ok


@pytest.mark.parametrize(
    "event",
    [
        NewEvent("r", float("nan"), "run.started", {}),
        NewEvent("r", float("inf"), "run.started", {}),
        NewEvent("r", 1.0, "run.started", {"x": float("nan")}),
        NewEvent("r", 1.0, "run.started", {"x": object()}),
        NewEvent("r", 1.0, "run.started", {"x": 1, 2: 3}),
        NewEvent("r\ud800", 1.0, "run.started", {}),
    ],
)
def test_what_can_not_be_written_down_is_refused_whole(path, event):
    with Store.open(path) as store:
        with pytest.raises(StateError, match="can't be recorded"):
            store.append([an_event(), event])
        assert store.events() == []


def test_the_version_changes_when_another_process_wrote(path):
    with Store.open(path) as reader, Store.open(path) as writer:
        before = reader.data_version()
        assert reader.data_version() == before
        writer.append([an_event()])
        assert reader.data_version() != before
