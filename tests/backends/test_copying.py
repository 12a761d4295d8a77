"""Archives that a hostile bottle sends. The bottle here is a fake: what it `runs` is a file of bytes."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from bot_bottle.backends import copying
from bot_bottle.backends.base import Stdio
from bot_bottle.errors import SandboxError
from bot_bottle.host.spawn import Child
from bot_bottle.plan.model import Command


class Hostile:
    """A bottle in which every command sends `archive` and ends with `code`."""

    def __init__(self, archive: Path, code: int = 0) -> None:
        self.script = (
            f"import sys; sys.stdout.buffer.write(open({str(archive)!r},'rb').read()); sys.exit({code})"
        )

    def spawn(self, _: Command, stdio: Stdio) -> Child:
        process = subprocess.Popen(
            [sys.executable, "-c", self.script], stdin=stdio.stdin, stdout=stdio.stdout, stderr=stdio.stderr
        )
        process.returncode = 0  # the child is reaped by its pidfd
        return Child(process.pid)


def member(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"evil", **fields) -> tuple:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(content) if kind == tarfile.REGTYPE else 0
    info.mode = fields.pop("mode", 0o644)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


@pytest.fixture
def take(tmp_path: Path):
    def taken(*members: tuple, raw: bytes = b"", form: int = tarfile.GNU_FORMAT) -> tuple[Path, list[str]]:
        archive = tmp_path / "archive"
        with tarfile.open(archive, "w", format=form) as file:
            for info, content in members:
                file.addfile(info, io.BytesIO(content))
        if raw:
            archive.write_bytes(raw)
        target = tmp_path / "target"
        left_out = copying.copy_out(Hostile(archive), "/workspace/d", str(target), timeout=30)
        return target, left_out

    return taken


DIR = member("./d", tarfile.DIRTYPE, mode=0o755)


@pytest.mark.parametrize(
    "name",
    [
        "./d/../../out",
        "/etc/out",
        "../out",
        "./e",
        "d/./../x",
        "./d//x",
        "./d/" + "x/" * 200 + "y",
        "./d/..",
        "./d/.",
    ],
)
def test_a_name_that_leads_elsewhere_ends_it(take, tmp_path: Path, name: str) -> None:
    with pytest.raises(SandboxError):
        take(DIR, member(name))
    assert not (tmp_path / "out").exists()
    assert not (tmp_path.parent / "out").exists()


def test_nothing_is_written_through_a_link(take, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    with pytest.raises(SandboxError):
        take(
            DIR,
            member("./d/real", tarfile.DIRTYPE, mode=0o755),
            member("./d/link", tarfile.SYMTYPE, linkname="real"),
            member("./d/link/file"),
        )
    assert list((tmp_path / "target" / "real").iterdir()) == []


def test_links_out_hard_links_and_devices_are_left_out(take) -> None:
    target, left_out = take(
        DIR,
        member("./d/a", tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("./d/b", tarfile.SYMTYPE, linkname="../x"),
        member("./d/c", tarfile.LNKTYPE, linkname="/etc/passwd"),
        member("./d/e", tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("./d/f", tarfile.FIFOTYPE),
        member("./d/g", tarfile.SYMTYPE, linkname="x/../../y"),
    )
    assert left_out == ["a", "b", "c", "e", "f", "g"]
    assert os.listdir(target) == []


def test_the_whole_can_t_be_a_link(take, tmp_path: Path) -> None:
    _, left_out = take(member("./d", tarfile.SYMTYPE, linkname="etc"))
    assert left_out == ["d"]
    assert not os.path.lexists(tmp_path / "target")


def test_set_id_bits_do_not_come_out(take) -> None:
    target, _ = take(DIR, member("./d/x", mode=0o6755))
    assert (target / "x").stat().st_mode & 0o7777 & ~0o755 == 0


def test_the_same_name_twice_ends_it(take) -> None:
    with pytest.raises(SandboxError):
        take(DIR, member("./d/x"), member("./d/x"))


def test_headers_that_would_fill_the_memory_end_it(take) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_SPARSE):
        info = tarfile.TarInfo("x")
        info.type, info.size = kind, 1 << 40
        with pytest.raises(SandboxError):
            take(raw=info.tobuf(tarfile.GNU_FORMAT) + bytes(100_000))


@pytest.mark.parametrize("raw", [b"x", b"x" * 512, os.urandom(5000), bytes(512), DIR[0].tobuf()[:300]])
def test_garbage_is_an_error_or_nothing(take, tmp_path: Path, raw: bytes) -> None:
    try:
        assert take(raw=raw)[1] == []
    except SandboxError:
        pass
    assert not (tmp_path / "target").exists() or list((tmp_path / "target").iterdir()) == []


def test_a_second_name_of_a_file_that_came_becomes_a_file_of_its_own(take) -> None:
    target, left_out = take(
        DIR,
        member("./d/x", content=b"words"),
        member("./d/y", tarfile.LNKTYPE, linkname="./d/x"),
        member("./d/z", tarfile.LNKTYPE, linkname="./d/not-there"),
        member("./d/w", tarfile.LNKTYPE, linkname="./d/../../x"),
    )
    assert left_out == ["z", "w"]
    assert (target / "y").read_bytes() == b"words"
    assert (target / "x").stat().st_nlink == 1
