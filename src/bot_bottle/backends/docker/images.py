"""The image that a bottle is made from: found, fetched or built, with a layer of ours on top. `ensure` is the one entry.

An image is named after what it is made of, so that nothing is built that is there already: the Dockerfile and its context, or the
image that a reference means now; the tool's version; the programs of ours. What is there is found by one or two questions.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

from bot_bottle.backends.docker import building, context, failures, layer
from bot_bottle.backends.docker.building import LABEL, Say
from bot_bottle.errors import HostError, NotFoundError, PlanError
from bot_bottle.host import paths
from bot_bottle.plan.model import INSIDE_HOME, ImageSpec

if TYPE_CHECKING:
    from bot_bottle.backends.docker.engine import Engine

SCHEMA = 1
"""Raised when the same parts make another image."""
BUILT, BOTTLE = "bot-bottle/built", "bot-bottle/bottle"
BASE = "docker.io/library/node:22-bookworm-slim"
"""What our own image is built on, when the bottle's file does not say (`image: {args: {BASE: …}}`)."""
USER_LABEL = "bot-bottle.user"
WRITABLE = "bot-bottle.writable-root"
"""An image whose maker gave it this label, `true`, gets a root that may be written."""


class Image(NamedTuple):
    """An image that a container can be made from. `env` is the image's own; `user` is never root."""

    id: str
    user: str
    uid: int
    gid: int
    home: str
    workdir: str
    env: tuple[tuple[str, str], ...]
    read_only_ok: bool


def ensure(spec: ImageSpec, engine: "Engine", say: Say, programs: Sequence[layer.Program] = ()) -> Image:
    """The image of `spec` with `programs` in it, on this engine; built or fetched when it is not there.

    `say` hears what is done, when it takes time. Raises ManifestError for a Dockerfile that is none, NotFoundError for an image
    that is not to be had, PlanError for a context that can't be one, HostError for everything else.
    """
    _check_places(spec)
    try:
        origin = _origin(spec, engine)
        tag = f"{BOTTLE}:{_digest('bottle', origin.mark, _marks(spec), _marks_of(programs))}"
        found = _find(engine, tag)
        if found is None:
            with _alone(say):
                found = _find(engine, tag) or _make(spec, engine, say, origin, tag, programs)
        return _image(found)
    except failures.kinds() as error:
        raise failures.explain(error, "The image could not be made") from error


class _Origin(NamedTuple):
    """What an image of ours is put on: a name by which the engine knows it, or will; `mark` tells it from others."""

    name: str
    mark: str
    base: str = ""
    gathered: context.Context | None = None


def _check_places(spec: ImageSpec) -> None:
    """What is read must not really lie where the agent writes, whatever the links on the way."""
    if not spec.workspace:
        return
    workspace = os.path.realpath(spec.workspace) + "/"
    for path in (spec.dockerfile, spec.context, spec.ca):
        real = os.path.realpath(path) + "/" if path else ""
        if real.startswith(workspace) or (path == spec.context and real and workspace.startswith(real)):
            raise PlanError(
                "The image would be built from what the agent writes",
                details=f"{path} is {real.rstrip('/')}; the workspace is {workspace.rstrip('/')}.",
                resolution="Keep the Dockerfile and its context beside the bottle's file.",
            )


def _origin(spec: ImageSpec, engine: "Engine") -> _Origin:
    """What `spec` is made on, and what tells it from others; asks the engine only about images with a name."""
    if spec.reference:
        found = _find(engine, spec.reference)
        return _Origin(spec.reference, found["Id"] if found else "")
    base, gathered = "", None
    if spec.dockerfile:
        gathered = context.gather(spec.context, spec.dockerfile)
        sources = context.digest(gathered, _memory(spec))
        inside = os.path.relpath(spec.dockerfile, spec.context)
    else:
        base = dict(spec.args).get("BASE", BASE)
        found = _find(engine, base)
        sources, inside = _digest(_own_dockerfile(), found["Id"] if found else ""), ""
        if found is None:
            return _Origin("", "", base)
    mark = _digest("built", sources, inside, spec.target, spec.args, _file_mark(spec.ca))
    return _Origin(f"{BUILT}:{mark}", mark, base, gathered)


def _make(
    spec: ImageSpec, engine: "Engine", say: Say, origin: _Origin, tag: str, programs: Sequence[layer.Program]
) -> Mapping[str, Any]:
    """Fetches and builds what is missing, and answers the whole image."""
    missing = spec.reference or origin.base
    if missing and not origin.mark:
        building.pull(engine.client, missing, say)
        origin = _origin(spec, engine)
        tag = f"{BOTTLE}:{_digest('bottle', origin.mark, _marks(spec), _marks_of(programs))}"
        if found := _find(engine, tag):
            return found
    below = _find(engine, origin.name)
    if below is None and not spec.reference:
        _build(spec, engine, say, origin)
        below = _find(engine, origin.name)
    if below is None:
        raise NotFoundError(f"The image {origin.name} is gone", resolution="Start it again.")
    _put_on_top(spec, engine, say, below, tag, programs)
    found = _find(engine, tag)
    if found is None:
        raise NotFoundError(f"The image {tag} is gone", resolution="Start it again.")
    return found


