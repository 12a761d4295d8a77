"""The `docker` backend: bottles that are containers of an engine on this host."""

import json
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from bot_bottle.backends import guest, seccomp
from bot_bottle.backends.base import Backend, Bottle, Stdio
from bot_bottle.backends.docker import container, door, endpoint, etc, images, layer, programs, stage
from bot_bottle.backends.docker.bottle import DockerBottle
from bot_bottle.backends.docker.container import Names
from bot_bottle.backends.docker.wire import Engine, EngineRefusal, Pending
from bot_bottle.errors import BotBottleError, HostError, SandboxError
from bot_bottle.host.spawn import nothing
from bot_bottle.plan.model import Mount, RunPlan
from bot_bottle.typed import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bot_bottle.backends.docker.engine import Engine as Whole
    from bot_bottle.backends.docker.far import Place

_PATIENCE = 20.0
"""Seconds for process 1 to take over, and for the engine to remove what has ended; both take 0.1."""
_ENDS_WITHIN = 2.0
"""Seconds for what was told to end to be gone, before it is removed; it takes 0.1."""


class DockerBackend:
    """See `backends.base.Backend`."""

    name = "docker"

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._prepared: dict[str, images.Image] = {}

    def needs_copy(self) -> bool:
        return endpoint.find(os.environ).scheme != "unix"

    def mismatches(self, plan: RunPlan) -> Sequence[str]:
        return container.mismatches(plan)

    def traces(self, plan: RunPlan) -> Mapping[str, Any]:
        names = container.names(plan)
        return {
            "host": endpoint.find(os.environ).host, "run": names.run, "root": names.root, "shown": _shown(plan),
            "copy": plan.workspace.copy if plan.workspace.mode == "copy" else "",
        }  # fmt: skip

    def prepare(self, plan: RunPlan, say: Callable[[str], None]) -> None:
        from bot_bottle.backends.docker import dialing

        engine = dialing.engine_at(endpoint.find(os.environ), os.environ)
        try:
            dialing.refuse_far_podman(dialing.traits(engine), plan.bundle)
            self._prepared[plan.id] = _image(engine, plan, say)
        finally:
            engine.close()

    def place(self, plan: RunPlan) -> "Place | None":
        from bot_bottle.backends.docker import dialing

        engine = dialing.engine_at(endpoint.find(os.environ), os.environ, folder=plan.paths.run)
        found = dialing.traits(engine)
        dialing.refuse_far_podman(found, plan.bundle)
        local, kept = found.local, found.limits
        if lost := [name for name in plan.limits.stated if name not in (*kept, "disk")]:
            raise HostError(
                "This engine can't keep limits that the bottle's file states",
                details=", ".join(f"resources.{name}" for name in lost),
                resolution="Delegate control groups to it (bot-bottle doctor shows what it keeps), or take them away.",
            )
        if local and plan.bundle != "container":
            return None
        from bot_bottle.backends.docker.far import Place

        if not local and plan.workspace.mode == "mount":
            raise HostError(
                "The workspace can't be mounted where this engine is",
                details=f"{engine.path} is on another kernel, or rootless, or maps users.",
                resolution="Work on a copy: --workspace copy, or workspace: copy in the bottle's file.",
            )  # fmt: skip
        place = self._places[plan.id] = Place(engine, plan, local=local)
        return place

    def create(self, plan: RunPlan, stdio: Stdio, *, meanwhile: Callable[[], object] = nothing) -> Bottle:
        try:
            return self._create(plan, stdio, meanwhile)
        except BotBottleError:
            from bot_bottle.backends.docker import dialing

            dialing.forget()
            raise

    def _create(self, plan: RunPlan, stdio: Stdio, meanwhile: Callable[[], object]) -> Bottle:
        if problems := container.mismatches(plan):
            raise HostError("This bottle can't be made", details="\n".join(problems))
        if place := self._places.pop(plan.id, None):
            from bot_bottle.backends.docker import far_bottle

            return far_bottle.make(place, self._image_of(place.engine, plan), stdio, meanwhile)
        engine = _engine(endpoint.find(os.environ).host)
        with ExitStack() as owned:
            line, helper = _make(engine, plan, self._image_of(engine, plan), owned, meanwhile)

            def another() -> door.Helper:
                return door.another(engine, plan)

            bottle = DockerBottle(line, helper, another, owned.pop_all(), plan.command)
        try:
            bottle.hold_agent(stdio)
        except BaseException:
            bottle.destroy()
            raise
        return bottle

    def _image_of(self, engine: Engine, plan: RunPlan) -> images.Image:
        """What `prepare` has found; the engine says so if it is gone since."""
        return self._prepared.pop(plan.id, None) or _image(engine, plan)

    def reap(self, traces: Mapping[str, Any]) -> Sequence[str]:
        said = []
        if traces.get("shown") and stage.unstage(traces["shown"]):
            said.append(f"removed the mounts in {traces['shown']}")
        from bot_bottle.backends.docker import dialing, far

        engine = dialing.engine_at(endpoint.again(traces["host"], os.environ), os.environ)
        names = Names(traces["run"], traces["root"])
        try:
            removed = _remove_labelled(engine, names)
            removed += _outlast(engine, names)
            said += [f"removed the container {name}" for name in removed]
            if traces.get("copy") and far.has_work(engine, names):
                far.remove_bottle(engine, names, traces["copy"])
                said.append("brought its workspace back from the engine")
            said += far.remove_rest(engine, names)
        finally:
            engine.close()
        if traces.get("shown"):
            # Podman makes folders for what it was just making a container with.
            stage.unstage(traces["shown"])
        return said


