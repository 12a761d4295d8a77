"""What is put on top of every image, whoever made it: the agent's tool, the programs of ours, a user who is not root.

The image needs no shell and no program of its own for it: files are copied on, and nothing is run.
"""

import io
import os
from collections.abc import Iterable, Sequence

from bot_bottle.errors import HostError
from bot_bottle.plan.model import INSIDE_GID, INSIDE_HOME, INSIDE_UID, INSIDE_USER, INSIDE_WORKSPACE, Mount
from bot_bottle.typed import IO, TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import tarfile

    from docker import DockerClient

_PASSWD, _GROUP = "etc/passwd", "etc/group"
_LARGEST_LIST = 1 << 20


class User(NamedTuple):
    """Who the agent is inside: never root."""

    name: str
    uid: int
    gid: int


class Program(NamedTuple):
    """A program of ours; `path` is absolute, and below a folder that is not on PATH."""

    path: str
    content: bytes


class Lists(NamedTuple):
    """An image's own lists of users and groups; empty where it has none."""

    passwd: str = ""
    group: str = ""


def lists(client: "DockerClient", image: str, labels: dict[str, str]) -> Lists:
    """Reads them from a container that is never started."""
    from docker.errors import NotFound

    made = client.api.create_container(image, command=["-"], labels=labels, network_disabled=True)
    try:
        found = []
        for path in (_PASSWD, _GROUP):
            try:
                found.append(_content(client.api.get_archive(made["Id"], f"/{path}", chunk_size=1 << 16)[0]))
            except NotFound:
                found.append("")
        return Lists(*found)
    finally:
        client.api.remove_container(made["Id"], force=True, v=True)


def remove_containers(client: "DockerClient", labels: dict[str, str]) -> None:
    """Removes those that carry `labels`."""
    wanted = [f"{name}={value}" for name, value in labels.items()]
    for one in client.api.containers(all=True, filters={"label": wanted}):
        client.api.remove_container(one["Id"], force=True, v=True)


def _content(chunks: Iterable[bytes]) -> str:
    """The text of the one file in an archive; empty when it is no file of a sensible size."""
    import tarfile

    held = bytearray()
    for chunk in chunks:
        held += chunk
        if len(held) > _LARGEST_LIST:
            return ""
    with tarfile.open(fileobj=io.BytesIO(bytes(held))) as archive:
        member = archive.next()
        file = archive.extractfile(member) if member is not None and member.isfile() else None
        return file.read().decode(errors="replace") if file else ""


def _rows(text: str) -> list[list[str]]:
    return [
        line.split(":") for line in text.splitlines() if line.count(":") >= 2 and not line.startswith("#")
    ]


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def user_of(stated: str, known: Lists, ids: tuple[int, int] | None = None) -> User:
    """Who has `ids` there; without them who the image's `USER` is, and where that is root or nobody, a user of ours."""
    rows = [row for row in _rows(known.passwd) if len(row) >= 4]
    if ids is None:
        ids = _ids_of(stated, rows, known) or (INSIDE_UID, INSIDE_GID)
    own = next((row[0] for row in rows if row[2] == str(ids[0])), INSIDE_USER)
    return User(own, *ids)


def _ids_of(stated: str, rows: list[list[str]], known: Lists) -> tuple[int, int] | None:
    """What `USER` stands for; None for root, and for a name that is nobody's."""
    name, _, group = stated.partition(":")
    row = next((row for row in rows if name and name in (row[0], row[2])), None)
    uid = _number(row[2] if row else name)
    groups = {row[0]: row[2] for row in _rows(known.group)}
    gid = _number(groups.get(group, group)) if group else _number(row[3]) if row else None
    return (uid, gid or uid) if uid else None


def with_user(known: Lists, user: User) -> Lists:
    """The lists with `user` in them, whose home is where everything is written for the agent."""
    rows = _rows(known.passwd) or [["root", "x", "0", "0", "root", "/root", "/bin/sh"]]
    entry = [user.name, "x", str(user.uid), str(user.gid), "", INSIDE_HOME]
    shell = next((row[6] for row in rows if row[2] == str(user.uid) and len(row) > 6), "/bin/sh")
    others = [row for row in rows if row[2] != str(user.uid) and row[0] != user.name]
    groups = _rows(known.group) or [["root", "x", "0", ""]]
    if str(user.gid) not in [row[2] for row in groups]:
        groups.append([user.name, "x", str(user.gid), ""])
    passwd = "".join(":".join(row) + "\n" for row in [*others, [*entry, shell]])
    return Lists(passwd, "".join(":".join(row) + "\n" for row in groups))


def write_context(
    target: IO[bytes],
    image: str,
    user: User,
    known: Lists,
    tools: Sequence[Mount],
    programs: Sequence[Program],
) -> None:
    """Writes the context of the layers on top of `image`: one for each tool, then ours. Raises HostError."""
    import tarfile

    lines = [f"FROM {image}", "USER 0:0"]
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        try:
            for index, tool in enumerate(tools):
                _add_tree(archive, tool.source, f"tool{index}{tool.target}")
                lines.append(f"COPY tool{index}/ /")
        except OSError as error:
            details = f"{error.filename}: {error.strerror}"
            raise HostError("The agent's tool can't be put into the image", details=details) from error
        for program in programs:
            _add(archive, f"ours{program.path}", program.content, 0o755)
        changed = with_user(known, user)
        _add(archive, f"ours/{_PASSWD}", changed.passwd.encode(), 0o644)
        _add(archive, f"ours/{_GROUP}", changed.group.encode(), 0o644)
        lines.append("COPY ours/ /")
        for folder in (INSIDE_HOME, INSIDE_WORKSPACE):
            _add(archive, f"theirs{folder}", None, 0o755)
        lines += [f"COPY --chown={user.uid}:{user.gid} theirs/ /", f"WORKDIR {INSIDE_WORKSPACE}"]
        lines += [f"USER {user.uid}:{user.gid}"]
        _add(archive, "Dockerfile", ("\n".join(lines) + "\n").encode(), 0o644)


def _add(archive: "tarfile.TarFile", path: str, content: bytes | None, mode: int) -> None:
    """Adds a file, or a folder where there is no content; root's, and of no time, so that the same is the same."""
    import tarfile

    entry = tarfile.TarInfo(path.lstrip("/"))
    entry.mode = mode
    if content is None:
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
    else:
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))


def _add_tree(archive: "tarfile.TarFile", source: str, path: str) -> None:
    """Adds a file or a folder of the host's, readable by all and writable by nobody but root."""

    def plain(entry: "tarfile.TarInfo") -> "tarfile.TarInfo":
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mtime = 0
        entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
        return entry

    archive.add(os.path.realpath(source), path, filter=plain)
