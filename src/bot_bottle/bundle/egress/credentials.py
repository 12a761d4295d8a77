"""The credentials of one bottle's routes, as of now: a login's is replaced while requests go on."""

import time
from collections.abc import Callable, Iterator, Mapping

from bot_bottle.bundle.model import Injection
from bot_bottle.typed import Any

SAID_EVERY = 60.0
"""Seconds between two times that the keeper is told of the same credential that it is not taken."""
_RETIRED = 4


class Credentials(Mapping[str, Injection]):
    """By name. `retired` are earlier ones of those that were renewed: they may be good for a while and stay secrets. The
    placeholder of one that was renewed goes on standing for the new one.

    `tell` says something to the keeper; `changed` is called after every change.
    """

    def __init__(self, now: Mapping[str, Injection]) -> None:
        self._now = dict(now)
        self._said: dict[str, float] = {}
        self.retired: tuple[Injection, ...] = ()
        self.tell: Callable[[Mapping[str, Any]], object] = lambda _: None
        self.changed: Callable[[], None] = lambda: None

    def __getitem__(self, name: str) -> Injection:
        return self._now[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now)

    def __len__(self) -> int:
        return len(self._now)

    def replace(self, document: Mapping[str, Any]) -> None:
        """Takes the keeper's word for what they are now, all at once. Raises ValueError; then nothing has changed."""
        try:
            new = {name: Injection.from_document(item) for name, item in document.items()}
        except (AttributeError, TypeError) as error:
            raise ValueError("these are no credentials") from error
        used = {item.placeholder for item in new.values()}
        gone = [
            item._replace(placeholder="" if item.placeholder in used else item.placeholder)
            for name, item in self._now.items()
            if name not in new or new[name].secret != item.secret
        ]
        self._now = new
        self.retired = (*self.retired, *gone)[-_RETIRED * max(1, len(new)) :]
        self.changed()

    def refused(self, name: str | None, status: int) -> None:
        """Tells the keeper when an upstream did not take a credential that can be renewed."""
        if status != 401 or name is None or name not in self._now or not self._now[name].renewable:
            return
        now = time.monotonic()
        if now - self._said.get(name, -SAID_EVERY) >= SAID_EVERY:
            self._said[name] = now
            self.tell({"credential_refused": name})