def make() -> Backend:
    """The backend, for the registry."""
    return DockerBackend()


def _engine(host: str) -> Engine:
    scheme, _, path = host.partition("://")
    if scheme != "unix":
        raise HostError(
            f"The engine at {host} is on another machine", resolution="Use an engine on this host."
        )
    return Engine(path)


def _shown(plan: RunPlan) -> str:
    return f"{stage.FOLDER}/{plan.id}" if os.geteuid() == 0 else ""


def _image(engine: Engine, plan: RunPlan, say: Callable[[str], None] = lambda _: None) -> images.Image:
    """The image with our program in it. The operator is the agent there, so that the workspace's files are theirs; where root
    is the operator, the image's own user."""
    ids = (os.getuid(), os.getgid()) if os.geteuid() else None
    parts = images.Parts((layer.Program(container.GUEST, guest.program()),), ids)

    def whole() -> "Whole":
        from bot_bottle.backends.docker.engine import connect

        return connect(os.environ)

    way = images.Access(lambda name: programs.look(engine, name), whole)
    return images.ensure(plan.image, way, say, parts)


def _make(
    engine: Engine, plan: RunPlan, image: images.Image, owned: ExitStack, meanwhile: Callable[[], object]
) -> tuple[guest.Line, door.Helper]:
    """The container with process 1 in it, the line to that, and the helper that has handed it over."""
    from bot_bottle.backends.docker import dialing

    names = container.names(plan)
    user = (image.uid, image.gid)
    podman = dialing.traits(engine).podman
    helpers = programs.door_image(engine)
    owned.callback(_remove_labelled, engine, names, ending=True)
    helper = door.Helper(engine, names.helper(0), door.folder_of(plan))
    owned.callback(helper.close)
    with ExitStack() as staged:
        bound: Sequence[Mount] = (*container.mounts(plan), *etc.write(plan))
        if shown := _shown(plan):
            bound = stage.stage(bound, shown, user, staged)
        asked = container.body(
            plan, image.id, user, bound, writable_root=not image.read_only_ok, podman=podman
        )
        engine.call("POST", "/containers/create", asked, what="make the container", name=names.agent)
        starting = engine.begin("POST", f"/containers/{names.agent}/start", what="start the container")
        staged.callback(starting.drop)
        helping = door.body(helpers, names.agent, door.folder_of(plan), names.labels)
        engine.call(
            "POST", "/containers/create", helping, what="make the door's helper", name=names.helper(0)
        )
        meanwhile()
        starting.finish()
    helper.start()
    ours, theirs = socket.socketpair()
    line = guest.Line(ours)
    owned.callback(line.close)
    with theirs:
        helper.hand_over(theirs)
    if not guest.wait_taken_over(ours, _PATIENCE):
        raise SandboxError("The container's process 1 did not take over", details=helper.trouble())
    line.confine(seccomp.agents_filter(), plan.limits.files)
    return line, helper


