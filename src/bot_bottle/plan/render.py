"""The plan for people and for programs. Secrets stand in it by reference, so nothing has to be hidden."""

import json
from typing import Any

from bot_bottle.plan.model import Credential, Mount, RunPlan
from bot_bottle.policy.model import Route

ENGINE = "pipelock behind our own proxy: what has no upstream of its own leaves only when both agree"

_FOUND = {
    "block": "is refused",
    "redact": "goes on with stars in the secret's place",
    "hold": "waits for you, and is refused without you",
}


def document(plan: RunPlan) -> dict[str, Any]:
    """The whole plan as JSON-able data; file contents by size."""
    shape: dict[str, Any] = _plain(plan)
    shape["command"]["env"] = dict(plan.command.env)
    shape["files"] = [
        {"target": file.target, "bytes": len(file.content), "mode": f"{file.mode:o}"} for file in plan.files
    ]
    shape["egress"]["fingerprint"] = plan.egress.fingerprint()
    return shape


def _plain(value: Any) -> Any:
    """Named tuples as objects, however deep."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _plain(item) for name, item in value._asdict().items() if not isinstance(item, bytes)}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def text(plan: RunPlan) -> str:
    """The plan as a page."""
    source = plan.workspace.source
    shown = {"mount": f"{source}, read-write", "clone": f"a clone of its own, for {source}"}.get(
        plan.workspace.mode, f"a copy of {source}"
    )
    sections = [
        ("Run", [f"{plan.agent} in bottle {plan.bottle}, backend {plan.backend}, provider {plan.provider}"]),
        ("Command", [" ".join(plan.command.argv)]),
        ("Workspace", [f"/workspace is {shown}"]),
        ("May reach", [*reach(plan), *_beyond(plan)]),
        ("Way out", way(plan)),
        ("Searched", searched(plan)),
        ("May ask", [f"at {plan.supervise.url}; what it asks for waits for you"] if plan.supervise else []),
        ("Git", git(plan)),
        *([("Engine", [ENGINE])] if plan.egress.engine == "pipelock" else []),
        ("Secrets", secrets(plan) or ["none"]),
        *([("Made from", made_from(plan))] if plan.backend != "namespace" else []),
        ("Sees of the host", sees(plan)),
        ("Limits", limits(plan)),
        ("User on the host", [f"uid {plan.uid}, gid {plan.gid}"]),
        ("Files put inside", [f"{file.target} ({len(file.content)} bytes)" for file in plan.files] or ["none"]),
        ("Notes", list(plan.notes)),
    ]  # fmt: skip
    lines = []
    for title, items in sections:
        lines += [f"{title + ':' if index == 0 else '':<18}{item}" for index, item in enumerate(items)]
    return "\n".join(lines)


def made_from(plan: RunPlan) -> list[str]:
    """The image, and what is put on it."""
    spec = plan.image
    built = (
        f"{spec.dockerfile}, with what is in {spec.context}" if spec.dockerfile else "bot-bottle's own image"
    )
    put = [f"{layer.target}, put into it" for layer in spec.layers] if plan.backend == "docker" else []
    named = "the root file system" if spec.reference.startswith("/") else "image"
    return [
        f"{named} {spec.reference}" if spec.reference else built,
        *put,
        *([f"run by {plan.runtime}"] if plan.runtime else []),
    ]


def sees(plan: RunPlan) -> list[str]:
    """What of the host's own files is there inside, beside the workspace."""
    if plan.backend == "docker":
        return ["nothing"]
    if plan.backend == "smolmachines":
        return [shown_mount(layer) for layer in plan.image.layers] or ["nothing"]
    return ["/usr and parts of /etc, read-only", *(shown_mount(mount) for mount in plan.mounts)]


def git(plan: RunPlan) -> list[str]:
    """A line per remote: where it leads, how it is entered, what may be pushed."""
    found = []
    for remote in plan.git.remotes if plan.git else ():
        entered = f", with key {remote.key}" if remote.key else ""
        if remote.credential:
            source = where(remote.credential.source)
            entered = f", with credential {remote.credential.name} from {source}, put in outside the bottle"
        rules = remote.rules
        pushes = ", ".join([*rules.push, *(f"tags {one}" for one in rules.tags)]) or "nothing"
        more = [
            f"{what} {', '.join(names)}"
            for what, names in (("force", rules.force), ("delete", rules.delete))
            if names
        ]
        found.append(f"{remote.name} → {remote.url}{entered}; may push {'; '.join([pushes, *more])}")
    if plan.git and plan.git.signing_key:
        found.append(f"signs commits and tags with {plan.git.signing_key}, outside the bottle")
    return found


def shown_mount(mount: Mount) -> str:
    """A mount in words."""
    return f"{mount.target}, {'read-write' if mount.writable else 'read-only'}"


def reach(plan: RunPlan) -> list[str]:
    """A line per route: what it opens, where it really goes, with which credential."""
    found = []
    for route in plan.egress.routes:
        line = f"{route.protocol}://{route.host}:{route.port}{rules(route)}"
        if route.upstream:
            scheme = "https://" if route.upstream.tls else ""
            line += f" → {scheme}{route.upstream.host}:{route.upstream.port}"
        if route.credential:
            line += f" with credential {route.credential}, put in outside the bottle"
        if plan.egress.secrets and not route.scan:
            line += ", not searched for secrets"
        elif plan.egress.secrets and route.on_match:
            line += f", a request with a secret in it {_FOUND[route.on_match]}"
        found.append(line)
    found += [
        f"{host}: what no route allows waits for you, and is refused without you" for host in plan.egress.ask
    ]
    return found


def _beyond(plan: RunPlan) -> list[str]:
    """What may be reached without a route, in words."""
    if plan.egress.mode == "observe":
        return ["every other public host: mode: observe lets through what no route allows, and records it"]
    return [] if plan.egress.routes or plan.egress.ask else ["nothing: no route is allowed"]


def searched(plan: RunPlan) -> list[str]:
    """How what goes out is searched for secrets, if it is."""
    rules = plan.egress.secrets
    if rules is None:
        return []
    size = f"{rules.limit / 2**10:g} KiB" if rules.limit % 2**20 else f"{rules.limit >> 20} MiB"
    large = "refused" if rules.oversize == "block" else "passed on unsearched"
    return [
        f"for secrets: a request with one in it {_FOUND[rules.on_match]} (on_match: {rules.on_match})",
        f"bodies above {size} are {large} (oversize: {rules.oversize})",
    ]


def way(plan: RunPlan) -> list[str]:
    """A line for each thing about the way to the servers outside that is not the usual one."""
    outward = plan.outward
    if not (plan.egress.routes or plan.egress.ask) and plan.egress.mode == "enforce":
        return []
    found = []
    for protocol, proxy in (("https", outward.https), ("http", outward.http), ("tcp", outward.tcp)):
        if proxy:
            login = f", login by credential {proxy.credential}" if proxy.credential else ""
            found.append(f"{protocol} through {proxy.url} (from {proxy.source}{login})")
    if found and outward.direct:
        found.append("directly: " + ", ".join(outward.direct))
    if outward.ca:
        found.append(f"certificates by the authorities in {outward.ca} are trusted, too")
    if plan.trust and plan.trust.intercepts:
        found.append(
            "TLS is opened where the policy needs it; programs inside trust the bottle's own authority"
        )
    return found


def rules(route: Route) -> str:
    """What narrows a route, in words; empty where nothing does."""
    parts = [f"only {', '.join(route.methods)}"] if route.methods else []
    parts += [f"only {' or '.join(route.paths)}"] if route.paths else []
    parts += [f"only with {name}: {pattern}" for name, pattern in route.headers]
    return f" ({'; '.join(parts)})" if parts else ""


def secrets(plan: RunPlan) -> list[str]:
    """A line per secret: where it is read and where it goes."""
    lines = []
    for item in plan.credentials:
        line = f"{item.name} from {where(item.source)}, sent as {sent_as(item)}"
        lines.append(line + (f"; inside, {item.variable} holds a placeholder" if item.variable else ""))
    return lines + [
        f"{item.name} from {where(item.source)}, must not leave by any way" for item in plan.sensitive
    ]


def sent_as(credential: Credential) -> str:
    """How it goes out, in words."""
    if credential.scheme == "basic":
        return f"the password of {credential.user}" if credential.user else "USER:PASSWORD"
    if credential.scheme == "query":
        return f"the URL's parameter {credential.key}"
    return f"{credential.key} ({credential.prefix.strip()})" if credential.prefix else credential.key


def where(source: str) -> str:
    """A source in words: `env:NAME` and its like as they are, a login with where it is renewed."""
    kind, _, place = source.partition(":")
    if kind == "command":
        return "the output of " + " ".join(json.loads(place))
    if kind == "oauth":
        login = json.loads(place)
        return f"the login in {login['file']} (renewed outside, at {login['token_url']})"
    return source


def limits(plan: RunPlan) -> list[str]:
    """A line per limit."""
    limit = plan.limits
    shown = [f"{limit.files} open files a process", "no core dumps"]
    if limit.memory:
        shown.append(f"{limit.memory / 2**30:.2f} GiB of memory")
    if limit.cpus:
        shown.append(f"{limit.cpus:g} cores")
    if limit.pids:
        shown.append(f"{limit.pids} processes and threads")
    if limit.disk:
        shown.append(f"{limit.disk / 2**30:.2f} GiB written outside the workspace")
    return shown
