"""Starting, stopping and finding runs: what every front end calls."""

import os
from collections.abc import Callable
from contextlib import ExitStack

from bot_bottle.errors import HostError, NotFoundError, UsageError
from bot_bottle.host import facts as host_facts
from bot_bottle.host import paths
from bot_bottle.names import new_run_id
from bot_bottle.operate.record import existing_store, find_run, open_store
from bot_bottle.plan.model import RunPlan, WorkspaceMode
from bot_bottle.typed import TYPE_CHECKING, NamedTuple, cast

if TYPE_CHECKING:
    import socket

    from bot_bottle.host.secrets import Vault
    from bot_bottle.launch.launcher import Outcome
    from bot_bottle.launch.outward import Outside
    from bot_bottle.launch.sidecar import Sidecar
    from bot_bottle.manifest.document import BottleDocument, ResourcesDocument
    from bot_bottle.state.model import RunRecord


ANSWER_WITHIN = 10.0
"""Seconds that a keeper has to put everything away when it is told to stop now."""


class StartRequest(NamedTuple):
    """What the operator asked for. `folder` is where they stand; `arguments` stood after `--`."""

    agent: str
    folder: str
    bottle: str | None = None
    headless: bool = False
    prompt: str = ""
    workspace: WorkspaceMode | None = None
    arguments: tuple[str, ...] = ()
    resources: tuple[tuple[str, float], ...] = ()
    """What `bot-bottle resize` put in the place of the bottle's own `resources`, by the names that they have in its file."""


class Prepared(NamedTuple):
    """A checked plan, with the secrets that it refers to."""

    plan: RunPlan
    vault: "Vault"
    outside: "Outside"
    request: StartRequest
    continues: "RunRecord | None" = None
    """The run whose kept bottle is gone on with."""


def plan(request: StartRequest) -> RunPlan:
    """The plan of the run that `request` would start. Makes nothing and reads no secret."""
    from bot_bottle.manifest.cache import load_cached
    from bot_bottle.manifest.places import find_repository
    from bot_bottle.plan import check
    from bot_bottle.plan.resolve import Choices, resolve
    from bot_bottle.policy.ports import SUPERVISE_URL
    from bot_bottle.providers.base import Request
    from bot_bottle.providers.place import locate
    from bot_bottle.providers.placeholders import offered
    from bot_bottle.providers.registry import provider
    from bot_bottle.provision.git import identity
    from bot_bottle.provision.skills import read_skills

    repository = find_repository(request.folder)
    facts = host_facts.gather(repository)
    manifest = load_cached(
        request.agent,
        root=paths.manifest_root(),
        repository=repository,
        bottle=request.bottle,
        cache_root=paths.cache_root(),
    )
    if request.resources:
        stated = {**manifest["bottle"]["resources"], **dict(request.resources)}
        manifest["bottle"]["resources"] = cast("ResourcesDocument", stated)
    run = free_id(request.agent, facts.state_root)
    tool = provider(manifest["agent"]["provider"])
    setup = tool.setup(
        Request(
            agent=manifest["agent"],
            run=run,
            headless=request.headless,
            prompt=request.prompt,
            arguments=request.arguments,
            program=locate(facts.data_root, tool.tool) if tool.tool else "",
            term=facts.term,
            time_zone=facts.time_zone,
            bottle_env=manifest["bottle"]["env"],
            credentials=offered(manifest["bottle"]),
            token=os.urandom(8).hex(),
            supervise=SUPERVISE_URL if manifest["bottle"]["supervise"] else "",
        )
    )
    skills = read_skills(manifest["agent"]["skills"], setup.skills)
    made = resolve(
        manifest,
        facts,
        Choices(
            id=run,
            tty=not request.headless,
            workspace=request.workspace or _workspace(manifest["bottle"]),
            command=setup.command,
            files=(*setup.files, *skills, *identity(manifest["bottle"]["git"], foreign_owner=False)),
            mounts=setup.mounts,
            placeholders=setup.placeholders,
            notes=(*setup.notes, *check.notes(manifest)),
            model=tuple((one.host, one.port, one.protocol) for one in setup.routes),
            registration=setup.registration,
        ),
    )
    from bot_bottle.backends.registry import backend

    problems = check.mismatches(manifest, made, facts)
    if not problems:
        problems = tuple(backend(made.backend).mismatches(made))
    check.refuse(problems, f"Bottle {made.bottle}")
    return _with_rivals(made)