def _remove_labelled(engine: Engine, names: Names, *, ending: bool = False) -> list[str]:
    """Removes every container of the run; answers their names. `ending` ones were told to end. Raises EngineRefusal, HostError."""
    from bot_bottle.backends.docker import dialing

    if dialing.traits(engine).podman:
        return _remove_from_podman(engine, names)
    wanted = json.dumps({"label": [f"{key}={value}" for key, value in names.labels.items()]})
    found = engine.call("GET", "/containers/json", what="list containers", all="1", filters=wanted)
    going = [_Going(engine, each["Id"], ends=ending and each["State"] != "created") for each in found]
    for each in going:
        each.finish()
    return [each["Names"][0].lstrip("/") for each in found]


def _remove_from_podman(engine: Engine, names: Names) -> list[str]:
    """The same where a container stays as long as another shares its network, and what ends just now can't be removed.

    So it is asked for again and again, first for those that share; and by their names, as Podman's list fails as long as one of
    all containers is half removed.
    """
    deadline, removed = time.monotonic() + _PATIENCE, list[str]()
    those_that_share = [name for name in names.every if name != names.agent]
    left = True
    while left:
        left = False
        for name in (*those_that_share, names.agent):
            try:
                engine.call("DELETE", f"/containers/{name}", what="remove a container", force="1", v="1")
            except EngineRefusal as refused:
                if refused.status == 404:
                    continue
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                removed += [name] if name not in removed else []
            left = True
    return removed


class _Going:
    """A container that is being removed. What `ends` by itself is removed by the engine then, which needs no order of ours: that
    would have it kill what has ended, and quarrel with itself."""

    def __init__(self, engine: Engine, identity: str, *, ends: bool) -> None:
        self._engine, self._identity = engine, identity
        path = f"/containers/{identity}"
        if ends:
            self._asked = engine.begin(
                "POST", f"{path}/wait", what="await a container's end", condition="removed"
            )
        else:
            self._asked = self._remove()
        self._ends = ends

    def _remove(self) -> Pending:
        return self._engine.begin(
            "DELETE", f"/containers/{self._identity}", what="remove a container", force="1", v="1"
        )

    def finish(self) -> None:
        """Until it is gone. Raises EngineRefusal, HostError."""
        try:
            if self._ends and self._asked.finish_within(_ENDS_WITHIN):
                return
            asked = self._remove() if self._ends else self._asked
            asked.finish()
        except EngineRefusal as refused:
            if refused.status not in (404, 409):
                raise
            _until_gone(self._engine, self._identity)


def _outlast(engine: Engine, names: Names) -> list[str]:
    """Waits for what the engine was just about to make when the keeper died, and removes it; answers their names.

    A container that is being made is in no list yet, but its name is taken: so each name is taken here, and given up again.
    """
    unfinished: list[str] = []
    image = programs.door_image(engine)
    placeholder = {"Image": image, "Labels": names.labels, "Entrypoint": [container.GUEST, "none"]}
    waiting, deadline = list(names.every), time.monotonic() + _PATIENCE
    while waiting:
        asked = [
            engine.begin("POST", "/containers/create", placeholder, what="take a name", name=name) for name in waiting
        ]  # fmt: skip
        waiting = [
            name for name, pending in zip(waiting, asked, strict=True) if not _taken(pending, deadline)
        ]
        unfinished += [name for name in _remove_labelled(engine, names) if name in waiting]
        if waiting:
            time.sleep(0.02)
    return unfinished


def _taken(asked: Pending, deadline: float) -> bool:
    """Whether the name was free. Raises EngineRefusal, HostError; also when it has not become free until `deadline`."""
    try:
        asked.finish()
    except EngineRefusal as refused:
        if refused.status != 409 or time.monotonic() > deadline:
            raise
        return False
    return True


def _until_gone(engine: Engine, identity: str) -> None:
    """The engine is about to remove it by itself."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        try:
            engine.call("GET", f"/containers/{identity}/json", what="look at a container")
        except EngineRefusal as refused:
            if refused.status == 404:
                return
            raise
        time.sleep(0.01)
    raise HostError("The Docker engine does not remove a container", details=identity)
