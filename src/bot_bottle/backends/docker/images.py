"""The image that a bottle is made from: found, fetched or built, with a layer of ours on top. `ensure` is the one entry.

An image is named after what it is made of, so that nothing is built that is there already: the Dockerfile and its context, or the
image that a reference means now; the tool's version; the programs of ours. What is there is found by one or two questions.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from bot_bottle.backends.docker import context, layer
from bot_bottle.digest import sha256_hex
from bot_bottle.errors import HostError, NotFoundError, PlanError
from bot_bottle.host import paths
from bot_bottle.host.alone import alone
from bot_bottle.plan.model import INSIDE_HOME, ImageSpec
from bot_bottle.typed import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from bot_bottle.backends.docker.engine import Engine

Say = Callable[[str], None]
"""Hears what is being done, one sentence at a time."""
Found = Mapping[str, Any]
"""What an engine knows of an image."""
SCHEMA = 1
"""Raised when the same parts make another image."""
LABEL = "bot-bottle.image"
"""What every image of ours carries; its value says what kind it is."""
BUILT, BOTTLE = "bot-bottle/built", "bot-bottle/bottle"
BASE = "debian:bookworm-slim"
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


class Access(NamedTuple):
    """The engine, in two ways: `look` asks it about one image (None: it has none), and is all that a start needs when everything
    is there; `whole` connects the Docker SDK, whose import alone takes longer than that, to build or fetch."""

    look: Callable[[str], Found | None]
    whole: Callable[[], "Engine"]


class Parts(NamedTuple):
    """What is put on top: programs of ours, and who the agent is (None: the image's own user, unless that is root)."""

    programs: tuple[layer.Program, ...] = ()
    ids: tuple[int, int] | None = None

    def mark(self) -> list[Any]:
        """What tells these from others."""
        return [self.ids, [[path, sha256_hex(content)] for path, content in self.programs]]


NO_PARTS = Parts()


def ensure(spec: ImageSpec, access: Access, say: Say, parts: Parts = NO_PARTS) -> Image:
    """The image of `spec` with `parts` in it, on this engine; built or fetched when it is not there.

    `say` hears what is done, when it takes time. Raises ManifestError for a Dockerfile that is none, NotFoundError for an image
    that is not to be had, PlanError for a context that can't be one, HostError for everything else.
    """
    _check_places(spec)
    origin = _origin(spec, access.look)
    found = access.look(_tag(spec, origin, parts)) if origin.mark else None
    if found is None:
        from bot_bottle.backends.docker import failures

        try:
            with _alone(say):
                found = _Making(spec, access, say, parts).image()
        except failures.kinds() as error:
            raise failures.explain(error, "The image could not be made") from error
    return _image(found)


def access(engine: "Engine") -> Access:
    """Both ways by the SDK, for whoever has it connected already."""
    return Access(lambda name: look(engine, name), lambda: engine)


def _installation() -> dict[str, str]:
    """The label by which what this installation built is told from another's on the same engine."""
    return {"bot-bottle.root": sha256_hex(paths.state_root().encode())[:16]}


def look(engine: "Engine", name: str) -> Found | None:
    """What `engine` knows of the image `name`."""
    from docker.errors import ImageNotFound

    try:
        found: Found = engine.client.api.inspect_image(name)
    except ImageNotFound:
        return None
    return found


def forget(engine: "Engine") -> list[str]:
    """Removes every image that this installation built and that no container uses; they are built again when they are wanted."""
    from docker.errors import APIError

    said = []
    ours = [f"{name}={value}" for name, value in _installation().items()]
    for repository in (BOTTLE, BUILT):
        for one in engine.client.api.images(repository, filters={"label": ours}):
            for tag in one.get("RepoTags") or ():
                try:
                    engine.client.api.remove_image(tag)
                except APIError as error:
                    if error.status_code not in (404, 409):  # somebody else was quicker, or it is in use
                        raise
                else:
                    said.append(f"removed the image {tag}")
    return said


class _Origin(NamedTuple):
    """What an image of ours is put on: a name by which the engine knows it, or will; `mark` tells it from others.

    Where `mark` is empty, `missing` is an image that has to be fetched first.
    """

    name: str
    mark: str
    missing: str = ""


def _tag(spec: ImageSpec, origin: _Origin, parts: Parts) -> str:
    tools = [[mount.target, _file_mark(mount.source)] for mount in spec.layers]
    return f"{BOTTLE}:{_digest('bottle', origin.mark, tools, parts.mark())}"


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


def _origin(spec: ImageSpec, look: Callable[[str], Found | None]) -> _Origin:
    """What `spec` is made on, and what tells it from others; asks the engine only about images with a name."""
    if spec.reference:
        found = look(spec.reference)
        return _Origin(spec.reference, str(found["Id"])) if found else _Origin("", "", spec.reference)
    if spec.dockerfile:
        sources = context.digest(spec.context, spec.dockerfile, _memory(spec))
        inside = os.path.relpath(spec.dockerfile, spec.context)
    else:
        base = _base(spec)
        found = look(base)
        if found is None:
            return _Origin("", "", base)
        sources, inside = _digest(own_dockerfile(), found["Id"]), ""
    mark = _digest("built", sources, inside, spec.target, spec.args, _file_mark(spec.ca))
    return _Origin(f"{BUILT}:{mark}", mark)


def _base(spec: ImageSpec) -> str:
    return dict(spec.args).get("BASE", BASE)


class _Making:
    """The way to an image that is not there, while nobody else is on it."""

    def __init__(self, spec: ImageSpec, access: Access, say: Say, parts: Parts) -> None:
        self.spec, self.parts, self.say = spec, parts, say
        self.engine = access.whole()
        self.labels = {LABEL: _digest("lists", paths.cache_root())}
        """Of containers that are there for a moment; who holds the lock removes what somebody before left."""

    def image(self) -> Found:
        """Fetches and builds what is missing, and answers the whole image."""
        from bot_bottle.backends.docker import building

        spec = self.spec
        origin = _origin(spec, self._look)
        if origin.missing:
            building.pull(self.engine.client, origin.missing, self.say)
            origin = _origin(spec, self._look)
        tag = _tag(spec, origin, self.parts)
        if origin.mark and (found := self._look(tag)):
            return found
        below = self._look(origin.name) if origin.mark else None
        if below is None and not spec.reference and origin.mark:
            self._build(origin)
            below = self._look(origin.name)
        if below:
            self._put_on_top(below, tag)
            if found := self._look(tag):
                return found
        raise NotFoundError("The image went away while the bottle's was made", resolution="Start it again.")

    def _look(self, name: str) -> Found | None:
        return look(self.engine, name)

    def _build(self, origin: _Origin) -> None:
        """The user's Dockerfile, or ours."""
        from tempfile import TemporaryFile

        from bot_bottle.backends.docker import building, buildkit, sending

        spec = self.spec
        text = _written(spec.dockerfile)
        buildkit.refuse_secrets(text, spec.dockerfile)
        with TemporaryFile() as archive:
            if spec.dockerfile:
                gathered = context.gather(spec.context, spec.dockerfile)
                inside = sending.write(archive, gathered, spec.dockerfile, spec.ca)
                shown, args = spec.dockerfile, dict(spec.args)
            else:
                inside = sending.write_own(archive, own_dockerfile(), spec.ca)
                shown = f"bot-bottle's own Dockerfile, on {_base(spec)}"
                args = {**dict(spec.args), "BASE": _base(spec)}
            archive.seek(0)
            self.say("Building the image")
            recipe = building.Recipe(
                archive, inside, origin.name, shown, spec.target, args, _installation(), text=text
            )
            building.build(self.engine.client, recipe, self.say)

    def _put_on_top(self, below: Found, tag: str) -> None:
        """The layers of ours."""
        from tempfile import TemporaryFile

        from bot_bottle.backends.docker import building

        _check_machine(below)
        identity = str(below["Id"])
        self.say("Putting the agent's tool into the image")
        layer.remove_containers(self.engine.client, self.labels)
        known = layer.lists(self.engine.client, identity, self.labels)
        user = layer.user_of(str(below["Config"].get("User") or ""), known, self.parts.ids)
        labels = {**_installation(), LABEL: "bottle", USER_LABEL: json.dumps(user)}
        with TemporaryFile() as archive:
            bare = identity.removeprefix("sha256:")
            layer.write_context(archive, bare, user, known, self.spec.layers, self.parts.programs)
            archive.seek(0)
            recipe = building.Recipe(
                archive, "Dockerfile", tag, "the layers of bot-bottle", labels=labels, network="none"
            )
            building.build(self.engine.client, recipe, lambda _: None)


def _written(dockerfile: str) -> str:
    """What stands in it; nothing for our own. Raises HostError."""
    if not dockerfile:
        return ""
    try:
        with open(dockerfile, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError as error:
        raise HostError("The Dockerfile can't be read", details=f"{dockerfile}: {error.strerror}") from error


_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


def _check_machine(below: Found) -> None:
    """Our programs and the installed tools are for this host's machine."""
    theirs, ours = str(below.get("Architecture") or ""), os.uname().machine
    if _MACHINES.get(theirs, theirs) != ours:
        raise PlanError(
            f"The image is for {theirs} machines", details=f"The tools that were installed here are for {ours}.",
            resolution="Name an image for this machine, or run bot-bottle on one like the engine's.",
        )  # fmt: skip


def _image(found: Found) -> Image:
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


def own_dockerfile() -> bytes:
    """The Dockerfile that comes with the package."""
    with open(os.path.join(os.path.dirname(__file__), "Dockerfile"), "rb") as file:
        return file.read()


def _memory(spec: ImageSpec) -> str:
    """Where the digest of the last time is kept."""
    return os.path.join(paths.cache_root(), "images", _digest(spec.context, spec.dockerfile) + ".json")


def _digest(*parts: Any) -> str:
    text = json.dumps([SCHEMA, *(part.decode() if isinstance(part, bytes) else part for part in parts)])
    return sha256_hex(text.encode("utf-8", "surrogateescape"))[:40]


def _file_mark(path: str) -> list[Any]:
    if not path:
        return []
    try:
        real = os.path.realpath(path)
        facts = os.stat(real)
    except OSError as error:
        raise HostError("The image can't be made", details=f"{path}: {error.strerror}") from error
    return [real, facts.st_size, facts.st_mtime_ns, facts.st_ino]


@contextmanager
def _alone(say: Say) -> Iterator[None]:
    """One builds, the others wait and find it built. Raises HostError when the lock can't be made."""
    folder = os.path.join(paths.cache_root(), "images")
    with ExitStack() as held:
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            held.enter_context(alone(os.path.join(folder, ".lock"), lambda: say("Waiting for another build")))
        except OSError as error:
            raise HostError(
                "The image can't be made", details=f"{error.filename}: {error.strerror}"
            ) from error
        yield
