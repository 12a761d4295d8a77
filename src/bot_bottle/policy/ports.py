"""The ports of a bottle that the door itself serves, and what that leaves for routes. Pure."""

from bot_bottle.policy.model import EgressPolicy

PROXY_PORT = 3128
SUPERVISE_ADDRESS, SUPERVISE_PORT = "127.0.0.1", 3129
SUPERVISE_URL = f"http://{SUPERVISE_ADDRESS}:{SUPERVISE_PORT}/mcp"
GIT_ADDRESS, GIT_PORT = "127.0.0.1", 3130
GIT_URL = f"http://{GIT_ADDRESS}:{GIT_PORT}"
GIT_SIGN_URL = f"{GIT_URL}/.sign"
DNS_PORT = 53
HTTP_PORT, TLS_PORT = 80, 443
TAKEN = {
    DNS_PORT: "the bottle's DNS",
    PROXY_PORT: "the bottle's proxy",
    SUPERVISE_PORT: "the server that the agent asks for help",
    GIT_PORT: "the git gate",
}
"""Ports on which nothing else can be served inside, whatever address is dialled."""
OBSERVED = {
    22: "tcp", 2222: "tcp", 1433: "tcp", 3306: "tcp", 5432: "tcp", 5672: "tcp", 6379: "tcp", 9418: "tcp", 27017: "tcp",
    8000: "http", 8080: "http", 8443: "https",
}  # fmt: skip
"""Ports that are served where a bottle is only watched, and what is most often spoken there (ssh, databases, queues, git)."""
MOST_FURTHER = 32
"""Ports beyond the standard ones that get a listener; hosts on others are reached through the proxy."""


def further_ports(policy: EgressPolicy) -> dict[int, str]:
    """The ports that get a listener of their own and what it takes: TLS before plain HTTP, which before the rest.

    Those of tcp routes come first, because their clients know no proxy. Where several protocols share a port, the address
    that was dialled tells tcp from the others.
    """
    standard = (HTTP_PORT, TLS_PORT, *TAKEN)
    kinds: dict[int, set[str]] = {}
    for route in policy.routes:
        if route.port not in standard:
            kinds.setdefault(route.port, set()).add(route.protocol)
    for port, protocol in OBSERVED.items() if policy.mode == "observe" else ():
        if len(kinds) < MOST_FURTHER:
            kinds.setdefault(port, {protocol})
    chosen = sorted(kinds, key=lambda port: ("tcp" not in kinds[port], port))[:MOST_FURTHER]
    return {
        port: next(kind for kind in ("https", "http", "tcp") if kind in kinds[port])
        for port in sorted(chosen)
    }


def unreachable(policy: EgressPolicy) -> dict[int, str]:
    """The ports of tcp routes that no listener can serve, and why."""
    asked = {route.port for route in policy.routes if route.protocol == "tcp"}
    served = {HTTP_PORT, TLS_PORT, *further_ports(policy)}
    crowded = f"at most {MOST_FURTHER} further ports are served in a bottle"
    return {port: TAKEN.get(port, crowded) for port in sorted(asked - served)}
