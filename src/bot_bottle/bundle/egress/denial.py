"""What the agent reads when it is not let through: one JSON shape for every refusal and failure, and how to ask."""

import json

from bot_bottle.bundle.egress.heads import Body, Headers, write_head
from bot_bottle.bundle.record import clean
from bot_bottle.policy.egress import REASONS, REQUEST_REASONS, Decision, Wanted
from bot_bottle.policy.lines import USUAL_PORTS
from bot_bottle.typed import Any

_PHRASES = {
    400: b"Bad Request",
    403: b"Refused by bot-bottle",
    408: b"Request Timeout",
    417: b"Expectation Failed",
    421: b"Misdirected Request",
    426: b"Upgrade Required",
    431: b"Request Header Fields Too Large",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    504: b"Gateway Timeout",
}
_ERRORS = {403: "refused", 421: "refused", 502: "failed", 504: "failed"}
_PROXY_ERRORS = {403: b"http_request_denied", 502: b"destination_unavailable", 504: b"connection_timeout"}


class Refusal(Exception):
    """This request goes no further. `wanted` is there when the policy was asked; `what` adds to it.

    `needed` is the line in the bottle's file that would allow it, if one would.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        wanted: Wanted | None = None,
        needed: str | None = None,
        **what: str,
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.message = message
        self.wanted = wanted
        self.needed = needed
        self.what = what


def not_allowed(decision: Decision, **what: str) -> Refusal:
    """The refusal that says what the policy decided."""
    message = explain(decision.reason)
    return Refusal(403, decision.reason, message, wanted=decision.wanted, needed=decision.needed, **what)


def explain(reason: str) -> str:
    """A sentence for a code of `policy/egress.py`."""
    text = REASONS.get(reason, "this could not be decided")
    return text[0].upper() + text[1:] + "."


def respond(refusal: Refusal, *, bottle_file: str, close: bool, with_body: bool = True) -> bytes:
    """The whole response. The text of the agent in it is cleaned."""
    body = text(refusal, bottle_file)
    phrase = _PHRASES[refusal.status]
    if refusal.status == 403:  # clients show no body of a refused CONNECT, but its status line
        phrase += b": " + refusal.reason.encode()
    headers = [*fields(refusal), (b"connection", b"close" if close else b"keep-alive")]
    if refusal.status == 426:
        headers.append((b"sec-websocket-version", b"13"))
    head = write_head(b"HTTP/1.1 %d %b" % (refusal.status, phrase), headers, Body(length=len(body)))
    return head + body if with_body else head


def text(refusal: Refusal, bottle_file: str) -> bytes:
    """The response's body."""
    return json.dumps(_body(refusal, bottle_file)).encode() + b"\n"


def fields(refusal: Refusal) -> Headers:
    """What stands in the head of every refusal."""
    error = _PROXY_ERRORS.get(refusal.status, b"http_protocol_error")
    return [
        (b"content-type", b"application/json"),
        (b"cache-control", b"no-store"),
        (b"proxy-status", b'bot-bottle; error=%b; details="%b"' % (error, refusal.reason.encode())),
    ]


def _asking(wanted: Wanted, *, of_request: bool) -> dict[str, Any]:
    """What the tool is to be called with, beside a reason: for this request, or for the host."""
    usual = USUAL_PORTS.get(wanted.protocol) == wanted.port
    if of_request and clean(wanted.path) == wanted.path:
        place = wanted.host if usual else f"{wanted.host}:{wanted.port}"
        return {"urls": [f"{wanted.protocol}://{place}{wanted.path}"], "methods": [clean(wanted.method)]}
    asked: dict[str, Any] = {"hosts": [clean(wanted.host)]}
    if wanted.protocol != "https":
        asked["protocol"] = wanted.protocol
    return asked if usual else {**asked, "port": wanted.port}


def _body(refusal: Refusal, bottle_file: str) -> dict[str, Any]:
    wanted = refusal.wanted
    what: dict[str, Any] = {**(wanted.asked() if wanted else {}), **refusal.what}
    what = {key: clean(value) if isinstance(value, str) else value for key, value in what.items()}
    body: dict[str, Any] = {
        "error": _ERRORS.get(refusal.status, "malformed"),
        "what": what,
        "reason": refusal.reason,
        "message": refusal.message,
    }
    if wanted is not None and refusal.needed is not None:
        of_request = refusal.reason in REQUEST_REASONS
        more = " (with the `upstream:` and `credential:` of the host's other routes)" if of_request else ""
        body["ask"] = {"tool": "pipelock-block", "with": _asking(wanted, of_request=of_request)}
        body["operator"] = (
            f"A person allows this in the bottle's file{f' {bottle_file}' if bottle_file else ''}, under `egress:`, "
            f"`routes:`{more}, with the line: {refusal.needed}"
        )
    return body
