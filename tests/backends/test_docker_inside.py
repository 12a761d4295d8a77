"""What an agent in a container tries, beside what `testing/conformance.py` tries in every bottle."""

import itertools
import json
import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from bot_bottle.backends import guest
from bot_bottle.backends.docker import container, door
from bot_bottle.backends.execution import run
from bot_bottle.door.model import Listener
from bot_bottle.door.passing import receive_listeners
from bot_bottle.errors import SandboxError
from bot_bottle.plan.model import ImageSpec, Limits
from bot_bottle.testing.conformance import DEADLINE, SLEEP, command, python, shell, until
from support.backends import make_plan

HANDOVER = "\\0bot-bottle"
DIAL = """
import json, socket
said = []
for family, address in TARGETS:
    sock = socket.socket(family)
    sock.settimeout(3)
    try:
        sock.connect(tuple(address) if isinstance(address, list) else address)
        said.append("reached")
    except OSError as error:
        said.append(error.strerror or "timed out")
print(json.dumps(said))
"""


def dial(bottle, *targets) -> list[str]:
    return python(bottle, DIAL.replace("TARGETS", repr([list(target) for target in targets])))


def own_addresses() -> list[str]:
    """Every address of this host, the bridge's gateway among them."""
    lines = Path("/proc/net/fib_trie").read_text().splitlines()
    found = [before.split()[-1] for before, line in itertools.pairwise(lines) if "/32 host LOCAL" in line]
    return sorted({*found, "172.17.0.1"})


@pytest.fixture
def everywhere():
    """A server of the host's on every address; tells whether somebody came."""
    heard: list[object] = []
    with socket.create_server(("0.0.0.0", 0)) as server:

        def hear() -> None:
            while True:
                try:
                    heard.append(server.accept())
                except OSError:
                    return

        listening = threading.Thread(target=hear)
        listening.start()
        yield server.getsockname()[1], heard
        server.shutdown(socket.SHUT_RDWR)
        listening.join(10)


@pytest.mark.docker
def test_no_address_of_the_host_and_no_other_bottle_answers(make_bottle, everywhere) -> None:
    port, heard = everywhere
    other = make_bottle("python3", "-m", "http.server", str(port), "--bind", "0.0.0.0")
    until(lambda: dial(other, (2, ["127.0.0.1", port])) == ["reached"], "the other's server")
    bottle = make_bottle(*SLEEP)
    places = [*own_addresses(), "169.254.169.254"]
    assert "reached" not in dial(bottle, *((2, [place, port]) for place in places))
    ours, theirs = socket.socketpair()
    with ours, theirs:  # with the door open every address is the bottle's own, and still nobody else's
        bottle.open_door([Listener("http", "0.0.0.0", 80)], theirs)
        [listener] = receive_listeners(ours, 1, DEADLINE)
        with listener:
            assert set(dial(bottle, *((2, [place, port]) for place in places))) == {"Connection refused"}
    assert heard == []


@pytest.mark.docker
def test_no_name_is_resolved(make_bottle) -> None:
    script = "import json, socket\ntry: print(json.dumps(socket.getaddrinfo('example.org', 80)))\nexcept OSError: print('[]')"
    assert python(make_bottle(*SLEEP), script) == []
    assert shell(make_bottle(*SLEEP), "cat /etc/resolv.conf").stdout.split()[:2] == [
        b"nameserver",
        b"127.0.0.1",
    ]


@pytest.mark.docker
def test_the_socket_over_which_process_1_was_taken_is_gone(make_bottle) -> None:
    assert dial(make_bottle(*SLEEP), (1, "\0bot-bottle")) == ["Connection refused"]


@pytest.mark.docker
def test_process_1_can_t_be_killed_stopped_or_traced(make_bottle) -> None:
    bottle = make_bottle(*SLEEP)
    script = """
import ctypes, json, os, signal
for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE, signal.SIGUSR1):
    os.kill(1, number)
libc = ctypes.CDLL(None, use_errno=True)
said = [libc.ptrace(kind, 1, 0, 0) for kind in (16, 0x4206)]
try: said.append(ctypes.CDLL(None).syscall(438, os.pidfd_open(1), 0, 0))
except OSError: said.append(-1)
print(json.dumps(said))
"""
    assert python(bottle, script) == [-1, -1, -1]
    assert shell(bottle, "exit 3").code == 3


