"""A run's credentials as its bundle has them; and logins renewed while it runs, in time and outside.

The keeper holds the access tokens only. A short-lived process (`host/renewing.py`) renews a login and writes it back; here it is
begun, heard, handed to the bundle, and recorded once the bundle says that it uses the new one.
"""

import os
import time
from collections.abc import Callable, Sequence
from functools import partial

from bot_bottle.bundle.model import Injection
from bot_bottle.errors import HostError
from bot_bottle.host.secrets import Held, Vault, outgoing
from bot_bottle.plan.model import Credential, Outward
from bot_bottle.typed import Any, NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bot_bottle.host.oauth import Login

AT_MOST_EVERY = 60.0
"""Seconds between two beginnings of a renewal of one login, whoever asks for it."""
LOOK_EVERY = 60.0
"""Seconds after which the clock is looked at: it may have been set, or the machine have slept."""


class Around(NamedTuple):
    """What of the keeper is needed: its loop, its bundle, its record, and its words at the end."""

    watch: Callable[[int, Callable[[], None]], None]
    forget: Callable[[int], None]
    tell: Callable[[dict[str, Any]], None]
    record: Callable[[str, dict[str, object]], None]
    warn: Callable[[str], None]


class _Renewal:
    """One login of the run. `due` is of the clock, `not_before` of the monotonic one."""

    def __init__(self, item: Credential, login: "Login", due: float | None) -> None:
        self.item = item
        self.login = login
        self.due = due
        self.not_before = 0.0
        self.process: tuple[int, int] | None = None
        self.said = b""
        self.ended_with: int | None = None
        """When the login can't be renewed any more: the change time of its file then."""

    def wait(self) -> float | None:
        """Seconds until it is to be begun; None while it is not to be."""
        if self.process is not None or self.due is None:
            return None
        if self.ended_with is not None and self.ended_with == changed(self.login.file):
            return LOOK_EVERY
        return max(0.0, self.due - time.time(), self.not_before - time.monotonic())


class Credentials:
    """Those of one run."""

    def __init__(self, items: Sequence[Credential], vault: Vault, *, outward: Outward) -> None:
        self._outward = outward
        self._proxy_login = vault.proxy_login
        self._items = {item.name: item for item in items}
        self._held = {item.name: vault.credentials[item.name] for item in items}
        self._renewals: dict[str, _Renewal] = {}
        self._told: list[str] = []
        self._around: Around | None = None

    def injections(self) -> dict[str, Injection]:
        """What the bundle puts into requests, as of now."""
        return {name: injection(self._items[name], held) for name, held in self._held.items()}

    def begin(self, around: Around) -> None:
        """From now on, logins are renewed."""
        self._around = around
        for name, held in self._held.items():
            kind, _, place = self._items[name].source.partition(":")
            if kind == "oauth":
                from bot_bottle.host.oauth import Login

                self._renewals[name] = _Renewal(
                    self._items[name], Login.parse(place, self._outward), due(held)
                )

    def tick(self) -> float | None:
        """Begins what is due; how many seconds until there may be more to do."""
        waits = []
        for renewal in self._renewals.values():
            wait = renewal.wait()
            if wait is not None and wait <= 0:
                self._start(renewal)
            elif wait is not None:
                waits.append(min(wait, LOOK_EVERY))
        return min(waits, default=None)

    def refused(self, name: object) -> None:
        """An upstream did not take the credential `name`: a login is renewed before its time, but not again and again."""
        renewal = self._renewals.get(str(name))
        if renewal is not None and renewal.process is None and time.monotonic() >= renewal.not_before:
            renewal.due = 0.0

    def confirmed(self) -> None:
        """The bundle uses what it was told last."""
        for name in self._told:
            self._record("credential.renewed", {"name": name, "expires": self._held[name].expires})
        self._told = []

    def _start(self, renewal: _Renewal) -> None:
        from bot_bottle.host import renewing

        assert self._around is not None
        renewal.not_before = time.monotonic() + AT_MOST_EVERY
        renewal.said = b""
        renewal.process = renewing.start(renewal.login, held=self._held[renewal.item.name].secret)
        self._around.watch(renewal.process[1], partial(self._hear, renewal))

    def _hear(self, renewal: _Renewal) -> None:
        assert renewal.process is not None
        assert self._around is not None
        pid, report = renewal.process
        part = os.read(report, 65536)
        renewal.said += part
        if part:
            return
        self._around.forget(report)
        os.close(report)
        os.waitpid(pid, 0)
        renewal.process = None
        self._take(renewal)

    def _take(self, renewal: _Renewal) -> None:
        from bot_bottle.host import oauth, renewing

        assert self._around is not None
        name = renewal.item.name
        try:
            token = renewing.outcome(renewal.said)
            held = outgoing(renewal.item, token.access)._replace(expires=token.expires)
        except HostError as error:
            lost = isinstance(error, oauth.LoginLost)
            renewal.ended_with = changed(renewal.login.file) if lost else None
            why = {"name": name, "why": error.brief, "details": error.details, "lost": lost}
            self._record("credential.failed", why)
            if lost:
                self._around.warn(f"{name}: {error}")
            return
        renewal.ended_with = None
        renewal.due = due(held)
        self._held[name] = held
        self._told.append(name)
        told = {one: item.document() for one, item in self.injections().items()}
        self._around.tell({"credentials": told})

    def _record(self, kind: str, data: dict[str, object]) -> None:
        assert self._around is not None
        self._around.record(kind, data)


def injection(item: Credential, held: Held) -> Injection:
    """How `item` goes out."""
    return Injection(
        kind="query" if item.scheme == "query" else "header",
        name=item.key,
        value=held.value,
        secret=held.secret,
        placeholder=item.placeholder,
        renewable=item.source.startswith("oauth:"),
    )


def due(held: Held) -> float | None:
    """When a login's token is to be renewed."""
    from bot_bottle.host.oauth import Token

    return Token(held.secret, held.expires).due(time.time())


def changed(file: str) -> int:
    """What tells a file from what it was before; 0 when it is not there."""
    try:
        return os.stat(file).st_mtime_ns
    except OSError:
        return 0
