"""Who the agent is to git: `~/.gitconfig` inside. Pure."""

from collections.abc import Sequence

from bot_bottle.manifest.document import GitDocument, GitRemoteDocument
from bot_bottle.plan.model import INSIDE_HOME, INSIDE_WORKSPACE, File


def identity(git: GitDocument, *, foreign_owner: bool) -> tuple[File, ...]:
    """The agent's git configuration; no file when there is nothing to say.

    With `foreign_owner` the workspace belongs to another user than the agent, and git is told to work in it
    all the same.
    """
    lines: list[str] = []
    user = [("name", git["user_name"]), ("email", git["user_email"])]
    if any(value for _, value in user):
        lines += ["[user]", *(f"\t{key} = {_quoted(value)}" for key, value in user if value)]
    if git["remotes"]:
        lines += _through_the_gate(git["remotes"])
    if foreign_owner:
        lines += ["[safe]", f"\tdirectory = {INSIDE_WORKSPACE}"]
    content = "".join(line + "\n" for line in lines).encode()
    return (File(target=f"{INSIDE_HOME}/.gitconfig", content=content, mode=0o644),) if lines else ()


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
