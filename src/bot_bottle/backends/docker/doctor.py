"""What an engine offers, and whether a container of ours starts on it: asked and tried, for `bot-bottle doctor`."""

import os
import shutil
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from bot_bottle.backends.docker import container, dialing, failures, images, programs
from bot_bottle.errors import BotBottleError, HostError

if TYPE_CHECKING:
    from bot_bottle.backends.docker.engine import Engine

ANSWER_WITHIN = 10.0
"""Seconds for each answer; an engine that takes longer is in trouble."""
LEAST_ROOM = 5 << 30
"""Bytes that an image and what is built with it take easily."""
OWN_KERNEL = ("runsc", "kata", "kata-runtime", "io.containerd.kata.v2", "runsc-kvm")
"""Runtimes that can't be handed sockets of this kernel, which a door needs."""


class Seen(NamedTuple):
    """One answer; `do` is what to do about it, empty when all is well."""

    name: str
    seen: str
    do: str = ""


def examine(environ: Mapping[str, str]) -> Iterator[Seen]:
    """All that there is to know of the engine that `environ` means. Raises HostError when none answers."""
    from bot_bottle.backends.docker.engine import connect

    engine = connect(environ, timeout=ANSWER_WITHIN)
    try:
        yield Seen("docker", engine.describe())
        try:
            info: Mapping[str, Any] = engine.client.api.info()
        except failures.kinds() as error:
            raise failures.explain(error, "The engine does not say what it offers") from error
        found = dialing.read(info, here=engine.local)
        if found.podman and not found.local:
            yield Seen("docker", dialing.PODMAN_FAR, "Use root's, a Docker engine, or backend: namespace.")
            return
        yield from told(info)
        yield room(info) if engine.local else Seen("docker disk", "its free space is not known here")
        yield _tried(engine)
    finally:
        engine.client.close()


def told(info: Mapping[str, Any]) -> Iterator[Seen]:
    """What the engine's answer to /info means for bottles. Pure."""
    options = [str(option) for option in info.get("SecurityOptions") or ()]
    rootless, maps = (any(name in option for option in options) for name in ("name=rootless", "name=userns"))
    copied = "; bundles are containers, and workspaces are copied to it"
    rights = (
        f"rootless: it runs as a user{copied}"
        if rootless
        else f"it maps users{copied}"
        if maps
        else "it runs as root"
    )
    yield Seen("docker rights", rights)
    kept = [name for key, name in dialing.LIMITS if info.get(key)]
    missing = [name for key, name in dialing.LIMITS if not info.get(key)]
    groups = f"cgroup v{info.get('CgroupVersion') or 1}, {info.get('CgroupDriver') or 'no driver'}"
    do = (
        f"It can't keep {', '.join(missing)}: a bottle's file that states one is refused. Delegate control groups to it."
        if missing
        else ""
    )
    yield Seen("docker limits", f"{groups}; keeps {', '.join(kept) or 'nothing'}", do)
    yield Seen("docker storage", _storage(info))
    names = sorted(info.get("Runtimes") or ())
    apart = [name for name in names if name in OWN_KERNEL]
    seen = f"{', '.join(names) or 'none named'}; default {info.get('DefaultRuntime') or 'unknown'}"
    yield Seen(
        "docker runtimes",
        f"{seen}; a bottle can't have {', '.join(apart)}: no door leads there" if apart else seen,
    )


def _storage(info: Mapping[str, Any]) -> str:
    status = dict(pair for pair in info.get("DriverStatus") or () if len(pair) == 2)
    driver, backing = str(info.get("Driver") or "unknown"), str(status.get("Backing Filesystem") or "")
    bounded = driver in ("btrfs", "zfs", "windowsfilter") or (driver == "overlay2" and backing == "xfs")
    root = "can be bounded" if bounded else "can't be bounded"
    return (
        f"{driver}{f' on {backing}' if backing else ''}; a root that may be written {root} by resources.disk"
    )


def room(info: Mapping[str, Any]) -> Seen:
    """How much room is left where the engine keeps its data."""
    folder = str(info.get("DockerRootDir") or "")
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Seen("docker disk", f"{folder}: {error.strerror}")
    seen = f"{free / 2**30:.1f} GiB free in {folder}"
    return Seen(
        "docker disk", seen, "Make room: docker system df tells what takes it." if free < LEAST_ROOM else ""
    )


def _tried(engine: "Engine") -> Seen:
    """Makes and starts a container that is confined as bottles are, and that ends at once."""
    name = f"bot-bottle-doctor-{os.getpid()}"
    api = engine.client.api
    try:
        image = _image(engine)
        made = api.create_container_from_config(container.trial(image, {images.LABEL: "doctor"}), name=name)
        try:
            api.start(made["Id"])
            api.wait(made["Id"])
        finally:
            api.remove_container(made["Id"], force=True)
    except BotBottleError as error:
        return Seen("docker containers", error.brief, error.resolution or error.details)
    except failures.kinds() as error:
        words = failures.said(error).strip()
        return Seen("docker containers", f"none can be started: {words}", _advice(words))
    return Seen("docker containers", "one of ours starts and ends")


def _image(engine: "Engine") -> str:
    """The smallest of our images, which holds one program."""
    name = programs.door_name()
    if images.look(engine, name) is None:
        repository, _, tag = name.partition(":")
        api = engine.client.api
        api.import_image_from_data(programs.door_archive(), repository=repository, tag=tag)
        if images.look(engine, name) is None and images.look(engine, repository):  # Podman takes no tag there
            api.tag(repository, repository, tag)
    if images.look(engine, name) is None:
        raise HostError("The engine took an image and has none")
    return name


def _advice(words: str) -> str:
    lower = words.lower()
    if "no space left" in lower:
        return "Make room where the engine keeps its data: docker system df."
    if "cgroup" in lower:
        return "The engine can't make control groups: in a container it needs a writable /sys/fs/cgroup; rootless, delegation."
    if "seccomp" in lower:
        return "The engine's runtime knows no seccomp: bottles are not started without it. Update runc and libseccomp."
    if "operation not permitted" in lower or "permission denied" in lower:
        return "The engine lacks rights: in a container it needs to be privileged."
    return "See the engine's own log: journalctl -u docker."
