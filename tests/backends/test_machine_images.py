"""Root file systems for microVMs: whatever an archive says stays in its folder, and an image is made once and whole."""

import hashlib
import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot_bottle.backends.smolmachines import archives, images
from bot_bottle.backends.smolmachines.unpacking import BOUNDS, Bounds, Unpacking
from bot_bottle.errors import BotBottleError, HostError, NotFoundError, PlanError
from bot_bottle.plan.model import ImageSpec
from support import engine as engines
from support.waiting import wait_for


def said_to_nobody(_):
    """Hears what is done."""


def entry(name, content=b"", *, kind=tarfile.REGTYPE, link="", mode=0o644):
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode, made.size = kind, link, mode, len(content)
    return made, content


def folder(name, mode=0o755):
    return entry(name, kind=tarfile.DIRTYPE, mode=mode)


def tar(*entries, compression=""):
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode=f"w:{compression}") as archive:
        for made, content in entries:
            archive.addfile(made, io.BytesIO(content))
    return held.getvalue()


ROOT_FS = (
    folder("etc"),
    folder("tmp", 0o1777),
    folder("usr"),
    folder("usr/bin"),
    entry("usr/bin/tool", b"tool", mode=0o4755),
)


def unpack(root, *layers, layered=False, bounds=BOUNDS):
    into = Unpacking(str(root), bounds)
    try:
        for layer in layers:
            if layered:
                with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
                    into.take_away(archive)
            with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
                into.add(archive, layered=layered)
    finally:
        into.close()
    return into


@pytest.fixture
def place(tmp_path):
    """A root to unpack into, beside a file that nobody may touch."""
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/precious").write_text("as it was")
    yield tmp_path
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["precious"]
    assert (tmp_path / "outside/precious").read_text() == "as it was"


@pytest.mark.parametrize(
    "hostile",
    [
        [entry("../outside/new", b"x")],
        [entry("a/../../outside/precious", b"x")],
        [entry("out", kind=tarfile.SYMTYPE, link="../outside"), entry("out/precious", b"x")],
        [entry("out", kind=tarfile.SYMTYPE, link="{outside}"), entry("out/new", b"x")],
        [entry("out", kind=tarfile.SYMTYPE, link="../outside"), folder("out/new")],
        [entry("hard", kind=tarfile.LNKTYPE, link="../outside/precious"), entry("hard", b"x")],
        [
            entry("out", kind=tarfile.SYMTYPE, link="../outside"),
            entry("hard", kind=tarfile.LNKTYPE, link="out/precious"),
        ],
        [entry("/".join(["d"] * 500), b"x")],
        [entry("n" * 4000, b"x")],
    ],
)
def test_nothing_is_written_outside(place, hostile):
    outside = str(place / "outside")
    entries = []
    for made, content in hostile:
        made.linkname = made.linkname.replace("{outside}", outside)
        entries.append((made, content))
    with pytest.raises(HostError):
        unpack(place / "root", tar(*entries))


def test_absolute_names_are_names_below_the_root(place):
    unpack(place / "root", tar(entry(f"{place}/outside/precious", b"x"), entry("/etc/passwd", b"root")))
    assert (place / "root/etc/passwd").read_text() == "root"


def test_a_file_that_was_a_link_is_written_as_a_file(place):
    link = entry("etc/shadow", kind=tarfile.SYMTYPE, link="../../outside/precious")
    unpack(place / "root", tar(link), tar(entry("etc/shadow", b"new")))
    assert not (place / "root/etc/shadow").is_symlink()
    assert (place / "root/etc/shadow").read_text() == "new"


def test_a_link_is_kept_as_it_stands_and_a_folder_takes_its_place(place):
    link = entry("lib", kind=tarfile.SYMTYPE, link="/usr/lib")
    unpack(place / "root", tar(link))
    assert os.readlink(place / "root/lib") == "/usr/lib"
    unpack(place / "root", tar(folder("lib"), entry("lib/x", b"x")))
    assert (place / "root/lib/x").read_bytes() == b"x"


