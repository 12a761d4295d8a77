"""Who the agent is to git: `~/.gitconfig` inside, and what its git has commits signed by. Pure."""

from collections.abc import Sequence

from bot_bottle.manifest.document import GitDocument, GitRemoteDocument
from bot_bottle.plan.model import INSIDE_HOME, INSIDE_WORKSPACE, File

_SIGNER = f"{INSIDE_HOME}/.config/bot-bottle/sign-with-git-gate"
_SIGNERS = f"{INSIDE_HOME}/.config/bot-bottle/allowed-signers"
_PROGRAM = """#!/bin/sh
# Called by git as it calls ssh-keygen. Signing is done outside, where the key is; everything else by ssh-keygen itself.
[ "$1 $2" = "-Y sign" ] || exec ssh-keygen "$@"
for file do :; done
url=URL
if command -v curl >/dev/null; then
    code=$(curl -sS --noproxy '*' --data-binary "@$file" -o "$file.sig" -w '%{http_code}' "$url")
elif command -v python3 >/dev/null; then
    code=$(python3 -I -c 'import sys, urllib.error, urllib.request as r
try: said = r.build_opener(r.ProxyHandler({})).open(r.Request(sys.argv[2], open(sys.argv[1], "rb").read()))
except urllib.error.HTTPError as error: said = error
open(sys.argv[1] + ".sig", "wb").write(said.read()); print(said.status)' "$file" "$url")
else
    echo "bot-bottle: signing takes curl or python3 in the bottle" >&2
    exit 1
fi
[ "$code" = 200 ] && exit 0
cat "$file.sig" >&2
rm -f "$file.sig"
exit 1
"""


def identity(git: GitDocument, *, foreign_owner: bool) -> tuple[File, ...]:
    """The agent's git configuration; no file when there is nothing to say.

    With `foreign_owner` the workspace belongs to another user than the agent, and git is told to work in it
    all the same.
    """
    lines: list[str] = []
    user = [("name", git["user_name"]), ("email", git["user_email"])]
    if any(value for _, value in user):
        lines += ["[user]", *(f"\t{key} = {_quoted(value)}" for key, value in user if value)]
    files = _signed(lines, git) if git["signing"] else ()
    if git["remotes"]:
        lines += _through_the_gate(git["remotes"])
    if foreign_owner:
        lines += ["[safe]", f"\tdirectory = {INSIDE_WORKSPACE}"]
    content = "".join(line + "\n" for line in lines).encode()
    return (File(target=f"{INSIDE_HOME}/.gitconfig", content=content, mode=0o644), *files) if lines else ()


def _signed(lines: list[str], git: GitDocument) -> tuple[File, ...]:
    """Has git sign commits and tags by the gate, and take what it signed for good."""
    from bot_bottle.policy.ports import GIT_SIGN_URL

    assert git["signing"] is not None
    public = git["signing"]["public"]
    lines += ["[user]", f"\tsigningKey = {_quoted(f'key::{public}')}", "[gpg]", "\tformat = ssh"]
    lines += ['[gpg "ssh"]', f"\tprogram = {_SIGNER}", f"\tallowedSignersFile = {_SIGNERS}"]
    lines += ["[commit]", "\tgpgSign = true", "[tag]", "\tgpgSign = true"]
    signers = f'* namespaces="git" {public}\n'
    return (
        File(target=_SIGNER, content=_PROGRAM.replace("URL", GIT_SIGN_URL, 1).encode(), mode=0o755),
        File(target=_SIGNERS, content=signers.encode(), mode=0o644),
    )


def _through_the_gate(remotes: Sequence[GitRemoteDocument]) -> list[str]:
    """Whatever a remote is called, git goes to the gate for it: over no proxy, with no login, and asking nobody for one."""
    from bot_bottle.plan.remotes import gate_url, spellings
    from bot_bottle.policy.ports import GIT_URL

    lines = [f'[http "{GIT_URL}/"]', '\tproxy = ""', "\tpostBuffer = 1048576"]
    lines += [f'[credential "{GIT_URL}"]', '\thelper = ""', f'[lfs "{GIT_URL}/"]', "\tlocksverify = false"]
    for remote in remotes:
        lines.append(f'[url "{gate_url(remote["name"])}"]')
        lines += [f"\tinsteadOf = {_quoted(one)}" for one in spellings(remote["url"])]
    return lines


def _quoted(value: str) -> str:
    """`value` as git's configuration writes text: no quote, backslash or line break in it can end it."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t"}
    return '"' + "".join(escapes.get(one, one) for one in value if one.isprintable() or one in escapes) + '"'
