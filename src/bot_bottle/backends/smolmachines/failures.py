"""What smolvm's last words mean: which of a few kinds of failure it is, and what a person does about it. Pure.

Only what smolvm says by itself is read here (create, start, stop, delete, status, ls). What a command inside prints ends up
in the same streams, so nothing that `exec` says is ever looked at.
"""

import json

from bot_bottle.errors import BotBottleError, HostError, SandboxError
from bot_bottle.typed import Final, Literal, NamedTuple

Kind = Literal[
    "missing", "exists", "refused", "no-kvm", "kvm-forbidden", "no-boot", "stopped", "usage", "other"
]

_SAID: Final[tuple[tuple[str, Kind], ...]] = (
    ("kvm permission denied", "kvm-forbidden"),
    ("cannot access /dev/kvm", "kvm-forbidden"),
    ("kvm not available", "no-kvm"),
    ("/dev/kvm not found", "no-kvm"),
    ("/dev/kvm does not exist", "no-kvm"),
    ("no boot progress", "no-boot"),
    ("boot process exited", "no-boot"),
    ("vm not found", "missing"),
    ("already exists", "exists"),
    ("is not running", "stopped"),
)
_CODES: Final[dict[str, Kind]] = {"CONFIG_ERROR": "refused", "MOUNT_ERROR": "refused", "NOT_FOUND": "refused"}
_LONGEST: Final = 2000


class Failure(NamedTuple):
    """`code` is smolvm's own word for it, empty where it had none."""

    kind: Kind
    code: str
    message: str


def read(exit_code: int, stderr: bytes) -> Failure:
    """The failure that a verb ended with; its JSON object is the last line of what it said."""
    words = stderr.decode(errors="replace").strip()
    if exit_code == 2:
        return Failure("usage", "", words[:_LONGEST])
    found = _error_of(words.rpartition("\n")[2])
    if found is None:
        return Failure("other", "", words[-_LONGEST:] or f"it ended with {exit_code} and said nothing")
    code, message = found
    return Failure(_kind(code, message), code, message[:_LONGEST])


def _error_of(line: str) -> tuple[str, str] | None:
    try:
        error = json.loads(line)["error"]
        return str(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        return None


def _kind(code: str, message: str) -> Kind:
    said = message.lower()
    if said.startswith("config operation failed: machine status:") and said.endswith("not found"):
        return "missing"
    for words, kind in _SAID:
        if words in said:
            return kind
    return _CODES.get(code, "other")


KVM_CURES: Final[dict[Kind, str]] = {
    "no-kvm": "This machine has no /dev/kvm. Turn on virtualisation in its firmware, or nested virtualisation where it is itself a "
    "virtual machine, and load kvm_intel or kvm_amd; else use backend: namespace",
    "kvm-forbidden": "Add yourself to its group and log in again: sudo usermod -aG kvm $USER",
    "no-boot": "bot-bottle doctor tells whether KVM works here; else use backend: namespace",
}


def explain(failure: Failure, verb: str) -> BotBottleError:
    """The error to raise: what the machine lacks is a HostError, everything else a SandboxError."""
    details = f"{failure.code}: {failure.message}" if failure.code else failure.message
    if failure.kind == "no-kvm":
        return HostError(
            "A microVM needs KVM, and there is none here", details=details, resolution=KVM_CURES["no-kvm"]
        )
    if failure.kind == "kvm-forbidden":
        return HostError("You may not use KVM", details=details, resolution=KVM_CURES["kvm-forbidden"])
    if failure.kind == "no-boot":
        return HostError("The microVM did not boot", details=details, resolution=KVM_CURES["no-boot"])
    if failure.kind == "usage":
        return HostError(
            f"This smolvm does not understand our `{verb}`", details=details, resolution=OTHER_VERSION
        )
    return SandboxError(f"Smolvm could not {verb} the bottle's machine", details=details)


OTHER_VERSION: Final = "Install the version that is supported: pip install 'bot-bottle[smolmachines]'"
