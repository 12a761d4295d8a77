"""What bottles in machines are asked for and told: pure functions, held by examples and properties."""

import base64
import json
import runpy
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.backends.smolmachines import arguments, deputy, machine, place
from bot_bottle.plan.model import INSIDE_WORKSPACE, ImageSpec, Limits, Mount, Workspace
from support.backends import make_plan

ROOT = Path(__file__).parents[2]


def of_place(**changes):
    made = place.Place("name", 1000, 1000, 4 << 30, Limits(), passwd="root:x:0:0:root:/root:/bin/bash\n")
    return place.lines(made._replace(**changes))


def mounts(lines):
    return {line[2]: line for line in lines if line[0] in "mo"}


def test_the_agent_s_root_is_read_only_before_it_is_entered_and_that_is_the_last_thing():
    *_, before, last = of_place()
    assert last == ("r", place.ROOT)
    assert before[:3] == ("m", "none", place.ROOT)
    flags = int(before[4])
    assert flags & (1 | 2 | 4 | 32 | 4096) == 1 | 2 | 4 | 32 | 4096


def test_the_agent_s_place_has_no_device_that_reaches_the_machine_and_an_empty_sys():
    found = mounts(of_place())
    devices = {line[1] for line in found.values() if line[1].startswith("/dev/")}
    assert devices == {
        "/dev/pts",
        *(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty")),
    }
    assert found[f"{place.ROOT}/sys"][3] == "tmpfs"
    assert int(found[f"{place.ROOT}/dev"][4]) & 4096  # the last word on it is the remount
    assert int(found[f"{place.ROOT}/dev"][4]) & 1


def test_nothing_that_can_be_written_holds_set_user_id_files_or_devices():
    for line in of_place():
        if line[0] == "m" and line[3] == "tmpfs" and not line[2].endswith("/dev"):
            assert int(line[4]) & 6 == 6, line
    assert int(mounts(of_place())[place.ROOT + INSIDE_WORKSPACE][4]) & 6 == 6


def test_what_the_bottle_s_file_says_of_disk_bounds_all_scratch_space_together():
    lines = of_place(limits=Limits(disk=16 << 20))
    sizes = [
        int(line[5].rpartition("size=")[2]) for line in lines if "size=" in line[-1] and "k" not in line[-1]
    ]
    assert sum(sizes) <= 16 << 20


@pytest.mark.parametrize(
    ("passwd", "last"),
    [
        ("", "agent:x:1000:1000::/home/agent:/bin/sh"),
        (
            "root:x:0:0::/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/bash\n",
            "node:x:1000:1000::/home/agent:/bin/bash",
        ),
        ("root:x:0:0::/root:/bin/sh\nagent:x:7:7::/:/bin/sh\n", "agent:x:1000:1000::/home/agent:/bin/sh"),
    ],
)
def test_the_agent_has_one_entry_whatever_the_image_says(passwd, last):
    (written,) = (
        line[2] for line in of_place(passwd=passwd) if line[:2] == ("w", f"{place.ROOT}/etc/passwd")
    )
    rows = written.splitlines()
    assert rows[-1] == last
    assert [row.split(":")[2] for row in rows] == ["0", "1000"]


def test_a_machine_is_shown_the_workspace_writable_and_nothing_else_of_the_host_s(tmp_path):
    plan = make_plan(tmp_path, workspace=Workspace("/w", "mount"))
    made = machine.machine(plan, "/image", ())
    assert [folder for folder in made.folders if folder.writable] == [
        arguments.Folder("/w", "/workspace", writable=True)
    ]
    assert arguments.wrong(made) == []
    argv = arguments.create(made)
    assert not {"--net", "--port", "-e", "--env", "--allow-host", "--secret-env"} & set(argv)
    assert argv[argv.index("--") + 1] == "/.bottle/deputy"


def test_a_file_is_shown_with_the_folder_that_it_is_in_once():
    shown = [
        Mount("/t/list.pem", "/etc/ssl/certs/a.crt"),
        Mount("/t/own.pem", "/etc/b.crt"),
        Mount("/c", "/etc/ssl/certs"),
    ]
    folders, inside = machine.shown(shown, frozenset({"/c"}))
    assert [(folder.source, folder.writable) for folder in folders] == [("/t", False), ("/c", False)]
    assert [one.target for one in inside] == ["/etc/b.crt", "/etc/ssl/certs", "/etc/ssl/certs/a.crt"]
    assert inside[2].source == f"{folders[0].target}/list.pem"


@pytest.mark.parametrize(
    "changes",
    [
        {"workspace": Workspace("/w", "clone", "/copy")},
        {"bundle": "container"},
        {"runtime": "runsc"},
        {"limits": Limits(cpus=1.5)},
        {"mounts": (Mount("/a", "/b"),)},
    ],
)
def test_what_a_machine_can_t_keep_is_said_when_planning(tmp_path, changes):
    assert len(machine.mismatches(make_plan(tmp_path, **changes))) == 1


def test_a_tool_of_the_host_s_is_shown_as_a_layer(tmp_path):
    layer = Mount("/opt/tool", "/opt/tool")
    plan = make_plan(tmp_path, mounts=(layer,), image=ImageSpec(layers=(layer,)))
    assert machine.mismatches(plan) == []


# Messages


def test_orders_are_five_numbers_and_a_text():
    spawn = {
        "do": "spawn",
        "id": 3,
        "number": 4,
        "tty": True,
        "size": (24, 80),
        "channels": [9],
        "text": deputy.said(b"text"),
    }
    assert (
        deputy.pack(spawn)
        == struct.pack("<5I", ord("s"), 3, 4, 1, 24 << 16 | 80) + struct.pack("<4H", 9, 0, 0, 0) + b"text"
    )
    assert deputy.pack({"do": "signal", "number": 4, "signal": 15}) == struct.pack(
        "<5I", ord("k"), 0, 4, 15, 0
    )
    assert deputy.pack({"do": "size", "channel": 9, "size": (24, 80)}) == struct.pack(
        "<5I", ord("z"), 0, 9, 24, 80
    )


@given(st.binary(max_size=64))
def test_whatever_a_machine_says_is_one_of_three_things_or_refused(said):
    try:
        message = deputy.unpack(said)
    except ValueError:
        return
    assert set(message) in ({"re", "failed", "more"}, {"ended", "code"}, {"up"})
    json.dumps(message)


@given(st.integers(0, 2**32 - 1))
def test_every_end_that_a_machine_tells_of_is_an_exit_code(status):
    message = deputy.unpack(struct.pack("<5I", ord("e"), 0, 1, status, 0))
    assert 0 <= message["code"] <= 255


@given(st.binary(max_size=200))
def test_texts_arrive_as_they_were_said(text):
    assert base64.b64decode(deputy.said(text)) == text
    assert deputy.pack({"do": "write", "id": 1, "text": deputy.said(text)})[20:] == text


def test_the_deputy_that_is_kept_is_the_one_that_its_source_gives():
    folder = Path(deputy.program("x86_64")).parent
    digests = json.loads((folder / "built.json").read_text())
    tool = runpy.run_path(str(ROOT / "tools" / "make_relay.py"))
    assert tool["source_digest"](folder / "deputy.c") == digests["source"], "run tools/make_relay.py"
    import hashlib

    for name in ("x86_64", "aarch64"):
        assert hashlib.sha256((folder / f"deputy.{name}").read_bytes()).hexdigest() == digests[name]
