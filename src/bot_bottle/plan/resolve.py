"""Makes the plan: checked manifest and host facts in, frozen data out. No I/O."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from zlib import crc32

from bot_bottle.manifest.document import (
    BottleDocument,
    CredentialDocument,
    EgressDocument,
    ImageDocument,
    ManifestDocument,
    RouteDocument,
)
from bot_bottle.plan import trust
from bot_bottle.plan.facts import HostFacts, HostProxies
from bot_bottle.plan.model import (
    BASE_FOLDER,
    COPY_FOLDER,
    Command,
    Credential,
    File,
    GitGate,
    ImageSpec,
    Limits,
    Mount,
    Outward,
    Paths,
    ProxyReference,
    Registration,
    RunPlan,
    Sensitive,
    Supervise,
    Trust,
    Workspace,
    WorkspaceMode,
)
from bot_bottle.policy.model import EgressPolicy, HeaderMatch, Route, SecretsPolicy, Upstream
from bot_bottle.policy.ports import SUPERVISE_ADDRESS, SUPERVISE_PORT, SUPERVISE_URL
from bot_bottle.typed import NamedTuple

FIRST_UNUSED_UID = 1_879_048_192
UNUSED_UIDS = 130_000_000
"""Above everything that systemd and subuid(5) hand out (systemd's UIDS-GIDS: 1879048191 is the last); below 2**31,
with as many above them for the bundles."""


Place = tuple[str, int, str]
"""A host, a port and what is spoken there."""

_CLONE = 'git clone --quiet --origin "$1" -- "$2" . || exit; shift 2; exec "$@"'
"""What a bottle with a clone of its own begins with."""


class Choices(NamedTuple):
    """What the operator chose for this one run, and what its provider answered."""

    id: str
    tty: bool
    workspace: WorkspaceMode | None
    command: Command
    files: tuple[File, ...] = ()
    mounts: tuple[Mount, ...] = ()
    placeholders: Mapping[str, str] = MappingProxyType({})
    """By the credential's name."""
    notes: tuple[str, ...] = ()
    model: tuple[Place, ...] = ()
    """Where the model's API is, as the provider says."""
    registration: Registration | None = None
    """How the tool is told of the server that it may ask for help."""


def resolve(manifest: ManifestDocument, facts: HostFacts, choices: Choices) -> RunPlan:
    """The plan of one run. Total: what can't be kept is `plan/check.py`'s to say."""
    agent, bottle = manifest["agent"], manifest["bottle"]
    mode: WorkspaceMode = choices.workspace or bottle["workspace"] or ("mount" if choices.tty else "copy")
    state = f"{facts.state_root}/runs/{choices.id}"
    uid, gid = host_identity(facts, choices.id)
    apart = 0 if facts.uid else UNUSED_UIDS
    paths = Paths(run=f"{facts.runtime_root}/{choices.id}", state=state)
    policy = egress(bottle["egress"], choices.model)
    ca = bottle["egress"]["upstream"]["ca"] or ""
    stores = certificate_stores(policy, facts, run=paths.run, ca=ca, supervised=bottle["supervise"])
    command = choices.command
    if mode == "clone":
        command = cloning(command, bottle)
    if stores:
        command = command._replace(env=trust.environment(command.env, intercepts=stores.intercepts))
    return RunPlan(
        id=choices.id,
        agent=agent["name"],
        bottle=bottle["name"],
        bottle_file=bottle["file"],
        backend=bottle["backend"],
        provider=agent["provider"],
        command=command,
        tty=choices.tty,
        workspace=Workspace(
            source=facts.workspace,
            mode=mode,
            copy=f"{state}/{COPY_FOLDER}" if mode != "mount" else "",
            base=f"{state}/{BASE_FOLDER}" if mode == "copy" else "",
        ),
        paths=paths,
        uid=uid,
        gid=gid,
        bundle_uid=uid + apart,
        bundle_gid=gid + apart,
        mounts=choices.mounts,
        files=choices.files,
        limits=limits(bottle),
        egress=policy,
        outward=outward(bottle, facts.proxies),
        credentials=credentials(bottle, choices.placeholders),
        sensitive=tuple(Sensitive(name, source) for name, source in sorted(bottle["sensitive"].items())),
        model=choices.model,
        trust=stores,
        supervise=supervise(bottle, choices.registration),
        image=image(bottle["image"], choices.mounts, facts.workspace),
        runtime=bottle["runtime"] or "",
        bundle=bottle["bundle"] or "",
        git=git_gate(bottle, facts, state),
        notes=choices.notes,
    )


def supervise(bottle: BottleDocument, registration: Registration | None) -> Supervise | None:
    """Where the agent asks for help, if it may, and how its tool is told of that."""
    if not bottle["supervise"]:
        return None
    return Supervise(SUPERVISE_ADDRESS, SUPERVISE_PORT, SUPERVISE_URL, registration)


def cloning(command: Command, bottle: BottleDocument) -> Command:
    """`command`, behind a clone of the bottle's first remote through the gate into the folder where it begins."""
    from bot_bottle.plan.remotes import gate_url

    names = [remote["name"] for remote in bottle["git"]["remotes"][:1]]
    if not names:
        return command  # `plan/check.py` refuses it
    return command._replace(
        argv=("/bin/sh", "-c", _CLONE, "clone", names[0], gate_url(names[0]), *command.argv)
    )


def git_gate(bottle: BottleDocument, facts: HostFacts, state: str) -> GitGate | None:
    """The remotes that are served inside, if there are any."""
    if not bottle["git"]["remotes"]:
        return None
    from bot_bottle.plan import remotes  # what has no remote needs none of it

    return remotes.gate(bottle, data_root=facts.data_root, state=state)


def certificate_stores(
    policy: EgressPolicy, facts: HostFacts, *, run: str, ca: str, supervised: bool = False
) -> Trust | None:
    """What the bottle trusts, wherever something may be reached: a later policy may open TLS that this one does not.

    Where the agent can ask, an approval may be such a policy.
    """
    if not policy.routes and not policy.ask and not supervised:
        return None
    from bot_bottle.policy import (
        egress as judge,
    )  # takes 3 ms, and a bottle that reaches nothing has no need of it

    return trust.trust(
        facts.stores, run=run, data=facts.data_root, ca=ca, intercepts=judge.intercepts_any(policy)
    )


def host_identity(facts: HostFacts, run: str) -> tuple[int, int]:
    """Who the agent is on the host: the operator, or for root an id that nothing else has; never 0.

    A process that is user 0 outside can write /proc/sys even without a capability, so root's bottles get ids of their own.
    """
    if facts.uid:
        return facts.uid, facts.gid
    unused = FIRST_UNUSED_UID + crc32(run.encode()) % UNUSED_UIDS
    return unused, unused


def limits(bottle: BottleDocument) -> Limits:
    """The limits that the bottle's file states, and ours where it states none."""
    resources = bottle["resources"]
    stated = tuple(name for name in ("memory", "cpus", "pids", "disk") if resources[name] is not None)
    return Limits(
        memory=resources["memory"],
        cpus=resources["cpus"],
        pids=resources["pids"] or Limits().pids,
        stated=stated,
        disk=resources["disk"],
    )


def image(stated: ImageDocument | None, mounts: tuple[Mount, ...], workspace: str) -> ImageSpec:
    """What a container is made from."""
    if stated is None:
        return ImageSpec(layers=mounts, workspace=workspace)
    return ImageSpec(
        reference=stated["reference"] or "",
        dockerfile=stated["dockerfile"] or "",
        context=stated["context"] or "",
        target=stated["target"] or "",
        args=tuple(sorted(stated["args"].items())),
        ca=stated["ca"] or "",
        layers=mounts,
        workspace=workspace,
    )


def credentials(bottle: BottleDocument, placeholders: Mapping[str, str]) -> tuple[Credential, ...]:
    """Those that a route names: what no route needs is not even read."""
    used = {item["credential"] for item in bottle["egress"]["routes"]}
    return tuple(
        credential(name, item, placeholders.get(name, ""))
        for name, item in sorted(bottle["credentials"].items())
        if name in used
    )


def credential(name: str, item: CredentialDocument, placeholder: str = "") -> Credential:
    """One credential by reference."""
    return Credential(
        name=name,
        source=item["source"],
        scheme=item["scheme"],
        key=item["name"],
        prefix=item["prefix"],
        user=item["user"],
        variable=item["variable"] or "",
        placeholder=placeholder,
    )


def egress(document: EgressDocument, model: Sequence[Place] = ()) -> EgressPolicy:
    """What may be reached. `model` is where the model's API is.

    An agent that has read a secret has it in every request to its model. Where nothing else is said, it is taken out of those
    that go there by a credential of the bottle's, so that neither the secret gets out nor the agent gets stuck.
    """
    secrets = document["secrets"]
    routes = tuple(map(route, document["routes"]))
    if secrets and secrets["on_match"] != "redact":
        routes = tuple(_as_models(one, model) for one in routes)
    return EgressPolicy(
        routes=routes,
        secrets=SecretsPolicy(**secrets) if secrets else None,
        mode=document["mode"],
        engine=document["engine"],
        ask=tuple(document["ask"]),
    )


def _as_models(route: Route, model: Sequence[Place]) -> Route:
    own = route.credential is not None and (route.host, route.port, route.protocol) in model
    return route._replace(on_match="redact") if own and route.on_match is None else route


def outward(bottle: BottleDocument, host: HostProxies) -> Outward:
    """How it is reached. What the bottle's file says wins, and holds for every protocol; the host's variables are about HTTP."""
    stated = bottle["egress"]["upstream"]
    ca, direct, login = stated["ca"] or "", host.direct, stated["credential"]
    if stated["proxy"]:
        one = ProxyReference(stated["proxy"], "egress.upstream.proxy", login or "")
        item = bottle["credentials"].get(login) if login else None
        return Outward(ca, one, one, one, direct, credential(login, item) if login and item else None)
    https, http = (ProxyReference(*found) if found else None for found in (host.https, host.http))
    return Outward(ca, https, http, None, direct)


def route(item: RouteDocument) -> Route:
    """One route of the policy."""
    given = item["upstream"]
    upstream = None
    if given:
        upstream = Upstream(
            host=given["host"], port=given["port"], tls=given["tls"], server_name=given["host"]
        )
    return Route(
        host=item["host"],
        port=item["port"],
        protocol=item["protocol"],
        upstream=upstream,
        credential=item["credential"],
        methods=tuple(item["methods"]),
        paths=tuple(item["paths"]),
        headers=tuple(HeaderMatch(name, pattern) for name, pattern in item["headers"].items()),
        scan=item["scan"],
        on_match=item["on_match"],
    )
