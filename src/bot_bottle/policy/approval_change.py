"""What an ask would change, computed from the policy in force: the least routes, or why there is nothing to add. Pure and total."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from bot_bottle.policy import approval_git
from bot_bottle.policy.addresses import name_is_private
from bot_bottle.policy.approval import Ask, Grant
from bot_bottle.policy.approval_cover import covers
from bot_bottle.policy.difference import line_of
from bot_bottle.policy.egress import decide, matches
from bot_bottle.policy.git import GitRules
from bot_bottle.policy.lines import USUAL_PORTS
from bot_bottle.policy.model import EgressPolicy, Protocol, Route

_PROTOCOLS: Mapping[str, Protocol] = {"https": "https", "http": "http", "tcp": "tcp"}


class Standing(NamedTuple):
    """What a run enforces: `base` is its file's policy, `in_force` that and the grants that hold.

    `trusts` is whether programs in it trust its own authority, `credentials` are those that it was started with. `git` are the
    rules in force of each remote.
    """

    base: EgressPolicy = EgressPolicy()
    in_force: EgressPolicy = EgressPolicy()
    trusts: bool = True
    credentials: tuple[str, ...] = ()
    git: tuple[tuple[str, GitRules], ...] = ()

    def document(self) -> dict[str, Any]:
        """It as JSON-able data."""
        return {
            "base": self.base.document(),
            "in_force": self.in_force.document(),
            "trusts": self.trusts,
            "credentials": list(self.credentials),
            "git": {name: rules._asdict() for name, rules in self.git},
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Standing":
        """What `document` gave. Raises KeyError or TypeError when it is something else."""
        return cls(
            EgressPolicy.from_document(document["base"]),
            EgressPolicy.from_document(document["in_force"]),
            bool(document["trusts"]),
            tuple(document["credentials"]),
            tuple((str(name), rules_from(rules)) for name, rules in document.get("git", {}).items()),
        )


def rules_from(document: Mapping[str, Any]) -> GitRules:
    """The rules that stand in a document. Raises TypeError when it is something else."""
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in document.items()
    }
    return GitRules(**given)


class Change(NamedTuple):
    """`routes` are missing; `allowed` are lines in force that let through what was asked; `problem` says why it can't be had."""

    routes: tuple[Route, ...] = ()
    allowed: tuple[str, ...] = ()
    problem: str = ""


class _Wanted(NamedTuple):
    host: str
    port: int
    protocol: Protocol
    path: str


def change_for(ask: Ask, standing: Standing) -> Change:
    """The least that has to be added for `ask`."""
    if ask.kind == "egress":
        wanted = [_parse(url) for url in ask.subject["wanted"]]
        return _least(wanted, tuple(ask.subject["methods"]), standing)
    if ask.kind == "request":
        subject = ask.subject
        where = _Wanted(
            subject["host"], subject["port"], _PROTOCOLS[subject["protocol"]], subject.get("path", "")
        )
        return _least([where], (subject["method"],) if subject.get("method") else (), standing)
    if ask.kind == "credential":
        return _credential(ask.subject["host"], ask.subject["credential"], standing)
    if ask.kind == "git":
        one = approval_git.wish(ask.subject)
        if problem := approval_git.problem(one, ask.subject["operation"], standing.git):
            return Change(problem=problem)
        return Change(allowed=approval_git.lines(one) if approval_git.is_allowed(one, standing.git) else ())
    return Change()


def effective(base: EgressPolicy, grants: Iterable[tuple[Grant, Sequence[Route]]]) -> EgressPolicy:
    """`base` with the routes of `grants`, each marked with the grant that it came with.

    What a route of the base says already is not said twice. A route that puts in a credential stands in the place of those
    that are the same without; one that does so once stands before them, as they count again after it.
    """
    added: list[Route] = []
    there = set(base.routes)
    for grant, routes in grants:
        for route in routes:
            if route not in there:
                added.append(route._replace(grant=grant.id, once=grant.scope == "once"))
    filled = {_bare(route) for route in added if route.credential is not None and not route.once}
    kept = (
        route
        for route in (*base.routes, *added)
        if route.credential is not None or _bare(route) not in filled
    )
    return base._replace(routes=tuple(kept))