def test_devices_pipes_and_rights_to_become_somebody_else_are_not_kept(place):
    unpack(
        place / "root",
        tar(
            entry("dev/sda", kind=tarfile.BLKTYPE),
            entry("dev/null", kind=tarfile.CHRTYPE),
            entry("pipe", kind=tarfile.FIFOTYPE),
            entry("su", b"x", mode=0o6755),
            folder("g", 0o2000),
        ),
    )
    root = place / "root"
    assert sorted(path.name for path in root.rglob("*")) == ["dev", "g", "su"] or not list(
        (root / "dev").iterdir()
    )
    assert stat.S_IMODE((root / "su").stat().st_mode) == 0o755
    assert stat.S_IMODE((root / "g").stat().st_mode) == 0o700


@pytest.mark.parametrize("bounds", [Bounds(size=10), Bounds(entries=3)])
def test_an_image_has_bounds(place, bounds):
    layer = tar(*(entry(f"file{number}", b"0123456789") for number in range(4)))
    with pytest.raises(HostError, match="can't be unpacked") as refused:
        unpack(place / "root", layer, bounds=bounds)
    assert "more than" in str(refused.value.details)


@pytest.mark.parametrize("when", ["1e400", "-1e19", "nan"])
def test_a_time_that_no_file_can_have_is_an_error_in_words(place, when):
    made, content = entry("etc/x", b"x")
    made.pax_headers = {"mtime": when}
    with pytest.raises(HostError, match="can't be unpacked"):
        unpack(place, tar((made, content)))


@pytest.mark.parametrize("cut", [1, 600, 1500])
def test_an_archive_that_ends_too_early_is_refused(place, cut):
    whole = tar(entry("a", b"x" * 3000), entry("b", b"y"))
    path = place / "cut.tar"
    path.write_bytes(whole[:cut])
    into = Unpacking(str(place / "root"))
    with pytest.raises(HostError):
        with path.open("rb") as file:
            archives.unpack(file, into, said_to_nobody)
    into.close()


def test_what_a_layer_takes_away_is_gone_and_its_own_files_stay(place):
    below = tar(folder("a"), entry("a/old", b"x"), entry("a/kept", b"x"), folder("b"), entry("b/old", b"x"))
    above = tar(entry("a/.wh.old"), entry("b/new", b"n"), entry("b/.wh..wh..opq"), entry(".wh.nothing-there"))
    unpack(place / "root", below, above, layered=True)
    found = {str(path.relative_to(place / "root")) for path in (place / "root").rglob("*")}
    assert found == {"a", "a/kept", "b", "b/new"}


@pytest.mark.parametrize("name", [".wh.", ".wh...", ".wh..", "a/.wh.."])
def test_no_layer_takes_away_what_is_not_its_own(place, name):
    with pytest.raises(HostError):
        unpack(place / "root", tar(entry(name)), layered=True)


_names = st.lists(
    st.sampled_from(["a", "b", "..", ".", "", ".wh.a", ".wh..wh..opq", "x" * 300, "\udcff", "/"]), min_size=1, max_size=4
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    entries=st.lists(
        st.tuples(
            _names,
            st.sampled_from(
                [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE]
            ),
            _names,
        ),
        max_size=8,
    ),
    layered=st.booleans(),
)
def test_whatever_an_archive_has_stays_inside(tmp_path_factory, entries, layered):
    top = tmp_path_factory.mktemp("any")
    (top / "root").mkdir()
    (top / "a").write_text("as it was")
    made = [
        entry("/".join(name), b"x" if kind == tarfile.REGTYPE else b"", kind=kind, link="/".join(link))
        for name, kind, link in entries
    ]
    try:
        unpack(top / "root", tar(*made), layered=layered)
    except BotBottleError:
        pass
    assert sorted(os.listdir(top)) == ["a", "root"]
    assert (top / "a").read_text() == "as it was"
    assert (top / "a").stat().st_nlink == 1
    shutil.rmtree(top)


