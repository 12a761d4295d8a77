"""From the record of a run to the least policy that would have let it work, as a change of its bottle's file.

The record holds what an agent did, so what is learned is what a person is shown, never more: exact hosts and ports, methods and
paths only where they were seen, and nothing whose text is not in its one spelling.
"""

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from bot_bottle.errors import HostError, ManifestError, PlanError
from bot_bottle.policy.difference import bare, line_of
from bot_bottle.policy.egress import canonical_host, decide, decide_request
from bot_bottle.policy.model import EgressPolicy, Protocol, Route
from bot_bottle.policy.paths import canonical_path, canonical_path_pattern
from bot_bottle.policy.sound import flaws

if TYPE_CHECKING:
    from bot_bottle.events import Event

MOST_PATHS = 32
"""Of one host; a host on which more was asked for is opened as a whole, and it is said."""
MOST_COMMENTS = 50
_PROTOCOLS: dict[str, Protocol] = {"https": "https", "http": "http", "tcp": "tcp"}
_RULES = frozenset(("method_not_allowed", "path_not_allowed", "header_not_allowed"))
_NOT_PUBLIC = frozenset(("address_not_public", "address_of_host"))
_ROUTES = _RULES | {"host_not_allowed", "port_not_allowed", "protocol_not_allowed"}


class Place(NamedTuple):
    host: str
    port: int
    protocol: Protocol


class Needs(NamedTuple):
    """`routes` would have let the run do what was observed; `refused` is what it tried besides, with how often.

    `warnings` say where the record does not hold enough to be exact.
    """

    routes: list[Route]
    refused: list[tuple[Route, int]]
    warnings: list[str]


class Learned(NamedTuple):
    """A change of a bottle's file: nothing was written yet."""

    run: str
    file: str
    before: str
    after: str
    needs: Needs
    observing: bool


class _Seen:
    """What was asked for at one place: connections as such (`whole`), or single requests, paths with their methods."""

    def __init__(self) -> None:
        self.whole = False
        self.requests: dict[str, set[str]] = {}
        self.times = 0


def needs(events: "Iterable[Event]", policy: EgressPolicy) -> Needs:
    """What `events` ask for beyond what `policy` allows."""
    observed: dict[Place, _Seen] = {}
    refused: dict[Place, _Seen] = {}
    looked_up: dict[str, int] = {}
    private: set[str] = set()
    missing: dict[str, int] = {}
    warnings: list[str] = []
    for event in events:
        data, reason = event.data, str(event.data.get("reason"))
        if event.kind == "egress.observed":
            _note(observed, data, warnings)
        elif event.kind == "egress.refused" and reason in _ROUTES:
            _note(refused, data, [])
        elif event.kind == "egress.refused" and reason in _NOT_PUBLIC:
            private.add(str(data.get("host")))
        elif event.kind == "egress.failed" and reason == "not_resolved":
            name = str(data.get("host"))
            missing[name] = missing.get(name, 0) + _times(data)
        elif event.kind == "dns.refused" and reason == "host_not_allowed":
            name = str(data.get("host", ""))
            looked_up[name] = looked_up.get(name, 0) + _times(data)
        elif event.kind == "egress.folded" and "egress.observed" in str(data.get("counts")):
            warnings.append(
                "the bottle did more than the record could hold, so some of what it needs is missing"
            )
    for host in sorted({place.host for place in observed}.intersection(private)):
        warnings.append(f"{host} has no public address; only a route with an `upstream:` reaches it")
    nowhere = _never_found(observed, missing)
    warnings += [f"{host} was never found by DNS; it is left out" for host in sorted(nowhere)]
    observed = {place: seen for place, seen in observed.items() if place.host not in private | nowhere}
    routes = [route for place, seen in observed.items() for route in _routes(place, seen, policy, warnings)]
    routes = _sayable(routes, warnings)
    return Needs(routes, _refusals(refused, looked_up, policy, routes), list(dict.fromkeys(warnings)))


