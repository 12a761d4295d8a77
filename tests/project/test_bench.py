"""The measuring itself: in turn, honest about failures, and in the promised shape."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from measure import NotMeasured, Program, figure, in_turn
from support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
KEYS = {"area", "name", "value", "unit", "yardstick", "yardstick_value", "ratio", "goal", "ok"}


def writes(letter: str, folder: Path) -> Program:
    return Program(letter, ["sh", "-c", f"printf {letter} >> order"], {"PATH": "/usr/bin:/bin"}, str(folder))


def test_yardsticks_run_in_turn_after_one_round_that_does_not_count(tmp_path: Path) -> None:
    times = in_turn([writes("a", tmp_path), writes("b", tmp_path)], runs=3, progress=lambda _: None)
    assert (tmp_path / "order").read_text() == "abababab"
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3}
    assert all(value > 0 for values in times.values() for value in values)


def test_a_program_that_fails_is_not_measured_and_its_words_are_kept(tmp_path: Path) -> None:
    failing = Program(
        "x", ["sh", "-c", "echo no such thing >&2; exit 3"], {"PATH": "/usr/bin:/bin"}, str(tmp_path)
    )
    with pytest.raises(NotMeasured, match="exit code 3: no such thing"):
        in_turn([failing], runs=1, progress=lambda _: None)


def test_a_figure_has_the_promised_keys_and_its_ratio() -> None:
    made = figure(
        "start", "x", 50.0, "ms", yardstick="y", yardstick_value=20.0, goal="at most 2.5 x", ok=True
    )
    assert set(made.as_json()) == KEYS
    assert made.ratio == 2.5


def test_a_figure_without_a_yardstick_has_no_ratio() -> None:
    assert figure("start", "x", 5.0, "MiB", goal="at most 20 MiB", ok=True).as_json()["ratio"] is None


def test_an_area_that_nobody_knows_is_refused_and_the_others_are_named(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    argv = [sys.executable, str(ROOT / "bench" / "run.py"), "kubernetes", "--output", str(output)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "smolmachines" in done.stderr
    assert not output.exists()


def test_microvms_are_not_measured_where_none_boots_and_none_can_be_emulated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import machines

    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import test_vm

    monkeypatch.setattr(test_vm, "kvm_works", lambda: False)
    monkeypatch.setattr(test_vm, "not_emulated", lambda: "missing: qemu-img")
    with pytest.raises(NotMeasured, match="missing: qemu-img"):
        next(machines.measure(None, 1, lambda _: None))  # type: ignore[arg-type]


def test_what_could_not_be_measured_is_said_and_the_rest_is_kept(tmp_path: Path) -> None:
    import run

    def half(place: object, runs: int, progress: object):
        yield figure("start", "x", 1.0, "ms", goal="none", ok=True)
        raise NotMeasured("the rest needs a thing that is not here")

    before = run.AREAS["start"]
    run.AREAS["start"] = (half,)
    try:
        figures, problems = run.measure(["start"], 1)
    finally:
        run.AREAS["start"] = before
    assert [made.name for made in figures] == ["x"]
    assert problems == ["start: the rest needs a thing that is not here"]
    assert json.dumps([made.as_json() for made in figures])


SAID = """Running 1s test @ https://tls.example/
  2 threads and 32 connections
  18901 requests in 1.00s, 22.01MB read
Requests/sec:  18870.12
Transfer/sec:     21.97MB
"""


def test_the_rate_is_what_wrk_says_and_requests_that_failed_are_no_rate() -> None:
    import through

    assert through._rate(SAID) == 18870.12
    for words in (
        "  Socket errors: connect 0, read 3, write 0, timeout 0",
        "  Non-2xx or 3xx responses: 18901",
    ):
        with pytest.raises(NotMeasured, match=words.split()[0]):
            through._rate(SAID.replace("Requests/sec", f"{words}\nRequests/sec"))
    with pytest.raises(NotMeasured, match="unable to connect"):
        through._rate("unable to connect to tls.example:https")


def test_a_tool_that_is_missing_is_named_with_the_package_that_has_it() -> None:
    import nginx

    with pytest.raises(NotMeasured, match="apt-get install wrk"):
        nginx.tool("no-such-wrk", "wrk")


def test_memory_is_counted_for_descendants_and_not_for_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    import memory

    monkeypatch.setenv("BENCH_TEST_MARK", "here")
    mark = "BENCH_TEST_MARK=here"
    shell = subprocess.Popen(["sh", "-c", "env -i sleep 60 & wait"])
    try:
        found = wait_for(
            lambda: {p for p in memory.kept_by(mark) if memory.is_agent(p)}, "the sleep to be found"
        )
        assert shell.pid in memory.kept_by(mark)
        assert memory.pss_kib({shell.pid}) > 0
    finally:
        for pid in found:
            os.kill(pid, signal.SIGTERM)
        shell.wait()
