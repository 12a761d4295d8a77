"""What bubblewrap is told."""

import pytest

from bot_bottle.backends.namespace import profile
from bot_bottle.backends.namespace.view import View, look
from bot_bottle.plan.model import Limits, Mount, Workspace
from support.backends import make_plan

VIEW = View(
    links=(("usr/bin", "/bin"),),
    folders=("/usr", "/lib32", "/etc/ssl/certs"),
    files=(("/etc/services", b"http 80/tcp\n"),),
    masked_files=("/proc/keys",),
    masked_folders=("/proc/scsi",),
)
GOLDEN = """
--unshare-all --unshare-user --disable-userns --as-pid-1 --clearenv --cap-drop ALL --uid 1000 --gid 1000
--hostname bot-k7qa --perms 0755 --dir /etc --perms 0755 --dir /home --perms 0755 --dir /var --ro-bind /usr /usr
--ro-bind /lib32 /lib32 --ro-bind /etc/ssl/certs /etc/ssl/certs --symlink usr/bin /bin --proc /proc
--ro-bind /dev/null /proc/keys --tmpfs /proc/scsi --remount-ro /proc/scsi --dev /dev
--perms 1777 --size 1073741824 --tmpfs /tmp --perms 0755 --size 67108864 --tmpfs /run
--perms 0700 --size 1073741824 --tmpfs /home/agent --perms 1777 --size 1073741824 --tmpfs /dev/shm
--symlink ../tmp /var/tmp --symlink ../run /var/run
--perms 0444 --file <12> /etc/services --perms 0444 --file <145> /etc/passwd --perms 0444 --file <41> /etc/group
--perms 0444 --file <29> /etc/hosts --perms 0444 --file <9> /etc/hostname --perms 0444 --file <21> /etc/resolv.conf
--perms 0444 --file <77> /etc/nsswitch.conf --perms 0444 --file <9> /etc/host.conf --perms 0555 --file <6> /.bottle
--bind /srv/repo /workspace --ro-bind /data/claude /opt/claude --ro-bind /data/skill /home/agent/.claude/skills/x
--remount-ro /dev --remount-ro / --chdir / -- /.bottle
"""


def test_the_arguments_are_these(tmp_path) -> None:
    plan = make_plan(
        tmp_path,
        id="bot-k7qa",
        workspace=Workspace(source="/srv/repo", mode="mount"),
        limits=Limits(memory=1024**3),
        mounts=(
            Mount(source="/data/skill", target="/home/agent/.claude/skills/x"),
            Mount(source="/data/claude", target="/opt/claude"),
        ),
    )
    made = profile.arguments(plan, VIEW, profile.mounts(plan), holder=b"holder")
    words = [word if isinstance(word, str) else f"<{len(word.data)}>" for word in made]
    assert words == GOLDEN.split()


def test_a_copy_is_shown_instead_of_the_repository(tmp_path) -> None:
    plan = make_plan(tmp_path, workspace=Workspace(source="/srv/repo", mode="copy", copy="/state/copy"))
    assert profile.mounts(plan)[0] == Mount(source="/state/copy", target="/workspace", writable=True)


@pytest.mark.parametrize(
    "mount",
    [
        Mount(source="/x", target="/usr/lib/evil"),
        Mount(source="/x", target="/etc/passwd"),
        Mount(source="/x", target="/proc/1"),
        Mount(source="/x", target="/"),
        Mount(source="/x", target="/workspace"),
        Mount(source="/x", target="/opt/../etc/passwd"),
        Mount(source="/x", target="opt"),
        Mount(source="x", target="/opt/x"),
        Mount(source="/x\0y", target="/opt/x"),
    ],
)
def test_a_mount_that_would_replace_the_system_is_a_mismatch(tmp_path, mount: Mount) -> None:
    assert len(profile.mismatches(make_plan(tmp_path, mounts=(mount,)))) == 1


def test_root_is_a_mismatch_and_a_plain_plan_is_none(tmp_path) -> None:
    plan = make_plan(tmp_path)
    assert profile.mismatches(plan) == []
    assert profile.mismatches(plan._replace(uid=0)) == ["the agent can't run as root"]


def test_the_view_shows_no_private_place() -> None:
    view = look()
    assert "/usr" in view.folders
    assert not {"/etc", "/etc/ssl", "/etc/pki", "/root", "/home", "/var"} & set(view.folders)