@pytest.mark.docker
def test_an_agent_that_kills_everything_it_can_ends_itself_alone(make_bottle) -> None:
    bottle = make_bottle(*SLEEP)
    shell(bottle, "kill -9 -1")
    assert bottle.agent.wait(DEADLINE) == 137
    assert shell(bottle, "exit 3").code == 3


@pytest.mark.docker
def test_the_door_s_helper_is_not_taken_in_by_an_agent_that_waits_for_it(make_bottle) -> None:
    """It hands nothing over while an agent runs, sees nothing of it and is in no place where it could be seen."""
    bottle = make_bottle(*SLEEP)
    script = """
import os, socket, time
server = socket.socket(socket.AF_UNIX)
server.bind("\\0bot-bottle"); server.listen(); server.setblocking(False)
os.write(1, b"ready")
seen = set()
while not os.path.exists("/workspace/stop"):
    try: seen.add(repr(server.accept()))
    except OSError: pass
    for pid in os.listdir("/proc"):
        try: seen.add(open(f"/proc/{pid}/cmdline").read())
        except OSError: pass
open("/workspace/seen.tmp", "w").write("\\n".join(seen)); os.rename("/workspace/seen.tmp", "/workspace/seen")
"""
    reader, writer = os.pipe()
    with open(os.devnull, "r+b") as nothing:
        stdio = (nothing.fileno(), writer, nothing.fileno())
        from bot_bottle.backends.base import Stdio

        bottle.spawn(command("/usr/bin/python3", "-c", script), Stdio(*stdio))
    os.close(writer)
    assert os.read(reader, 10) == b"ready"
    os.close(reader)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        bottle.open_door([Listener("http", "0.0.0.0", 80)], theirs)
        [listener] = receive_listeners(ours, 1, DEADLINE)
        listener.close()
    (make_bottle.workspace / "stop").touch()
    until((make_bottle.workspace / "seen").exists, "its end")
    seen = (make_bottle.workspace / "seen").read_text().split("\n")
    assert "/.bottle\0" in seen, "it did look"
    assert [line for line in seen if "door" in line or line.startswith("(<socket")] == []


@pytest.mark.docker
def test_our_program_in_an_agent_s_hands_opens_nothing(make_bottle) -> None:
    bottle = make_bottle(*SLEEP)
    assert shell(bottle, "/.bottle door; echo $?").stdout == b"2\n"
    assert shell(bottle, "ls -ld /door; ls -l / | grep -c door").stdout == b"0\n"


@pytest.mark.docker
def test_of_the_run_s_own_folder_three_small_files_are_inside(make_bottle) -> None:
    bottle = make_bottle(*SLEEP)
    mounts = shell(bottle, "cat /proc/self/mountinfo").stdout.decode()
    run = make_bottle.plan.paths.run
    shown = {line.split()[4]: line.split()[5] for line in mounts.splitlines() if run in line}
    assert sorted(shown) == ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"]
    assert all(options.startswith("ro,") for options in shown.values())
    assert shell(bottle, "getent hosts localhost $(hostname)").stdout.count(b"127.0.0.1") == 2
    assert "docker.sock" not in mounts
    assert shell(bottle, "find / -xdev -type s 2>/dev/null").stdout == b""


@pytest.mark.docker
def test_our_seccomp_rules_come_on_top_of_the_engine_s(make_bottle) -> None:
    """fchmodat2 is newer than the library that engines make their rules with; ours name it by its number."""
    script = """
import ctypes, json, os
open("/tmp/x", "w").close()
libc = ctypes.CDLL(None, use_errno=True)
result = libc.syscall(ctypes.c_long(452), ctypes.c_long(-100), b"/tmp/x", ctypes.c_long(0o4755), ctypes.c_long(0))
print(json.dumps([result, ctypes.get_errno(), os.stat("/tmp/x").st_mode & 0o6000]))
"""
    assert python(make_bottle(*SLEEP), script) == [-1, 1, 0]


@pytest.mark.docker
def test_a_bottle_that_is_full_of_processes_is_told_so_and_still_ends(make_bottle) -> None:
    script = """
import os, time
while True:
    try:
        if os.fork() == 0: time.sleep(1000)
    except OSError: time.sleep(0.01)
"""
    bottle = make_bottle("python3", "-c", script, limits=Limits(pids=30))

    def refused() -> bool:
        try:
            shell(bottle, "true")
        except SandboxError as error:
            return "fork" in error.details
        return False

    until(refused, "a spawn is refused")
    bottle.destroy()
    assert bottle.agent.poll() == 137


