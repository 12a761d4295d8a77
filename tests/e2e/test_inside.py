"""What an agent finds inside its bottle, and what it does not: tried from inside, as root's bottle and as a user's."""

import json
import os
import resource
import socket
import threading

import pytest

from support.backends import on_every_backend
from support.bottles import write_agent, write_bottle, write_script

pytestmark = on_every_backend

HUNT = r"""
cat /proc/*/environ /proc/*/cmdline 2>/dev/null; env
find / -xdev -type f -newermt -1day -size -64k -not -path '/proc/*' -not -path '/usr/*' -exec cat {} + 2>/dev/null
true
"""
MODEL = {
    "host": "m.example.org",
    "protocol": "http",
    "upstream": "https://127.0.0.1:9",
    "credential": "model",
}
LOOK = r"""
import json, os, pathlib, resource, socket
status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
print(json.dumps({
    "caps": {name: status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")},
    "no_new_privs": status["NoNewPrivs"], "seccomp": status["Seccomp"], "uid": os.getuid(),
    "routes": [line.split()[0] for line in open("/proc/net/route").read().splitlines()[1:]],
    "interfaces": sorted(name for _, name in socket.if_nameindex()),
    "environment": dict(os.environ), "descriptors": sorted(os.listdir("/proc/self/fd")),
    "processes": [pathlib.Path(f"/proc/{p}/cmdline").read_bytes().decode() for p in os.listdir("/proc") if p.isdigit()],
    "roots": sorted(os.listdir("/")), "home": sorted(os.listdir(os.environ["HOME"])),
    "core": resource.getrlimit(resource.RLIMIT_CORE), "files": resource.getrlimit(resource.RLIMIT_NOFILE),
    "pids": resource.getrlimit(resource.RLIMIT_NPROC),
}))
"""


@pytest.fixture
def seen(place, cli, repository):
    """What a Python program inside saw."""
    write_agent(place, "look", ["python3", "-c", LOOK])
    done = cli("start", "look", "--headless")
    assert done.code == 0, done.stderr
    return json.loads(done.stdout)


def test_an_agent_has_no_capability_no_privilege_and_no_network_but_lo(seen):
    assert {int(value, 16) for value in seen["caps"].values()} == {0}
    assert (seen["no_new_privs"], seen["seccomp"]) == ("1", "2")
    assert seen["interfaces"] == ["lo"]
    assert seen["routes"] in ([], ["lo"])


def test_an_agent_is_nobody_on_the_host(seen, place):
    """It is root nowhere; where nothing maps users, it is the operator, or the image's own user."""
    assert seen["uid"] == (1000 if place.backend == "namespace" else place.uid or 1000)


def test_an_agent_gets_the_planned_environment_and_nothing_of_the_hosts(seen, place, cli):
    shown = cli("plan", "look", "--headless", "--json")
    planned = json.loads(shown.stdout)["command"]["env"]
    found = {
        name: value
        for name, value in seen["environment"].items()
        if name not in ("PWD", "_", "SHLVL", "OLDPWD")
    }
    assert found.pop("BOT_BOTTLE").startswith("look-")
    planned.pop("BOT_BOTTLE")
    assert found == planned
    assert place.token not in json.dumps(seen)


def test_an_agent_inherits_no_descriptor_and_sees_no_process_of_the_host(seen):
    assert seen["descriptors"] in (["0", "1", "2"], ["0", "1", "2", "3"])  # 3: the folder being listed
    assert len(seen["processes"]) <= 4
    assert not any("bwrap\0--" in line or "/tmp/bb-" in line for line in seen["processes"])


def test_an_agents_limits_are_in_force(seen, place):
    assert seen["core"] == [0, 0]
    assert seen["files"] == [min(65536, resource.getrlimit(resource.RLIMIT_NOFILE)[1])] * 2
    if (
        place.backend == "namespace"
    ):  # with users of its own; a container's processes are counted by its control group
        assert 0 < seen["pids"][1] <= 4096


def test_nothing_of_the_hosts_homes_and_sockets_is_there(place, cli, repository):
    (place.home / "secret.txt").write_text("the operator's own")
    targets = [
        place.home,
        place.home / "secret.txt",
        "/var/run/docker.sock",
        "/run/docker.sock",
        *(("/root", "/etc/shadow", "/boot") if place.backend == "namespace" else ()),  # an image has its own
        "/work",
    ]
    script = "\n".join(f"ls -d {target} 2>/dev/null" for target in targets) + "\nls -A /home"
    write_script(place, "look", script)
    done = cli("start", "look", "--headless")
    assert done.stdout.split() == ["agent"], done.stdout


def test_a_secret_of_the_operator_is_nowhere_inside(place, cli, repository):
    write_bottle(
        place,
        credentials={"model": {"from": {"env": "MODEL_KEY"}, "header": "x-api-key"}},
        egress={"routes": [MODEL]},
    )
    write_script(place, "hunt", HUNT)
    done = cli("start", "hunt", "--headless", env={"MODEL_KEY": "sk-very-secret-value"})
    assert done.code == 0, done.stderr
    assert "BOT_BOTTLE" in done.stdout
    assert "sk-very-secret-value" not in done.stdout
    kept = b"".join(path.read_bytes() for path in place.home.rglob("*") if path.is_file())
    assert b"sk-very-secret-value" not in kept


def test_the_host_s_loopback_and_abstract_sockets_are_out_of_reach(place, cli, repository):
    server = socket.create_server(("0.0.0.0", 0))
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind(f"\0bot-bottle-test-{os.getpid()}")
    abstract.listen()
    heard: list[object] = []

    def hear() -> None:
        try:
            heard.append(server.accept())
        except OSError:  # nobody came, and the end was told
            pass

    listening = threading.Thread(target=hear)
    listening.start()
    code = f"""
import socket
targets = [
    (socket.AF_INET, ("127.0.0.1", {server.getsockname()[1]})),
    (socket.AF_UNIX, "\\0bot-bottle-test-{os.getpid()}"),
]
for family, address in targets:
    try:
        socket.socket(family).connect(address); print("reached", address)
    except OSError as error:
        print("refused")
"""
    write_agent(place, "dial", ["python3", "-c", code])
    done = cli("start", "dial", "--headless")
    server.shutdown(socket.SHUT_RDWR)
    listening.join(10)
    server.close()
    abstract.close()
    assert done.stdout.split() == ["refused", "refused"], done.stdout + done.stderr
    assert not heard


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "10.0.0.1", "192.0.2.1", "[::1]", "[fd00::1]", "[2001:db8::1]"]
)
def test_no_address_answers_for_itself(place, cli, repository, address):
    write_script(
        place,
        "dial",
        f"curl -sS -m 5 --noproxy '*' http://{address}/ -o /dev/null -w '%{{http_code}}'; exit 0",
    )
    done = cli("start", "dial", "--headless")
    assert done.stdout.strip() in ("403", "000"), done.stdout