def _never_found(observed: dict[Place, _Seen], missing: dict[str, int]) -> set[str]:
    """Hosts of which not one connection came further than the look-up of their name: misspelt, or made up."""
    tries: dict[str, int] = {}
    for place, seen in observed.items():
        tries[place.host] = tries.get(place.host, 0) + seen.times
    return {host for host, times in tries.items() if missing.get(host, 0) >= times}


def _sayable(routes: list[Route], warnings: list[str]) -> list[Route]:
    """Those that may stand in a file; a warning for each other one."""
    import yaml
    from pydantic import ValidationError

    from bot_bottle.manifest.model import Route as Stated

    found = []
    for route in routes:
        try:
            Stated.model_validate(yaml.safe_load(line_of(route))[0])
        except (ValidationError, yaml.YAMLError):
            warnings.append(f"{route.host} can't stand in a bottle's file; it is left out")
        else:
            found.append(route)
    return found


def _note(found: dict[Place, _Seen], data: "Any", warnings: list[str]) -> None:
    host, port, protocol = data.get("host"), data.get("port"), data.get("protocol")
    if not isinstance(host, str) or canonical_host(host) != host:
        return
    if (
        type(port) is not int
        or not 0 < port < 65536
        or not isinstance(protocol, str)
        or protocol not in _PROTOCOLS
    ):
        return
    seen = found.setdefault(Place(host, port, _PROTOCOLS[protocol]), _Seen())
    seen.times += _times(data)
    method, path = str(data.get("method", "")), str(data.get("path", ""))
    if str(data.get("reason")) not in _RULES and not (protocol == "https" and method not in ("", "CONNECT")):
        seen.whole = True
    elif _is_exact(path) and method:
        seen.requests.setdefault(path, set()).add(method)
    else:
        warnings.append(f"a path on {host} can't be allowed by a rule; it is left out")


def _times(data: "Any") -> int:
    count = data.get("count", 1)
    return count if type(count) is int and count > 0 else 1


def _is_exact(path: str) -> bool:
    """Whether `path` as a pattern is this path and no other."""
    return "*" not in path and canonical_path(path.encode()) == path == canonical_path_pattern(path)


def _routes(place: Place, seen: _Seen, policy: EgressPolicy, warnings: list[str]) -> list[Route]:
    """The least routes for what was seen at `place`; none for what is allowed.

    Where the policy has routes there, a further one goes where they go; their credential it does not get.
    """
    judged = decide(policy, **place._asdict())
    if not judged.allowed and judged.needed is None:
        warnings.append(
            f"{place.host}:{place.port} has routes with another protocol than {place.protocol}; it is left out"
        )
        return []
    whole = Route(*place, upstream=judged.route.upstream if judged.route else None)
    if seen.whole:
        return [] if judged.allowed else [whole]
    missing = {
        path: methods for path, methods in seen.requests.items() if not _allowed(policy, place, path, methods)
    }
    if len(missing) > MOST_PATHS:
        warnings.append(
            f"{place.host} was asked for {len(missing)} different paths, so it is opened as a whole"
        )
        return [whole]
    if missing and judged.route and judged.route.credential:
        warnings.append(
            f"{place.host}: the new lines do not get its credential; where one is meant to go out, add `credential:`"
        )
    together: dict[tuple[str, ...], list[str]] = {}
    for path, methods in missing.items():
        together.setdefault(tuple(sorted(methods)), []).append(path)
    return [
        whole._replace(methods=methods, paths=tuple(sorted(paths))) for methods, paths in together.items()
    ]


def _allowed(policy: EgressPolicy, place: Place, path: str, methods: set[str]) -> bool:
    asked = {**place._asdict(), "target": path.encode(), "headers": ()}
    return all(decide_request(policy, method=method.encode(), **asked).allowed for method in methods)


