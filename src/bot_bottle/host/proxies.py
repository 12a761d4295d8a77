"""The proxy through which this host reaches the internet, by the variables that programs agree on."""

import os

from bot_bottle.plan.facts import HostProxies
from bot_bottle.policy import proxies
from bot_bottle.secret import Secret

_HTTPS = ("https_proxy", "HTTPS_PROXY")
_HTTP = ("http_proxy", "HTTP_PROXY")
_NONE = ("no_proxy", "NO_PROXY")


def find() -> HostProxies:
    """What the environment says, without logins; of two spellings the small one counts, as everywhere."""
    https, http = _first(_HTTPS), _first(_HTTP)
    if not https and not http:
        return HostProxies()
    read = {name: proxies.read(os.environ[name]) for name in (https, http) if name}
    return HostProxies(
        https=_reference(https, read),
        http=_reference(http, read),
        direct=proxies.exceptions(os.environ.get(_first(_NONE), "")),
        wrong=tuple(dict.fromkeys(name for name, url in read.items() if url is None)),
    )


def login(variable: str) -> Secret | None:
    """What the proxy that `variable` names is to be told (a Proxy-Authorization), if it has a login."""
    url = proxies.read(os.environ.get(variable, ""))
    return basic(url.login) if url is not None and url.login else None


def basic(pair: bytes) -> Secret:
    """`USER:PASSWORD` as it goes out."""
    import binascii

    return Secret("Basic " + binascii.b2a_base64(pair, newline=False).decode())


def trouble(url: str, seconds: float = 3.0) -> str:
    """Why the proxy at `url` takes no connection; empty when it does. Says nothing to it."""
    import socket

    read = proxies.read(url)
    if read is None:
        return "it is no HTTP proxy"
    try:
        socket.create_connection((read.host, read.port), seconds).close()
    except OSError as error:
        return f"it takes no connection ({error.strerror or error})"
    return ""


def _first(names: tuple[str, ...]) -> str:
    """The first of `names` that says something; empty when none does."""
    return next((name for name in names if os.environ.get(name)), "")


def _reference(name: str, read: dict[str, proxies.ProxyUrl | None]) -> tuple[str, str] | None:
    url = read.get(name)
    return None if url is None else (url.shown, name)
