"""What a change would have let through of what a bottle's record holds, and what else there is to know of it. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bot_bottle.policy.approval import Ask, Effect
from bot_bottle.policy.approval_change import Standing
from bot_bottle.policy.approval_cover import covers
from bot_bottle.policy.approval_git import DELETE, FORCE, wish
from bot_bottle.policy.approval_text import clean
from bot_bottle.policy.egress import decide, decide_request, intercepted_names, matches, names_allowed
from bot_bottle.policy.git import BRANCHES
from bot_bottle.policy.git_paths import protected
from bot_bottle.policy.hosts import canonical_host
from bot_bottle.policy.model import EgressPolicy, Route
from bot_bottle.policy.sinks import sink

MOST_PLACES = 4096
"""Different refused things that are remembered of a run; an agent can make up more."""


class Refused(NamedTuple):
    """Something that was refused, as the record has it; `method` and `path` are empty where only a connection was judged."""

    host: str
    port: int
    protocol: str
    method: str = ""
    path: str = ""


class Refusals:
    """What was refused in one run, with how often."""

    def __init__(self) -> None:
        self.times: dict[Refused, int] = {}
        self.pushes: dict[str, str] = {}
        """What the git gate found, in words, by fingerprint."""

    def add(self, kind: str, data: Mapping[str, Any]) -> None:
        """Adds what an event says, if it is a refusal that a route could have to do with."""
        if kind == "git.refused":
            self._push(data)
        if kind not in ("egress.refused", "dns.refused"):
            return
        host = data.get("host")
        if not isinstance(host, str) or canonical_host(host) != host:
            return
        dns = kind == "dns.refused"
        port = 0 if dns else data.get("port")
        if type(port) is not int or not 0 <= port < 65536:
            return
        method, path = str(data.get("method", "")), str(data.get("path", ""))
        exact = bool(path) and method not in ("", "CONNECT")
        what = Refused(
            host, port, "dns" if dns else str(data.get("protocol")), *((method, path) if exact else ())
        )
        if what in self.times or len(self.times) < MOST_PLACES:
            count = data.get("count", 1)
            self.times[what] = self.times.get(what, 0) + (
                count if type(count) is int and 0 < count < 1 << 40 else 1
            )

    def _push(self, data: Mapping[str, Any]) -> None:
        found = clean(data.get("fingerprint", ""), 40)
        if found and (found in self.pushes or len(self.pushes) < MOST_PLACES):
            line = data.get("line")
            place = clean(data.get("path", ""), 200) + (f":{line}" if type(line) is int and line > 0 else "")
            where = f" in {place}" if place else ""
            self.pushes[found] = (
                f"{clean(data.get('rule', ''), 80)}{where}: {clean(data.get('why', ''), 300)}"
            )

    def let_through(self, old: EgressPolicy, new: EgressPolicy) -> tuple[int, int]:
        """How many of them `new` would have allowed and `old` does not, and to how many hosts."""
        hosts: set[str] = set()
        total = 0
        more = {route.host for route in set(new.routes).difference(old.routes)}
        exact, endings = more, tuple(host[1:] for host in more if host.startswith("*."))
        for what, times in self.times.items():
            if what.host not in exact and not what.host.endswith(endings):
                continue  # nothing new is about it; an agent makes up thousands of them, and they are looked at each time
            if _allows(new, what) and not _allows(old, what):
                hosts.add(what.host)
                total += times
        return total, len(hosts)


def _allows(policy: EgressPolicy, what: Refused) -> bool:
    if what.protocol == "dns":
        return names_allowed(policy, what.host)
    place = {"host": what.host, "port": what.port, "protocol": what.protocol}
    if not what.path:
        return decide(policy, **place).allowed  # type: ignore[arg-type]
    asked = {"method": what.method.encode("utf-8", "replace"), "target": what.path.encode("utf-8", "replace")}
    return decide_request(policy, **place, **asked, headers=()).allowed  # type: ignore[arg-type]


def effect(
    standing: Standing,
    new: EgressPolicy,
    routes: Sequence[Route],
    refusals: Refusals,
    *,
    of_tool: bool = True,
    ask: Ask | None = None,
) -> Effect:
    """What putting `new` in force, which has `routes` more, means. `of_tool` is False where the request itself waits."""
    if ask is not None and ask.kind == "git":
        return Effect(notes=tuple(_of_push(ask, refusals)))
    requests, hosts = refusals.let_through(standing.in_force, new)
    given = {route.host for route in routes if route.credential is not None}
    beside = {
        route.host
        for route in routes
        for other in standing.in_force.routes
        if other.credential is not None and _touch(route.host, other.host)
    }
    sinks = {route.host: known for route in routes if (known := sink(route.host))}
    notes = [f"{host} is {known}." for host, known in sinks.items()]
    notes += _notes(standing, new, routes)
    notes += [
        f"{host} gets a credential on other routes; with these lines it does not."
        for host in sorted(beside - given)
    ]
    if of_tool and routes and not requests:
        notes.append("Nothing that was refused so far would have been let through by it.")
    return Effect(requests, hosts, tuple(sorted(given | beside)), tuple(sorted(sinks)), tuple(notes))


def _of_push(ask: Ask, refusals: Refusals) -> Iterator[str]:
    """What whoever lets a push go must know of it."""
    one = wish(ask.subject)
    if one.fingerprint:
        seen = refusals.pushes.get(one.fingerprint)
        yield (
            f"The finding is: {seen}."
            if seen
            else "Nothing with this fingerprint was found in a push so far."
        )
        yield "What was found there leaves for the upstream, and can't be taken back."
    if one.path and (why := protected(one.path)):
        yield f"{one.path} is protected: {why.what}."
    if one.operation in (FORCE, DELETE):
        yield "What the upstream has there alone can be lost by it, also what others have pushed meanwhile."
    if one.ref.startswith(BRANCHES) and one.ref.removeprefix(BRANCHES) in (
        "main",
        "master",
        "trunk",
        "develop",
    ):
        yield f"{one.ref.removeprefix(BRANCHES)} is a branch that others are likely to build on."


def _touch(one: str, other: str) -> bool:
    return one == other or (
        matches(other, one) if not one.startswith("*.") else matches(one, other.removeprefix("*."))
    )


def _stands(standing: Standing, route: Route) -> bool:
    """Whether the bottle's own file opens what `route` puts a credential into."""
    bare = route._replace(credential=None)
    return any(covers(each, bare) for each in standing.base.routes)


def _notes(standing: Standing, new: EgressPolicy, routes: Iterable[Route]) -> list[str]:
    found = []
    for route in routes:
        if route.host.startswith("*."):
            found.append(
                f"{route.host} stands for every name below it, and whoever owns one decides what it is."
            )
        if any(label.startswith("xn--") for label in route.host.split(".")):
            found.append(
                f"{route.host} is a name in other letters than these, which may look like another name."
            )
        if route.protocol == "tcp":
            found.append(f"What goes to {route.host}:{route.port} is not looked into: tcp.")
        elif route.protocol == "http" and route.upstream is None:
            found.append(f"What goes to {route.host} is not encrypted: http.")
        if route.credential is not None and not _stands(standing, route):
            found.append(
                f"{route.host} itself is open by another approval only, which may end before; by this one it stays open."
            )
        if not route.scan and standing.base.secrets is not None:
            found.append(f"What goes to {route.host} would not be searched for secrets.")
    opened = sorted(intercepted_names(new) - intercepted_names(standing.in_force))
    passed = [host for host in opened if any(route.host == host for route in standing.in_force.routes)]
    found += [f"TLS to {host} passes unopened so far and would be opened from now on." for host in passed]
    return found
