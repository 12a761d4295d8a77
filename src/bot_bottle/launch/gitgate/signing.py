"""Signs what git has signed: a commit or a tag as git makes them, by ssh-keygen, in the namespace that git has for it.

The agent says what is signed, and it may be misled. So the key can be had to sign nothing else: no login, no file, no other
program's document (each has a namespace of its own in the signature: OpenSSH PROTOCOL.sshsig).
"""

import re
import subprocess

LARGEST = 1 << 20
"""Bytes of a commit or tag without its signature."""
_WITHIN = 20.0
_ID = rb"[0-9a-f]{40}"
_WHO = rb"[^\n<>]*<[^\n<>]*> [0-9]{1,20} [+-][0-9]{4}\n"
_COMMIT = re.compile(
    rb"tree %b\n(?:parent %b\n){0,64}author %b" % (_ID, _ID, _WHO) + rb"committer %b" % _WHO + rb"(?:encoding [!-~]{1,40}\n)?"
)  # fmt: skip
_TAG = re.compile(rb"object %b\ntype (?:commit|tag|tree|blob)\ntag [^\n]{1,1000}\ntagger %b" % (_ID, _WHO))
_HEADERS = re.compile(rb"(?:(?:mergetag|HG:[a-z-]+) [^\n]*\n(?: [^\n]*\n)*)*\n")
"""What else git puts into a commit, up to its message."""


def kind(content: bytes) -> str:
    """`commit` or `tag`; empty when it is neither as git would have it signed."""
    if (
        len(content) > LARGEST or b"\0" in content
    ):  # git makes none with a null byte, and shows what stands before it
        return ""
    for name, head in (("commit", _COMMIT), ("tag", _TAG)):
        found = head.match(content)
        if found and (
            _HEADERS.match(content, found.end()) if name == "commit" else content[found.end() :][:1] == b"\n"
        ):
            return name
    return ""


def sign(content: bytes, key: str) -> tuple[bytes, str]:
    """The signature, and why there is none; one of them is empty. `content` is of a `kind`."""
    argv = ["ssh-keygen", "-q", "-Y", "sign", "-n", "git", "-f", key]
    try:
        done = subprocess.run(argv, input=content, capture_output=True, timeout=_WITHIN, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return b"", f"ssh-keygen did not sign ({type(error).__name__})"
    if done.returncode or not done.stdout.startswith(b"-----BEGIN SSH SIGNATURE-----\n"):
        return b"", "the bottle's signing key can't be used; tell the operator"
    return done.stdout, ""
