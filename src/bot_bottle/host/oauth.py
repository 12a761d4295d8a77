"""An OAuth login that somebody else's program made, kept in a file: read, renewed, and written back without losing it.

Renewing usually replaces the refresh token, too, and the old one is dead from then on. So it is done by one process at a time,
under two locks: ours, which ends with its holder, and for Claude Code's file its own (a folder, as its program makes it), so
that the operator's own Claude Code and a bottle don't renew at once. What the server answers is written to a file beside the
login's before anything else, then moved in place in one step. A process that is killed in between leaves that file, whose name
says which refresh token it replaces, and the next one finishes the move.
"""

import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from bot_bottle.digest import sha256_hex
from bot_bottle.errors import HostError
from bot_bottle.plan.model import Outward
from bot_bottle.secret import Secret

AHEAD = 600.0
"""Seconds before its end that a token is renewed; one that lives shorter than four times that, when three quarters are over."""
_TOO_LATE = 30.0
"""What somebody else renewed is of use when it has this many seconds left."""
LARGEST = 1 << 20
LOCK_SECONDS = 15.0
"""How long another process may renew while we wait."""
STATED = "egress.upstream.proxy"
"""The source of a proxy that the bottle's file states; the environment's is found where it is used."""
_STALE = 60.0
"""Claude Code takes its lock for abandoned after this many seconds, and so do we."""
_CLAUDE_LOCK = ".oauth_refresh.lock"


class LoginLost(HostError):
    """The login can't be renewed any more: somebody has to log in again."""


class Login(NamedTuple):
    """Where a login is kept, and where and as which client it is renewed.

    `ca` (a file) is trusted beside the system's certificates; `proxy` (a URL) is gone through instead of the environment's, and
    told `proxy_login`.
    """

    file: str
    token_url: str
    client_id: str
    ca: str = ""
    proxy: str = ""
    proxy_login: Secret | None = None

    @classmethod
    def parse(
        cls,
        text: str,
        outward: Outward = Outward(),  # noqa: B008 - it can't change
        proxy_login: Secret | None = None,
    ) -> "Login":
        """From a source's JSON; reached as the bottle's upstreams are."""
        found = json.loads(text)
        proxy = outward.https.url if outward.https and outward.https.source == STATED else ""
        login = proxy_login if proxy else None
        return cls(found["file"], found["token_url"], found["client_id"], outward.ca, proxy, login)


class Token(NamedTuple):
    """What requests go out with, until `expires` (seconds, of the clock; None: nobody knows)."""

    access: Secret
    expires: float | None = None

    def due(self, now: float) -> float | None:
        """When it should be renewed, of one that came in `now`; None when nobody knows."""
        return None if self.expires is None else self.expires - min(AHEAD, max(0.0, (self.expires - now) / 4))

    def lasts(self, now: float, seconds: float) -> bool:
        """Whether it still holds in so many seconds, as far as is known."""
        return self.expires is None or now + seconds < self.expires


class Layout(NamedTuple):
    """How a file's JSON names the parts. `inside` is the object that has them, empty for the whole; `unit` of a second."""

    inside: str
    access: str
    refresh: str
    expires: str
    unit: float
    json_body: bool


CLAUDE = Layout("claudeAiOauth", "accessToken", "refreshToken", "expiresAt", 0.001, json_body=True)
PLAIN = Layout("", "access_token", "refresh_token", "expires_at", 1.0, json_body=False)


