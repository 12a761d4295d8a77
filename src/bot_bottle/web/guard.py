"""What every request has to pass before a handler sees it, and the headers that every answer has.

A handler is behind the guard unless the table `PUBLIC` names it: what is forgotten is closed.
"""

from http import HTTPStatus
from typing import NamedTuple

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bot_bottle.web.access import Access

PUBLIC = frozenset(
    {
        ("GET", "/"),
        ("GET", "/static/inbox.css"),
        ("GET", "/static/icon.svg"),
        ("GET", "/static/main.js"),
        ("GET", "/static/dom.js"),
        ("GET", "/static/link.js"),
        ("GET", "/static/list.js"),
        ("GET", "/static/detail.js"),
        ("GET", "/static/dialogs.js"),
        ("GET", "/static/others.js"),
        ("POST", "/session"),
    }
)
"""What is answered without a session: the empty page, which is the same for everybody, and the exchange of a link."""

HEAD_BYTES = 16 * 1024
KEY_HEADER = "x-inbox-key"
CHANGING = frozenset(("POST", "PUT", "PATCH", "DELETE"))
_CONTENT_SECURITY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "content-security-policy": _CONTENT_SECURITY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


class Refusal(NamedTuple):
    """Why a request is not answered."""

    status: HTTPStatus
    problem: str


class Guard:
    """ASGI middleware. `hosts` are the exact values that the Host header may have."""

    def __init__(self, app: ASGIApp, *, access: Access, hosts: frozenset[str], cookie: str) -> None:
        self._app = app
        self._access = access
        self._hosts = hosts
        self._cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"no {scope['type']} is served here")

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, with_headers)
            return
        # What is left of the body is not read: the connection ends with the answer.
        answer = JSONResponse({"problem": refusal.problem}, refusal.status, {"connection": "close"})
        await answer(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> Refusal | None:
        headers = Headers(scope=scope)
        if sum(len(name) + len(value) + 4 for name, value in headers.raw) > HEAD_BYTES:
            return Refusal(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The head of this request is too long."
            )
        return self._elsewhere(scope, headers) or self._stranger(scope, headers)

    def _elsewhere(self, scope: Scope, headers: Headers) -> Refusal | None:
        """Whether it comes from another page than ours, or for another name: rebinding, cross-site requests, frames."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return Refusal(HTTPStatus.MISDIRECTED_REQUEST, "Nothing is served under this name.")
        if not scope["path"].startswith("/"):
            return Refusal(HTTPStatus.BAD_REQUEST, "This is no path.")
        changing = scope["method"] in CHANGING
        origins = headers.getlist("origin")
        if origins != [f"http://{hosts[0]}"] and (origins or changing):
            return Refusal(HTTPStatus.FORBIDDEN, "Another page asked for this.")
        sites = headers.getlist("sec-fetch-site")
        if sites and sites != ["same-origin"] and not _opened_by_hand(scope, headers):
            return Refusal(HTTPStatus.FORBIDDEN, "Another page asked for this.")
        if changing and headers.get("content-type") != "application/json":
            return Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "This takes JSON.")
        return None

    def _stranger(self, scope: Scope, headers: Headers) -> Refusal | None:
        """Whether it comes from a browser that has no session. The handler finds the session in `scope`."""
        if (scope["method"], scope["path"]) in PUBLIC:
            return None
        session = self._access.session(cookie_of(headers, self._cookie), headers.get(KEY_HEADER, ""))
        if session is None:
            return Refusal(HTTPStatus.UNAUTHORIZED, "This browser is not signed in.")
        scope["state"]["session"] = session
        return None


def cookie_of(headers: Headers, name: str) -> str:
    """The cookie of that name; empty when there is none."""
    return cookie_parser(headers.get("cookie", "")).get(name, "")


def _opened_by_hand(scope: Scope, headers: Headers) -> bool:
    """Whether a person opens the empty page, from wherever the link stood: never in a frame, never as part of another."""
    return (
        (scope["method"], scope["path"]) == ("GET", "/")
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )
