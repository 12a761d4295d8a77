"""What smolvm's own words mean; all of them were said by smolvm 1.32.2."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.backends.smolmachines import failures, program
from bot_bottle.backends.smolmachines.failures import Failure
from bot_bottle.errors import HostError, SandboxError

NOT_FOUND = "vm not found: zz"
SAID = [
    ("NOT_FOUND", NOT_FOUND, "missing"),
    ("CONFIG_ERROR", "config operation failed: machine status: machine 'zz' not found", "missing"),
    ("CONFIG_ERROR", "config operation failed: create machine: machine 'a1' already exists", "exists"),
    (
        "CONFIG_ERROR",
        "config operation failed: create machine: machine name contains invalid character: ' '",
        "refused",
    ),
    (
        "CONFIG_ERROR",
        "config operation failed: --image: cannot read archive /x: No such file or directory (os error 2)",
        "refused",
    ),
    ("NOT_FOUND", "mount source not found: /nonexist", "refused"),
    (
        "MOUNT_ERROR",
        "mount operation failed: validate host path: source path on host must be a directory (virtiofs limitation): /etc/passwd",
        "refused",
    ),
    (
        "SMOLVM_ERROR",
        "agent operation failed: start machine: kvm permission denied: Cannot access /dev/kvm (permission denied).\nAdd your user "
        "to the 'kvm' group:\n\nsudo usermod -aG kvm $USER\n\nThen log out and log back in for the change to take effect.",
        "kvm-forbidden",
    ),
    (
        "SMOLVM_ERROR",
        "agent operation failed: start machine: agent operation failed: monitor agent: boot process exited (code 1) before the "
        "agent was ready",
        "no-boot",
    ),
    (
        "SMOLVM_ERROR",
        "agent operation failed: connect: machine 'a1' is not running. Start it with 'smolvm machine start --name a1'; if a "
        "start is already in progress, retry once it finishes.",
        "stopped",
    ),
    ("SMOLVM_ERROR", "something new", "other"),
]


def _line(code: str, message: str) -> bytes:
    return (
        b"Starting machine 'a1'...\n"
        + json.dumps({"error": {"code": code, "message": message}}).encode()
        + b"\n"
    )


@pytest.mark.parametrize(("code", "message", "kind"), SAID)
def test_each_of_its_messages_is_the_kind_that_it_is(code, message, kind):
    assert failures.read(1, _line(code, message)) == Failure(kind, code, message)


def test_only_the_last_line_is_its_error():
    earlier = _line("NOT_FOUND", NOT_FOUND)
    assert failures.read(1, earlier + b"something else\n").kind == "other"
    assert failures.read(1, earlier + _line("SMOLVM_ERROR", "x")).kind == "other"


def test_a_usage_error_is_one_of_ours_and_names_the_cure():
    failure = failures.read(2, b"error: unexpected argument '--nope' found\n")
    assert failure.kind == "usage"
    error = failures.explain(failure, "create")
    assert isinstance(error, HostError)
    assert "pip install" in error.resolution


@given(st.integers(1, 255), st.binary(max_size=300))
def test_whatever_it_says_is_some_failure_and_never_one_that_was_not_said(code, stderr):
    failure = failures.read(code, stderr)
    assert failure.kind in ("other", "usage")
    assert failures.explain(failure, "start").brief


@pytest.mark.parametrize("kind", ["no-kvm", "kvm-forbidden", "no-boot"])
def test_what_the_machine_lacks_is_the_host_s_trouble_and_says_what_to_do(kind):
    error = failures.explain(Failure(kind, "SMOLVM_ERROR", "words"), "start")
    assert isinstance(error, HostError)
    assert error.resolution
    assert "words" in error.details


def test_everything_else_is_the_sandbox_s():
    assert isinstance(failures.explain(Failure("refused", "CONFIG_ERROR", "x"), "create"), SandboxError)


@pytest.mark.parametrize(
    "said", ["smolvm 1.31.9", "smolvm 2.0.0", "smolvm", "", "smolvm 1.32", "qemu 1.32.2"]
)
def test_a_version_that_is_not_known_is_refused(said):
    with pytest.raises(HostError) as caught:
        program.version(said)
    assert "pip install" in caught.value.resolution


def test_a_version_that_is_known_is_taken():
    assert program.version("smolvm 1.32.2\n") == (1, 32, 2)
    assert program.version("smolvm 1.40.0-rc1") == (1, 40, 0)


def test_an_option_counts_when_it_is_listed_and_not_when_it_is_only_mentioned():
    text = "  -n, --name <N>  Name\n      --label <KEY=VALUE>  see --mount-socket\n"
    assert {"--name", "--label"} <= program.options(text)
    missing = program.lacking([(("machine", "create"), "      --label <K>\n      --volume <V>\n")])
    assert "machine create --mount-socket" in missing
    assert "machine create --label" not in missing
    assert "machine delete --force" in missing
