"""The program that is process 1 of every agent's container, and the image of the door's helper, which holds nothing else."""

from collections.abc import Mapping

from bot_bottle.backends import guest
from bot_bottle.backends.docker.container import GUEST
from bot_bottle.backends.docker.wire import Engine, EngineRefusal
from bot_bottle.digest import sha256_hex
from bot_bottle.typed import Any

DOOR = "bot-bottle-door"


def door_name() -> str:
    """What the helper's image is called; it says what is in it."""
    return f"{DOOR}:{sha256_hex(guest.program())[:16]}"


def door_archive() -> bytes:
    """All that is in the helper's image, as a tar."""
    return _archive([(GUEST.lstrip("/"), guest.program(), 0o755)])


def door_image(engine: Engine) -> str:
    """The helper's image, made if it is not there. Raises EngineRefusal, HostError."""
    name = door_name()
    if not look(engine, name):
        repository, _, tag = name.partition(":")
        what = "take the door helper's image"
        asked = {"fromSrc": "-", "repo": repository, "tag": tag}
        made = engine.call("POST", "/images/create", door_archive(), what=what, **asked)
        if (identity := made.get("status")) and not look(engine, name):  # Podman takes no tag here
            engine.call("POST", f"/images/{identity}/tag", what=what, repo=repository, tag=tag)
    return name


def look(engine: Engine, name: str) -> Mapping[str, Any] | None:
    """What the engine knows of the image `name`; None when it has none. Raises EngineRefusal, HostError."""
    try:
        found: Mapping[str, Any] = engine.call("GET", f"/images/{name}/json", what="look for an image")
    except EngineRefusal as refused:
        if refused.status != 404:
            raise
        return None
    return found


def _archive(contents: list[tuple[str, bytes, int]]) -> bytes:
    import io  # seldom needed
    import tarfile

    taken = io.BytesIO()
    with tarfile.open(fileobj=taken, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path, data, mode in contents:
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(data), mode
            archive.addfile(member, io.BytesIO(data))
    return taken.getvalue()