# What archives are


def blob(content):
    return f"blobs/sha256/{hashlib.sha256(content).hexdigest()}", content


def described(content, **more):
    return {"digest": f"sha256:{hashlib.sha256(content).hexdigest()}", "size": len(content), **more}


def oci(*layers, machine="amd64", spoiled=False):
    """An OCI layout with an index of machines in its index."""
    config = json.dumps({"config": {"Env": ["PATH=/opt/bin:/usr/bin"]}}).encode()
    manifest = json.dumps(
        {"config": described(config), "layers": [described(one) for one in layers]}
    ).encode()
    machines = json.dumps({"manifests": [described(manifest, platform={"architecture": machine})]}).encode()
    index = json.dumps({"manifests": [described(machines)]}).encode()
    blobs = [blob(one) for one in (config, manifest, machines)]
    blobs += [(blob(one)[0], one[:-1] + b"!" if spoiled else one) for one in layers]
    named = [("oci-layout", b"{}"), ("index.json", index), *blobs]
    return tar(*(entry(name, content) for name, content in named))


def prepared(path, cache, say=said_to_nobody):
    return images.prepare(ImageSpec(reference=str(path)), cache=str(cache), say=say)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def machine():
    return {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]


@pytest.mark.parametrize("compression", ["", "gz", "xz"])
def test_an_oci_archive_is_put_together_from_its_layers(tmp_path, cache, compression):
    path = tmp_path / "image.tar"
    above = tar(entry("usr/bin/.wh.tool"), entry("usr/bin/other", b"o"), compression=compression)
    path.write_bytes(oci(tar(*ROOT_FS), above, machine=machine()))
    image = prepared(path, cache)
    assert sorted(os.listdir(f"{image.rootfs}/usr/bin")) == ["other"]
    assert image.path == "/opt/bin:/usr/bin"
    assert image.size == 5


def test_a_layer_that_is_not_what_its_name_says_is_refused(tmp_path, cache):
    path = tmp_path / "image.tar"
    path.write_bytes(oci(tar(*ROOT_FS), machine=machine(), spoiled=True))
    with pytest.raises(HostError) as refused:
        prepared(path, cache)
    assert "is not what its name says" in str(refused.value.details)
    assert [one.name for one in cache.iterdir() if one.is_dir()] == []


def test_an_image_for_another_machine_is_refused(tmp_path, cache):
    path = tmp_path / "image.tar"
    path.write_bytes(oci(tar(*ROOT_FS), machine="s390x"))
    with pytest.raises(PlanError):
        prepared(path, cache)


@pytest.mark.parametrize(
    "wrong",
    [b"[]", b"{}", b"not json", b'[{"Layers": 3}]', b'[{"Config": "c", "Layers": ["gone"]}]', b"[" * 100_000],
)
def test_a_list_that_is_none_is_an_error_in_words(tmp_path, cache, wrong):
    path = tmp_path / "image.tar"
    path.write_bytes(tar(entry("manifest.json", wrong), entry("c", b"{}")))
    with pytest.raises(BotBottleError):
        prepared(path, cache)


def test_a_bare_root_file_system_is_taken_too(tmp_path, cache):
    path = tmp_path / "rootfs.tar.gz"
    path.write_bytes(tar(*ROOT_FS, entry("manifest.json", b"mine"), compression="gz"))
    image = prepared(path, cache)
    assert (Path(image.rootfs) / "usr/bin/tool").read_bytes() == b"tool"
    assert stat.S_IMODE((Path(image.rootfs) / "usr/bin/tool").stat().st_mode) == 0o755
    assert image.uid == os.getuid()


