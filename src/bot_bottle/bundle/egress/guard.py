"""Looks at what the agent sends before it goes on: for secrets, where `egress: secrets:` says so, and for placeholders always.

A placeholder stands inside for a credential that is put in outside, on its own route. On any other way it has no business, and
shows that somebody tries to take the credential along. The guard also hides a credential that an upstream sends back.

What is not understood is not let through: unknown compression, a body that unpacks to too much, too many encodings.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from bot_bottle.bundle.egress.bodies import collect
from bot_bottle.bundle.egress.denial import Refusal, explain
from bot_bottle.bundle.egress.heads import Body, Headers, values
from bot_bottle.bundle.egress.held import Held, Steps, at_once, in_turns, turn
from bot_bottle.bundle.egress.hooks import Head
from bot_bottle.bundle.egress.pardon import NOTHING, Pardon, Passed, SecretHeld
from bot_bottle.bundle.egress.search import APART, Search, is_placeholder
from bot_bottle.bundle.egress.wire import Wire
from bot_bottle.bundle.model import Injection
from bot_bottle.policy.egress import Wanted
from bot_bottle.policy.model import EgressPolicy, Route, SecretsPolicy
from bot_bottle.policy.secrets.hiding import Reflection, each_without
from bot_bottle.policy.secrets.scanner import MOST_MATCHES, Match, TooTangled
from bot_bottle.policy.secrets.unpack import CODINGS, Unreadable, unpack
from bot_bottle.policy.secrets.windows import WINDOW
from bot_bottle.secret import Secret

Note = Callable[[str, dict[str, Any]], None]
"""Records an event: its kind and data."""
_UNPACKED, _MOST_UNPACKED = 8, 64 << 20
"""How many times `limit` a body may have when it is unpacked, and how many bytes, but for `limit` itself."""
_ADVICE = {
    "secret_found": "Leave it out. If it has to go there, a person can give the route a `credential:`, or `scan: false`.",
    "secret_held": "A person would have to let it go, and can't be asked here: so it is refused. Leave it out.",
    "placeholder_misused": "A placeholder is of use on its credential's own route only.",
    "secret_unreadable": "Send it uncompressed or with gzip, deflate or br, and encoded less.",
    "body_too_large": "A person can raise `limit:` or say `oversize: pass` under `egress:`, `secrets:`.",
}


class _Part(NamedTuple):
    """A part of an exchange that is looked at: on which route, of what, and what it is called.

    Texts that were `passed` may be in it; one that is not `changeable` goes on as it is or not at all.
    """

    route: Route
    wanted: Wanted
    name: str
    passed: Passed = NOTHING
    changeable: bool = True


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
        self._note = note
        self._search = Search(
            credentials, retired, sensitive, for_secrets=policy.secrets is not None, key=key
        )

    def host(self, name: str) -> str:
        """Why the name of a host below a wildcard is not to be reached; empty when there is no reason."""
        return self._search.host(name)

    def shown(self, text: str) -> str:
        """The agent's text as it may stand in the record."""
        return self._search.shown(text)

    def reflection(self, route: Route) -> Reflection | None:
        """What hides the credential of `route` in a stream of what comes back."""
        return self._search.reflection(route)

    def head(
        self, wanted: Wanted, route: Route, method: str, target: bytes, headers: Headers, passed: Passed
    ) -> Head:
        """The head as it may go on, with the secrets in `passed`. Raises Refusal."""
        whole = _Part(route, wanted, "head", passed, changeable=False)
        if self._search.anything(route) and at_once(self._matches(_joined(method, target, headers), whole)):
            self._settle(method.encode(), whole._replace(name="method"))
            target = self._settle(target, whole._replace(name="url", changeable=True))
            headers = [self._field(name, value, whole) for name, value in headers]
            self._settle(_joined(method, target, headers), whole)
        if route.credential in self._credentials:
            headers = [field for field in headers if field[0] != b"accept-encoding"]
            headers.append((b"accept-encoding", b"identity"))  # what comes back has to be readable here
        return Head(target, headers)

    def _field(self, name: bytes, value: bytes, head: _Part) -> tuple[bytes, bytes]:
        self._settle(name, head._replace(name="header name"))
        field = head._replace(name=f"header {name.decode('ascii')}", changeable=True)
        return name, self._settle(value, field)

    def before_body(self, framing: Body, headers: Headers, wanted: Wanted, route: Route) -> None:
        """What can be said before a byte of the body was read. Raises Refusal."""
        if not self._search.secrets(route):
            return
        if framing.length > self._rules.limit and self._rules.oversize == "block":
            raise _refusal("body_too_large", wanted, place="body")
        if set(_codings(headers)) - CODINGS:
            raise _refusal("secret_unreadable", wanted, place="body", detail="an unknown Content-Encoding")

    async def body(
        self, agent: Wire, framing: Body, headers: Headers, wanted: Wanted, route: Route, pardon: Pardon
    ) -> bytes | None:
        """The whole body, read from `agent`, as it may go on; None when it is to be streamed. Raises Refusal."""
        if not self._search.anything(route):
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
            if self._search.secrets(route) and self._rules.oversize == "block":
                raise _refusal("body_too_large", wanted, place="body")
            return None
        finally:
            held.nothing()

    async def collected(
        self, data: bytes, headers: Headers, wanted: Wanted, route: Route, pardon: Pardon
    ) -> bytes:
        """A body that is there already, as it may go on; the others have their turn while it is looked at. Raises Refusal."""
        codings = _codings(headers)
        await turn(len(data))
        plain = await in_turns(self._plain(data, codings, wanted, route)) if codings else data
        if plain is None:
            return data
        part = _Part(route, wanted, "body", changeable=plain is data)
        found = await in_turns(self._matches(plain, part))
        if not found:
            return data
        changed = await pardon.through_turns(
            lambda passed: in_turns(self._decided(found, plain, part._replace(passed=passed))),
            holds=len(data),
        )
        return changed if plain is data else data

    async def whole(self, data: bytes, headers: Headers, wanted: Wanted, route: Route) -> bytes:
        """The same of a message, about which nobody is asked. Raises Refusal."""
        codings = _codings(headers)
        await turn(len(data))
        plain = await in_turns(self._plain(data, codings, wanted, route)) if codings else data
        if plain is None:
            return data
        changed = await in_turns(
            self._looked_at(plain, _Part(route, wanted, "body", changeable=plain is data))
        )
        return changed if plain is data else data

    def _plain(
        self, data: bytes, codings: Sequence[str], wanted: Wanted, route: Route
    ) -> Steps[bytes | None]:
        """`data` without `codings`; None when that can't be done, and need not. Raises Refusal."""
        try:
            return (yield from unpack(data, codings, limit=self._most_unpacked))
        except Unreadable as error:
            if not self._search.secrets(route):
                return None
            raise _refusal("secret_unreadable", wanted, place="body", detail=str(error)) from error

    @property
    def _most_unpacked(self) -> int:
        limit = self._rules.limit
        return max(limit, min(_UNPACKED * limit, _MOST_UNPACKED))

    def message_limit(self, route: Route) -> int | None:
        """Up to which size messages are looked at whole; None where there is nothing to look for."""
        return self._rules.limit if self._search.anything(route) else None

    async def frame(self, data: bytes, wanted: Wanted, route: Route) -> bytes:
        """One whole message of a connection that was switched to messages, as it may go on. Raises Refusal."""
        if len(data) > self._rules.limit:
            if self._search.secrets(route) and self._rules.oversize == "block":
                raise _refusal("body_too_large", wanted, place="message")
            return data
        await turn(len(data))
        return await in_turns(self._looked_at(data, _Part(route, wanted, "message")))

    def _settle(self, data: bytes, part: _Part) -> bytes:
        """What is too little for turns, as it may go on. Raises Refusal."""
        return at_once(self._looked_at(data, part))

    def _looked_at(self, data: bytes, part: _Part) -> Steps[bytes]:
        """`data` as it may go on. Raises Refusal."""
        found = yield from self._matches(data, part)
        return (yield from self._decided(found, data, part)) if found else data

    def _decided(self, found: Sequence[Match], data: bytes, part: _Part) -> Steps[bytes]:
        """The same of `data` in which that was `found`. Raises Refusal."""
        matches = list(
            {(one.detector, one.text): one for one in found if one.text not in part.passed}.values()
        )
        if not matches:
            return data
        on_match = part.route.on_match or self._rules.on_match
        secrets_only = not any(is_placeholder(match) for match in matches)
        if part.changeable and secrets_only and on_match == "redact" and len(matches) <= MOST_MATCHES:
            changed = yield from self._redacted(data, matches)
            if not (yield from self._matches(changed, part)):
                for match in matches:
                    self._note("egress.redacted", {**self._asked(part.wanted), **self._told(match, part)})
                return changed
        all_known = len(found) < MOST_MATCHES  # else there may be more than a person would be shown
        if secrets_only and on_match == "hold" and all_known:
            raise self._to_be_asked(matches, part)
        worst = next(filter(is_placeholder, matches), matches[0])
        reason = "placeholder_misused" if is_placeholder(worst) else "secret_found"
        raise _refusal(reason, part.wanted, **self._told(worst, part))

    @staticmethod
    def _redacted(data: bytes, matches: Sequence[Match]) -> Steps[bytes]:
        """`data` with stars for `matches`, each encoding of each a step."""
        for match in matches:
            for changed in each_without(data, match.text):
                data = changed
                if len(data) > WINDOW:
                    yield WINDOW
        return data

    def _to_be_asked(self, matches: Sequence[Match], part: _Part) -> SecretHeld:
        """All of `matches` as one thing that a person is asked about."""
        described = [self._told(match, part) for match in matches]
        what = {
            name: ", ".join(dict.fromkeys(one[name] for one in described))
            for name in ("detector", "encoding", "fingerprint")
        }
        message = f"{explain('secret_held')} {_ADVICE['secret_held']}"
        texts = frozenset(match.text for match in matches)
        return SecretHeld(message, wanted=part.wanted, texts=texts, place=part.name, **what)

    def _asked(self, wanted: Wanted) -> dict[str, Any]:
        return {**wanted.asked(), "path": self.shown(wanted.path)}

    def _told(self, match: Match, part: _Part) -> dict[str, str]:
        return self._search.describe(match, part.name)

    def _matches(self, data: bytes, part: _Part) -> Steps[list[Match]]:
        """What must not go there, each window a step. Raises Refusal when that can't be said."""
        try:
            return (yield from self._search.matches(data, part.route))
        except (TooTangled, Unreadable) as error:
            raise _refusal("secret_unreadable", part.wanted, place=part.name) from error


def _refusal(reason: str, wanted: Wanted, **what: str) -> Refusal:
    return Refusal(403, reason, f"{explain(reason)} {_ADVICE[reason]}", wanted=wanted, **what)


def _joined(method: str, target: bytes, headers: Headers) -> bytes:
    """A head as one text to search: its parts apart, and the values of the query, and of all fields, once more without what
    stands between them."""
    query = target.partition(b"?")[2]
    values_only = b"".join(piece.partition(b"=")[2] for piece in query.split(b"&")) if b"&" in query else b""
    fields = [part for field in headers for part in field]
    return APART.join([method.encode(), target, values_only, *fields, b"".join(fields[1::2])])


def _codings(headers: Headers) -> list[str]:
    """The content's codings in the order in which they were applied."""
    named = values(headers, b"content-encoding")
    if not named:
        return []
    found = b",".join(named).decode("latin-1").lower().split(",")
    return [coding.strip() for coding in found if coding.strip()]
