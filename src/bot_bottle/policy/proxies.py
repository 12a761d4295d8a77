"""A company's HTTP proxy as it is written down, and which hosts are not reached through it. Pure and total."""

from collections.abc import Iterable

from bot_bottle.typed import NamedTuple

_PORTS = {"http": 80, "https": 443}


class ProxyUrl(NamedTuple):
    """Where a proxy is. `login` is its user and password as `USER:PASSWORD`, decoded; empty when it asks for none."""

    host: str
    port: int
    tls: bool
    login: bytes = b""

    @property
    def shown(self) -> str:
        """It without its login, for people and plans."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


def read(text: str) -> ProxyUrl | None:
    """The proxy that `text` names (`http://USER:PASSWORD@HOST:PORT`, or without a scheme); None for anything else."""
    if not text.isascii() or not text.isprintable() or " " in text:
        return None
    from urllib.parse import unquote_to_bytes, urlsplit  # takes 3 ms, and most hosts have no proxy

    try:
        url = urlsplit(text if "://" in text else f"http://{text}")
        host, port = url.hostname or "", url.port
    except ValueError:
        return None
    if (
        url.scheme not in _PORTS
        or not host
        or port == 0
        or url.path not in ("", "/")
        or url.query
        or url.fragment
    ):
        return None
    login = unquote_to_bytes(url.netloc.rpartition("@")[0])
    if login and b":" not in login:
        login += b":"
    return ProxyUrl(host, port or _PORTS[url.scheme], url.scheme == "https", login)


def exceptions(text: str) -> tuple[str, ...]:
    """The entries of a `NO_PROXY` variable."""
    return tuple(entry.lower() for entry in text.replace(",", " ").split())


def goes_direct(entries: Iterable[str], host: str, port: int) -> bool:
    """Whether `entries` take the canonical `host` out of what a proxy is for.

    `*` takes everything; `example.org`, `.example.org` and `*.example.org` that host and what is below it; a port behind it only
    connections to that port. Addresses and networks say nothing about names.
    """
    return any(_takes(entry, host, port) for entry in entries)


def _takes(entry: str, host: str, port: int) -> bool:
    name, colon, wanted = entry.partition(":")
    if colon and wanted != str(port):
        return False
    if name == "*":
        return True
    name = name.removeprefix("*").strip(".")
    return bool(name) and (host == name or host.endswith("." + name))