@pytest.mark.docker
def test_what_can_t_be_started_for_its_size_is_126_and_the_next_command_works(make_bottle) -> None:
    bottle = make_bottle(*SLEEP)
    assert run(bottle, command("true", "x" * (5 << 20)), timeout=DEADLINE).code == 126
    assert run(bottle, command("true", "x" * 3_000_000), timeout=DEADLINE).code == 126
    assert run(bottle, command("true", "a\0b"), timeout=DEADLINE).code == 126
    assert shell(bottle, "exit 3").code == 3


def test_the_agent_s_container_has_no_network_no_capability_and_no_path_but_the_workspace(tmp_path) -> None:
    plan = make_plan(tmp_path, backend="docker", limits=Limits(memory=1 << 30, cpus=1.5, pids=10))
    asked = json.loads(json.dumps(container.body(plan, "image", (1000, 1000), container.mounts(plan))))
    host = asked["HostConfig"]
    assert (host["NetworkMode"], host["CapDrop"], host["ReadonlyRootfs"]) == ("none", ["ALL"], True)
    assert "no-new-privileges" in host["SecurityOpt"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"], host["PidsLimit"]) == (
        1 << 30,
        1 << 30,
        1_500_000_000,
        11,
    )
    assert [mount["Target"] for mount in host["Mounts"]] == ["/workspace"]
    dangerous = {"Binds", "CapAdd", "Devices", "DeviceRequests", "ExtraHosts", "GroupAdd", "Links", "PidMode", "Privileged",
                 "PublishAllPorts", "PortBindings", "Sysctls", "UTSMode", "UsernsMode", "VolumesFrom"}  # fmt: skip
    assert not dangerous & {*host, *asked}
    assert asked["User"] == "1000:1000"


def test_the_helper_may_configure_the_agent_s_network_and_sees_the_door_s_folder_alone() -> None:
    host = json.loads(json.dumps(door.body("image", "agent", "/run/x/door", {})))["HostConfig"]
    assert host["NetworkMode"] == "container:agent"
    assert (host["CapDrop"], host["CapAdd"]) == (["ALL"], ["NET_ADMIN", "NET_BIND_SERVICE"])
    assert [(mount["Source"], mount["ReadOnly"]) for mount in host["Mounts"]] == [("/run/x/door", True)]
    assert "PidMode" not in host
    assert "IpcMode" not in host


def test_a_mount_that_is_not_in_the_image_is_refused_by_name(tmp_path) -> None:
    from bot_bottle.plan.model import Mount

    tool = Mount("/usr/bin/tool", "/opt/tool")
    plan = make_plan(tmp_path, backend="docker", mounts=(tool,))
    assert "/usr/bin/tool" in container.mismatches(plan)[0]
    assert container.mismatches(plan._replace(image=ImageSpec(layers=(tool,)))) == []


@pytest.mark.namespace
@pytest.mark.root
def test_the_helper_touches_no_network_that_has_more_than_lo(tmp_path) -> None:
    """Were an engine ever to put the agent's container into the host's network, the door would cut the host off."""
    program, folder = tmp_path / "guest", tmp_path / "door"
    program.write_bytes(guest.program())
    program.chmod(0o755)
    helper = door.Helper(None, "", str(folder))  # type: ignore[arg-type]  # nothing is started by an engine
    script = """
        ip link add other type veth && ip address add 10.9.9.9/24 dev other || exit 9
        bwrap --tmpfs / --ro-bind "$1" /guest --bind "$2" /door /guest door
        ip route show table all type local | grep -c default
    """
    argv = ["unshare", "--net", "sh", "-c", script, "sh", str(program), str(folder)]
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        helper.wait()
        ours, theirs = socket.socketpair()
        with ours, theirs, pytest.raises(SandboxError) as caught:
            helper.open([Listener("http", "0.0.0.0", 80)], theirs)
    finally:
        helper.close()
        said, _ = child.communicate(timeout=DEADLINE)
    assert "has no network" in caught.value.details
    assert said == "0\n"
