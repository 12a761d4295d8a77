"""What a manifest asks for and can't have: everything at once, by name, before anything is made. Pure.

Fail closed: a rule that this version can't enforce is refused, never left out in silence.
"""

import json
from collections.abc import Iterator

from bot_bottle.errors import PlanError
from bot_bottle.manifest.document import BottleDocument, EgressDocument, ManifestDocument, RouteDocument
from bot_bottle.plan.facts import HostFacts
from bot_bottle.plan.model import RunPlan
from bot_bottle.policy.model import MOST_ASKED, EgressPolicy
from bot_bottle.policy.ports import unreachable

OPEN = (
    "egress.mode: observe: THIS BOTTLE IS OPEN. It can reach every public host and send it anything; what its routes do not "
    "allow is recorded, not refused. Give it nothing that must not leave, and go back to enforce with bot-bottle learn --write"
)


def mismatches(manifest: ManifestDocument, plan: RunPlan, facts: HostFacts) -> tuple[str, ...]:
    """One sentence for each thing that this version or this host can't keep."""
    bottle = manifest["bottle"]
    ours = (*of_bottle(bottle, plan.egress), *_past_proxies(plan))
    return (*ours, *_seen_inside(plan), *_built_inside(plan), *_host(plan, facts))


def of_bottle(bottle: BottleDocument, egress: EgressPolicy) -> tuple[str, ...]:
    """One sentence for each thing in a bottle's file, and the policy that was made of it, that can't be kept on any host."""
    return (*_bottle(bottle), *_ports(egress))


def refuse(problems: tuple[str, ...], where: str) -> None:
    """Raises PlanError that lists `problems`, if there are any."""
    if problems:
        raise PlanError(
            f"{where} asks for what can't be kept",
            details="\n".join(problems),
            resolution="Change the bottle's file; bot-bottle plan shows what is left.",
        )


def notes(manifest: ManifestDocument) -> tuple[str, ...]:
    """What a person has to know before it runs: what is asked for and not there yet, and what opens more than routes."""
    return notes_on_egress(manifest["bottle"]["egress"])


def notes_on_egress(egress: EgressDocument) -> tuple[str, ...]:
    """What a person has to know of what may be reached."""
    if egress["mode"] != "observe":
        return ()
    return (OPEN, *(("egress.ask: nothing waits in a bottle that is only watched",) if egress["ask"] else ()))


def _bottle(bottle: BottleDocument) -> Iterator[str]:
    if bottle["backend"] == "namespace":
        yield from _no_engine(bottle)
    yield from _image_of(bottle)
    egress = bottle["egress"]
    if egress["engine"] == "pipelock":
        yield from _pipelock(egress)
    for route in egress["routes"]:
        name = f"egress.routes: {route['host']}:{route['port']}"
        if route["credential"] and route["protocol"] != "https" and not _tls_outside(route):
            yield f"{name}: a credential needs protocol https or an https:// upstream: it never goes out in the clear"
    if egress["ask"] and not bottle["supervise"]:
        yield "egress.ask: nobody is asked in a bottle without `supervise: true`; add that, or take it away"
    if len(egress["ask"]) > MOST_ASKED:
        yield f"egress.ask: more than {MOST_ASKED} hosts"
    if bottle["workspace"] == "clone" and not bottle["git"]["remotes"]:
        yield "workspace: a clone needs a remote under git.remotes to be made from"
    if bottle["sensitive"] and not egress["secrets"]:
        yield "sensitive: nothing is searched for it without `egress.secrets:`; add that, or take it away"
    if bottle["git"]["remotes"]:
        from bot_bottle.plan import remotes

        yield from remotes.problems(bottle)


def _no_engine(bottle: BottleDocument) -> Iterator[str]:
    """What only an engine of containers can keep."""
    if bottle["image"]:
        yield "image: the namespace backend uses the host's own /usr, read-only; backend: docker takes an image"
    if bottle["bundle"] == "container":
        yield "bundle: the namespace backend has no containers; backend: docker does"
    if bottle["runtime"]:
        yield "runtime: the namespace backend has no engine; backend: docker does"
    if bottle["resources"]["disk"]:
        yield "resources.disk: the namespace backend can't keep it; backend: docker can"