def _build(spec: ImageSpec, engine: "Engine", say: Say, origin: _Origin) -> None:
    """The user's Dockerfile, or ours."""
    from bot_bottle.backends.docker import sending

    shown = spec.dockerfile or f"bot-bottle's own Dockerfile, on {origin.base}"
    args = dict(spec.args) if spec.dockerfile else {**dict(spec.args), "BASE": origin.base}
    with tempfile.TemporaryFile() as archive:
        if origin.gathered is None:
            inside = sending.write_own(archive, _own_dockerfile(), spec.ca)
        else:
            inside = sending.write(archive, origin.gathered, spec.dockerfile, spec.ca)
        archive.seek(0)
        say("Building the image")
        recipe = building.Recipe(archive, inside, origin.name, shown, spec.target, args)
        building.build(engine.client, recipe, say)


def _put_on_top(
    spec: ImageSpec,
    engine: "Engine",
    say: Say,
    below: Mapping[str, Any],
    tag: str,
    programs: Sequence[layer.Program],
) -> None:
    """The layers of ours."""
    _check_machine(below)
    identity = str(below["Id"])
    known = layer.lists(engine.client, identity, {LABEL: "lists"})
    user = layer.user_of(str(below["Config"].get("User") or ""), known)
    labels = {LABEL: "bottle", USER_LABEL: json.dumps(user)}
    with tempfile.TemporaryFile() as archive:
        say("Putting the agent's tool into the image")
        layer.write_context(archive, identity.removeprefix("sha256:"), user, known, spec.layers, programs)
        archive.seek(0)
        shown = "the layers of bot-bottle"
        recipe = building.Recipe(archive, "Dockerfile", tag, shown, labels=labels, network="none")
        building.build(engine.client, recipe, lambda _: None)


_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


def _check_machine(below: Mapping[str, Any]) -> None:
    """Our programs and the installed tools are for this host's machine."""
    theirs, ours = str(below.get("Architecture") or ""), os.uname().machine
    if _MACHINES.get(theirs, theirs) != ours:
        raise PlanError(
            f"The image is for {theirs} machines", details=f"The tools that were installed here are for {ours}.",
            resolution="Name an image for this machine, or run bot-bottle on one like the engine's.",
        )  # fmt: skip


def _find(engine: "Engine", name: str) -> Mapping[str, Any] | None:
    """What the engine knows of the image `name`; None when it has none, or not one of this machine's kind."""
    from docker.errors import ImageNotFound

    if not name:
        return None
    try:
        found: Mapping[str, Any] = engine.client.api.inspect_image(name)
    except ImageNotFound:
        return None
    return found


def _image(found: Mapping[str, Any]) -> Image:
    config = found["Config"]
    labels = config.get("Labels") or {}
    try:
        name, uid, gid = json.loads(labels[USER_LABEL])
    except (KeyError, ValueError) as error:
        raise HostError("The image is not one of bot-bottle's", details=str(found.get("RepoTags"))) from error
    pairs = (entry.partition("=") for entry in config.get("Env") or ())
    return Image(
        id=str(found["Id"]),
        user=name,
        uid=uid,
        gid=gid,
        home=INSIDE_HOME,
        workdir=str(config.get("WorkingDir") or "/"),
        env=tuple((key, value) for key, _, value in pairs),
        read_only_ok=labels.get(WRITABLE) != "true",
    )


def _own_dockerfile() -> bytes:
    return resources.files("bot_bottle.backends.docker").joinpath("Dockerfile").read_bytes()


def _memory(spec: ImageSpec) -> str:
    """Where the digest of the last time is kept."""
    return os.path.join(paths.cache_root(), "images", _digest(spec.context, spec.dockerfile) + ".json")


def _digest(*parts: Any) -> str:
    text = json.dumps([SCHEMA, *(part.decode() if isinstance(part, bytes) else part for part in parts)])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:40]


def _marks(spec: ImageSpec) -> list[Any]:
    """What tells one installed tool from another; its bytes were checked when it was installed, and are never changed."""
    return [[mount.target, _file_mark(mount.source)] for mount in spec.layers]


def _marks_of(programs: Sequence[layer.Program]) -> list[Any]:
    return [[program.path, hashlib.sha256(program.content).hexdigest()] for program in programs]


def _file_mark(path: str) -> list[Any]:
    if not path:
        return []
    try:
        real = os.path.realpath(path)
        facts = os.stat(real)
    except OSError as error:
        raise HostError("The image can't be made", details=f"{path}: {error.strerror}") from error
    return [real, facts.st_size, facts.st_mtime_ns, facts.st_ino]


@contextlib.contextmanager
def _alone(say: Say) -> Iterator[None]:
    """One builds, the others wait and find it built. Raises HostError when the lock can't be made."""
    import fcntl

    folder = os.path.join(paths.cache_root(), "images")
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        lock = os.open(os.path.join(folder, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError("The image can't be made", details=f"{error.filename}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Waiting for another build")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
