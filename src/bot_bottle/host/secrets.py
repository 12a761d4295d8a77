"""Reads secrets where the bottle's file says they are. They are held in memory only, and what is said of them never has a value.

Programs that give a secret run as the operator, with the operator's environment, in the operator's home: never in the
repository, which is somebody else's.
"""

import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from bot_bottle.errors import HostError
from bot_bottle.plan.model import Credential, Outward, Sensitive
from bot_bottle.secret import Secret
from bot_bottle.typed import NamedTuple

LARGEST = 65536
COMMAND_SECONDS = 120.0
"""A program may have to wait for a person who unlocks something."""
SHORTEST_SENSITIVE = 6
"""What is shorter is found by chance in anything."""


class Held(NamedTuple):
    """A secret that was read: `value` as it goes out, `secret` bare. `expires` (seconds, of the clock) only of a login."""

    value: Secret
    secret: Secret
    expires: float | None = None


class Vault(NamedTuple):
    """Everything secret of one run: credentials by name, what else must not leave, and what its proxy is told."""

    credentials: Mapping[str, Held] = MappingProxyType({})
    sensitive: tuple[Secret, ...] = ()
    proxy_login: Secret | None = None


def read_all(
    credentials: Sequence[Credential],
    sensitive: Sequence[Sensitive],
    *,
    outward: Outward = Outward(),  # noqa: B008 - it can't change
) -> Vault:
    """Reads them all, each source once; logins are renewed by way of `outward`.

    Raises HostError that says which can't be had, and what to do.
    """
    reader = _Reader(outward)
    login = reader.credential(outward.login).value if outward.login else None
    reader.proxy_login = login
    held = {item.name: reader.credential(item) for item in credentials}
    kept = tuple(reader.sensitive(item) for item in sensitive)
    sources = [item.source for item in credentials] + [item.source for item in sensitive]
    sources += [outward.login.source] if outward.login else []
    forget_variables([one.removeprefix("env:") for one in sources if one.startswith("env:")])
    return Vault(held, kept, login)


class _Reader:
    def __init__(self, outward: Outward) -> None:
        self._outward = outward
        self.proxy_login: Secret | None = None
        self._read: dict[str, str] = {}

    def credential(self, item: Credential) -> Held:
        what = f"The credential {item.name}"
        kind, _, place = item.source.partition(":")
        if kind == "oauth":
            from bot_bottle.host import oauth

            token = oauth.at_launch(oauth.Login.parse(place, self._outward, self.proxy_login))
            return outgoing(item, token.access)._replace(expires=token.expires)
        return outgoing(item, Secret(self._value(what, item.source)))

    def sensitive(self, item: Sensitive) -> Secret:
        what = f"The sensitive value {item.name}"
        value = self._value(what, item.source)
        if len(value) < SHORTEST_SENSITIVE:
            raise HostError(
                f"{what} is shorter than {SHORTEST_SENSITIVE} characters",
                details="It would be found by chance in what has nothing to do with it.",
                resolution="Take it out of `sensitive:`.",
            )
        return Secret(value)

    def _value(self, what: str, source: str) -> str:
        if source not in self._read:
            self._read[source] = _value(what, source)
        return self._read[source]


def outgoing(item: Credential, secret: Secret) -> Held:
    """`secret` as `item` says that it goes out. Raises HostError when it can't."""
    text = secret.reveal()
    if item.scheme == "basic":
        import base64

        user, colon, password = (item.user, ":", text) if item.user else text.partition(":")
        if not colon:
            raise HostError(
                f"The credential {item.name} is not USER:PASSWORD",
                details="There is no colon in it.",
                resolution="Write `basic: USER` where the secret is the password alone.",
            )
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        return Held(Secret("Basic " + pair), Secret(password))
    if item.scheme == "query":
        return Held(secret, secret)
    if not text.isascii() or not text.isprintable():
        raise HostError(
            f"The credential {item.name} can't stand in a header",
            details="It has control or non-ASCII characters.",
        )
    return Held(Secret(item.prefix + text), secret)


