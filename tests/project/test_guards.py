"""The guards of the tests guard: a leak is seen, and a home is one's own."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.place import Place, copy_installation, make_place
from support.waiting import wait_for


def stopped(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def test_home_is_the_tests_own(own_home: Path) -> None:
    assert os.path.expanduser("~") == str(own_home)


def test_a_process_that_has_the_places_token_is_seen(place: Place, nothing_left: Callable[[], None]) -> None:
    nothing_left()
    process = subprocess.Popen(
        ["sleep", "60"], env={"BOT_BOTTLE_TEST": place.token, "PATH": os.defpath}, cwd="/"
    )
    try:
        (line,) = wait_for(place.left, "the process to be seen")
        assert f"process {process.pid} (sleep 60), by its environment" in line
    finally:
        stopped(process)


def test_a_process_that_works_in_the_place_is_seen_without_its_token(place: Place) -> None:
    process = subprocess.Popen(["sleep", "60"], env={"PATH": os.defpath}, cwd=place.workspace)
    try:
        (line,) = wait_for(place.left, "the process to be seen")
        assert "by its open files" in line
    finally:
        stopped(process)


@pytest.mark.namespace
def test_a_process_that_sees_the_place_only_inside_a_sandbox_is_seen(place: Place) -> None:
    """Nothing of its environment, command line or open files names the place: only its mounts do."""
    argv = ["bwrap", "--args", "0", "/usr/bin/sleep", "60"]
    if os.geteuid() == 0 and place.uid:
        argv = place.argv(argv)
    same = [word for name in ("bin", "lib", "lib64") for word in ("--symlink", f"usr/{name}", f"/{name}")]
    bind = ["--ro-bind", "/usr", "/usr", *same, "--bind", str(place.workspace), "/workspace"]
    hidden = "\0".join(["--unshare-all", *bind, "--clearenv", "--die-with-parent", ""])
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, env={"PATH": os.defpath}, cwd="/")
    assert process.stdin is not None
    try:
        process.stdin.write(hidden.encode())
        process.stdin.close()
        seen = wait_for(
            lambda: [line for line in place.left() if "sleep 60" in line], "the process inside to be seen"
        )
        assert any("by its mounts" in line for line in seen)
    finally:
        stopped(process)
    place.assert_nothing_left()


def test_a_run_folder_is_seen(place: Place) -> None:
    folder = place.home / ".local/state/bot-bottle/run/demo-abcd"
    folder.mkdir(parents=True)
    assert place.left() == [f"run folder {folder}"]
    folder.rmdir()


def test_a_leak_fails_the_test_and_is_named(place: Place) -> None:
    process = subprocess.Popen(["sleep", "60"], env={"PATH": os.defpath}, cwd=place.workspace)
    try:
        with pytest.raises(AssertionError, match="left behind:\nprocess"):
            place.assert_nothing_left(within=0)
    finally:
        stopped(process)


@pytest.mark.root
def test_the_program_can_be_run_by_others_when_the_checkout_is_closed() -> None:
    pytest.importorskip("bot_bottle.cli.main", reason="there is no command line yet")
    place = make_place(29999)
    try:
        script = copy_installation(Path(__file__).resolve().parents[2] / "src")
        done = place.run([str(script), "--version"])
        assert (done.code, done.stderr) == (0, "")
    finally:
        place.remove()
