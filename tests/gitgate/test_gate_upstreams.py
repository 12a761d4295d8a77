"""How upstreams are entered: by what the bottle's file says, and by nothing else."""

import subprocess
from pathlib import Path

import pytest

from bot_bottle.launch.outward import Outside
from bot_bottle.plan.model import GitRemote
from support import gates
from support.gitservers import Https, git, make_upstream

pytestmark = pytest.mark.namespace
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "console")
TOKEN = "made-up-token-of-the-tests-0123456789"


@pytest.fixture
def https(place_for_git, upstream):
    server = Https(place_for_git / "nginx", place_for_git / "srv", f"Bearer {TOKEN}")
    yield server
    server.close()


def by_token(place, server, value=TOKEN, path="project.git"):
    item, vault = gates.token("forge", value)
    mirror = str(place / f"mirrors/https-{abs(hash((value, path)))}.git")
    return GitRemote("origin", server.url(path), mirror, credential=item, rules=gates.ONLY_REFS), vault


def test_https_with_a_token_that_stays_outside(gated, place_for_git, https, upstream):
    remote, vault = by_token(place_for_git, https)
    gate = gated(remote, vault=vault, outside=Outside(https.authority.pem))
    work = gate.clone()
    head = gate.commit(work)
    done = gate.git("push", "origin", "HEAD:refs/heads/bot/x", cwd=work)
    assert done.code == 0, done.said
    assert git(upstream, "rev-parse", "bot/x") == head
    seen = "".join(path.read_text(errors="replace") for path in work.rglob("*") if path.is_file()) + done.said
    assert TOKEN not in seen
    for pid in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                said = (pid / name).read_bytes()
            except OSError:
                continue
            assert TOKEN.encode() not in said, pid


@pytest.mark.parametrize(
    ("value", "path", "authority", "why"),
    [
        ("another-token-0123456789", "project.git", True, "did not take the bottle's credential"),
        (TOKEN, "nothing-there.git", True, "there is no such repository"),
        (TOKEN, "project.git", False, "certificate is not to be trusted"),
        (TOKEN, "moved/project.git", True, "redirects elsewhere"),
    ],
)
def test_what_does_not_let_in_is_said_in_words(gated, place_for_git, https, value, path, authority, why):
    remote, vault = by_token(place_for_git, https, value, path)
    gate = gated(remote, vault=vault, outside=Outside(https.authority.pem if authority else ""))
    done = gate.git("clone", "-q", gate.url(), "work")
    assert done.code != 0
    assert why in done.said, (done.said, gate.events)
    assert value not in done.said + str(gate.events)


def test_a_host_key_that_is_not_the_pinned_one_is_refused(gated, place_for_git, ssh, upstream):
    gate = gated(gates.over_ssh(place_for_git, ssh, upstream, known_host=ssh.public("other")))
    done = gate.git("clone", "-q", gate.url(), "work")
    assert done.code != 0
    assert "host key is not the one that the bottle's file has" in done.said, (done.said, gate.events)


def test_a_host_key_that_changes_is_refused_from_then_on(gated, place_for_git, ssh, upstream):
    gate = gated(gates.over_ssh(place_for_git, ssh, upstream))
    work = gate.clone()
    gate.commit(work)
    ssh.stop()
    for name in ("host", "host.pub"):
        (ssh.folder / name).write_bytes((ssh.folder / name.replace("host", "other")).read_bytes())
    ssh.start()
    done = gate.git("push", "origin", "HEAD:refs/heads/bot/x", cwd=work)
    assert done.code != 0
    assert "host key" in done.said, done.said
    assert "bot/x" not in git(upstream, "branch")


def test_a_key_that_the_server_does_not_take_is_said(gated, place_for_git, ssh, upstream):
    remote = gates.over_ssh(place_for_git, ssh, upstream)
    ssh.key_for(0, place_for_git / "key-origin", "other")
    gate = gated(remote)
    done = gate.git("clone", "-q", gate.url(), "work")
    assert "did not take the bottle's key" in done.said, (done.said, gate.events)