def _value(what: str, source: str) -> str:
    kind, _, place = source.partition(":")
    value, mend = _SOURCES[kind](what, place)
    value = value.strip()
    if not value:
        raise HostError(f"{what} is empty", details=f"It is read from {_shown(source)}.", resolution=mend)
    return value


def _shown(source: str) -> str:
    from bot_bottle.plan.render import where

    return where(source)


def _variable(_: str, name: str) -> tuple[str, str]:
    return os.environ.get(name, ""), f"export {name}=…"


def _file(what: str, place: str) -> tuple[str, str]:
    try:
        with open(os.path.expanduser(place), encoding="utf-8", errors="surrogateescape") as file:
            text = file.read(LARGEST + 1)
    except OSError as error:
        raise HostError(
            f"{what} can't be read", details=str(error), resolution=f"Write it to {place}."
        ) from error
    if len(text) > LARGEST:
        raise HostError(f"{what} is longer than {LARGEST} characters", details=f"It is read from {place}.")
    return text, f"Write it to {place}."


def _command(what: str, words: str) -> tuple[str, str]:
    """The first line that the program prints. What it says on its standard error is shown when it fails."""
    import json

    from bot_bottle.host import process

    argv = json.loads(words)
    shown = process.display(argv)
    try:
        done = process.run(argv, env=os.environ, cwd=os.path.expanduser("~"), timeout=COMMAND_SECONDS)
    except HostError as error:
        raise HostError(
            f"{what} can't be had: {error.brief}", details=shown, resolution=f"Run it yourself: {shown}"
        ) from error
    said = done.stderr.strip().decode(errors="replace")[-2000:]
    lines = done.stdout[:LARGEST].decode(errors="surrogateescape").splitlines()
    if done.code or not lines or not lines[0].strip():
        ended = f"exit code {done.code}" if done.code else "it printed nothing in its first line"
        raise HostError(
            f"{what} can't be had: its command failed",
            details=f"{shown}: {ended}\n{said}".strip(),
            resolution=f"Run it yourself: {shown}",
        )
    return lines[0], f"Run it yourself: {shown}"


def _keyring(what: str, place: str) -> tuple[str, str]:
    service, _, user = place.rpartition("/")
    mend = f"keyring set {service} {user}"
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError as error:
        raise HostError(
            f"{what} can't be had: the keyring library is not installed",
            resolution="pip install 'bot-bottle[keyring]'",
        ) from error
    try:
        value = keyring.get_password(service, user)
    except (KeyringError, OSError, RuntimeError) as error:
        raise HostError(
            f"{what} can't be had: the system's keyring does not answer",
            details=str(error),
            resolution="bot-bottle doctor says which keyring there is.",
        ) from error
    if value is None:
        raise HostError(f"{what} can't be had: the keyring has no {place}", resolution=mend)
    return value, mend


_SOURCES = {"env": _variable, "file": _file, "command": _command, "keyring": _keyring}


def forget_variables(names: Sequence[str]) -> None:
    """Takes variables out of this process's environment, also out of the copy that `/proc/PID/environ` shows.

    What was read is kept in memory; nothing that is started later inherits it.
    """
    gone = {name for name in names if os.environ.pop(name, None) is not None}
    if gone:
        _blank(gone)


def _blank(names: set[str]) -> None:
    from bot_bottle.host import files

    fields = files.read("/proc/self/stat").rpartition(b")")[2].split()
    start, end = int(fields[47]), int(fields[48])
    if not 0 < start < end:
        return
    memory = os.open("/proc/self/mem", os.O_RDWR | os.O_CLOEXEC)
    try:
        at = start
        for entry in os.pread(memory, end - start, start).split(b"\0"):
            if os.fsdecode(entry.partition(b"=")[0]) in names:
                os.pwrite(memory, bytes(len(entry)), at)
            at += len(entry) + 1
    finally:
        os.close(memory)
