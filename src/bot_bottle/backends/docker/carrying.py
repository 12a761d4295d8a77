"""Files to and from an engine that can't be shown folders of this machine, through its archive calls.

What comes back was made by the agent, and is taken member by member like everything that it makes (`backends.copying`).
"""

import os
import tarfile
import tempfile
from collections.abc import Iterable

from bot_bottle.backends.copying import Bounds, take
from bot_bottle.backends.docker import programs
from bot_bottle.backends.docker.container import GUEST, Names
from bot_bottle.backends.docker.images import Image
from bot_bottle.backends.docker.wire import Engine
from bot_bottle.errors import HostError
from bot_bottle.host import tree
from bot_bottle.plan.model import INSIDE_WORKSPACE, Mount

_BACK = ".back"


def carry_in(engine: Engine, names: Names, folder: str, image: Image) -> None:
    """Puts what is in `folder` here into the workspace of the agent's container, as the agent's. Raises HostError, SandboxError."""

    def theirs(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid, member.gid, member.uname, member.gname = image.uid, image.gid, "", ""
        member.mode &= 0o777
        return member

    with tempfile.TemporaryFile() as file:
        try:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                archive.add(folder, ".", filter=theirs)
            file.seek(0)
        except OSError as error:
            raise HostError("The workspace can't be packed", details=str(error)) from error
        place = f"/containers/{names.agent}/archive"
        engine.call("PUT", place, file, what="take the workspace", path=INSIDE_WORKSPACE)


def put(engine: Engine, name: str, mounts: Iterable[Mount]) -> None:
    """Puts the sources of `mounts` into the container, root's, where they would be mounted. Raises HostError, SandboxError."""

    def roots(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mode &= 0o755
        return member

    with tempfile.TemporaryFile() as file:
        try:
            with tarfile.open(
                fileobj=file, mode="w", format=tarfile.PAX_FORMAT, dereference=False
            ) as archive:
                for mount in mounts:
                    archive.add(mount.source, mount.target.lstrip("/"), filter=roots)
            file.seek(0)
        except OSError as error:
            raise HostError("What the bottle is to be shown can't be packed", details=str(error)) from error
        engine.call("PUT", f"/containers/{name}/archive", file, what="take the bottle's files", path="/")


def carry_out(engine: Engine, names: Names, folder: str) -> None:
    """Puts into `folder` here, in the place of what is in it, what the run's workspace holds; nothing when there is none.

    Raises HostError, SandboxError; then `folder` is as before.
    """
    from bot_bottle.backends.docker import far

    if not far.has_work(engine, names):
        return
    work = {"Type": "volume", "Source": far.work_volume(names), "Target": INSIDE_WORKSPACE}
    asked = {
        "Image": programs.door_image(engine), "Entrypoint": [GUEST], "Cmd": [], "Labels": names.labels,
        "HostConfig": {"NetworkMode": "none", "Mounts": [work]},
    }  # fmt: skip
    made = engine.call("POST", "/containers/create", asked, what="look into the workspace")["Id"]
    back = folder + _BACK
    try:
        pending = engine.begin(
            "GET", f"/containers/{made}/archive", what="give the workspace", path=INSIDE_WORKSPACE
        )
        tree.remove(back)
        with pending.stream() as stream:
            take(stream, back, os.path.basename(INSIDE_WORKSPACE), Bounds())
        old = folder + ".before"
        if os.path.lexists(folder):
            os.rename(folder, old)
        os.rename(back, folder)
        tree.remove(old)
    except OSError as error:
        raise HostError("The workspace did not come back", details=str(error)) from error
    finally:
        tree.remove(back)
        engine.call("DELETE", f"/containers/{made}", what="remove a container", force="1")
