"""The two images of ours that every bottle needs: the agent's image with process 1 in it, and the door helper's.

Both are made once and found again by a tag that says what is in them. Nothing of the image runs while it is sealed.
"""

import io
import os
import tarfile

from bot_bottle.backends.docker.container import GUEST
from bot_bottle.backends.docker.wire import Engine, EngineRefusal
from bot_bottle.digest import sha256_hex
from bot_bottle.errors import HostError
from bot_bottle.host import files
from bot_bottle.plan.model import INSIDE_HOME, INSIDE_USER, INSIDE_WORKSPACE
from bot_bottle.typed import Any

SEALED = "bot-bottle-sealed"
DOOR = "bot-bottle-door"
KIND_LABEL = "bot-bottle.kind"
"""Of images and of the containers they are made in, which belong to no run."""


def guest(machine: str = "") -> bytes:
    """The program that is process 1. Raises HostError where there is none for `machine` (default: this one)."""
    machine = machine or os.uname().machine
    try:
        return files.read(files.beside(__file__, f"guest.{machine}"))
    except FileNotFoundError as error:
        raise HostError(f"The docker backend has no program for this machine ({machine})") from error


def door_image(engine: Engine) -> str:
    """The helper's image, made if it is not there. Raises EngineRefusal, HostError."""
    program = guest()
    tag = sha256_hex(program)[:16]
    name = f"{DOOR}:{tag}"
    if _known(engine, name):
        return name
    archive = _archive([(GUEST.lstrip("/"), program, 0o755)])
    engine.call("POST", "/images/create", archive, what="take the door helper's image", fromSrc="-", repo=DOOR, tag=tag)
    return name


def sealed_image(engine: Engine, image: str, user: tuple[int, int], labels: dict[str, str]) -> str:
    """The image with the identity `image` and process 1 in it, for `user`; made if it is not there.

    Raises EngineRefusal, HostError.
    """
    program, who = guest(), _etc(user)
    tag = sha256_hex(b"\0".join((image.encode(), program, *(text for _, text, _ in who))))[:32]
    name = f"{SEALED}:{tag}"
    if _known(engine, name):
        return name
    made = engine.call(
        "POST",
        "/containers/create",
        {"Image": image, "Entrypoint": [GUEST], "Cmd": [], "Labels": {**labels, KIND_LABEL: "sealing"}},
        what="look into the image",
    )["Id"]
    try:
        archive = _archive(
            [(GUEST.lstrip("/"), program, 0o555), *who], folders=((INSIDE_HOME, user), (INSIDE_WORKSPACE, user))
        )
        engine.call("PUT", f"/containers/{made}/archive", archive, what="add to the image", path="/")
        config = {"Entrypoint": [GUEST], "Cmd": [], "Labels": {KIND_LABEL: "sealed"}}
        engine.call(
            "POST", "/commit", config, what="keep the image", container=made, repo=SEALED, tag=tag, pause="false"
        )
    finally:
        engine.call("DELETE", f"/containers/{made}", what="remove a container", force="1", v="1")
    return name


def _known(engine: Engine, name: str) -> bool:
    try:
        engine.call("GET", f"/images/{name}/json", what="look for an image")
    except EngineRefusal as refused:
        if refused.status != 404:
            raise
        return False
    except HostError as error:
        if error.brief != "The bottle's image is gone":
            raise
        return False
    return True


def identity(engine: Engine, reference: str) -> dict[str, Any]:
    """What the engine knows of the image `reference`. Raises HostError when it has none, EngineRefusal."""
    found: dict[str, Any] = engine.call("GET", f"/images/{reference}/json", what="look at the image")
    return found


def _etc(user: tuple[int, int]) -> list[tuple[str, bytes, int]]:
    """Who one is inside; the image's own users are nobody there."""
    uid, gid = user
    texts = {
        "passwd": f"root:x:0:0:root:/root:/usr/sbin/nologin\n{INSIDE_USER}:x:{uid}:{gid}:{INSIDE_USER}:{INSIDE_HOME}:/bin/bash\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
        "group": f"root:x:0:\n{INSIDE_USER}:x:{gid}:\nnogroup:x:65534:\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    }
    return [(f"etc/{name}", text.encode(), 0o644) for name, text in texts.items()]


def _archive(
    contents: list[tuple[str, bytes, int]], folders: tuple[tuple[str, tuple[int, int]], ...] = ()
) -> bytes:
    taken = io.BytesIO()
    with tarfile.open(fileobj=taken, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path, (uid, gid) in folders:
            member = tarfile.TarInfo(path.lstrip("/"))
            member.type, member.mode, member.uid, member.gid = tarfile.DIRTYPE, 0o755, uid, gid
            archive.addfile(member)
        for path, data, mode in contents:
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(data), mode
            archive.addfile(member, io.BytesIO(data))
    return taken.getvalue()