class Kept(NamedTuple):
    """A login as it stands in its file."""

    document: dict[str, Any]
    layout: Layout

    @property
    def parts(self) -> dict[str, Any]:
        found: dict[str, Any] = self.document[self.layout.inside] if self.layout.inside else self.document
        return found

    @property
    def refresh(self) -> str:
        """The refresh token; empty when there is none."""
        return str(self.parts.get(self.layout.refresh) or "")

    @property
    def token(self) -> Token:
        expires = self.parts.get(self.layout.expires)
        known = isinstance(expires, int | float) and not isinstance(expires, bool) and expires > 0
        access = Secret(str(self.parts[self.layout.access]))
        return Token(access, expires * self.layout.unit if known and expires else None)

    def renewed(self, answer: dict[str, Any], now: float) -> "Kept":
        """The same login after the server's `answer`; everything else in the file stays."""
        parts = dict(self.parts)
        parts[self.layout.access] = answer["access_token"]
        parts[self.layout.refresh] = answer.get("refresh_token") or self.refresh
        if isinstance(answer.get("expires_in"), int | float):
            parts[self.layout.expires] = int((now + answer["expires_in"]) / self.layout.unit)
        else:
            parts.pop(self.layout.expires, None)
        inside = self.layout.inside
        return Kept({**self.document, inside: parts} if inside else parts, self.layout)


def read(login: Login) -> Kept:
    """The login as it stands. Raises LoginLost when there is none, HostError when the file can't be read."""
    try:
        with open(login.file, "rb") as file:
            found = _understood(file.read(LARGEST))
    except OSError as error:
        raise HostError("The login can't be read", details=str(error), resolution=_again(login)) from error
    if found is None:
        raise LoginLost(
            f"There is no login in {login.file}",
            details="It has no JSON with an access token.",
            resolution=_again(login),
        )
    return found


def _understood(content: bytes) -> Kept | None:
    try:
        document = json.loads(content)
    except ValueError:
        return None
    if not isinstance(document, dict):
        return None
    kept = Kept(document, CLAUDE if CLAUDE.inside in document else PLAIN)
    if not isinstance(kept.parts, dict) or not isinstance(kept.parts.get(kept.layout.access), str):
        return None
    return kept if kept.parts[kept.layout.access] else None


def _again(login: Login) -> str:
    if login.file.endswith("/.credentials.json"):
        return "Log in with Claude Code itself: `claude`, then /login."
    return f"Log in again, so that {login.file} has the new login."


def renew(login: Login, *, held: Secret | None) -> Token:
    """Another token than `held`, the one that is of no more use: the file's own when somebody renewed it already, else a new one.

    Raises LoginLost when it can't be renewed any more, HostError when it can't be now. Blocks.
    """
    from bot_bottle.host import oauth_http

    with _alone(login):
        finish(login)
        kept = read(login)
        began = time.time()
        if kept.token.access != held and kept.token.lasts(began, _TOO_LATE if held else AHEAD):
            return kept.token
        if not kept.refresh:
            raise LoginLost(
                f"The login in {login.file} has ended", details="It has no refresh token.", resolution=_again(login)
            )  # fmt: skip
        with _Successor(login, kept.refresh) as successor:
            try:
                answer = oauth_http.post(login, kept.refresh, json_body=kept.layout.json_body)
            except oauth_http.Refused as refused:
                raise _lost_or_not(login, refused) from refused
            # What others wrote into the file meanwhile stays; the login itself is only replaced if it is still that one.
            latest = read(login)
            renewed = (latest if latest.refresh == kept.refresh else kept).renewed(answer, began)
            successor.write(renewed)
        finish(login)
        return renewed.token


def at_launch(login: Login) -> Token:
    """A token that lasts a while, renewed when it has to be. Raises LoginLost or HostError when there is none."""
    from bot_bottle.host import renewing

    kept = read(login)
    now = time.time()
    left = os.path.lexists(_successor_path(os.path.realpath(login.file), kept.refresh))
    if kept.token.lasts(now, AHEAD) and not left:
        return kept.token
    try:
        return renewing.renew_apart(login, held=None)
    except HostError:
        if kept.token.lasts(now, _TOO_LATE) and kept.token.expires is not None:
            return kept.token
        raise


def _lost_or_not(login: Login, refused: Any) -> HostError:
    brief = f"The login in {login.file} could not be renewed"
    if refused.code in ("invalid_grant", "invalid_client", "unauthorized_client"):
        return LoginLost(brief, details=str(refused), resolution=_again(login))
    return HostError(brief, details=str(refused), resolution="Check the network; it is tried again.")