def test_an_archive_without_a_root_file_system_is_refused_and_leaves_nothing(tmp_path, cache):
    path = tmp_path / "rootfs.tar"
    path.write_bytes(tar(entry("hello", b"x")))
    with pytest.raises(HostError, match="no root file system"):
        prepared(path, cache)
    assert [one.name for one in cache.iterdir() if one.is_dir()] == []


def test_an_archive_that_is_changed_after_its_digest_was_taken_is_not_taken_for_the_first(tmp_path, cache):
    path, good = tmp_path / "rootfs.tar", tar(*ROOT_FS)
    path.write_bytes(good)
    evil = tar(*ROOT_FS, entry("usr/bin/evil", b"e"))

    def change(said):
        """In place, when it has its digest and is about to be unpacked."""
        if said == "Unpacking the root file system":
            path.write_bytes(evil)

    def swap(said):
        """Another in its place, when its digest is being taken."""
        if said == "Reading the image":
            (tmp_path / "evil").write_bytes(evil)
            (tmp_path / "evil").replace(path)

    for act in (change, swap):
        path.write_bytes(good)
        with pytest.raises(HostError, match="changed while it was read"):
            prepared(path, cache, act)
        path.write_bytes(good)
        assert not (Path(prepared(path, cache).rootfs) / "usr/bin/evil").exists()
        shutil.rmtree(cache)


@pytest.mark.parametrize("header", ["path", "comment"])
def test_a_header_that_is_larger_than_any_has_to_be_is_refused_before_it_is_read(tmp_path, cache, header):
    path = tmp_path / "rootfs.tar.gz"
    made, content = entry("etc/x", b"x")
    made.pax_headers = {header: "y" * (8 << 20)}
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(made, io.BytesIO(content))
    path.write_bytes(held.getvalue())
    with pytest.raises(HostError) as refused:
        prepared(path, cache)
    assert "header" in str(refused.value.details)


def test_an_image_of_layers_has_few_parts(tmp_path, cache):
    path = tmp_path / "image.tar"
    path.write_bytes(tar(entry("manifest.json", b"[]"), *(entry(f"p{number}") for number in range(10_001))))
    with pytest.raises(HostError) as refused:
        prepared(path, cache)
    assert "parts" in str(refused.value.details)


def test_a_root_file_system_that_was_taken_away_is_made_again(tmp_path, cache):
    path = tmp_path / "rootfs.tar"
    path.write_bytes(tar(*ROOT_FS))
    shutil.rmtree(prepared(path, cache).rootfs)
    assert (Path(prepared(path, cache).rootfs) / "usr/bin/tool").exists()


def test_what_a_bottle_is_made_from_is_not_forgotten_while_one_runs(own_home, monkeypatch):
    from bot_bottle.host import paths
    from bot_bottle.operate import images as operated

    folder = Path(paths.state_root()) / "images" / "abc"
    folder.mkdir(parents=True)
    assert operated.forget(frozenset({"smolmachines"})) == []
    assert folder.exists()
    assert len(operated.forget(frozenset({"namespace"}))) == 1
    assert not folder.exists()


def test_an_image_that_is_not_there_is_said(cache):
    with pytest.raises(NotFoundError):
        prepared("/nowhere/image.tar", cache)


# The cache


def test_an_unchanged_archive_is_neither_read_nor_unpacked_again_and_a_changed_one_is(tmp_path, cache):
    path, said = tmp_path / "rootfs.tar", []
    path.write_bytes(tar(*ROOT_FS))
    first = prepared(path, cache, said.append)
    assert said
    said.clear()
    assert prepared(path, cache, said.append) == first
    assert said == []
    path.write_bytes(tar(*ROOT_FS, entry("usr/bin/more", b"more")))
    second = prepared(path, cache, said.append)
    assert second.digest != first.digest
    assert (Path(second.rootfs) / "usr/bin/more").exists()
    shutil.copy(path, tmp_path / "copy.tar")
    assert prepared(tmp_path / "copy.tar", cache).rootfs == second.rootfs