def before(policy: EgressPolicy, routes: Iterable[Route]) -> EgressPolicy:
    """`policy` without what other approvals allow of `routes`: theirs may end before a new one does, so it adds them anew."""
    anew = set(routes)
    return policy._replace(
        routes=tuple(each for each in policy.routes if not each.grant or said(each) not in anew)
    )


def said(route: Route) -> Route:
    """What it says, whoever granted it."""
    return route._replace(grant="", once=False)


def _bare(route: Route) -> Route:
    """What it allows, and how it gets there."""
    return route._replace(credential=None, grant="", once=False)


def _parse(url: str) -> _Wanted:
    """A place as `approval_intake` spells it."""
    protocol, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    host, _, port = authority.partition(":")
    kind = _PROTOCOLS[protocol]
    return _Wanted(host, int(port) if port else USUAL_PORTS[kind], kind, slash + path)


def _least(wanted: Sequence[_Wanted], methods: tuple[str, ...], standing: Standing) -> Change:
    policy = standing.in_force
    found: dict[tuple[Route, tuple[str, ...]], list[str]] = {}
    allowed: list[str] = []
    for place in wanted:
        judged = decide(policy, host=place.host, port=place.port, protocol=place.protocol)
        if not judged.allowed and judged.needed is None:
            return Change(
                problem=f"{place.host}:{place.port} is allowed in another protocol than {place.protocol}."
            )
        upstream = judged.route.upstream if judged.route else None
        if upstream is None and name_is_private(place.host):
            return Change(
                problem=f"{place.host} is not the name of a public server, so it can't be asked for; only the bottle's "
                "file can open one's own network."
            )
        on_match = (
            judged.route.on_match if judged.route else None
        )  # a nearer route must not loosen what is said there
        whole = Route(place.host, place.port, place.protocol, upstream, on_match=on_match)
        exact = place.protocol == "http" or (place.protocol == "https" and standing.trusts)
        missing = _missing(policy, whole, methods if exact else (), place.path if exact else "", allowed)
        for verbs, path in missing:
            found.setdefault((whole, verbs), []).append(path)
    routes = [
        whole._replace(methods=verbs, paths=() if "" in paths else tuple(sorted(set(paths))))
        for (whole, verbs), paths in found.items()
    ]
    return Change(_without_covered(routes), tuple(dict.fromkeys(allowed)))


def _missing(
    policy: EgressPolicy, whole: Route, methods: tuple[str, ...], path: str, allowed: list[str]
) -> list[tuple[tuple[str, ...], str]]:
    """Which methods (together) on which path no route covers; what covers the others goes to `allowed`."""
    missing = []
    for verb in methods or ("",):
        one = whole._replace(methods=(verb,) if verb else (), paths=(path,) if path else ())
        covering = next((route for route in policy.routes if covers(route, one)), None)
        if covering is None:
            missing.append(verb)
        else:
            allowed.append(line_of(covering))
    return [(tuple(verb for verb in missing if verb), path)] if missing else []


def _without_covered(routes: Sequence[Route]) -> tuple[Route, ...]:
    kept: list[Route] = []
    for route in routes:
        if not any(other is not route and covers(other, route) for other in routes):
            kept.append(route)
    return tuple(kept)


def _credential(host: str, name: str, standing: Standing) -> Change:
    """The routes to `host` as they are, for it alone, with the credential put in."""
    there = [route for route in standing.in_force.routes if matches(route.host, host)]
    if not there:
        return Change(problem=f"{host} is not allowed at all yet; ask for it with pipelock-block first.")
    if not name:
        if len(standing.credentials) != 1:
            known = ", ".join(standing.credentials) or "none"
            return Change(problem=f"Name the `credential`; the bottle was started with: {known}.")
        name = standing.credentials[0]
    if name not in standing.credentials:
        return Change(
            problem="The bottle was not started with such a credential. Its operator has to add it to the bottle's file and "
            "start the bottle anew."
        )
    able = [route for route in there if route.protocol != "tcp"]
    if not able:
        return Change(problem=f"{host} is allowed as tcp only, where no credential can be put in.")
    if having := [route for route in able if route.credential == name]:
        return Change(allowed=tuple(line_of(route) for route in having))
    if any(route.credential is not None for route in able):
        return Change(
            problem=f"{host} gets another credential already; only the bottle's file can change that."
        )
    filled = (_bare(route)._replace(host=host, credential=name) for route in able)
    return Change(tuple(dict.fromkeys(filled)))
