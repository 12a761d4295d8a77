"""What bubblewrap's last words mean."""

import pytest

from bot_bottle.backends.namespace.failures import explain
from bot_bottle.errors import HostError, SandboxError


@pytest.mark.parametrize(
    ("said", "settings", "kind", "brief", "resolution"),
    [
        ("bwrap: Unknown option --disable-userns", {}, HostError, "too old", "0.8"),
        (
            "bwrap: No permissions to create new namespace, likely because the kernel does not allow non-privileged user "
            "namespaces.",
            {"/proc/sys/kernel/unprivileged_userns_clone": "0"},
            HostError,
            "does not let",
            "unprivileged_userns_clone=1",
        ),
        (
            "bwrap: setting up uid map: Permission denied",
            {"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1"},
            HostError,
            "does not let",
            "AppArmor",
        ),
        (
            "bwrap: Creating new namespace failed: No space left on device",
            {"/proc/sys/user/max_user_namespaces": "0"},
            HostError,
            "does not let",
            "max_user_namespaces=",
        ),
        (
            "bwrap: Can't mount proc on /newroot/proc: Operation not permitted",
            {},
            HostError,
            "does not let",
            "container",
        ),
        (
            "bwrap: Can't find source path /gone: No such file or directory",
            {},
            HostError,
            "can't be reached",
            "",
        ),
        ("bwrap: Can't write to file /etc/x: No space left on device", {}, HostError, "space", ""),
        ("bwrap: something new", {}, SandboxError, "could not be made", ""),
        ("", {}, SandboxError, "could not be made", ""),
    ],
)
def test_the_words_become_an_error_with_a_cure(said, settings, kind, brief, resolution) -> None:
    error = explain(said, settings)
    assert type(error) is kind
    assert brief in error.brief
    assert resolution in error.resolution
    assert error.details
