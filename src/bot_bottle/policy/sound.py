"""Whether a policy that was made elsewhere is one at all. Pure and total: whatever it is, it gets a list of what is wrong.

The manifest checks what a person wrote; this is for the policy itself, where it is changed while a bottle runs. A route that
could match nothing, or that nobody could compare with anything, is wrong.
"""

import re
from collections.abc import Collection, Iterator

from bot_bottle.policy.egress import canonical_pattern, intercepts_any
from bot_bottle.policy.model import MOST_ASKED, EgressPolicy, HeaderMatch, Route, SecretsPolicy, Upstream
from bot_bottle.policy.paths import canonical_path_pattern

MOST_ROUTES = 2000
"""What is judged for each request has to stay a matter of microseconds."""
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_LONGEST = 4096


def flaws(policy: EgressPolicy) -> list[str]:
    """A sentence for each thing that is wrong with it; none for a policy that can be enforced."""
    found = list(_of_policy(policy))
    routes = policy.routes if isinstance(policy.routes, tuple) else ()
    for number, route in enumerate(routes[:MOST_ROUTES], 1):
        found += [f"route {number}: {what}" for what in _of_route(route)]
        if policy.engine == "pipelock" and route.protocol == "tcp" and route.upstream is None:
            found.append(f"route {number}: pipelock carries HTTP and TLS only")
    return found


def hindrance(old: EgressPolicy, new: EgressPolicy, *, trusts: bool, credentials: Collection[str]) -> str:
    """Why a bottle that runs with `old` can't come to enforce `new`; empty when it can.

    `trusts` is whether it started with what makes programs in it trust its own authority, `credentials` are those it has.
    """
    if new.engine != old.engine:
        return "the engine can't change while a bottle runs; start it anew"
    if not trusts and intercepts_any(new):
        return (
            "it opens TLS, and the bottle started without what makes programs in it trust that; start it anew"
        )
    named = {route.credential for route in new.routes if route.credential is not None}
    if unknown := sorted(named.difference(credentials)):
        return f"it names credentials that were not read when the bottle started: {', '.join(unknown)}; start it anew"
    return ""


def _of_policy(policy: EgressPolicy) -> Iterator[str]:
    if not isinstance(policy.routes, tuple):
        yield "routes are no list"
    elif len(policy.routes) > MOST_ROUTES:
        yield f"more than {MOST_ROUTES} routes"
    if policy.mode not in ("enforce", "observe"):
        yield "mode is neither enforce nor observe"
    if policy.engine not in ("builtin", "pipelock"):
        yield "there is no such engine"
    if policy.engine == "pipelock" and policy.mode == "observe":
        yield "pipelock refuses what observe would let through"
    if not isinstance(policy.ask, tuple) or len(policy.ask) > MOST_ASKED:
        yield f"ask is no list, or one of more than {MOST_ASKED} hosts"
    elif not all(isinstance(one, str) and canonical_pattern(one) == one for one in policy.ask):
        yield "ask names something that is no host name in its one spelling"
    secrets = policy.secrets
    if secrets is not None and not _is_secrets(secrets):
        yield "secrets say nothing that can be done"


def _is_secrets(secrets: SecretsPolicy) -> bool:
    known = secrets.on_match in ("hold", "redact", "block") and secrets.oversize in ("block", "pass")
    return known and type(secrets.limit) is int and secrets.limit >= 0


def _of_route(route: Route) -> Iterator[str]:
    if not isinstance(route.host, str) or canonical_pattern(route.host) != route.host:
        yield "its host is no host name in its one spelling"
    if not _is_port(route.port):
        yield "its port is none"
    if route.protocol not in ("https", "http", "tcp"):
        yield "there is no such protocol"
    if route.upstream is not None and not _is_upstream(route.upstream):
        yield "its upstream is no place"
    if route.credential is not None and not _is_token(route.credential):
        yield "its credential is no name"
    if type(route.scan) is not bool:
        yield "scan is neither true nor false"
    if route.on_match not in (None, "hold", "redact", "block"):
        yield "its on_match is nothing that can be done"
    if route.grant != "" and (not _is_token(route.grant) or len(route.grant) > 64):
        yield "its grant is none"
    if type(route.once) is not bool or (route.once and not route.grant):
        yield "it is for once, and nobody granted it"
    if route.protocol == "tcp" and (route.has_rules or route.credential is not None or route.on_match):
        yield "it says something about HTTP, but its protocol is tcp"
    if not all(_is_token(method) for method in route.methods):
        yield "one of its methods is none"
    if not all(_is_path(path) for path in route.paths):
        yield "one of its paths is no pattern in its one spelling"
    if not all(_is_header(header) for header in route.headers):
        yield "one of its headers can't be matched"


def _is_port(port: object) -> bool:
    return type(port) is int and 0 < port < 65536


def _is_token(text: object) -> bool:
    return isinstance(text, str) and _TOKEN.fullmatch(text) is not None


def _is_path(text: object) -> bool:
    return isinstance(text, str) and len(text) <= _LONGEST and canonical_path_pattern(text) == text


def _is_header(header: HeaderMatch) -> bool:
    name, pattern = header.name, header.pattern
    return _is_token(name) and name == name.lower() and isinstance(pattern, str) and len(pattern) <= _LONGEST


def _is_upstream(upstream: Upstream) -> bool:
    texts = (upstream.host, upstream.server_name)
    fine = all(isinstance(text, str) and len(text) <= 253 and text.isascii() for text in texts)
    return fine and bool(upstream.host) and _is_port(upstream.port) and type(upstream.tls) is bool
