"""What a bottle in a real microVM does to others when whatever is in it is hostile: nothing.

Two bottles run beside each other, the attacked host's other one being asked after every attack whether it is well. Most attacks are
those of root in the machine itself, which no agent is: what it can't do, an agent that broke out of its place can't do.
The tests are in an order: the last ones are the worst.
"""

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from support.microvms import DEADLINE, Place, is_gone, until

pytestmark = [pytest.mark.vm, pytest.mark.timeout(400)]
MEMORY = 512
DISK = 2 << 30
"""What a machine has of its own (`smolmachines.machine`)."""


class Two(NamedTuple):
    """Two runs, and the machine of the hostile one."""

    place: Place
    hostile: str
    neighbour: str
    machine: str

    def inside(self, script: str, *, who: str = "") -> subprocess.CompletedProcess[str]:
        """What came of a shell script that the agent's user runs in the hostile bottle (or `who`)."""
        return self.place.run("exec", "--no-tty", who or self.hostile, "--", "sh", "-c", script)

    def is_well(self, who: str = "") -> None:
        done = self.inside("echo well", who=who or self.neighbour)
        assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr


@pytest.fixture(scope="module")
def two(place: Place) -> Iterator[Two]:
    place.bottle(f"resources: {{memory: {MEMORY}MiB}}\n")
    place.agent("sleep", "1000")
    runs = [place.detached("--workspace", "copy") for _ in range(2)]
    try:
        yield Two(place, runs[0], runs[1], place.machine(runs[0]))
    finally:
        place.run("stop", "--now", *(run for run, state in place.states().items() if state == "running"))
        place.run("cleanup")


def shown(two: Two) -> dict[str, bytes]:
    """What the hostile machine is shown of ours: its programs."""
    folders = (two.place.home / ".local" / "state" / "bot-bottle" / "run").glob("**/vm-*/bottle")
    return {str(path): path.read_bytes() for folder in folders for path in folder.iterdir()}


def test_root_in_the_machine_changes_nothing_that_it_is_shown(two: Two) -> None:
    before = shown(two)
    assert len(before) == 6, "three programs of each bottle"
    said = two.place.as_root(
        two.machine,
        """
for folder in /.bottle /.shown/*; do
  for how in "mount -o remount,rw $folder" "mount -o remount,rw,bind $folder" \
      "touch $folder/new" "umount $folder; touch $folder/newer"; do
    sh -c "$how" 2>/dev/null
  done
  for file in $folder/*; do echo changed > $file; rm -f $file; done 2>/dev/null
done
mkdir -p /mnt/again
grep virtiofs /proc/mounts
for tag in $(sed -n 's/ .*virtiofs.*//p' /proc/mounts | sort -u); do
  mount -t virtiofs $tag /mnt/again || continue
  echo mounted
  for file in /mnt/again/*; do test -d "$file" || echo changed > "$file"; done 2>/dev/null
  umount /mnt/again
done
echo tried""",
    )
    assert said.endswith("tried\n")
    assert " /.bottle virtiofs ro" in said
    assert shown(two) == before


