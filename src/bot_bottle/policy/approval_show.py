"""A proposal as an operator is shown it: what would change, what that means, and the digest that an approval of it names. Pure."""

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from bot_bottle.digest import sha256_hex
from bot_bottle.policy import approval_git
from bot_bottle.policy.approval import Ask, Grant, Proposal, Scope, Shown, Terms
from bot_bottle.policy.approval_change import Change, Standing, before, change_for, effective, said
from bot_bottle.policy.approval_effect import Refusals, effect
from bot_bottle.policy.difference import difference
from bot_bottle.policy.model import EgressPolicy, Route
from bot_bottle.policy.sound import flaws, hindrance

APPLIES = ("egress", "credential", "request", "secret", "git")
"""Kinds of which an approval is applied; of the others it is recorded."""
SHORTEST_TIME, LONGEST_TIME = 60, 7 * 24 * 3600
"""Seconds for which something can be granted."""
_PLAIN = re.compile(r"[A-Za-z0-9@._/+:=~^-]{1,60}")
OF_POLICY = ("egress", "credential", "request")
_SCOPES: dict[str, tuple[Scope, ...]] = {
    "secret": ("once",),
    "capability": ("bottle",),
    "git": ("once", "time", "bottle"),
}
_ALL_SCOPES: tuple[Scope, ...] = ("once", "time", "bottle", "manifest")


def offered(ask: Ask) -> Terms:
    """The terms that are offered first: the narrowest that let the agent go on."""
    return Terms(scope="once") if ask.kind in ("request", "secret") else Terms()


def scopes(ask: Ask) -> tuple[Scope, ...]:
    """Those on which an ask of this kind can be approved."""
    return _SCOPES.get(ask.kind, _ALL_SCOPES)


def routes_of(proposal: Proposal, terms: Terms) -> tuple[Route, ...]:
    """What an approval on `terms` would add."""
    return proposal.routes if terms.routes is None else terms.routes


class Changed(NamedTuple):
    """What a change is made of: `old` is what is in force but for what is granted anew, `new` is with the proposal's routes."""

    old: EgressPolicy
    new: EgressPolicy
    added: tuple[str, ...]
    removed: tuple[str, ...]


def changed(standing: Standing, proposal: Proposal, terms: Terms) -> Changed:
    """What an approval on `terms` changes: every line that it makes hold, also one that another approval allows meanwhile."""
    routes = routes_of(proposal, terms)
    grant = Grant(grant_id(proposal.id), proposal.id, proposal.run, terms.scope, (), 0.0)
    old = before(standing.in_force, routes)
    new = effective(old, [(grant, routes)])
    added, removed = difference(old, new)
    if proposal.ask.kind == "git":
        added = list(approval_git.lines(approval_git.wish(proposal.ask.subject)))
    return Changed(old, new, tuple(added), tuple(removed))


def grant_id(proposal: str) -> str:
    """The id of the grant that an approval of `proposal` makes: always the same one, so that it can't be made twice."""
    return f"g{proposal.removeprefix('p')}"


def shown(
    proposal: Proposal,
    standing: Standing,
    terms: Terms | None,
    *,
    agent: str,
    bottle: str,
    refusals: Refusals,
    alike: Sequence[str] = (),
) -> Shown:
    """`proposal` on `terms` (None: those offered first)."""
    terms = offered(proposal.ask) if terms is None else terms
    routes = routes_of(proposal, terms)
    change = changed(standing, proposal, terms)
    return Shown(
        proposal=proposal,
        agent=agent,
        bottle=bottle,
        terms=terms,
        title=title(proposal.ask),
        added=change.added,
        removed=change.removed,
        effect=effect(
            standing._replace(in_force=change.old),
            change.new,
            routes,
            refusals,
            of_tool=proposal.ask.kind not in ("request", "secret"),
            ask=proposal.ask,
        ),
        words=proposal.ask.words,
        alike=tuple(alike),
        applies=proposal.ask.kind in APPLIES,
        problem=problem(proposal, standing, terms, change),
        digest=digest(proposal, standing, terms, change.added, change.removed),
    )


