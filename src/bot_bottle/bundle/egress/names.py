"""Which address stands for which allowed name inside the bottle: the book that DNS writes and connections look up."""

import socket

from bot_bottle.door.model import NAME_NETWORK
from bot_bottle.policy.egress import names_allowed
from bot_bottle.policy.model import EgressPolicy

_BASE_TEXT, _, _LENGTH = NAME_NETWORK.partition("/")
_BASE = int.from_bytes(socket.inet_aton(_BASE_TEXT), "big")
_MASK = ((1 << 32) - 1) ^ ((1 << (32 - int(_LENGTH))) - 1)
_POOL = 1 << (32 - int(_LENGTH))
LOCALHOST = socket.inet_aton("127.0.0.1")


class NoAddressLeft(Exception):
    """More names below wildcards were asked for than get an address."""


class Names:
    """A name keeps its address as long as the bundle lives, and no other name ever gets it.

    The names that routes spell out have theirs from the start. `first` is where the pool begins for this bundle.
    """

    def __init__(self, policy: EgressPolicy, *, limit: int, first: int = 0) -> None:
        self._addresses: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._below_wildcards = limit
        self._spelled_out: set[str] = set()
        self._base = _BASE + 1 + first % (_POOL // 2)
        self.change(policy)

    def change(self, policy: EgressPolicy) -> None:
        """Answers by `policy` from now on. Raises NoAddressLeft, and then nothing has changed."""
        named = (*(route.host for route in policy.routes), *policy.ask)
        exact = {host: None for host in named if not host.startswith("*.")}
        spelled_out = {*self._spelled_out, *exact}
        limit = self._below_wildcards + len(spelled_out)
        if limit >= _POOL // 2:
            raise NoAddressLeft
        self._policy, self._spelled_out, self._limit = policy, spelled_out, limit
        for host in exact:
            self.address_for(host)

    def address_for(self, host: str) -> bytes | None:
        """The address of the canonical `host`; None when the policy does not know it. Raises NoAddressLeft."""
        if self._policy.mode != "observe" and not names_allowed(self._policy, host):
            return None
        number = self._addresses.get(host)
        if number is None:
            if len(self._names) >= self._limit:
                raise NoAddressLeft
            number = self._base + len(self._names)
            self._addresses[host], self._names[number] = number, host
        return number.to_bytes(4, "big")

    def name_at(self, address: str) -> str | None:
        """The name that `address` stands for; None for any other address."""
        return self._names.get(int.from_bytes(socket.inet_aton(address), "big"))

    def fits(self, address: str, host: str) -> bool:
        """Whether a connection to `address` may be one to `host`: an address that stands for a name is for that one only."""
        number = int.from_bytes(socket.inet_aton(address), "big")
        return number & _MASK != _BASE or self._names.get(number) == host
