"""The branches of an agent's own clone, brought to the person's repository as refs, and nothing else.

The clone is the agent's: git never runs in it. Its refs are read here, as text; its objects are packed in a place that sees
nothing but them (`bundle/gitgate/packing`); and the pack is read anew, strictly, into the person's repository, whose own
hooks and settings have no say. No file of the person's is touched, and no branch of theirs.
"""

import os
import re
import socket
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

from bot_bottle.errors import HostError, NotFoundError, UsageError
from bot_bottle.host import git, process, tree
from bot_bottle.plan.model import COPY_FOLDER
from bot_bottle.policy.git import BRANCHES, is_sound
from bot_bottle.state.model import RunRecord

MOST_BRANCHES = 1000
SECONDS = 300.0
REFS = "refs/bottles"
_PACKED_BYTES = 8 << 20
_MEMORY = 2 << 30
_ID = re.compile(r"[0-9a-f]{40}")


class Branch(NamedTuple):
    """One branch of the agent's: what it is in the person's repository now, and what it was there before (empty: nothing)."""

    name: str
    ref: str
    commit: str
    before: str


def fetch(run: RunRecord) -> tuple[Branch, ...]:
    """Brings the branches of the run's clone to its workspace's repository.

    Raises UsageError when it has no clone, NotFoundError when nothing is there to bring, HostError.
    """
    if run.workspace_mode != "clone":
        raise UsageError(
            f"{run.id} has no clone of its own: its workspace is a {run.workspace_mode}",
            resolution=f"bot-bottle diff {run.id} shows what it changed; or give the bottle `workspace: clone`.",
        )
    clone = os.path.join(run.state_path, COPY_FOLDER)
    try:
        found = branches(clone)
    except OSError as error:
        raise HostError("The agent's repository can't be read", details=str(error)) from error
    if not found:
        raise NotFoundError(
            f"{run.id} has no branch yet", resolution="It appears with the agent's first commit."
        )
    repository = git_folder(run.workspace)
    prefix = f"{REFS}/{run.id}/"
    there = refs_of(repository)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=run.state_path) as held:
        packed = _packed(clone, held, sorted(set(found.values())), sorted(set(there.values())))
        _take_in(repository, held)
    brought = [
        Branch(name, prefix + name, commit, there.get(prefix + name, ""))
        for name, commit in sorted(found.items())
        if commit in packed
    ]
    _point(repository, brought)
    return tuple(brought)


def branches(clone: str) -> dict[str, str]:
    """The branches of the repository in `clone`, read without git and without following a link. Raises OSError."""
    found: dict[str, str] = {}
    with ExitStack() as opened:

        def folder(name: str, within: int | None = None) -> int:
            descriptor = tree.open_folder(name, within=within)
            opened.callback(os.close, descriptor)
            return descriptor

        top = folder(".git", folder(clone))
        packed = tree.read_small("packed-refs", within=top, limit=_PACKED_BYTES)
        for line in packed.decode("utf-8", "replace").splitlines():
            commit, _, ref = line.partition(" ")
            _note(found, ref, commit)
        try:
            heads = os.dup(folder("heads", folder("refs", top)))
        except OSError:
            return found
        for one in tree.walk(heads, lambda _path, _folder: True, lambda _path, _why: None):
            text = tree.read_small(one.name, within=one.folder, limit=100)
            _note(found, BRANCHES + one.path, text.decode("ascii", "replace").strip())
    return found


def _note(found: dict[str, str], ref: str, commit: str) -> None:
    name = ref.removeprefix(BRANCHES)
    fits = ref.startswith(BRANCHES) and is_sound(ref) and len(name) <= 150 and name.isascii()
    if fits and _ID.fullmatch(commit) and (name in found or len(found) < MOST_BRANCHES):
        found[name] = commit


def git_folder(workspace: str) -> str:
    """The git directory of the person's repository. Raises UsageError when there is none, or another user's."""
    environment = {name: value for name, value in git.environment("").items() if name != "GIT_DIR"}
    asked = process.run(["git", "rev-parse", "--absolute-git-dir"], env=environment, cwd=workspace)
    if asked.code:
        raise UsageError(f"{workspace} is no git repository", resolution="git init, and fetch again.")
    found = os.fsdecode(asked.stdout).rstrip("\n")
    if os.stat(found).st_uid != os.geteuid():
        raise UsageError(
            "The repository belongs to another user", details=found, resolution="Fetch as that user."
        )
    return found


def refs_of(repository: str) -> dict[str, str]:
    """Every ref of the person's repository, with what it names."""
    listed = git.run(repository, "for-each-ref", "--format=%(objectname) %(refname)")
    lines = listed.or_raise("Git could not list the repository's refs").stdout.decode(
        "utf-8", "surrogateescape"
    )
    return {ref: name for name, _, ref in (line.partition(" ") for line in lines.splitlines())}


def _packed(clone: str, held: str, wanted: Sequence[str], known: Sequence[str]) -> set[str]:
    """Has a process that sees nothing else pack it into `held`; the commits that it found. Raises HostError."""
    import json

    from bot_bottle.host import spawn
    from bot_bottle.launch.gitgate import jail

    owner = os.stat(clone)
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(held, owner.st_uid, owner.st_gid)
    place = jail.Place(readable=((clone, "/clone"),), writable=((held, "/held"),))
    order = {"uid": owner.st_uid if is_root else 0, "gid": owner.st_gid if is_root else 0, "memory": _MEMORY,
             "wanted": wanted, "known": known}  # fmt: skip
    ours, theirs = socket.socketpair()
    with ours:
        try:
            with theirs:
                child = jail.start("bot_bottle.bundle.gitgate.packing", (theirs.fileno(),), place)
        except (spawn.ChildFailed, OSError) as error:
            raise HostError("The agent's repository can't be read", details=str(error)) from error
        try:
            ours.settimeout(SECONDS)
            ours.sendall(json.dumps(order).encode() + b"\n")
            said = json.loads(_line(ours))
        except (OSError, ValueError) as error:
            raise HostError("The agent's repository can't be read", details=str(error)) from error
        finally:
            child.kill()
            child.wait()
            child.close()
    if said.get("ok") is not True or not isinstance(said.get("packed"), list):
        raise HostError(
            "The agent's repository is broken", details=str(said.get("failed", "git can't pack it"))[:500]
        )
    return {str(one) for one in said["packed"]} & set(wanted)


def _line(sock: socket.socket) -> bytes:
    heard = b""
    while not heard.endswith(b"\n"):
        data = sock.recv(65536)
        if not data or len(heard) > _PACKED_BYTES:
            raise OSError("the process that reads it broke off")
        heard += data
    return heard


def _take_in(repository: str, held: str) -> None:
    from bot_bottle.bundle.gitgate.packing import PACK

    folder = tree.open_folder(held)
    try:
        with open(tree.open_file(PACK, within=folder), "rb") as pack:
            words = ["git", "index-pack", "--stdin", "--strict", "--fix-thin"]
            done = process.run(
                words, env=git.environment(repository), cwd=repository, stdin=pack, timeout=SECONDS
            )
    finally:
        os.close(folder)
    done.or_raise("The agent's commits are not as git wants them", resolution="Nothing was brought.")


def _point(repository: str, brought: Sequence[Branch]) -> None:
    """All refs at once, or none."""
    orders = b"".join(
        f"update {one.ref}\0{one.commit}\0{one.before or '0' * 40}\0".encode() for one in brought
    )
    done = git.run(repository, "update-ref", "-z", "--no-deref", "--stdin", stdin=orders)
    done.or_raise("The refs could not be made", resolution="Nothing was brought.")
