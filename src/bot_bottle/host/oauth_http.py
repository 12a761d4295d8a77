"""The one request that renews a login: a refresh token for an access token (RFC 6749, section 6).

Through the bottle's proxy, or the operator's own where the environment names one; verified against the system's certificates
and the bottle's further ones. A redirect is not followed, because the refresh token would go along. What the server says is
shown by its error code only.
"""

import json
import signal
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from bot_bottle import __version__

if TYPE_CHECKING:
    from bot_bottle.host.oauth import Login

SECONDS = 30
LARGEST = 1 << 16


class Refused(Exception):
    """There is no new token. `code` is the server's (RFC 6749, section 5.2), or says where it failed."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def post(login: "Login", refresh: str, *, json_body: bool) -> dict[str, Any]:
    """The server's answer, which has an `access_token`. Raises Refused."""
    fields = {"grant_type": "refresh_token", "refresh_token": refresh, "client_id": login.client_id}
    body = json.dumps(fields) if json_body else urlencode(fields)
    kind = "application/json" if json_body else "application/x-www-form-urlencoded"
    request = urllib.request.Request(  # noqa: S310 - the manifest lets https through, and http to this machine
        login.token_url,
        data=body.encode(),
        headers={
            "Content-Type": kind,
            "Accept": "application/json",
            "User-Agent": f"bot-bottle/{__version__}",
        },
    )
    if login.proxy_login is not None:
        request.add_unredirected_header("Proxy-Authorization", login.proxy_login.reveal())
    try:
        with _limited(), _opener(login).open(request, timeout=SECONDS) as response:
            content = response.read(LARGEST)
    except urllib.error.HTTPError as error:
        with error:
            code = _code(error.read(LARGEST))
        raise Refused(code, f"{login.token_url} answered {error.code} {code}".rstrip()) from error
    except (OSError, ValueError) as error:
        raise Refused("unreachable", f"{login.token_url}: {_why(error)}") from error
    return _answer(login, content)


def _opener(login: "Login") -> urllib.request.OpenerDirector:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if login.ca:
        context.load_verify_locations(login.ca)
    proxies = {"http": login.proxy, "https": login.proxy} if login.proxy else None
    return urllib.request.build_opener(
        urllib.request.HTTPSHandler(context=context), urllib.request.ProxyHandler(proxies), _NoRedirect
    )


def _answer(login: "Login", content: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(content)
    except ValueError:
        answer = None
    token = answer.get("access_token") if isinstance(answer, dict) else None
    refresh = answer.get("refresh_token", "") if isinstance(answer, dict) else ""
    good = isinstance(token, str) and token and token.isascii() and token.isprintable()
    if not good or not isinstance(refresh, str | None):
        raise Refused("malformed", f"{login.token_url} answered without an access token")
    assert isinstance(answer, dict)
    return answer


def _code(content: bytes) -> str:
    """The error's code, if the server names a plain one; in some servers' answers it is inside an object."""
    try:
        said = json.loads(content)
        code = said["error"]
        code = code.get("type", "") if isinstance(code, dict) else code
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    plain = isinstance(code, str) and len(code) <= 60 and code.replace("_", "").isalnum() and code.isascii()
    return code if plain else ""


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    return f"{type(reason).__name__}: {reason}"[:300]


@contextmanager
def _limited() -> Iterator[None]:
    """SECONDS for the whole of it, not only for each step: a server that drips must not keep the locks."""

    def give_up(*_: object) -> None:
        raise TimeoutError(f"it took longer than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
