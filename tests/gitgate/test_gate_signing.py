"""Commits and tags signed outside: git itself says whether they are good, and nothing else is signed."""

import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.launch.gitgate import signing
from bot_bottle.policy.ports import GIT_SIGN_URL
from bot_bottle.provision.git import identity
from support import gates
from support.waiting import wait_for

pytestmark = pytest.mark.namespace
WHO = "Someone <someone@example.org> 1700000000 +0000\n"
COMMIT = f"tree {'0' * 40}\nauthor {WHO}committer {WHO}\nMessage\n".encode()


@pytest.fixture
def key(place_for_git):
    """A private key, and its public half."""
    path = place_for_git / "signing"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "x", "-f", str(path)], check=True)
    return str(path), " ".join(path.with_suffix(".pub").read_text().split()[:2])


@pytest.fixture
def signed(gated, place_for_git, ssh, upstream, key):
    """A gate that signs, and the agent's git configured for it as in a bottle."""
    remote = gates.over_ssh(place_for_git, ssh, upstream)
    gate = gated(remote._replace(rules=remote.rules._replace(tags=("v*",))), signing_key=key[0])
    document = {
        "user_name": None, "user_email": None, "signing": {"key": key[0], "public": key[1]}, "remotes": [],
    }  # fmt: skip
    config, program, signers = identity(document, foreign_owner=False)
    text = config.content.decode()
    for file, name in ((program, "program"), (signers, "signers")):
        path = place_for_git / name
        path.write_bytes(file.content.replace(GIT_SIGN_URL.encode(), sign_url(gate).encode()))
        path.chmod(file.mode)
        text = text.replace(file.target, str(path))
    (place_for_git / "gitconfig").write_text(text)
    return gate


def sign_url(gate):
    return f"http://127.0.0.1:{gate.port}/.sign"


def asked(gate, content):
    with urllib.request.urlopen(urllib.request.Request(sign_url(gate), content), timeout=30) as answer:
        return answer.read()


def refused(gate, content):
    with pytest.raises(urllib.error.HTTPError) as error:
        asked(gate, content)
    return error.value.code, error.value.read().decode()


@pytest.mark.parametrize("with_curl", [True, False])
def test_what_the_agent_commits_is_signed_and_git_says_so_at_both_ends(
    signed, upstream, key, place_for_git, with_curl, monkeypatch
):
    if not with_curl:
        tools = place_for_git / "tools"
        tools.mkdir()
        for name in ("git", "python3", "sh", "cat", "rm", "ssh-keygen"):
            (tools / name).symlink_to(f"/usr/bin/{name}")
        monkeypatch.setenv("PATH", str(tools))
        monkeypatch.setitem(gates.IDENTITY, "PATH", str(tools))
    work = signed.clone()
    head = signed.commit(work, message="Ümläuts, and\n\na body\n\nof lines")
    assert signed.git("verify-commit", head, cwd=work).code == 0
    assert signed.git("tag", "-m", "A release", "v2", cwd=work).code == 0
    assert signed.git("verify-tag", "v2", cwd=work).code == 0
    signed.commit(work, "other.txt")
    assert signed.git("commit", "-q", "--amend", "-m", "Changed", cwd=work).code == 0
    assert signed.git("push", "-q", "origin", "HEAD:refs/heads/bot/x", "v2", cwd=work).code == 0
    said = signed.git("log", "--show-signature", "-2", "--format=%G?", cwd=work).said
    assert said.count("Good") == 2, said
    wait_for(lambda: signed.kinds().count("git.signed") == 4, "four to be in the record")
    private = Path(key[0]).read_text().splitlines()[1]
    seen = "".join(one.read_text(errors="replace") for one in work.rglob("*") if one.is_file())
    assert private not in seen + str(signed.events)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a file of somebody's",
        b"SSHSIG\0\0\0\0",
        COMMIT[5:],
        COMMIT.replace(b"author", b"autor"),
        COMMIT.replace(b"\n\nMessage", b"\nunknown header\n\nMessage"),
        COMMIT.replace(b"0" * 40, b"0" * 39),
        COMMIT + b"x" * (1 << 20),
        b"\n" + COMMIT,
        COMMIT + b"shown\0hidden",
    ],
)
def test_nothing_but_a_commit_or_a_tag_is_signed(signed, content):
    code, why = refused(signed, content)
    assert code in (403, 413)
    assert "bot-bottle" in why
    assert "git.signed" not in signed.kinds()


def test_the_signature_is_good_for_git_and_for_nothing_else(signed, place_for_git, key):
    (place_for_git / "sig").write_bytes(asked(signed, COMMIT))
    (place_for_git / "allowed").write_text(f"* {key[1]}\n")
    for namespace, code in (("git", 0), ("file", 255), ("ssh", 255)):
        argv = ["ssh-keygen", "-Y", "verify", "-f", "allowed", "-I", "me", "-n", namespace, "-s", "sig"]
        done = subprocess.run(argv, cwd=place_for_git, input=COMMIT, capture_output=True, check=False)
        assert done.returncode == code, (namespace, done.stderr)


def test_a_bottle_without_a_key_signs_nothing(gate):
    code, why = refused(gate, COMMIT)
    assert (code, "no key" in why) == (403, True)


def test_a_key_that_is_not_there_or_has_a_passphrase_is_said_and_the_gate_goes_on(
    gated, place_for_git, ssh, upstream
):
    locked = place_for_git / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(locked)], check=True)
    for path in (place_for_git / "nothing", locked):
        gate = gated(gates.over_ssh(place_for_git, ssh, upstream), signing_key=str(path))
        code, why = refused(gate, COMMIT)
        assert (code, "tell the operator" in why) == (403, True), why
        wait_for(lambda gate=gate: "git.unsigned" in gate.kinds(), "it to be in the record")
        assert gate.git("ls-remote", gate.url()).code == 0
        gate.close()


def test_neither_the_agent_s_side_of_the_gate_nor_the_checker_sees_the_key(signed):
    asked(signed, COMMIT)
    for name in ("gate", "checker"):
        mounts = Path(f"/proc/{signed.pid(name)}/mountinfo").read_text()
        assert "/keys" not in mounts
    assert "/keys/.signing" in Path(f"/proc/{signed.pid('courier')}/mountinfo").read_text()


@given(st.binary(max_size=300))
def test_what_is_no_commit_is_never_taken_for_one(data):
    assert signing.kind(data) == ""
    assert signing.kind(COMMIT.partition(b"\n\n")[0] + b"\n\n" + data) == "commit"
