"""The part of the contract that says what a bottle is like inside, and what goes in and comes out. See `conformance.py`."""

import json
import os
import stat
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bot_bottle.backends import copying
from bot_bottle.backends.base import Bottle
from bot_bottle.backends.execution import run
from bot_bottle.plan.model import INSIDE_HOME, INSIDE_WORKSPACE, File, Mount, Trust
from bot_bottle.testing.bottles import (
    DEADLINE,
    ENVIRONMENT,
    SLEEP,
    MakeBottle,
    command,
    failure_of,
    python,
    shell,
    tree_of,
    until,
)
from bot_bottle.testing.probes import CONFINEMENT, REFUSALS, VISIBLE


class Confinement:
    """What is held back from whatever runs inside."""

    def test_the_environment_is_exactly_what_was_planned(self, make_bottle: MakeBottle) -> None:
        os.environ["BOTTLE_SUITE"] = "s"
        try:
            bottle = make_bottle(*SLEEP)
            done = run(bottle, command("env", "-0", EXTRA="a b"), timeout=DEADLINE)
        finally:
            del os.environ["BOTTLE_SUITE"]
        assert sorted(done.stdout.decode().rstrip("\0").split("\0")) == sorted(
            f"{name}={value}" for name, value in (*ENVIRONMENT, ("EXTRA", "a b"))
        )

    def test_no_descriptor_is_inherited(self, make_bottle: MakeBottle) -> None:
        leaked = os.open("/dev/null", os.O_RDONLY)
        os.set_inheritable(leaked, True)
        try:
            bottle = make_bottle("sh", "-c", "ls /proc/self/fd > agent; exec sleep 1000")
            assert shell(bottle, "ls /proc/self/fd").stdout.split() == [
                b"0",
                b"1",
                b"2",
                b"3",
            ]  # 3 is the folder
            agent = make_bottle.workspace / "agent"
            assert until(lambda: agent.exists() and agent.read_text(), "listed").split() == [
                "0",
                "1",
                "2",
                "3",
            ]
        finally:
            os.close(leaked)

    def test_there_are_no_privileges(self, make_bottle: MakeBottle) -> None:
        found = python(make_bottle(*SLEEP), CONFINEMENT)
        assert found["capabilities"] == ["0" * 16] * 5
        assert found["flags"] == {"NoNewPrivs": "1", "Seccomp": "2"}
        assert found["ids"] == [make_bottle.uid] * 6

    def test_limits_are_in_force(self, make_bottle: MakeBottle) -> None:
        limits = python(make_bottle(*SLEEP), CONFINEMENT)["limits"]
        assert limits["core"] == [0, 0]
        assert 0 < limits["files"][1] <= 65536

    def test_a_command_is_confined_exactly_as_the_agent_is(self, make_bottle: MakeBottle) -> None:
        script = f"/usr/bin/python3 -I -c '{CONFINEMENT}' > agent.tmp && mv agent.tmp agent; exec sleep 1000"
        bottle = make_bottle("sh", "-c", script)
        agent = make_bottle.workspace / "agent"
        until(agent.exists, "the agent told what it is")
        assert python(bottle, CONFINEMENT) == json.loads(agent.read_text())

    def test_the_kernel_s_dangerous_calls_are_refused(self, make_bottle: MakeBottle) -> None:
        allowed = [name for name, refused in python(make_bottle(*SLEEP), REFUSALS).items() if not refused]
        assert allowed == []

    def test_there_is_no_network_but_lo(self, make_bottle: MakeBottle) -> None:
        found = python(make_bottle(*SLEEP), VISIBLE)
        assert found["interfaces"] == ["lo"]
        assert found["routes"] == []

    def test_nothing_of_the_host_is_there(self, make_bottle: MakeBottle) -> None:
        found = python(make_bottle(*SLEEP), VISIBLE)
        assert found["home"] == []
        assert set(found["present"]) <= make_bottle.own_places
        own_users = range(1, 1000) if make_bottle.own_places else ()
        uids = sorted(int(uid) for uid in found["uids_in_passwd"] if int(uid) not in own_users)
        assert uids == [0, make_bottle.uid, 65534]

    def test_no_process_of_the_host_is_there(self, make_bottle: MakeBottle) -> None:
        bottle = make_bottle(*SLEEP)
        words = shell(bottle, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout
        assert b"pytest" not in words
        assert b"--unshare" not in words
        assert b"bind" not in words
        assert make_bottle.workspace.name.encode() not in words

    def test_process_1_can_t_be_looked_into(self, make_bottle: MakeBottle) -> None:
        script = "for file in mem environ maps fd root exe; do head -c 1 /proc/1/$file && echo $file; ls /proc/1/fd/; done"
        assert shell(make_bottle(*SLEEP), script + " 2>/dev/null").stdout == b""

    def test_the_held_agent_can_t_be_looked_into(self, make_bottle: MakeBottle) -> None:
        bottle = make_bottle(*SLEEP, release=False)
        script = """
        for process in /proc/[0-9]*; do
            case $process in /proc/$$) continue;; esac
            test -e $process/stat && head -c 1 $process/mem $process/environ && echo $process
            tr -d '\\0' < $process/cmdline
        done 2>/dev/null"""
        words = shell(bottle, script).stdout
        assert b"pytest" not in words
        assert b"/proc/" not in words

    def test_the_system_is_read_only(self, make_bottle: MakeBottle) -> None:
        script = "for place in / /usr /etc /dev /proc/sys /var; do touch $place/x 2>/dev/null && echo $place; done; true"
        assert shell(make_bottle(*SLEEP), script).stdout == b""

    def test_scratch_space_is_there_and_bounded(self, make_bottle: MakeBottle) -> None:
        script = f"for place in /tmp {INSIDE_HOME} /dev/shm /var/tmp; do touch $place/x && stat -f -c %b $place; done"
        sizes = shell(make_bottle(*SLEEP), script).stdout.split()
        assert len(sizes) == 4
        assert all(0 < int(blocks) * 4096 <= 2**32 for blocks in sizes)

    def test_no_set_user_id_file_can_be_made(self, make_bottle: MakeBottle) -> None:
        script = "cp /usr/bin/true x; chmod u+s x; chmod g+s x; install -m 4755 /usr/bin/true y; ls"
        shell(make_bottle(*SLEEP), script)
        for path in make_bottle.workspace.iterdir():
            assert not path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID)