# The file and its successor


def _successor_path(target: str, refresh: str) -> str:
    return f"{target}.next-{sha256_hex(refresh.encode())[:20]}"


class _Successor:
    """The file that will take the login's place; there, and with room on the disk, before the server is asked."""

    def __init__(self, login: Login, refresh: str) -> None:
        self._target = os.path.realpath(login.file)
        self._path = _successor_path(self._target, refresh)

    def __enter__(self) -> "_Successor":
        try:
            before = os.stat(self._target)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            self._file = os.open(self._path, flags, 0o600)
            os.posix_fallocate(self._file, 0, before.st_size + 16384)
            os.fchmod(self._file, stat.S_IMODE(before.st_mode) & 0o700 or 0o600)
            if os.geteuid() == 0:
                os.fchown(self._file, before.st_uid, before.st_gid)
        except OSError as error:
            raise HostError(
                "The login is not renewed: the new one could not be kept",
                details=str(error),
                resolution=f"Make the folder of {self._target} writable.",
            ) from error
        return self

    def write(self, kept: Kept) -> None:
        content = json.dumps(kept.document).encode()
        os.pwrite(self._file, content, 0)
        os.ftruncate(self._file, len(content))
        os.fsync(self._file)

    def __exit__(self, kind: object, *_: object) -> None:
        os.close(self._file)
        if kind is not None:
            os.unlink(self._path)


def finish(login: Login) -> None:
    """Moves a written successor of the login in place, if a process left one; one that was never written is removed."""
    target = os.path.realpath(login.file)
    try:
        path = _successor_path(target, read(login).refresh)
        with open(path, "rb") as file:
            content = file.read(LARGEST).rstrip(b"\0")
    except FileNotFoundError:
        return
    if _understood(content) is None:
        os.unlink(path)
        return
    with open(path, "rb+") as file:  # it may have been left with the room that was made for it
        file.truncate(len(content))
        os.fsync(file.fileno())
    os.replace(path, target)
    folder = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


# The locks


@contextmanager
def _alone(login: Login) -> Iterator[None]:
    """Holds both locks. Raises HostError when another process has one for long."""
    deadline = time.monotonic() + LOCK_SECONDS
    target = os.path.realpath(login.file)
    kept = read(login)
    with ExitStack() as held:
        try:
            ours = held.enter_context(_our_lock(f"{target}.bot-bottle.lock", deadline))
            if kept.layout is CLAUDE:
                held.enter_context(_their_lock(os.path.dirname(login.file), ours, deadline))
        except OSError as error:
            raise HostError(
                "The login is not renewed: it can't be locked",
                details=str(error),
                resolution=f"Make the folder of {login.file} writable.",
            ) from error
        yield


@contextmanager
def _our_lock(path: str, deadline: float) -> Iterator[int]:
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                _wait(deadline)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _their_lock(folder: str, ours: int, deadline: float) -> Iterator[None]:
    """Claude Code's lock; `ours` remembers which one we made, so that one that a killed process left need not grow old."""
    path = os.path.join(folder, _CLAUDE_LOCK)
    while True:
        try:
            os.mkdir(path, 0o700)
            break
        except FileExistsError:
            if _is_abandoned(path, ours):
                _remove(path)
            else:
                _wait(deadline)
    try:
        os.pwrite(ours, _mark(os.stat(path)), 0)
        yield
    finally:
        _remove(path)


def _mark(found: os.stat_result) -> bytes:
    return b"%020d %020d" % (found.st_ino, found.st_ctime_ns)


def _is_abandoned(path: str, ours: int) -> bool:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return False
    return time.time() - found.st_mtime > _STALE or os.pread(ours, 41, 0) == _mark(found)


def _remove(path: str) -> None:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return


def _wait(deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise HostError(
            "The login is not renewed: another program is renewing it", resolution="It is tried again."
        )
    time.sleep(0.05)