def test_root_in_the_machine_reaches_nobody(two: Two) -> None:
    service = "cd /tmp; exec /usr/bin/python3 -m http.server 8123 --bind 0.0.0.0"
    argv = two.place.argv("exec", "--no-tty", two.neighbour, "--", "sh", "-c", service)
    with (
        subprocess.Popen(
            argv, env=two.place.env, cwd=two.place.work, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as serving,
        socket.create_server(("0.0.0.0", 0)) as every,
        socket.create_server(("127.0.0.1", 0)) as local,
    ):  # fmt: skip
        try:
            ask = "import socket; socket.create_connection(('127.0.0.1', 8123), 5); print('there')"
            until(
                lambda: "there" in two.inside(f'/usr/bin/python3 -I -c "{ask}"', who=two.neighbour).stdout,
                "the neighbour's service",
                every=1.0,
            )
            ports = [every.getsockname()[1], local.getsockname()[1], 8123, 22, 3128]
            said = two.place.as_root(two.machine, f"/usr/bin/python3 -I -c '{REACH}' '{json.dumps(ports)}'")
        finally:
            serving.kill()
        assert said == "tried\n"
        for listener in (every, local):
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.accept()


REACH = """
import json, socket, sys
hosts = ["127.0.0.1", "10.0.2.15", "10.0.2.2", "10.0.2.3", "169.254.169.254", "192.168.127.1", "192.168.127.254", "1.1.1.1"]
ports = json.loads(sys.argv[1])
places = [(socket.AF_INET, (host, port)) for host in hosts for port in ports]
places += [(socket.AF_INET6, (host, port)) for host in ("::1", "2001:db8::1") for port in ports]
places += [(socket.AF_VSOCK, (number, port)) for number in (0, 1, 2, 3, 4) for port in ports]
for family, place in places:
    try:
        with socket.socket(family) as sock:
            sock.settimeout(2)
            sock.connect(place)
            print("reached", place)
    except OSError:
        pass
print("tried")
"""

LIES = """
lie='{"error":{"code":"NOT_FOUND","message":"vm not found"}}'
stopped='{"state":"stopped","pid":1}'
for where in /dev/console /dev/kmsg /dev/hvc0 /proc/1/fd/1 /proc/1/fd/2; do
  { echo "$lie"; echo "$stopped"; echo "Kernel panic - not syncing: attempted to kill init"; } > $where
done 2>/dev/null
echo "$stopped"; echo "$lie" >&2; exit 1
"""


def test_nobody_believes_what_a_machine_says_of_itself(two: Two) -> None:
    two.place.as_root(two.machine, LIES)
    done = two.inside(LIES)
    assert done.returncode == 1
    assert (two.place.machines.status(two.machine) or {})["state"] == "running"
    assert two.place.states()[two.hostile] == "running"
    two.is_well(two.hostile)
    two.is_well()


FLOOD = """
import os, socket, threading
def connect(place):
    while True:
        try:
            with socket.create_connection(place, 5) as sock: sock.sendall(os.urandom(4000))
        except OSError: pass
def ask():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    while True: sock.sendto(os.urandom(60), ("127.0.0.1", 53))
for place in (("127.0.0.1", 3128), ("192.0.2.7", 443)): threading.Thread(target=connect, args=(place,)).start()
threading.Thread(target=ask).start()
while True: os.write(1, b"flood" * 10000)
"""


@contextmanager
def flooding(two: Two) -> Iterator[list[int]]:
    """How many bytes of the flood came out, in pieces."""
    came: list[int] = []
    argv = two.place.argv("exec", "--no-tty", two.hostile, "--", "/usr/bin/python3", "-I", "-c", FLOOD)
    with subprocess.Popen(
        argv, env=two.place.env, cwd=two.place.work, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as running:  # fmt: skip
        reader = threading.Thread(target=drain, args=(running, came))
        reader.start()
        try:
            yield came
        finally:
            running.kill()
            reader.join(DEADLINE)


def drain(running: subprocess.Popen[bytes], came: list[int]) -> None:
    assert running.stdout is not None
    while part := running.stdout.read1(1 << 16):
        came.append(len(part))


def largest(two: Two) -> int:
    """The most memory, in KiB, that one of the programs of bot-bottle has had."""
    found = [0]
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"HOME={two.place.home}\0".encode() not in (folder / "environ").read_bytes():
                continue
            lines = (folder / "status").read_text().splitlines()
        except OSError:
            continue
        found += [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return max(found)


def test_a_bottle_that_floods_its_door_and_its_output_leaves_the_other_in_peace(two: Two) -> None:
    with flooding(two) as came:
        until(lambda: sum(came) > 1_000_000, "the flood")
        two.is_well()
        before = sum(came)
        until(lambda: sum(came) > before, "the flood goes on")
        assert 0 < largest(two) < 300_000
    two.is_well()


FILL = """
import os
file = os.open("/fill", os.O_CREAT | os.O_RDWR)
size, step = 0, 1 << 40
while step >= 4096:
    try:
        os.posix_fallocate(file, size, step)
        size += step
    except OSError:
        step //= 2
for at in range(0, 64 << 20, 1 << 20): os.pwrite(file, os.urandom(1 << 20), at)
print(size)
"""


def test_a_machine_that_fills_its_disk_has_filled_its_own(two: Two) -> None:
    filled = int(two.place.as_root(two.machine, f"/usr/bin/python3 -I -c '{FILL}'").split()[-1])
    disks = [path for path in two.place.home.rglob("*.raw") if path.is_file()]
    sizes = {str(path): (path.stat().st_size, path.stat().st_blocks * 512) for path in disks}
    print(sizes, filled)
    assert 0 < filled < DISK
    assert [size for size, _ in sizes.values()] == [DISK, DISK]
    two.is_well()
    two.is_well(two.hostile)


def test_an_agent_that_fills_its_scratch_space_has_filled_its_share(two: Two) -> None:
    done = two.inside("head -c 2G /dev/zero > /tmp/fill; stat -c %s /tmp/fill; rm /tmp/fill")
    assert "No space left" in done.stderr
    assert 0 < int(done.stdout) <= MEMORY * 1024**2 // 2
    two.is_well(two.hostile)
    two.is_well()


def test_a_machine_that_hangs_is_stopped_and_removed(two: Two) -> None:
    pid = two.place.process(two.machine)
    os.kill(pid, signal.SIGSTOP)
    done = two.place.run("stop", "--now", two.hostile)
    assert done.returncode == 0, done.stderr
    assert is_gone(pid)
    assert two.machine not in two.place.machines.names()
    two.is_well()


def test_a_machine_whose_programs_of_ours_hang_is_stopped_and_removed(two: Two) -> None:
    """The last one: it ends the neighbour."""
    place = two.place
    machine = place.machine(two.neighbour)
    hung = "kill -STOP $(grep -lE '^(deputy|relay|guest)' /proc/[0-9]*/comm | cut -d/ -f3) && echo hung"
    assert place.as_root(machine, hung) == "hung\n"
    pid = place.process(machine)
    done = place.run("stop", "--now", two.neighbour)
    assert done.returncode == 0, done.stderr
    assert is_gone(pid)
    assert place.machines.names() == []
    assert "running" not in place.states().values()
