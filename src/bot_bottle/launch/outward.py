"""How a run's bundle reaches the servers outside: what the plan names is read here, at launch, and goes to the bundle alone."""

from bot_bottle.errors import HostError
from bot_bottle.plan.model import Outward, ProxyReference
from bot_bottle.secret import Secret
from bot_bottle.typed import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from bot_bottle.bundle.model import Proxy, UpstreamProxy


class Outside(NamedTuple):
    """`authorities` (PEM) are trusted beside the system's; `proxy` is the way, where that is not direct."""

    authorities: str = ""
    proxy: "UpstreamProxy | None" = None


def read(outward: Outward, login: Secret | None) -> Outside:
    """Reads what `outward` refers to; `login` is its own, as it goes out. Raises HostError."""
    authorities = ""
    if outward.ca:
        from bot_bottle.host import stores

        authorities = stores.authorities(outward.ca)
    if not (outward.https or outward.http or outward.tcp):
        return Outside(authorities)
    from bot_bottle.bundle.model import UpstreamProxy

    https, http, tcp = (_proxy(one, login) for one in (outward.https, outward.http, outward.tcp))
    return Outside(authorities, UpstreamProxy(https, http, tcp, outward.direct))


def _proxy(reference: ProxyReference | None, login: Secret | None) -> "Proxy | None":
    if reference is None:
        return None
    from bot_bottle.bundle.model import Proxy
    from bot_bottle.host import proxies
    from bot_bottle.policy.proxies import read as read_url

    url = read_url(reference.url)
    if url is None:
        raise HostError(f"{reference.url} is no HTTP proxy", details=f"It comes from {reference.source}.")
    return Proxy(
        url.host, url.port, url.tls, login if reference.credential else proxies.login(reference.source)
    )