def _refusals(
    refused: dict[Place, _Seen], looked_up: dict[str, int], policy: EgressPolicy, learned: list[Route]
) -> list[tuple[Route, int]]:
    """What was refused and still would be, most often first."""
    then = policy._replace(routes=(*policy.routes, *learned))
    found = [
        (route, seen.times) for place, seen in refused.items() for route in _routes(place, seen, then, [])
    ]
    hosts = {place.host for place in refused}
    for host, times in looked_up.items():
        route = Route(host, 443)
        if (
            host not in hosts
            and not flaws(EgressPolicy((route,)))
            and not decide(then, **_place(route)).allowed
        ):
            found.append((route, times))
    sayable = set(_sayable([route for route, _ in found], []))
    return sorted((pair for pair in found if pair[0] in sayable), key=lambda pair: -pair[1])


def _place(route: Route) -> dict[str, Any]:
    return {"host": route.host, "port": route.port, "protocol": route.protocol}


def learn(name: str) -> Learned:
    """What the run `name` needed, as a change of its bottle's file. Raises NotFoundError, ManifestError, PlanError."""
    from bot_bottle.host import paths
    from bot_bottle.manifest.edit import CantEdit, edit_egress
    from bot_bottle.manifest.load import load_bottle
    from bot_bottle.manifest.source import Reading
    from bot_bottle.operate import record
    from bot_bottle.plan.resolve import egress

    store = record.existing_store()
    run = record.find_run(store, name)
    assert store is not None
    with store:
        bottle = load_bottle(run.bottle, root=paths.manifest_root())
        policy = egress(bottle["egress"])
        found = needs(record.events(store, run.id), policy)
    observing = policy.mode == "observe"
    with open(bottle["file"], encoding="utf-8", newline="") as file:
        before = file.read()
    try:
        after = edit_egress(
            before,
            routes=[bare(line_of(route)) for route in found.routes],
            comments=[_comment(*pair) for pair in found.refused[:MOST_COMMENTS]],
            mode="enforce" if observing else None,
        )
    except CantEdit as error:
        lines = "\n".join(line_of(route) for route in found.routes)
        raise PlanError(
            f"The file of bottle {run.bottle} can't be changed by program: {error}",
            details=lines or "Nothing is missing from it.",
            resolution=f"Add these lines under `egress: routes:` in {bottle['file']}.",
        ) from error
    try:
        load_bottle(run.bottle, root=paths.manifest_root(), reading=Reading({bottle["file"]: after}))
    except ManifestError as error:
        raise PlanError(
            f"With what was learned, {bottle['file']} would be wrong",
            details=error.details,
            resolution="Nothing was written. Add by hand what is missing: bot-bottle events shows what it was.",
        ) from error
    return Learned(run.id, bottle["file"], before, after, found, observing)


def _comment(route: Route, times: int) -> str:
    return f"{line_of(route)}  # refused {times} time{'s' * (times != 1)}"


def diff(learned: Learned) -> str:
    """The change as a unified diff; empty when there is none."""
    import difflib

    before, after = (text.splitlines(keepends=True) for text in (learned.before, learned.after))
    return "".join(difflib.unified_diff(before, after, learned.file, learned.file))


def write(learned: Learned) -> None:
    """Puts the change into the file, whole or not at all. Raises HostError, also when the file is not what was read."""
    target = os.path.realpath(learned.file)
    beside = f"{target}.{os.getpid()}.new"
    try:
        with open(target, encoding="utf-8", newline="") as file:
            if file.read() != learned.before:
                raise HostError(
                    f"{learned.file} was changed meanwhile", resolution="Run bot-bottle learn again."
                )
        made = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with open(made, "w", encoding="utf-8", newline="") as file:
                file.write(learned.after)
                file.flush()
                os.fchmod(made, os.stat(target).st_mode & 0o777)
                os.fsync(made)
            os.rename(beside, target)
        except BaseException:
            os.unlink(beside)
            raise
    except OSError as error:
        raise HostError(f"{learned.file} can't be written", details=str(error)) from error


def lines(routes: Sequence[Route]) -> list[str]:
    """The routes as they stand in a file."""
    return [line_of(route) for route in routes]