def problem(proposal: Proposal, standing: Standing, terms: Terms, change: Changed) -> str:
    """Why it can't be approved on these terms; empty when it can."""
    if proposal.state != "pending":
        return f"it was decided already: {proposal.state}"
    if terms.scope not in scopes(proposal.ask):
        by_hand = (
            "; what may be pushed for good is written into the bottle's file by hand, at the remote"
            if proposal.ask.kind == "git"
            else ""
        )
        return f"it can be approved for: {', '.join(scopes(proposal.ask))}{by_hand}"
    if terms.scope == "time" and not SHORTEST_TIME <= terms.seconds <= LONGEST_TIME:
        return f"a time must be from {SHORTEST_TIME} seconds to {LONGEST_TIME // 86400} days"
    if terms.scope != "time" and terms.seconds:
        return "only a grant for a time has seconds"
    if proposal.ask.kind == "git" and (found := change_for(proposal.ask, standing)) != Change():
        return found.problem or "nothing of it is missing any more: it is allowed already"
    if proposal.ask.kind not in OF_POLICY:
        return "" if terms.routes is None else "there are no routes in it to edit"
    new = change.new
    if wrong := flaws(new):
        return "; ".join(wrong)[:500]
    if conflict := _conflict(standing.in_force, routes_of(proposal, terms)):
        return conflict
    if why := hindrance(standing.in_force, new, trusts=standing.trusts, credentials=standing.credentials):
        return why
    lasting = {said(route) for route in standing.in_force.routes if not route.once}
    if not change.added or lasting.issuperset(routes_of(proposal, terms)):
        return "nothing of it is missing any more: the policy allows it already"
    return ""


def _conflict(policy: EgressPolicy, routes: Sequence[Route]) -> str:
    """What no bottle's file could say: two protocols on one port of one host."""
    for number, route in enumerate(routes):
        for other in (*policy.routes, *routes[:number]):
            if (other.host, other.port) == (route.host, route.port) and other.protocol != route.protocol:
                return f"{route.host}:{route.port} is {other.protocol} in the policy, and can't be {route.protocol} as well"
    return ""


def digest(
    proposal: Proposal, standing: Standing, terms: Terms, added: Sequence[str], removed: Sequence[str]
) -> str:
    """What an approval names: everything that was shown of the change, and the bottle's policy that it was computed on.

    That is the base, without grants: so an approval of one proposal leaves what was shown of the others valid.
    """
    stated = {
        "proposal": proposal.id,
        "run": proposal.run,
        "ask": proposal.ask.content(),
        "policy": standing.base.fingerprint(),
        "added": list(added),
        "removed": list(removed),
        "scope": terms.scope,
        "seconds": terms.seconds,
        "routes": None if terms.routes is None else [route.document() for route in terms.routes],
    }
    return sha256_hex(json.dumps(stated, sort_keys=True, separators=(",", ":")).encode())


def title(ask: Ask) -> str:
    """One line of ours on what is asked for."""
    subject = ask.subject
    if ask.kind == "egress":
        methods = f"{', '.join(subject['methods'])} " if subject["methods"] else ""
        return f"reach {methods}{_some(subject['wanted'])}"
    if ask.kind == "credential":
        name = _named(subject["credential"]) if subject["credential"] else "(the only one)"
        return f"put the credential {name} into what goes to {subject['host']}"
    if ask.kind == "capability":
        things = [_named(each) for each in (*subject["packages"], *subject["tools"])]
        return f"get {_some(things) or 'a change of the image'}"
    if ask.kind == "git":
        parts = [subject["remote"], subject["ref"], subject.get("path", ""), subject.get("fingerprint", "")]
        where = " ".join(_named(part) for part in parts if part)
        return f"git {subject['operation']} {where}".rstrip()
    place = f"{subject['protocol']}://{subject['host']}:{subject['port']}{subject.get('path', '')}"[:300]
    asked = " ".join(part for part in (subject.get("method", ""), place) if part)
    if ask.kind == "request":
        return f"let a waiting request through: {asked}"
    return f"let a request with a secret in it through: {subject['detector'] or 'a secret'} in {asked}"


def _named(text: str) -> str:
    """Something that an agent named: quoted unless it is a plain name, so that it can't pass for words of ours."""
    if _PLAIN.fullmatch(text):
        return text
    cut = text[:60].replace('"', "'") + ("…" if len(text) > 60 else "")
    return f'"{cut}"'


def _some(things: Sequence[str]) -> str:
    beyond = len(things) - 3
    return ", ".join(things[:3]) + (f" and {beyond} more" if beyond > 0 else "")