def test_the_persons_own_ssh_settings_and_keys_are_not_used(gated, place_for_git, ssh, upstream, own_home):
    (own_home / ".ssh").mkdir()
    marker = place_for_git / "ran"
    (own_home / ".ssh/config").write_text(
        f"Host *\n  ProxyCommand touch {marker}\n  IdentityFile {ssh.folder}/user\n"
    )
    (own_home / ".gitconfig").write_text(f"[core]\n\tsshCommand = touch {marker}; false\n")
    gate = gated(gates.over_ssh(place_for_git, ssh, upstream))
    gate.clone()
    assert not marker.exists()


def test_a_folder_of_the_host_is_served_where_the_owner_says_so(gated, place_for_git, upstream):
    gate = gated(
        GitRemote("origin", str(upstream), str(place_for_git / "mirrors/local.git"), rules=gates.ONLY_REFS)
    )
    work = gate.clone()
    head = gate.commit(work)
    done = gate.git("push", "origin", "HEAD:refs/heads/bot/x", cwd=work)
    assert done.code == 0, (done.said, gate.events)
    assert git(upstream, "rev-parse", "bot/x") == head


def test_what_another_remote_is_called_leads_nowhere(gate):
    for path in (
        "other.git",
        "origin",
        "../mirrors/origin.git",
        "origin.git/objects/info/packs",
        "%2e%2e/origin.git",
    ):
        done = gate.git("ls-remote", gate.url().replace("origin.git", path))
        assert done.code != 0, path


