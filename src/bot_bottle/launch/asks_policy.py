"""What an agent is told of its policy: what is allowed now, what was refused lately, what is granted and what is open."""

from collections.abc import Iterable
from typing import Any

from bot_bottle.launch.wishes import Kept
from bot_bottle.policy.approval import Grant, Proposal
from bot_bottle.policy.difference import line_of, lines_of
from bot_bottle.policy.egress import decide, decide_request
from bot_bottle.policy.model import EgressPolicy
from bot_bottle.state.proposals import Proposals

MOST_LINES, MOST_REFUSED, MOST_OPEN = 200, 20, 32
_LOOKED_AT = 200


def document(
    run: Kept, proposals: Proposals, grants: Iterable[Grant], waiting: Iterable[Proposal]
) -> dict[str, Any]:
    """The answer to `policy`. An upstream, which is the operator's own network, is not told."""
    shown = run.policy._replace(routes=tuple(route._replace(upstream=None) for route in run.policy.routes))
    return {
        "allowed": lines_of(shown)[:MOST_LINES],
        "refused": _refused(run, proposals),
        "grants": [
            {
                "grant": grant.id,
                "proposal": grant.proposal,
                "scope": grant.scope,
                "until": grant.until,
                "lines": [line_of(route._replace(upstream=None)) for route in grant.routes],
            }
            for grant in grants
        ],
        "open": [
            {"proposal": each.id, "kind": each.ask.kind, "state": each.state, "made_at": each.made_at}
            for each in list(waiting)[:MOST_OPEN]
        ],
    }


def _refused(run: Kept, proposals: Proposals) -> list[dict[str, Any]]:
    found: dict[tuple[str, int, str], dict[str, Any]] = {}
    kinds = ("egress.refused", "dns.refused")
    for event in proposals.store.latest(run.plan.id, kinds=kinds, limit=_LOOKED_AT):
        data = event.data
        port = data.get("port", 0)
        key = (str(data.get("host", "")), port if type(port) is int else 0, str(data.get("reason", "")))
        count = data.get("count", 1)
        times = count if type(count) is int and count > 0 else 1
        if key in found:
            found[key]["count"] += times
        elif len(found) < MOST_REFUSED:
            needed = _needed(run.policy, data)
            found[key] = {"host": key[0], "port": key[1], "reason": key[2], "needed": needed, "count": times}
    return list(found.values())


def _needed(policy: EgressPolicy, data: Any) -> str:
    host, port, protocol = data.get("host"), data.get("port", 443), data.get("protocol", "https")
    if not isinstance(host, str) or type(port) is not int or not isinstance(protocol, str):
        return ""
    method, path = str(data.get("method", "")), str(data.get("path", ""))
    if path and method not in ("", "CONNECT"):
        judged = decide_request(
            policy, host=host, port=port, protocol=protocol, method=method.encode("utf-8", "replace"),
            target=path.encode("utf-8", "replace"), headers=(),
        )  # fmt: skip
    else:
        judged = decide(policy, host=host, port=port, protocol=protocol)
    return judged.needed or ""
