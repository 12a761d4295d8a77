"""What bubblewrap's last words mean, for a person: which error it is, and what to do. Only looked at after a failure."""

from bot_bottle.errors import BotBottleError, HostError, SandboxError
from bot_bottle.host import files

INSTALL = (
    "Install it (Debian, Ubuntu, Fedora: the package `bubblewrap`), or: pip install 'bot-bottle[bubblewrap]'"
)
_NO_NAMESPACES = (
    "no permissions to create new namespace",
    "creating new namespace failed",
    "setting up uid map",
    "can't mount proc on",
    "loopback: failed rtm_newaddr",
    "unshare user ns",
)
_SETTINGS = {
    "/proc/sys/kernel/unprivileged_userns_clone": ("0", "sysctl kernel.unprivileged_userns_clone=1"),
    "/proc/sys/user/max_user_namespaces": ("0", "sysctl user.max_user_namespaces=15000"),
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": (
        "1",
        "Load an AppArmor profile for bwrap that allows `userns` "
        "(Ubuntu: bwrap-userns-restrict of the package `apparmor-profiles`), or: "
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
}


def explain(said: str, settings: dict[str, str]) -> BotBottleError:
    """The error that bubblewrap's words `said` stand for; `settings` are those of `read_settings`. Pure."""
    words = said.lower()
    if "unknown option" in words:
        return HostError(
            "This bubblewrap is too old", details=said, resolution=f"0.8 or newer is needed. {INSTALL}"
        )
    if any(known in words for known in _NO_NAMESPACES):
        wrong = [cure for path, (bad, cure) in _SETTINGS.items() if settings.get(path) == bad]
        cure = (
            "; ".join(wrong)
            or "Inside a container, start it so that user namespaces and a new /proc are allowed; in a chroot, none can be made."
        )
        return HostError("This host does not let a user make namespaces", details=said, resolution=cure)
    if "no space left" in words:
        return HostError("The host has no space (or no namespaces) left", details=said)
    if "can't find source path" in words or "permission denied" in words:
        return HostError("Something that the bottle should show can't be reached", details=said)
    return SandboxError("The bottle could not be made", details=said or "bubblewrap said nothing")


def read_settings() -> dict[str, str]:
    """What the host's settings for user namespaces are, as far as it has them."""
    found = {}
    for path in _SETTINGS:
        try:
            found[path] = files.read(path).decode().strip()
        except OSError:
            continue
    return found
