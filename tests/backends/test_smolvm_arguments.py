"""What smolvm is told, word by word, and what is never said to it."""

import pytest

from bot_bottle.backends.smolmachines import arguments
from bot_bottle.backends.smolmachines.arguments import Folder, Machine, MountedSocket

MACHINE = Machine(
    name="bottle-1",
    image="/data/images/abc",
    cpus=2,
    memory=1024,
    storage=8,
    command=("/.bottle/inside", "hold"),
    folders=(Folder("/run/b/1", "/.bottle"), Folder("/home/me/project", "/workspace", writable=True)),
    sockets=(MountedSocket("/run/b/1/door.sock", "/.door/door"),),
    labels=(("bot-bottle", "bottle-1"),),
)
JSON = ["--error-format", "json", "machine"]


def test_create_says_exactly_this_and_asks_for_no_network():
    assert arguments.create(MACHINE) == [
        *JSON, "create", "--name", "bottle-1", "--image", "/data/images/abc", "--cpus", "2", "--mem", "1024", "--storage", "8",
        "--volume", "/run/b/1:/.bottle:ro", "--volume", "/home/me/project:/workspace",
        "--mount-socket", "/run/b/1/door.sock:/.door/door", "--label", "bot-bottle=bottle-1",
        "--user", "0:0", "--", "/.bottle/inside", "hold",
    ]  # fmt: skip


def test_the_other_verbs_say_exactly_this():
    assert arguments.start("n") == [*JSON, "start", "--name", "n"]
    assert arguments.stop("n", seconds=3) == [*JSON, "stop", "--name", "n", "--timeout", "3"]
    assert arguments.delete("n") == [*JSON, "delete", "--name", "n", "--force"]
    assert arguments.status("n") == [*JSON, "status", "--name", "n", "--json"]
    assert arguments.listing() == [*JSON, "ls", "--json"]
    assert arguments.copy_in("n", "/a", "/b", mode=0o600) == [
        *JSON, "cp", "--mode", "600", "--uid", "0", "--gid", "0", "/a", "n:/b",
    ]  # fmt: skip
    assert arguments.execute("n", ["id", "-u"], user="0:0", seconds=9) == [
        *JSON, "exec", "--name", "n", "--user", "0:0", "--workdir", "/", "--timeout", "9s", "--", "id", "-u",
    ]  # fmt: skip


def test_a_sound_machine_has_nothing_wrong():
    assert arguments.wrong(MACHINE) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"folders": (Folder("relative", "/x"),)}, "absolute"),
        ({"folders": (Folder("/a:/etc", "/x"),)}, "colon"),
        ({"folders": (Folder("/a/../etc", "/x"),)}, "plain"),
        ({"folders": (Folder("/a", "/x\n"),)}, "control"),
        ({"folders": (Folder("/a", "/etc"),)}, "own"),
        ({"folders": (Folder("/a", "/usr/lib/x"),)}, "own"),
        ({"folders": (Folder("/a", "/"),)}, "plain"),
        ({"sockets": (MountedSocket("door.sock", "/x"),)}, "absolute"),
        ({"folders": (Folder("/a", "/x"), Folder("/b", "/x"))}, "twice"),
        ({"folders": (Folder("/a", "/x"),), "sockets": (MountedSocket("/b", "/x"),)}, "twice"),
        ({"command": ()}, "command"),
        ({"cpus": 0}, "processor"),
        ({"memory": 63}, "64 MiB"),
    ],
)
def test_what_smolvm_would_take_in_silence_is_found_before(change, said):
    assert said in "\n".join(arguments.wrong(MACHINE._replace(**change)))
