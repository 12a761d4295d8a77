"""A bottle that is watched to learn what it needs: what only the routes of its policy would refuse is let through, and noted.

Everything else stays as it is: addresses in place of names, names that are none, private addresses and this host itself, what
a TLS hello or a request must not say. What is let through this way goes to the public internet and never with a credential.
"""

from bot_bottle.policy.egress import ASKED_FOR, Decision, Wanted, matches, protocol_on
from bot_bottle.policy.model import EgressPolicy, Protocol, Route
from bot_bottle.policy.ports import OBSERVED

_PLAIN_PORT = 80


def let_through(policy: EgressPolicy, decision: Decision) -> Decision:
    """`decision`, or when it is a refusal that is only to be observed, one that allows it and keeps the refusal's reason."""
    if decision.allowed or policy.mode != "observe" or decision.reason not in ASKED_FOR:
        return decision
    wanted = decision.wanted
    if wanted.protocol == "https" and wanted.port == _PLAIN_PORT:
        # Nobody speaks TLS there: this is a CONNECT by which a client tunnels plain HTTP, which is then judged as such.
        return decision._replace(reason="protocol_not_allowed")
    stated = [route for route in policy.routes if _leads_there(route, wanted)]
    upstream = stated[0].upstream if stated else None
    route = Route(host=wanted.host, port=wanted.port, protocol=_protocol(wanted.protocol), upstream=upstream)
    return decision._replace(allowed=True, route=route)


def _protocol(text: str) -> Protocol:
    return "http" if text == "http" else "tcp" if text == "tcp" else "https"


def spoken(policy: EgressPolicy, *, host: str, port: int) -> str | None:
    """What is spoken on `port` of `host`: as the policy's routes say, or what is usual there where it is only observed."""
    usual = OBSERVED.get(port) if policy.mode == "observe" else None
    return protocol_on(policy, host=host, port=port) or usual


def _leads_there(route: Route, wanted: Wanted) -> bool:
    return matches(route.host, wanted.host) and (route.port, route.protocol) == (wanted.port, wanted.protocol)
