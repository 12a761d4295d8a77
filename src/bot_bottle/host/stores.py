"""Where this host keeps the certificate authorities that it trusts: looked at with a few dozen `lstat` calls, nothing is changed.

Distributions differ in the paths, and most have several that lead to one file. What is found here is what a bottle is shown in
their stead.
"""

import os

from bot_bottle.digest import sha256_hex
from bot_bottle.errors import HostError
from bot_bottle.host import files
from bot_bottle.plan.facts import StoreFolder, Stores

LISTS = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Arch, Alpine
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora, RHEL
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/tls/cert.pem",
    "/var/lib/ca-certificates/ca-bundle.pem",  # openSUSE
    "/etc/ssl/ca-bundle.pem",
    "/etc/ca-certificates/extracted/tls-ca-bundle.pem",  # Arch
    "/etc/ssl/cert.pem",
)
"""One file with all of them; the first that is there counts."""
JAVA = (
    "/etc/ssl/certs/java/cacerts",
    "/etc/pki/ca-trust/extracted/java/cacerts",
    "/etc/pki/java/cacerts",
    "/var/lib/ca-certificates/java-cacerts",
    "/etc/ca-certificates/extracted/java-cacerts.jks",
)
FOLDERS = ("/etc/ssl/certs", "/etc/pki/tls/certs", "/etc/pki/ca-trust/extracted/pem/directory-hash")
"""One file an authority, found by the hash of its name. The first two a bottle shows as folders even where they are links."""
_SHOWN_AS_FOLDERS = FOLDERS[:2]
LARGEST = 4 * 1024 * 1024


def look(root: str = "") -> Stores:
    """The stores of this host; of the one below `root`, if that is given."""
    own = "" if root else os.environ.get("SSL_CERT_FILE", "")
    lists = [path for path in LISTS if os.path.isfile(root + path)]
    java = [path for path in JAVA if os.path.isfile(root + path)]
    found = own if own and os.path.isfile(own) else root + lists[0] if lists else ""
    return Stores(
        list=found,
        lists=_places(root, lists),
        java=root + java[0] if java else "",
        javas=_places(root, java),
        folders=_folders(root),
        extra=os.environ.get("NODE_EXTRA_CA_CERTS", ""),
    )


def _places(root: str, paths: list[str]) -> tuple[str, ...]:
    """Where something has to be put to be seen at each of `paths`: at what links lead to, and at what is no link itself."""
    found = dict.fromkeys(path for path in paths if not os.path.islink(root + path))
    found.update(dict.fromkeys(os.path.realpath(root + path).removeprefix(root) for path in paths))
    return tuple(found)


def _folders(root: str) -> tuple[StoreFolder, ...]:
    found: dict[str, set[str]] = {}
    for path in FOLDERS:
        if os.path.isdir(root + path):
            real = os.path.realpath(root + path)
            places = found.setdefault(real, {real.removeprefix(root)})
            places.update({path} & set(_SHOWN_AS_FOLDERS))
    return tuple(StoreFolder(real, tuple(sorted(places)), _mark(real)) for real, places in found.items())


def _mark(folder: str) -> str:
    """Changes when an entry of `folder` is added, replaced or removed."""
    status = os.stat(folder)
    return sha256_hex(f"{folder} {status.st_dev} {status.st_ino} {status.st_mtime_ns}".encode())[:24]


def authorities(path: str) -> str:
    """The certificates of the PEM file `path`, and nothing else that is in it. Raises HostError when it is no such file."""
    import re
    import ssl

    brief = f"{path} can't be used as `egress.upstream.ca`"
    try:
        if os.path.getsize(path) > LARGEST:
            raise HostError(brief, details="It is larger than 4 MiB.")
        text = files.read(path).decode("ascii", "replace")
    except OSError as error:
        raise HostError(brief, details=f"{error.strerror}.") from error
    found = re.findall(r"-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----", text)
    pem = "".join(block + "\n" for block in found)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
    except (ValueError, ssl.SSLError) as error:
        raise HostError(
            brief,
            details="There is no certificate in it." if not found else "A certificate in it can't be read.",
            resolution="It has to be a PEM file: -----BEGIN CERTIFICATE----- and so on.",
        ) from error
    return pem