def _image_of(bottle: BottleDocument) -> Iterator[str]:
    """What a backend's bottles can't be made from."""
    image = bottle["image"]
    is_path = bool(image and (image["reference"] or "").startswith("/"))
    if bottle["backend"] == "docker" and is_path:
        yield "image.reference: an engine takes an image by its name; backend: smolmachines takes a folder or an archive"


def _pipelock(egress: EgressDocument) -> Iterator[str]:
    """What pipelock behind our proxy can't keep. Rules, credentials and secrets are kept by our proxy in front of it."""
    if egress["mode"] == "observe":
        yield "egress.mode: pipelock refuses what observe would let through; take engine: builtin to learn"
    for route in egress["routes"]:
        if route["protocol"] == "tcp" and not route["upstream"]:
            yield (
                f"egress.routes: {route['host']}:{route['port']}: pipelock carries HTTP and TLS only; take engine: "
                "builtin, or give the route an upstream:, which is dialled past it"
            )


def _past_proxies(plan: RunPlan) -> Iterator[str]:
    """A network that wants its own proxy to be used is not dialled past it in silence."""
    outward = plan.outward
    if plan.egress.engine == "pipelock":
        for source in sorted({one.source for one in (outward.https, outward.http, outward.tcp) if one}):
            yield f"egress.engine: pipelock dials by itself, past the proxy of {source}; take engine: builtin"


def _tls_outside(route: RouteDocument) -> bool:
    return bool(route["upstream"] and route["upstream"]["tls"])


def _seen_inside(plan: RunPlan) -> Iterator[str]:
    """Secrets that are read where the agent could read them, too."""
    named = [(f"credentials.{item.name}", item.source) for item in plan.credentials]
    named += [(f"sensitive.{item.name}", item.source) for item in plan.sensitive]
    named += (
        [("git.signing: key", f"file:{plan.git.signing_key}")] if plan.git and plan.git.signing_key else []
    )
    for remote in plan.git.remotes if plan.git else ():
        named += [(f"git.remotes.{remote.name}: key", f"file:{remote.key}")] if remote.key else []
        named += (
            [(f"credentials.{remote.credential.name}", remote.credential.source)] if remote.credential else []
        )
    for name, source in named:
        kind, _, place = source.partition(":")
        file = place if kind == "file" else str(json.loads(place)["file"]) if kind == "oauth" else ""
        if file.startswith(plan.workspace.source.rstrip("/") + "/"):
            yield f"{name}: {file} lies in the workspace, which the agent sees"


def _built_inside(plan: RunPlan) -> Iterator[str]:
    """What an agent writes, or a repository brings, must not say what the operator's engine builds."""
    workspace = plan.workspace.source.rstrip("/") + "/"
    named = (("dockerfile", plan.image.dockerfile), ("context", plan.image.context), ("ca", plan.image.ca))
    for key, path in named:
        if path and (path + "/").startswith(workspace):
            yield f"image.{key}: {path} lies in the workspace, which the agent writes; keep it beside the bottle's file"
        elif key == "context" and path and workspace.startswith(path.rstrip("/") + "/"):
            yield f"image.context: {path} holds the workspace, which the agent writes; name a folder of its own"


def _ports(egress: EgressPolicy) -> Iterator[str]:
    for port, taken in unreachable(egress).items():
        yield f"egress.routes: protocol tcp on port {port} can't be served inside: {taken}"


def _host(plan: RunPlan, facts: HostFacts) -> Iterator[str]:
    login = plan.outward.login
    if login and (login.scheme == "query" or login.source.startswith("oauth:")):
        yield f"egress.upstream.credential: {login.name} is no login at a proxy; `basic: USER` or `bearer: true` are"
    if plan.egress.routes and not (plan.outward.https and plan.outward.http):
        for name in facts.proxies.wrong:
            yield f"{name} names no HTTP proxy (http://HOST:PORT or https://HOST:PORT): unset it, or set egress.upstream.proxy"
    by_cgroup = (name for name in plan.limits.stated if name != "disk" and plan.backend == "namespace")
    for name in by_cgroup:
        if name not in facts.cgroup_limits:
            yield f"resources.{name}: no cgroup that could keep it is delegated to this user on this host"
