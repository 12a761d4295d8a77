"""What the guard looks for in what the agent sends: placeholders always, secrets where a policy says so."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

from bot_bottle.bundle.egress.held import Steps
from bot_bottle.bundle.model import Injection
from bot_bottle.digest import sha256_hex
from bot_bottle.policy.model import Route
from bot_bottle.policy.secrets.hiding import Reflection, Words, spellings, without
from bot_bottle.policy.secrets.known import Known
from bot_bottle.policy.secrets.scanner import MOST_MATCHES, Match, Scanner, TooTangled
from bot_bottle.policy.secrets.shapes import HARD
from bot_bottle.policy.secrets.unpack import Unreadable
from bot_bottle.policy.secrets.windows import WINDOW
from bot_bottle.secret import Secret

APART = bytes([HARD])
"""Stands between texts that are searched as one, and belongs to no secret."""
_HOSTS = 4096
_TEXTS, _SHORT = 256, 256
"""Texts for the record that are remembered with what is shown of them, and how long each may be."""
_WITHHELD = "(withheld)"


class Search:
    """One policy's, with one set of secrets. `key` makes fingerprints comparable within a run, and nowhere else."""

    def __init__(
        self,
        credentials: Mapping[str, Injection],
        retired: Iterable[Injection],
        sensitive: Sequence[Secret],
        *,
        for_secrets: bool,
        key: bytes,
    ) -> None:
        """`for_secrets`: whether more is looked for than placeholders."""
        retired = tuple(retired)
        self._key = key
        placeholders = _placeholders([*credentials.items(), *(("", item) for item in retired)])
        self._shown = tuple(item.value for item in placeholders)
        self._bare = Scanner(placeholders, formats=False)
        secrets = _secrets(credentials, retired, sensitive) if for_secrets else ()
        self._full = Scanner([*placeholders, *secrets]) if for_secrets else self._bare
        self._full.prepare()
        self._hosts = lru_cache(_HOSTS)(self._host)
        self._texts = lru_cache(_TEXTS)(self._starred)
        self._reflected = {
            name: Words(spellings(item.secret.reveal().encode())) for name, item in credentials.items()
        }

    def anything(self, route: Route) -> bool:
        """Whether there is anything to look for in what goes to `route`."""
        return self._scanner(route).looks_for_anything

    def secrets(self, route: Route) -> bool:
        """Whether what goes there is searched for secrets, and not for placeholders alone."""
        return self._scanner(route) is not self._bare

    def _scanner(self, route: Route) -> Scanner:
        return self._full if route.scan else self._bare

    def matches(self, data: bytes, route: Route) -> Steps[list[Match]]:
        """What must not go to `route`, about a window a step. Raises TooTangled, Unreadable when that can't be said."""
        found: list[Match] = []
        for some in self._windows(data, route):
            if some is None:
                yield WINDOW
            else:
                found += some
        return found

    def _windows(self, data: bytes, route: Route) -> Iterator[list[Match] | None]:
        scanner = self._scanner(route)
        try:
            for found in scanner.steps(data):
                if not found:
                    yield found
                    continue
                theirs = [match for match in found if not self._belongs(match, route)]
                if len(found) >= MOST_MATCHES > len(theirs):
                    raise TooTangled  # behind so many that may be there, there may be others
                yield theirs
        except (TooTangled, Unreadable):
            if scanner is not self._bare:
                raise

    def _belongs(self, match: Match, route: Route) -> bool:
        """Whether it is the placeholder of the route's own credential, or a part of one that looks like a token."""
        if match.known is not None:
            return match.known.placeholder and match.known.name == route.credential
        return any(match.text in shown or shown in match.text for shown in self._shown)

    def host(self, name: str) -> str:
        """Why the name of a host below a wildcard is not to be reached; empty when there is no reason."""
        return self._hosts(name)

    def _host(self, name: str) -> str:
        text = name.encode("ascii", "replace")
        try:
            matches = self._full.scan(APART.join((text, text.replace(b".", b""))))
        except (TooTangled, Unreadable):
            return "secret_unreadable"
        if not matches:
            return ""
        return "placeholder_misused" if is_placeholder(matches[0]) else "secret_found"

    def shown(self, text: str) -> str:
        """The agent's text as it may stand in the record: with stars for secrets, or nothing of it when that does not help."""
        return self._starred(text) if len(text) > _SHORT else self._texts(text)

    def _starred(self, text: str) -> str:
        data = text.encode("utf-8", "replace")
        try:
            matches = self._full.scan(data)
            for match in matches:
                data = without(data, match.text)
            is_clean = not matches or not self._full.scan(data)
        except (TooTangled, Unreadable):
            is_clean = False
        if not is_clean:
            return _WITHHELD
        return data.decode("utf-8", "replace") if matches else text

    def reflection(self, route: Route) -> Reflection | None:
        """What hides the credential of `route` in a stream of what comes back."""
        words = self._reflected.get(route.credential or "")
        return None if words is None else Reflection(words)

    def describe(self, match: Match, place: str) -> dict[str, str]:
        """What may be told of it, for the record and the agent: never the text."""
        told = {"detector": match.detector, "place": place, "encoding": match.encoding}
        if match.known is not None and is_placeholder(match):
            return {**told, "detector": f"placeholder of {match.known.name}"}
        return {**told, "fingerprint": sha256_hex(self._key + match.text)[:8]}


def is_placeholder(match: Match) -> bool:
    return match.known is not None and match.known.placeholder


def _placeholders(credentials: Iterable[tuple[str, Injection]]) -> list[Known]:
    return [
        Known(name, item.placeholder.encode(), placeholder=True)
        for name, item in credentials
        if item.placeholder
    ]


def _secrets(
    credentials: Mapping[str, Injection], retired: Iterable[Injection], sensitive: Sequence[Secret]
) -> list[Known]:
    """Everything that must not leave, each value once."""
    named = [(f"credential {name}", item.secret) for name, item in credentials.items()]
    named += [("former credential", item.secret) for item in retired]
    named += [(f"sensitive value {number}", item) for number, item in enumerate(sensitive, 1)]
    once = {item.reveal(): name for name, item in reversed(named)}
    return [Known(name, text.encode("utf-8", "surrogateescape")) for text, name in once.items()]