def test_starts_at_once_make_it_once(tmp_path, cache):
    path, said, found = tmp_path / "rootfs.tar", [], []
    path.write_bytes(tar(*ROOT_FS))
    threads = [
        threading.Thread(target=lambda: found.append(prepared(path, cache, said.append))) for _ in range(8)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert said.count("Unpacking the root file system") == 1


KILLED = """
import sys
from pathlib import Path
from bot_bottle.backends.smolmachines import images
from bot_bottle.plan.model import ImageSpec
images.prepare(ImageSpec(reference=sys.argv[1]), cache=sys.argv[2], say=print)
"""


SLOW = KILLED.replace(
    "images.prepare", "import time, bot_bottle.backends.smolmachines.unpacking as u\n"
    "write = u.Unpacking._write\n"
    "def slow(self, *words):\n"
    "    write(self, *words)\n"
    "    self.entries > 20 and (print('now', flush=True), time.sleep(600))\n"
    "u.Unpacking._write = slow\n"
    "images.prepare", 1,
)  # fmt: skip


def test_who_is_killed_while_making_one_leaves_nothing_that_is_taken_for_whole(tmp_path, cache):
    """The archive is a pipe that stays open in the midst of a file, until its reader is killed."""
    whole = tar(*ROOT_FS, *(entry(f"usr/bin/{number}", b"x" * 100_000) for number in range(30)))
    path = tmp_path / "rootfs.tar"
    path.write_bytes(whole)
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, str(path), str(cache)], stdout=subprocess.PIPE, text=True
    ) as making:
        assert making.stdout is not None
        wait_for(lambda: making.stdout.readline().strip() == "now", "it to be in the midst")
        making.send_signal(signal.SIGKILL)
    assert list(cache.glob(".new-*"))
    image = prepared(path, cache)
    assert len(os.listdir(f"{image.rootfs}/usr/bin")) == 31
    assert not list(cache.glob(".new-*"))


def test_another_image_is_made_meanwhile_and_what_is_half_made_is_its_makers(tmp_path, cache):
    path, other = tmp_path / "rootfs.tar", tmp_path / "other.tar"
    path.write_bytes(tar(*ROOT_FS, *(entry(f"usr/bin/{number}", b"x" * 100_000) for number in range(30))))
    other.write_bytes(tar(*ROOT_FS))
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, str(path), str(cache)], stdout=subprocess.PIPE, text=True
    ) as making:
        assert making.stdout is not None
        wait_for(lambda: making.stdout.readline().strip() == "now", "it to be in the midst")
        said = []
        made = []
        beside = threading.Thread(
            target=lambda: made.append(prepared(other, cache, said.append)), daemon=True
        )
        beside.start()
        beside.join(60)
        half = list(cache.glob(".new-*"))
        making.send_signal(signal.SIGKILL)
    assert made, "it waited for an image that is not its own"
    assert len(half) == 1
    assert not [one for one in said if "Waiting" in one]
    other.write_bytes(tar(*ROOT_FS, entry("usr/bin/new", b"x")))
    prepared(other, cache)
    assert not list(cache.glob(".new-*")), "of whoever was killed"


def test_a_folder_is_shown_as_it_is_now_whatever_was_changed_deep_in_it(tmp_path, cache):
    root = tmp_path / "rootfs"
    for name in ("usr/bin", "etc", "tmp"):
        (root / name).mkdir(parents=True)
    before = prepared(root, cache)
    (root / "usr/bin/new").write_bytes(b"new")
    assert prepared(root, cache) == before
    assert (Path(prepared(root, cache).rootfs) / "usr/bin/new").read_bytes() == b"new"
    assert before.rootfs == str(root)
    assert prepared(f"{root}/", cache) == before
    assert not cache.exists() or not list(cache.iterdir()), "nothing of it is cached"