def test_lfs_is_refused_in_words(gate):
    import urllib.error
    import urllib.request

    gate.clone()
    asked = urllib.request.Request(
        f"{gate.url()}/info/lfs/objects/batch", b"{}", {"content-type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(asked, timeout=30)
    assert refused.value.code == 501
    assert b"does not carry LFS" in refused.value.read()


def test_shallow_and_partial_clones_and_what_they_fetch_later(gate, upstream):
    shallow = gate.clone("shallow", "--depth=1")
    assert gate.git("rev-list", "--count", "HEAD", cwd=shallow).said.strip() == "1"
    assert gate.git("fetch", "-q", "--unshallow", cwd=shallow).code == 0
    assert gate.git("rev-list", "--count", "HEAD", cwd=shallow).said.strip() == "3"
    partial = gate.clone("partial", "--filter=blob:none")
    assert gate.git("show", "HEAD~2:file-1.txt", cwd=partial).said == "line 1\n"
    gate.git("checkout", "-q", "-b", "bot/s", cwd=shallow)
    gate.commit(shallow)
    assert gate.git("push", "-q", "origin", "bot/s", cwd=shallow).code == 0
    assert gate.git("clone", "-q", "-c", "protocol.version=0", gate.url(), "old").code == 0


def test_a_push_from_a_shallow_clone_arrives_whole(gate, upstream):
    shallow = gate.clone("shallow", "--depth=1")
    head = gate.commit(shallow)
    done = gate.git("push", "origin", "HEAD:refs/heads/bot/x", cwd=shallow)
    assert done.code == 0, done.said
    assert git(upstream, "rev-list", "--count", head) == "4"


def test_submodules_whose_hosts_are_remotes_come_through_the_gate(gated, place_for_git, ssh, upstream):
    library = make_upstream(place_for_git / "srv/library.git")
    seed = place_for_git / "seed"
    git(place_for_git, "clone", "-q", str(upstream), str(seed))
    git(seed, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(library), "lib")
    git(seed, "config", "-f", ".gitmodules", "submodule.lib.url", ssh.url(library))
    git(seed, "commit", "-qam", "Use it")
    git(seed, "push", "-q", "origin", "main")
    gate = gated(
        gates.over_ssh(place_for_git, ssh, upstream),
        gates.over_ssh(place_for_git, ssh, library, name="library"),
    )
    gate.git("config", "--global", f"url.{gate.url('library')}.insteadOf", ssh.url(library))
    work = gate.clone("work", "--recurse-submodules")
    assert (work / "lib/file-1.txt").exists()


def test_the_mirror_follows_the_upstream_to_the_letter(gate, upstream):
    work = gate.clone()
    git(upstream, "branch", "topic/a", "main~1")
    git(upstream, "branch", "-f", "main", "main~1")
    git(upstream, "tag", "-f", "v1", "main~1")
    git(upstream, "symbolic-ref", "HEAD", "refs/heads/topic/a")
    second = gate.clone("second")
    assert gate.git("rev-parse", "--abbrev-ref", "HEAD", cwd=second).said.strip() == "topic/a"
    git(upstream, "branch", "-D", "main")
    assert gate.git("fetch", "-q", "--prune", "--tags", "--force", cwd=work).code == 0
    assert (
        "origin/main"
        not in gate.git("branch", "-r", "--format=%(refname:short)", cwd=work).said.split("->")[0]
    )
    listed = {
        line.split()[1]: line.split()[0] for line in gate.git("ls-remote", gate.url()).said.splitlines()
    }
    wanted = {line.split()[1]: line.split()[0] for line in git(upstream, "ls-remote", ".").splitlines()}
    assert listed == wanted


def test_an_empty_upstream_can_be_cloned_and_pushed_to(gated, place_for_git, ssh):
    empty = place_for_git / "srv/empty.git"
    empty.mkdir(parents=True)
    git(empty, "init", "-q", "--bare", "-b", "main")
    gate = gated(gates.over_ssh(place_for_git, ssh, empty))
    work = gate.clone()
    head = gate.commit(work)
    done = gate.git("push", "origin", "HEAD:refs/heads/bot/x", cwd=work)
    assert done.code == 0, done.said
    assert git(empty, "rev-parse", "bot/x") == head


def test_a_bottle_sees_neither_keys_nor_other_mirrors_nor_the_quarantine(gate, place_for_git):
    """What the process that faces the agent could see, were it broken into: its own mirrors and pushes, and no network."""
    gate.clone()
    pid = gate.pid("gate")
    root = Path(f"/proc/{pid}/root")
    assert sorted(path.name for path in (root / "mirrors").iterdir()) == ["origin.git"]
    for path in ("keys", "held", "root", "home"):
        assert not (root / path).exists(), path
    assert not (root / str(place_for_git).lstrip("/") / "key-origin").exists()
    network = subprocess.run(
        ["nsenter", "-t", str(pid), "-n", "ip", "-o", "link"], capture_output=True, text=True, check=False
    )
    if network.returncode == 0:
        assert [line.split()[1] for line in network.stdout.splitlines()] == ["lo:"]
    status = Path(f"/proc/{pid}/status").read_text()
    assert "CapEff:\t0000000000000000" in status
    assert "CapPrm:\t0000000000000000" in status
    assert "Seccomp:\t2" in status
    assert "NoNewPrivs:\t1" in status
    checker = Path(f"/proc/{gate.pid('checker')}/root")
    assert not (checker / "keys").exists()
    mounts = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    writable = {line[4] for line in mounts if line[5].startswith("rw")}
    assert not writable - {
        "/pushes",
        "/tmp",
        "/proc",
        "/dev",
        "/dev/pts",
        "/dev/shm",
        *(f"/dev/{one}" for one in DEVICES),
    }


@pytest.mark.parametrize("missing", ["folder", "key"])
def test_what_is_missing_on_the_host_is_said_at_once_and_the_gate_lives(
    gated, place_for_git, ssh, upstream, missing
):
    known = gates.over_ssh(place_for_git, ssh, upstream, name="there")
    away = str(place_for_git / "nothing")
    lacking = known._replace(name="origin", key=away)
    if missing == "folder":
        lacking = GitRemote("origin", away, str(place_for_git / "mirrors/away.git"), rules=gates.ONLY_REFS)
    gate = gated(lacking, known)
    done = gate.git("clone", "-q", gate.url(), "work")
    assert done.code != 0
    assert f"its {missing} is not there on the host" in done.said, (done.said, gate.events)
    assert "git.unavailable" in gate.kinds()
    gate.clone(remote="there")
    assert "git.died" not in gate.kinds()