class Files:
    """The workspace, and copying."""

    def test_the_workspace_s_files_belong_to_its_owner_on_both_sides(self, make_bottle: MakeBottle) -> None:
        (make_bottle.workspace / "private").write_text("read me")
        (make_bottle.workspace / "private").chmod(0o600)
        done = shell(
            make_bottle(*SLEEP), "cat private; stat -c %u private; echo made > made; stat -c %u made"
        )
        assert done.stdout.decode() == f"read me{make_bottle.uid}\n{make_bottle.uid}\n", done.said
        assert (make_bottle.workspace / "made").stat().st_uid == make_bottle.workspace.stat().st_uid

    def test_files_are_written_before_the_agent_runs(self, make_bottle: MakeBottle) -> None:
        bottle = make_bottle(*SLEEP, release=False)
        self._write(make_bottle, bottle, bottle.write_files)

    def test_files_are_written_while_the_agent_runs(self, make_bottle: MakeBottle) -> None:
        bottle = make_bottle(*SLEEP)
        self._write(make_bottle, bottle, bottle.write_files)

    def test_files_are_written_by_tar(self, make_bottle: MakeBottle) -> None:
        bottle = make_bottle(*SLEEP)
        self._write(make_bottle, bottle, lambda files: copying.write_files(bottle, files))

    def _write(
        self, make_bottle: MakeBottle, bottle: Bottle, write: Callable[[Sequence[File]], None]
    ) -> None:
        """They have their modes and belong to the agent; what is there is replaced; new folders are the agent's alone."""
        files = [
            File(target=f"{INSIDE_HOME}/.config/tool/settings", content=b"{}"),
            File(target=f"{INSIDE_HOME}/bin/run", content=b"#!/bin/sh\nexit 9\n", mode=0o755),
        ]
        shell(bottle, "cd; mkdir bin; ln -s /workspace/elsewhere bin/run; echo kept > elsewhere")
        write(files)
        stated = shell(
            bottle, "cd; stat -c '%a %u' .config .config/tool/settings bin/run; cat .config/tool/settings"
        ).stdout
        assert stated.decode() == "".join(f"{mode} {make_bottle.uid}\n" for mode in (700, 600, 755)) + "{}"
        assert shell(bottle, f"{INSIDE_HOME}/bin/run").code == 9
        assert not (make_bottle.workspace / "elsewhere").exists()

    def test_files_that_can_t_be_written_are_a_sandbox_error_that_names_one(
        self, make_bottle: MakeBottle
    ) -> None:
        files = [File(target=f"{INSIDE_HOME}/{name}", content=b"x" * 1_000_000) for name in ("a/b", "c")]
        for release in (False, True):
            bottle = make_bottle(*SLEEP, release=release)
            shell(bottle, "cd; touch a")
            assert "home/agent/a" in failure_of(partial(bottle.write_files, files)).details
            assert shell(bottle, "exit 7").code == 7
            bottle.destroy()
            failure_of(partial(bottle.write_files, files))

    def test_certificate_stores_show_at_once_what_is_written_outside_and_nothing_inside_writes_them(
        self, make_bottle: MakeBottle, tmp_path: Path
    ) -> None:
        file, target = tmp_path / "list.pem", "/etc/trusted.pem"
        file.write_text("one\n")
        file.chmod(0o666)  # so that nothing but the mount forbids it
        bottle = make_bottle(*SLEEP, trust=Trust(str(tmp_path), (Mount(str(file), target),)))
        assert shell(bottle, f"cat {target}").stdout == b"one\n"
        file.write_text("two\n")
        assert shell(bottle, f"cat {target}").stdout == b"two\n"
        assert shell(bottle, f"echo x >> {target}").code
        assert shell(bottle, f"chmod 666 {target} || rm {target}").code
        assert file.read_text() == "two\n"

    def test_a_folder_comes_back_as_it_went_in(self, make_bottle: MakeBottle, tmp_path: Path) -> None:
        source = tmp_path / "source"
        (source / "inner" / ("long" * 40)).mkdir(parents=True)
        (source / "inner" / "file ü\n").write_bytes(bytes(range(256)) * 1000)
        (source / "run").write_text("x")
        (source / "run").chmod(0o755)
        (source / "inner" / "link").symlink_to("../run")
        bottle = make_bottle(*SLEEP)
        copying.copy_in(bottle, str(source), "/tmp/there")  # noqa: S108 - inside
        assert copying.copy_out(bottle, "/tmp/there", str(tmp_path / "back")) == []  # noqa: S108
        assert tree_of(tmp_path / "back") == tree_of(source)

    def test_one_file_can_be_copied(self, make_bottle: MakeBottle, tmp_path: Path) -> None:
        bottle = make_bottle(*SLEEP)
        shell(bottle, "echo hello > one")
        copying.copy_out(bottle, f"{INSIDE_WORKSPACE}/one", str(tmp_path / "one"))
        assert (tmp_path / "one").read_text() == "hello\n"

    def test_what_is_not_there_can_t_be_copied(self, make_bottle: MakeBottle, tmp_path: Path) -> None:
        bottle = make_bottle(*SLEEP)
        failed = failure_of(lambda: copying.copy_out(bottle, "/nowhere", str(tmp_path / "out")))
        assert "nowhere" in failed.details

    def test_links_that_lead_out_and_devices_are_left_out(
        self, make_bottle: MakeBottle, tmp_path: Path
    ) -> None:
        bottle = make_bottle(*SLEEP)
        script = """mkdir -p d/x/y; cd d; ln -s /etc/passwd absolute; ln -s ../../out relative; ln -s ../.. x/y/up
        ln -s x/y/up/../.. chain; mkfifo fifo; ln -s x/y fine; touch kept"""
        assert shell(bottle, script).code == 0
        left_out = copying.copy_out(bottle, f"{INSIDE_WORKSPACE}/d", str(tmp_path / "d"))
        assert sorted(left_out) == ["absolute", "chain", "fifo", "relative"]
        assert sorted(path.name for path in (tmp_path / "d").rglob("*")) == ["fine", "kept", "up", "x", "y"]

    def test_more_than_is_allowed_does_not_come_out(self, make_bottle: MakeBottle, tmp_path: Path) -> None:
        bottle = make_bottle(*SLEEP)
        shell(bottle, "mkdir d; head -c 3000000 /dev/zero > d/big; touch d/1 d/2 d/3")
        for bounds in (copying.Bounds(size=1_000_000), copying.Bounds(members=3)):
            target = str(tmp_path / repr(bounds))
            copy = partial(copying.copy_out, bottle, f"{INSIDE_WORKSPACE}/d", target, bounds=bounds)
            assert "More" in failure_of(copy).brief