def test_a_machine_that_smolvm_packed_is_no_image(tmp_path, cache):
    """It would bring mounts, a command and resources of its own."""
    path = tmp_path / "packed.smolmachine"
    path.write_bytes(b"\x28\xb5\x2f\xfd" + b"packed" * 1000)
    with pytest.raises(HostError):
        prepared(path, cache)
    assert not [one for one in cache.iterdir() if one.is_dir()]


def test_all_of_them_can_be_forgotten(tmp_path, cache):
    path = tmp_path / "rootfs.tar"
    path.write_bytes(tar(*ROOT_FS))
    image = prepared(path, cache)
    assert images.forget(str(cache)) == [f"removed the root file system {image.digest[:12]}"]
    assert not Path(image.rootfs).exists()
    assert images.forget(str(tmp_path / "nothing")) == []
    assert Path(prepared(path, cache).rootfs).exists()


def test_a_full_disk_is_an_error_in_words(tmp_path, cache, monkeypatch):
    path = tmp_path / "rootfs.tar"
    path.write_bytes(tar(*ROOT_FS))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Unpacking, "_write", full)
    with pytest.raises(HostError) as refused:
        prepared(path, cache)
    assert "No space left" in str(refused.value.details)


# From an engine, and from packages


@pytest.mark.docker
def test_an_engine_s_image_is_unpacked_as_it_is_and_saved_to_the_same(tmp_path, cache):
    """By the engine itself, and from the archive that it saves, without it."""
    image = images.prepare(ImageSpec(reference=engines.BASE), cache=cache, say=said_to_nobody)
    assert (Path(image.rootfs) / "usr/bin/git").exists()
    again = images.prepare(ImageSpec(reference=engines.BASE), cache=cache, say=pytest.fail)
    assert again == image
    saved = tmp_path / "saved.tar"
    subprocess.run(["docker", "save", "-o", str(saved), engines.BASE], check=True)
    other = prepared(saved, cache)

    def listed(image):
        root = Path(image.rootfs)
        return {
            str(one.relative_to(root)): os.readlink(one) if one.is_symlink() else one.stat().st_size
            for one in root.rglob("*")
            if not one.is_dir() or one.is_symlink()
        }

    ours, theirs = listed(image), listed(other)
    added = {
        "etc/passwd",
        "etc/group",
        "etc/hostname",
        "etc/hosts",
        "etc/resolv.conf",
        ".dockerenv",
        "dev/console",
        "etc/mtab",
    }
    assert {name: ours[name] for name in ours.keys() - added} == {
        name: theirs[name] for name in theirs.keys() - added
    }


def test_without_engine_and_packages_it_is_said_what_to_install(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(HostError, match="nothing here") as refused:
        images.prepare(ImageSpec(), cache=cache, say=said_to_nobody)
    assert "mmdebstrap" in str(refused.value.resolution)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.registry
@pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="mmdebstrap is not installed")
def test_our_own_image_is_made_from_packages_where_no_engine_is(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")
    said = []
    image = images.prepare(ImageSpec(), cache=cache, say=said.append)
    assert {"git", "curl", "rg", "jq", "bash", "python3"} <= set(os.listdir(f"{image.rootfs}/usr/bin"))
    assert (Path(image.rootfs) / "etc/ssl/certs/ca-certificates.crt").stat().st_size > 100_000
    assert 50 << 20 < image.size < 700 << 20
    said.clear()
    assert images.prepare(ImageSpec(), cache=cache, say=said.append) == image
    assert not [one for one in said if "Unpacking" in one]


def test_packages_that_can_t_be_had_are_said_with_mmdebstrap_s_own_words(cache, monkeypatch, tmp_path):
    program = tmp_path / "bin/mmdebstrap"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'E: no mirror answers' >&2\nexit 25\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")
    with pytest.raises(HostError) as refused:
        images.prepare(ImageSpec(), cache=cache, say=said_to_nobody)
    assert "no mirror answers" in str(refused.value.details)
    assert [one.name for one in cache.iterdir() if one.is_dir()] == []
