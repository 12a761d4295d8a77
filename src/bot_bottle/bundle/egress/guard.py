"""Looks at what the agent sends before it goes on: for secrets, where `egress: secrets:` says so, and for placeholders always.

A placeholder stands inside for a credential that is put in outside, on its own route. On any other way it has no business, and
shows that somebody tries to take the credential along. The guard also hides a credential that an upstream sends back.

What is not understood is not let through: unknown compression, a body that unpacks to too much, too many encodings.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from bot_bottle.bundle.egress.bodies import collect
from bot_bottle.bundle.egress.denial import Refusal, explain
from bot_bottle.bundle.egress.heads import Body, Headers, values
from bot_bottle.bundle.egress.held import Held, Steps, at_once, in_turns, turn
from bot_bottle.bundle.egress.hooks import Head
from bot_bottle.bundle.egress.pardon import NOTHING, Pardon, Passed, SecretHeld
from bot_bottle.bundle.egress.wire import Wire
from bot_bottle.bundle.model import Injection
from bot_bottle.digest import sha256_hex
from bot_bottle.policy.egress import Wanted
from bot_bottle.policy.model import EgressPolicy, Route, SecretsPolicy
from bot_bottle.policy.secrets.hiding import Reflection, Words, each_without, spellings, without
from bot_bottle.policy.secrets.known import Known
from bot_bottle.policy.secrets.scanner import MOST_MATCHES, Match, Scanner, TooTangled
from bot_bottle.policy.secrets.shapes import HARD
from bot_bottle.policy.secrets.unpack import CODINGS, Unreadable, unpack
from bot_bottle.policy.secrets.windows import WINDOW
from bot_bottle.secret import Secret

Note = Callable[[str, dict[str, Any]], None]
"""Records an event: its kind and data."""
_APART = bytes([HARD])
_UNPACKED, _MOST_UNPACKED = 8, 64 << 20
"""How many times `limit` a body may have when it is unpacked, and how many bytes, but for `limit` itself."""
_HOSTS = 4096
_TEXTS, _SHORT = 256, 256
"""Texts for the record that are remembered with what is shown of them, and how long each may be."""
_WITHHELD = "(withheld)"
_ADVICE = {
    "secret_found": "Leave it out. If it has to go there, a person can give the route a `credential:`, or `scan: false`.",
    "secret_held": "A person would have to let it go, and can't be asked here: so it is refused. Leave it out.",
    "placeholder_misused": "A placeholder is of use on its credential's own route only.",
    "secret_unreadable": "Send it uncompressed or with gzip, deflate or br, and encoded less.",
    "body_too_large": "A person can raise `limit:` or say `oversize: pass` under `egress:`, `secrets:`.",
}


class SecretGuard:
    """One bottle's guard, for one policy and one set of secrets; another one is made when either changes.

    `retired` credentials are searched for like those in force. `key` makes fingerprints comparable within a run, and nowhere else.
    """

    def __init__(
        self,
        policy: EgressPolicy,
        credentials: Mapping[str, Injection],
        sensitive: Sequence[Secret],
        *,
        retired: Iterable[Injection] = (),
        key: bytes,
        note: Note,
    ) -> None:
        self._rules = policy.secrets or SecretsPolicy(oversize="pass", limit=WINDOW)
        self._credentials = dict(credentials)
        self._key = key
        self._note = note
        placeholders = _placeholders([*credentials.items(), *(("", item) for item in retired)])
        self._shown = tuple(item.value for item in placeholders)
        self._bare = Scanner(placeholders, formats=False)
        secrets = _secrets(credentials, retired, sensitive) if policy.secrets else ()
        self._full = Scanner([*placeholders, *secrets]) if policy.secrets else self._bare
        self._full.prepare()
        self._hosts = lru_cache(_HOSTS)(self._host)
        self._texts = lru_cache(_TEXTS)(self._starred)
        self._reflected = {
            name: Words(spellings(item.secret.reveal().encode())) for name, item in credentials.items()
        }

    def host(self, name: str) -> str:
        """Why the name of a host below a wildcard is not to be reached; empty when there is no reason."""
        return self._hosts(name)

    def _host(self, name: str) -> str:
        text = name.encode("ascii", "replace")
        try:
            matches = self._full.scan(_APART.join((text, text.replace(b".", b""))))
        except (TooTangled, Unreadable):
            return "secret_unreadable"
        if not matches:
            return ""
        return "placeholder_misused" if _is_placeholder(matches[0]) else "secret_found"

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

    def head(
        self, wanted: Wanted, route: Route, method: str, target: bytes, headers: Headers, passed: Passed
    ) -> Head:
        """The head as it may go on, with the secrets in `passed`. Raises Refusal."""
        looks = self._scanner(route).looks_for_anything
        if looks and at_once(self._matches(_joined(method, target, headers), route, wanted, "head")):
            self._settle(method.encode(), route, wanted, "method", passed, changeable=False)
            target = self._settle(target, route, wanted, "url", passed)
            headers = [self._field(name, value, route, wanted, passed) for name, value in headers]
            self._settle(_joined(method, target, headers), route, wanted, "head", passed, changeable=False)
        if route.credential in self._credentials:
            headers = [field for field in headers if field[0] != b"accept-encoding"]
            headers.append((b"accept-encoding", b"identity"))  # what comes back has to be readable here
        return Head(target, headers)

    def _field(
        self, name: bytes, value: bytes, route: Route, wanted: Wanted, passed: Passed
    ) -> tuple[bytes, bytes]:
        self._settle(name, route, wanted, "header name", passed, changeable=False)
        return name, self._settle(value, route, wanted, f"header {name.decode('ascii')}", passed)

    def before_body(self, framing: Body, headers: Headers, wanted: Wanted, route: Route) -> None:
        """What can be said before a byte of the body was read. Raises Refusal."""
        if not self._searches(route):
            return
        if framing.length > self._rules.limit and self._rules.oversize == "block":
            raise _refusal("body_too_large", wanted, place="body")
        if set(_codings(headers)) - CODINGS:
            raise _refusal("secret_unreadable", wanted, place="body", detail="an unknown Content-Encoding")

    async def body(
        self, agent: Wire, framing: Body, headers: Headers, wanted: Wanted, route: Route, pardon: Pardon
    ) -> bytes | None:
        """The whole body, read from `agent`, as it may go on; None when it is to be streamed. Raises Refusal."""
        if not self._scanner(route).looks_for_anything:
            return None
        limit = self._rules.limit
        if not framing.chunked and framing.length <= min(
            len(agent.buffer), limit
        ):  # nothing has to be waited for
            data = await collect(agent, framing, limit=limit)
            return None if data is None else await self.collected(data, headers, wanted, route, pardon)
        held = Held(wanted, limit)
        try:
            async with held.coming():
                data = await collect(agent, framing, limit=limit, holds=held.are)
            if data is not None:
                return await self.collected(data, headers, wanted, route, pardon)
            if self._searches(route) and self._rules.oversize == "block":
                raise _refusal("body_too_large", wanted, place="body")
            return None
        finally:
            held.nothing()

    async def collected(
        self, data: bytes, headers: Headers, wanted: Wanted, route: Route, pardon: Pardon
    ) -> bytes:
        """A body that is there already, as it may go on; the others have their turn while it is looked at. Raises Refusal."""
        codings = _codings(headers)
        await turn(self._most_unpacked if codings else len(data))
        plain = self._plain(data, codings, wanted, route) if codings else data
        if plain is None:
            return data
        found = await in_turns(self._matches(plain, route, wanted, "body"))
        if not found:
            return data
        changed = await pardon.through_turns(
            lambda passed: in_turns(
                self._settled(found, plain, route, wanted, "body", passed, changeable=plain is data)
            ),
            holds=len(data),
        )
        return changed if plain is data else data

    async def whole(self, data: bytes, headers: Headers, wanted: Wanted, route: Route) -> bytes:
        """The same of a message, about which nobody is asked. Raises Refusal."""
        codings = _codings(headers)
        await turn(self._most_unpacked if codings else len(data))
        plain = self._plain(data, codings, wanted, route)
        if plain is None:
            return data
        changed = await in_turns(self._settling(plain, route, wanted, "body", changeable=plain is data))
        return changed if plain is data else data

    def _plain(self, data: bytes, codings: Sequence[str], wanted: Wanted, route: Route) -> bytes | None:
        """`data` without `codings`; None when that can't be done, and need not. Raises Refusal."""
        try:
            return unpack(data, codings, limit=self._most_unpacked)
        except Unreadable as error:
            if not self._searches(route):
                return None
            raise _refusal("secret_unreadable", wanted, place="body", detail=str(error)) from error

    @property
    def _most_unpacked(self) -> int:
        limit = self._rules.limit
        return max(limit, min(_UNPACKED * limit, _MOST_UNPACKED))

    def message_limit(self, route: Route) -> int | None:
        """Up to which size messages are looked at whole; None where there is nothing to look for."""
        return self._rules.limit if self._scanner(route).looks_for_anything else None

    async def frame(self, data: bytes, wanted: Wanted, route: Route) -> bytes:
        """One whole message of a connection that was switched to messages, as it may go on. Raises Refusal."""
        if len(data) > self._rules.limit:
            if self._searches(route) and self._rules.oversize == "block":
                raise _refusal("body_too_large", wanted, place="message")
            return data
        await turn(len(data))
        return await in_turns(self._settling(data, route, wanted, "message"))

    def reflection(self, route: Route) -> Reflection | None:
        """What hides the credential of `route` in a stream of what comes back."""
        words = self._reflected.get(route.credential or "")
        return None if words is None else Reflection(words)

    def _searches(self, route: Route) -> bool:
        """Whether what goes to `route` is searched for secrets, and not for placeholders alone."""
        return self._scanner(route) is not self._bare

    def _scanner(self, route: Route) -> Scanner:
        return self._full if route.scan else self._bare

    def _settle(
        self,
        data: bytes,
        route: Route,
        wanted: Wanted,
        place: str,
        passed: Passed = NOTHING,
        *,
        changeable: bool = True,
    ) -> bytes:
        """A part of a head as it may go on. Raises Refusal."""
        return at_once(self._settling(data, route, wanted, place, passed, changeable=changeable))

    def _settling(
        self,
        data: bytes,
        route: Route,
        wanted: Wanted,
        place: str,
        passed: Passed = NOTHING,
        *,
        changeable: bool = True,
    ) -> Steps[bytes]:
        """`data` as it may go on. Raises Refusal."""
        found = yield from self._matches(data, route, wanted, place)
        if not found:
            return data
        return (yield from self._settled(found, data, route, wanted, place, passed, changeable=changeable))

    def _settled(
        self,
        found: Sequence[Match],
        data: bytes,
        route: Route,
        wanted: Wanted,
        place: str,
        passed: Passed = NOTHING,
        *,
        changeable: bool = True,
    ) -> Steps[bytes]:
        """The same, with what was `found` in it."""
        matches = list({(one.detector, one.text): one for one in found if one.text not in passed}.values())
        if not matches:
            return data
        on_match = route.on_match or self._rules.on_match
        secrets_only = not any(_is_placeholder(match) for match in matches)
        if changeable and secrets_only and on_match == "redact" and len(matches) <= MOST_MATCHES:
            changed = yield from self._redacted(data, matches)
            if not (yield from self._matches(changed, route, wanted, place)):
                for match in matches:
                    self._note("egress.redacted", {**self._asked(wanted), **self._describe(match, place)})
                return changed
        all_known = len(found) < MOST_MATCHES  # else there may be more than a person would be shown
        if secrets_only and on_match == "hold" and all_known:
            raise self._to_be_asked(matches, wanted, place)
        worst = next(filter(_is_placeholder, matches), matches[0])
        reason = "placeholder_misused" if _is_placeholder(worst) else "secret_found"
        raise _refusal(reason, wanted, **self._describe(worst, place))

    @staticmethod
    def _redacted(data: bytes, matches: Sequence[Match]) -> Steps[bytes]:
        """`data` with stars for `matches`, each encoding of each a step."""
        for match in matches:
            for changed in each_without(data, match.text):
                data = changed
                if len(data) > WINDOW:
                    yield WINDOW
        return data

    def _to_be_asked(self, matches: Sequence[Match], wanted: Wanted, place: str) -> SecretHeld:
        """All of `matches` as one thing that a person is asked about."""
        described = [self._describe(match, place) for match in matches]
        what = {
            name: ", ".join(dict.fromkeys(one[name] for one in described))
            for name in ("detector", "encoding", "fingerprint")
        }
        message = f"{explain('secret_held')} {_ADVICE['secret_held']}"
        texts = frozenset(match.text for match in matches)
        return SecretHeld(message, wanted=wanted, texts=texts, place=place, **what)

    def _asked(self, wanted: Wanted) -> dict[str, Any]:
        return {**wanted.asked(), "path": self.shown(wanted.path)}

    def _matches(self, data: bytes, route: Route, wanted: Wanted, place: str) -> Steps[list[Match]]:
        """What must not go there, each window a step. Raises Refusal when that can't be said."""
        matches: list[Match] = []
        for found in self._steps(data, route, wanted, place):
            matches += found
            if len(data) > WINDOW:
                yield WINDOW
        return matches

    def _steps(self, data: bytes, route: Route, wanted: Wanted, place: str) -> Iterator[list[Match]]:
        """The same bit by bit."""
        scanner = self._scanner(route)
        try:
            for found in scanner.steps(data):
                theirs = [match for match in found if not self._belongs(match, route)] if found else found
                if len(found) >= MOST_MATCHES > len(theirs):
                    raise TooTangled  # behind so many that may be there, there may be others
                yield theirs
        except (TooTangled, Unreadable) as error:
            if scanner is not self._bare:
                raise _refusal("secret_unreadable", wanted, place=place) from error

    def _belongs(self, match: Match, route: Route) -> bool:
        """Whether it is the placeholder of the route's own credential, or a part of one that looks like a token."""
        if match.known is not None:
            return match.known.placeholder and match.known.name == route.credential
        return any(match.text in shown or shown in match.text for shown in self._shown)

    def _describe(self, match: Match, place: str) -> dict[str, str]:
        if match.known is not None and match.known.placeholder:
            return {
                "detector": f"placeholder of {match.known.name}",
                "place": place,
                "encoding": match.encoding,
            }
        fingerprint = sha256_hex(self._key + match.text)[:8]
        return {
            "detector": match.detector,
            "place": place,
            "encoding": match.encoding,
            "fingerprint": fingerprint,
        }


def _is_placeholder(match: Match) -> bool:
    return match.known is not None and match.known.placeholder


def _refusal(reason: str, wanted: Wanted, **what: str) -> Refusal:
    return Refusal(403, reason, f"{explain(reason)} {_ADVICE[reason]}", wanted=wanted, **what)


def _joined(method: str, target: bytes, headers: Headers) -> bytes:
    """A head as one text to search: its parts apart, and the values of the query, and of all fields, once more without what
    stands between them."""
    query = target.partition(b"?")[2]
    values_only = b"".join(piece.partition(b"=")[2] for piece in query.split(b"&")) if b"&" in query else b""
    fields = [part for field in headers for part in field]
    return _APART.join([method.encode(), target, values_only, *fields, b"".join(fields[1::2])])


def _codings(headers: Headers) -> list[str]:
    """The content's codings in the order in which they were applied."""
    named = values(headers, b"content-encoding")
    if not named:
        return []
    found = b",".join(named).decode("latin-1").lower().split(",")
    return [coding.strip() for coding in found if coding.strip()]


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