def _with_rivals(made: RunPlan) -> RunPlan:
    """`made`, with a note on each server of the repository's that could take supervise's place."""
    if made.supervise is None:
        return made
    from bot_bottle.provision.rivals import rivals

    return made._replace(notes=(*made.notes, *rivals(made.workspace.source, made.provider)))


def _workspace(bottle: "BottleDocument") -> WorkspaceMode | None:
    """A copy where the bottle can't be shown the folder itself; None: as usual."""
    if bottle["workspace"] or bottle["backend"] == "namespace":
        return bottle["workspace"]
    from bot_bottle.backends.registry import backend

    return "copy" if backend(bottle["backend"]).needs_copy() else None


def prepare(request: StartRequest) -> Prepared:
    """The plan and its secrets. Raises everything that can be said before anything is made."""
    from bot_bottle.host import secrets

    try:
        made, before = plan(request), None
    except NotFoundError:
        before = kept_run(request.agent)
        if before is None:
            raise
        request = again(before, request)
        made = plan(request)
    from bot_bottle.launch import outward

    for_git = [one.credential for one in made.git.remotes if one.credential] if made.git else []
    wanted = {item.name: item for item in (*for_git, *made.credentials)}
    vault = secrets.read_all(tuple(wanted.values()), made.sensitive, outward=made.outward)
    return Prepared(made, vault, outward.read(made.outward, vault.proxy_login), request, before)


def kept_run(name: str) -> "RunRecord | None":
    """The stopped bottle called `name` (a run's id) that was kept, if it is one."""
    from bot_bottle.launch import kept

    try:
        record = find(name)
    except (NotFoundError, UsageError):
        return None
    return record if record.id == name and kept.is_kept(record) else None


def again(record: "RunRecord", request: StartRequest) -> StartRequest:
    """What is to be asked for to go on with a kept bottle; what `request` says anew comes first. Raises HostError, UsageError."""
    from bot_bottle.launch import kept

    asked = kept.asked(record)
    if request.workspace not in (None, record.workspace_mode):
        raise UsageError(
            f"{record.id} works on {'a copy' if record.workspace_mode == 'copy' else 'the workspace itself'}"
        )
    return StartRequest(
        agent=asked["agent"],
        folder=asked["folder"],
        bottle=request.bottle or asked["bottle"],
        headless=request.headless,
        prompt=request.prompt or asked["prompt"],
        workspace="copy" if record.workspace_mode == "copy" else "mount",
        arguments=request.arguments or tuple(asked["arguments"]),
        resources=request.resources or tuple((name, value) for name, value in asked.get("resources", ())),
    )


def free_id(agent: str, state_root: str) -> str:
    """A run id that no run has had."""
    for _ in range(100):
        run = new_run_id(agent)
        if not os.path.lexists(os.path.join(state_root, "runs", run)):
            return run
    raise HostError(f"There are too many past runs of {agent}", resolution="bot-bottle cleanup --forget")


def start_here(
    request: StartRequest,
    *,
    early: "Sidecar",
    foreground: bool,
    phase: Callable[[str], None],
    ready: Callable[["Outcome"], None],
    noted: Callable[[str], None],
    said: Callable[[str], None] = lambda _: None,
) -> "Outcome":
    """Plans the run and keeps it in this process until it has ended.

    `noted` hears the plan's notes, and what goes wrong and ends nothing; `said` what is done.

    `early` is the bundle that `operate/ahead.py` began; it is the caller's to discard.
    """
    prepared = prepare(request)
    for note in prepared.plan.notes:
        noted(note)
    return run_here(
        prepared, early=early, foreground=foreground, phase=phase, ready=ready, noted=noted, said=said
    )


