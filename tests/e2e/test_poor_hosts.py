"""Hosts that can't run a bottle: one clear message, an exit code by kind, nothing left behind."""

import os

import pytest

from support.bottles import write_script
from support.place import make_place, program

pytestmark = pytest.mark.namespace


def inside(place, script: str, **options):
    """Runs a shell script in a mount namespace of its own, as root, that ends by becoming the place's user."""
    become = f"setpriv --reuid={place.uid} --regid={place.uid} --clear-groups --" if place.uid else ""
    script = script.replace("BOT_BOTTLE", f"{become} {program()}")
    import subprocess

    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", script]
    return subprocess.run(
        argv,
        env=place.environment,
        cwd=place.workspace,
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="not run as root")
@pytest.mark.parametrize(
    ("prepare", "code", "said"),
    [
        ("mount --bind /dev/null /usr/bin/bwrap", 69, "bubblewrap"),
        ("mount -t tmpfs -o size=64k,mode=777 none $HOME/.local/state", 74, "space"),
        ("mount --bind -o ro $HOME $HOME; mount -o remount,ro,bind $HOME", 74, "ead-only"),
    ],
    ids=["no bubblewrap", "full disk", "read-only home"],
)
def test_a_host_that_lacks_something_is_told_what(place, repository, prepare, code, said):
    write_script(place, "work", "true")
    place.write(".local/state/.keep", "")
    done = inside(place, f"{prepare}\nBOT_BOTTLE start work --headless || exit $?")
    assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (code, True, False), (
        done.stderr
    )


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="not run as root")
def test_a_host_without_user_namespaces_is_told_how_to_allow_them(tmp_path):
    place = make_place(0)
    write_script(place, "work", "true")
    script = f"""
echo 0 > /proc/sys/user/max_user_namespaces
exec setpriv --inh-caps=-all --ambient-caps=-all {program()} start work --headless
"""
    words = ["unshare", "--user", "--map-user=4321", "--map-group=4321", "--keep-caps", "sh", "-euc", script]
    done = place.run(words)
    place.assert_nothing_left()
    place.remove()
    assert done.code == 69, done.stderr
    assert "namespaces" in done.stderr
    assert "sysctl user.max_user_namespaces" in done.stderr


def test_a_workspace_that_cannot_be_read_is_said(place, cli, repository):
    if not place.uid:
        pytest.skip("root reads everything")
    write_script(place, "work", "true")
    place.workspace.chmod(0o300)
    done = cli("start", "work", "--headless")
    place.workspace.chmod(0o755)
    assert done.code == 69, done.stderr
    assert "workspace" in done.stderr


@pytest.mark.parametrize("folder", [".", ".bot-bottle", ".bot-bottle/agents", ".local/state"])
def test_a_folder_that_holds_bot_bottles_own_files_is_no_workspace(place, cli, folder):
    write_script(place, "work", "true")
    place.write(".local/state/some.txt", "")
    done = cli("start", "work", "--headless", cwd=place.home / folder)
    assert done.code == 69, done.stderr
    assert "workspace" in done.stderr
