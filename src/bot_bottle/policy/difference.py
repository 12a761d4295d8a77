"""What one policy allows that another does not, in lines that a person reads. Pure."""

import json

from bot_bottle.policy.lines import USUAL_PORTS, word
from bot_bottle.policy.model import EgressPolicy, Route


def difference(old: EgressPolicy, new: EgressPolicy) -> tuple[list[str], list[str]]:
    """The lines that `new` has and `old` has not, and the other way round: routes, then what else the policy says."""
    before, after = lines_of(old), lines_of(new)
    return [line for line in after if line not in before], [line for line in before if line not in after]


def lines_of(policy: EgressPolicy) -> list[str]:
    """The whole policy: a line a route, and one for each other thing that it says."""
    lines = [line_of(route) for route in policy.routes]
    lines += [f"ask: {word(pattern)}" for pattern in policy.ask]
    lines += [f"mode: {policy.mode}"] if policy.mode != "enforce" else []
    lines += [f"engine: {policy.engine}"] if policy.engine != "builtin" else []
    if policy.secrets is not None:
        values = policy.secrets._asdict().items()
        lines.append(f"secrets: {{{', '.join(f'{name}: {value}' for name, value in values)}}}")
    return lines


def bare(line: str) -> str:
    """The line without the mark of a list, for where another mark stands before it."""
    return line.removeprefix("- ")


def line_of(route: Route) -> str:
    """The route as one stands under `egress: routes:`, with nothing that goes without saying."""
    parts = [f"host: {word(route.host)}"]
    if USUAL_PORTS.get(route.protocol) != route.port:
        parts.append(f"port: {route.port}")
    if route.protocol != "https":
        parts.append(f"protocol: {route.protocol}")
    if route.methods:
        parts.append(f"methods: [{', '.join(map(word, route.methods))}]")
    if route.paths:
        parts.append(f"paths: [{', '.join(map(json.dumps, route.paths))}]")
    if route.headers:
        parts.append(
            f"headers: {{{', '.join(f'{word(name)}: {json.dumps(text)}' for name, text in route.headers)}}}"
        )
    if route.upstream:
        scheme = "https://" if route.upstream.tls else ""
        parts.append(f'upstream: "{scheme}{route.upstream.host}:{route.upstream.port}"')
    if route.credential:
        parts.append(f"credential: {word(route.credential)}")
    if not route.scan:
        parts.append("scan: false")
    if route.on_match:
        parts.append(f"on_match: {route.on_match}")
    return f"- {{{', '.join(parts)}}}"
