"""bot-bottle's own image in a real microVM, and a bottle of it that is kept: stopped, and gone on with at a terminal."""

import os
import pty
import select
import subprocess
import time
from pathlib import Path

import pytest

from support.microvms import Place, until

OWN = os.environ.get("BOT_BOTTLE_VM_OWN", "")
"""An archive of what is made where a bottle's file names no image, from Debian's packages."""
PATIENCE = 300.0
WORKER = """cat ~/note more.txt
for tool in bash curl git jq less patch python3 rg unzip; do command -v $tool >/dev/null || echo missing $tool; done
echo home > ~/note; echo more >> more.txt; echo up; sleep 1000"""
pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]


def at_a_terminal(place: Place, *words: str, seconds: float = PATIENCE) -> tuple[int, bytes]:
    """What the program ends with and shows on a terminal of its own."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        place.argv(*words), env=place.env, cwd=place.work, stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True,
    ) as running:  # fmt: skip
        os.close(theirs)
        seen = b""
        end = time.monotonic() + seconds
        try:
            while select.select([ours], [], [], max(0.0, end - time.monotonic()))[0]:
                try:
                    seen += os.read(ours, 65536)
                except OSError:  # nobody has the other end any more
                    break
            return running.wait(max(1.0, end - time.monotonic())), seen
        finally:
            running.kill()
            os.close(ours)


def test_a_bottle_of_our_own_image_is_kept_and_goes_on_at_a_terminal(place: Place) -> None:
    if not Path(OWN).is_file():
        pytest.skip("BOT_BOTTLE_VM_OWN names no archive of bot-bottle's own image")
    place.bottle(image=OWN)
    place.agent("sh", "-c", WORKER)
    first = place.detached("--workspace", "copy")
    until(lambda: "up" in place.run("logs", first).stdout, "the agent works", every=2.0)
    assert "missing" not in place.run("logs", first).stdout
    done = place.run("stop", "--keep", first)
    assert done.returncode == 0, done.stderr
    assert place.machines.names() == []
    assert place.states()[first] == "stopped"

    place.agent(
        "sh", "-c", "test -t 0 && test -t 1 && cat ~/note more.txt && echo again >> more.txt && exit 4"
    )
    code, seen = at_a_terminal(place, "attach", first)
    assert (code, b"home\r\nmore\r\n" in seen) == (4, True), seen
    (second,) = set(place.states()) - {first}
    assert (place.states()[first], place.machines.names()) == ("ended", [])
    assert "+more\n+again" in place.run("diff", second).stdout
    assert "home" in place.run("logs", second).stdout


def test_a_branch_of_a_kept_bottle_goes_on_with_its_files_and_another_size(place: Place) -> None:
    place.bottle("resources: {cpus: 2, memory: 512MiB}\n")
    place.agent(
        "sh", "-c", "cat ~/note more.txt; echo home > ~/note; echo more >> more.txt; echo up; sleep 1000"
    )
    first = place.detached("--workspace", "copy")
    until(lambda: "up" in place.run("logs", first).stdout, "the agent works", every=2.0)
    for words in (
        ("stop", "--keep", first),
        ("branch", first, "other"),
        ("resize", "other", "--memory", "384MiB", "--cpus", "1"),
    ):
        done = place.run(*words)
        assert done.returncode == 0, done.stderr
    place.agent("sh", "-c", "cat ~/note more.txt; nproc; sed -n 's/^MemTotal: *//p' /proc/meminfo")
    done = place.start(name="other")
    assert done.returncode == 0
    home, more, processors, memory = done.stdout.splitlines()
    assert (home, more, processors) == ("home", "more", "1")
    assert 256 << 10 < int(memory.split()[0]) < 448 << 10  # it is given some MiB more than it is told
    assert (place.states()[first], place.machines.names()) == ("stopped", [])