def run_here(
    prepared: Prepared,
    *,
    foreground: bool,
    phase: Callable[[str], None],
    ready: Callable[["Outcome"], None],
    early: "Sidecar | None" = None,
    noted: Callable[[str], None] = lambda _: None,
    said: Callable[[str], None] = lambda _: None,
    owner: bool = False,
) -> "Outcome":
    """Keeps the run in this process until it has ended, which has nothing to do with the store after that."""
    from bot_bottle.backends.registry import backend
    from bot_bottle.launch.launcher import Surroundings, keep
    from bot_bottle.launch.reap import reap
    from bot_bottle.launch.signals import Interrupts
    from bot_bottle.operate.text import visible_parts

    held_by = backend(prepared.plan.backend)
    held_by.prepare(prepared.plan, phase)  # Ctrl-C ends it at once, as there is nothing to put away
    with Interrupts() as interrupts, ExitStack() as after:
        store = open_store()
        after.callback(store.leave)
        reap(store, paths.runtime_root())
        return keep(
            prepared.plan,
            Surroundings(
                store=store,
                backend=held_by,
                interrupts=interrupts,
                vault=prepared.vault,
                outside=prepared.outside,
                early=early,
                foreground=foreground,
                phase=phase,
                ready=ready,
                shown=visible_parts,
                warn=noted,
                say=said,
                owner=owner,
                continues=prepared.continues,
                asked=prepared.request._asdict(),
            ),
        )


def find(name: str) -> "RunRecord":
    """The run called `name`. Raises NotFoundError when there is none."""
    store = existing_store()
    try:
        return find_run(store, name)
    finally:
        if store:
            store.close()


def cleanup(*, forget: bool) -> list[str]:
    """Removes what dead keepers left and, when told to `forget`, what ended runs keep; a sentence for each thing."""
    import time

    from bot_bottle.launch import folders, kept
    from bot_bottle.launch.reap import ALIVE, reap
    from bot_bottle.operate import images
    from bot_bottle.provision import trust

    with open_store() as store:
        said = reap(store, paths.runtime_root())
        for record in store.runs(states=("ended",)) if forget else []:
            if kept.is_kept(record):
                said.append(f"{record.id}: kept; bot-bottle stop {record.id} lets it go")
                continue
            folders.remove(record.state_path)
            store.forget_run(record.id)
            said.append(f"{record.id}: forgotten")
        now = time.time()
        alive = store.runs(states=ALIVE)
        oldest = min((run.started_at for run in alive), default=now)
        said += images.forget(frozenset(run.backend for run in alive)) if forget else []
        said += trust.forget_copies(paths.data_root(), now=now, oldest_run=oldest)
    return said


def stop(name: str, *, now: bool = False, keep: bool = False) -> int:
    """Stops the run called `name` and waits for its end; its exit code. Raises NotFoundError when it does not run.

    With `keep`, its files stay, and `start` goes on with them; one that was kept is kept no more without it.

    With `now`, a keeper that does not answer is killed, which ends the bottle as well, and what it left is removed.
    """
    from bot_bottle.launch import control

    record = find(name)
    if record.state == "ended" and not keep:
        from bot_bottle.launch import kept

        if kept.is_kept(record):
            kept.let_go(record)
            return record.exit_code or 0
    with control.connect(record.run_path, {"want": "stop", "now": now, "keep": keep}) as client:
        client.settimeout(ANSWER_WITHIN if now else None)
        try:
            return wait_for_exit(client)
        except TimeoutError:
            control.kill_keeper(client)
    cleanup(forget=False)
    return 137


def wait_for_exit(client: "socket.socket") -> int:
    """Reads frames until the exit code comes."""
    import json

    from bot_bottle.errors import SandboxError
    from bot_bottle.launch import control

    frames = control.Frames()
    try:
        while data := client.recv(65536):
            for kind, payload in frames.feed(data):
                if kind == control.EXIT:
                    return int(json.loads(payload)["code"])
                if kind == control.ERROR:
                    raise SandboxError("The bottle refused", details=json.loads(payload)["brief"])
    except ConnectionError:
        pass  # it ended with something unread, which is a reset
    raise SandboxError("The bottle's keeper went away", resolution="bot-bottle cleanup removes what it left.")


def check_request(request: StartRequest, *, detach: bool, terminal: bool) -> None:
    """Raises UsageError for combinations that mean nothing."""
    if request.headless or detach or terminal:
        return
    raise UsageError(
        "There is no terminal to attach",
        resolution="Add --headless (with --prompt), or --detach and attach later.",
    )
