"""What of a bottle makes programs in it trust its own certificate authority: places and variables. Pure.

The authority is made by the bundle when it starts, long after planning, and may be made anew while the bottle runs. So files
stand in the places of the host's stores from the beginning, and get their content from outside (`provision/trust.py`).
"""

from collections.abc import Iterator

from bot_bottle.plan.facts import Stores
from bot_bottle.plan.model import Mount, Trust

CERTIFICATES = "/etc/ssl/certs"
LIST = f"{CERTIFICATES}/ca-certificates.crt"
"""Everything that is trusted, in one file: Debian's place for it, and in a bottle always there."""
AUTHORITY = f"{CERTIFICATES}/bot-bottle.pem"
"""The bottle's own authority alone."""
ADDED = f"{CERTIFICATES}/bot-bottle-added.pem"
"""What is trusted in addition to the lists that programs bring along: for those that can only be given additions."""
JAVA = f"{CERTIFICATES}/java/cacerts"

FILES = {"list.pem": LIST, "authority.pem": AUTHORITY, "added.pem": ADDED, "cacerts": JAVA}
"""The files of `Trust.folder`, and where they are always shown."""

LAYOUT = 1
"""Of the copies of the host's folders: counts up when `provision/trust.py` makes them differently."""

_WHOLE = (
    "SSL_CERT_FILE",  # OpenSSL, Python, Go, Ruby, uv, rustls
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "NIX_SSL_CERT_FILE",
)
_ADDITIONS = ("NODE_EXTRA_CA_CERTS", "DENO_CERT")
_JAVA_OPTIONS = "JAVA_TOOL_OPTIONS"


def trust(stores: Stores, *, run: str, data: str, ca: str, intercepts: bool) -> Trust:
    """The stores of a bottle on this host; `run` is the run's own folder, `data` what is kept for all."""
    folder = f"{run}/trust"
    copies = tuple((item.path, f"{data}/trust/{item.mark}-{LAYOUT}") for item in stores.folders)
    if not copies:
        copies = (("", f"{data}/trust/none-{LAYOUT}"),)
    return Trust(
        folder=folder,
        mounts=tuple(sorted(_mounts(stores, folder, dict(copies)), key=lambda one: one.target)),
        copies=copies,
        list=stores.list,
        java=stores.java,
        extra=stores.extra,
        ca=ca,
        intercepts=intercepts,
    )


def _mounts(stores: Stores, folder: str, copies: dict[str, str]) -> Iterator[Mount]:
    shown = {place: copies[item.path] for item in stores.folders for place in item.places}
    if CERTIFICATES not in shown:
        shown[CERTIFICATES] = next(iter(copies.values()))
    places = {place: name for name, place in FILES.items()}
    places |= dict.fromkeys(stores.lists, "list.pem") | dict.fromkeys(stores.javas, "cacerts")
    yield from (Mount(source, place) for place, source in shown.items())
    yield from (Mount(f"{folder}/{name}", place) for place, name in places.items())


def environment(env: tuple[tuple[str, str], ...], *, intercepts: bool) -> tuple[tuple[str, str], ...]:
    """`env` with what makes programs that bring lists of their own look at ours; what `env` says already, it keeps.

    Java is told only where TLS is opened: it announces its options on every start.
    """
    given = dict(env)
    ours = dict.fromkeys(_WHOLE, LIST) | dict.fromkeys(_ADDITIONS, ADDED)
    if intercepts:
        theirs = given.pop(_JAVA_OPTIONS, "")
        ours[_JAVA_OPTIONS] = f"-Djavax.net.ssl.trustStore={JAVA} {theirs}".rstrip()
    return tuple(sorted({**ours, **given}.items()))
