"""The page's handlers. Each is thin over the desk; who may call them is the guard's to say."""

import asyncio
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from bot_bottle.errors import BotBottleError, ManifestError, NotFoundError, StateError
from bot_bottle.operate.approvals import Desk
from bot_bottle.policy.approval import Approval, Decided, Shown, Terms
from bot_bottle.web import asked, clean, view
from bot_bottle.web.access import Access
from bot_bottle.web.desk import OnThread
from bot_bottle.web.guard import Guard, cookie_of
from bot_bottle.web.live import Live

B = TypeVar("B", bound=asked._Body)

BODY_SECONDS = 10.0
HISTORY = 100
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
FILES = (
    "inbox.css",
    "icon.svg",
    "main.js",
    "dom.js",
    "link.js",
    "list.js",
    "detail.js",
    "dialogs.js",
    "others.js",
)
_STATUS = ((NotFoundError, 404), (ManifestError, 422), (StateError, 503), (BotBottleError, 400))


class Wrong(Exception):
    """The body is not what the page sends."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status = status


class Page(NamedTuple):
    """What the handlers work with: a desk to look at, and one for decisions, which may take long; `void` is called when the
    links were given up."""

    desk: OnThread
    deciding: OnThread
    access: Access
    live: Live
    cookie: str
    void: Callable[[], None]

    # Signing in

    async def enter(self, request: Request) -> Response:
        """Exchanges a link's key for a session."""
        body = await _body(request, asked.SignIn)
        entry = self.access.enter(body.key, cookie_of(request.headers, self.cookie))
        if entry is None:
            if self.access.void:
                self.void()
            return JSONResponse({"problem": "This link was used already, is too old, or is none."}, 403)
        answer = JSONResponse({"key": entry.session.page_key})
        answer.set_cookie(self.cookie, entry.cookie, path="/", httponly=True, samesite="strict")
        return answer

    async def leave(self, request: Request) -> Response:
        """Ends the session."""
        await _body(request, asked.Nothing)
        self.access.leave(request.state.session)
        await self.live.wake()
        answer = JSONResponse({})
        answer.delete_cookie(self.cookie, path="/", httponly=True, samesite="strict")
        return answer

    # Looking

    async def events(self, request: Request) -> Response:
        """The feed of what waits."""
        session = request.state.session
        if not self.live.room(session):
            return JSONResponse({"problem": "The inbox is open in too many tabs."}, 429)
        return StreamingResponse(self.live.stream(session), media_type="text/event-stream")

    async def look(self, request: Request) -> Response:
        """Proposals on certain terms, and as edited; those that are no more are left out."""
        body = await _body(request, asked.Look)
        terms = body.on.terms() if body.on else None
        if body.text is not None and terms is None:
            raise Wrong(400, "An edited proposal needs terms.")
        return JSONResponse({"shown": await self.desk.call(lambda desk: _looked_at(desk, body, terms))})

    async def history(self, request: Request) -> Response:
        """What was decided, the latest first."""
        await _body(request, asked.Nothing)
        done = await self.desk.call(lambda desk: desk.decided(HISTORY))
        return JSONResponse({"decided": [view.row(shown) for shown in done]})

    # Deciding

    async def approve(self, request: Request) -> Response:
        """Approves, each by the digest of what was shown. Whether it is enforced shows by its state afterwards."""
        body = await _body(request, asked.Approve)
        if len({yes.id for yes in body.approvals}) < len(body.approvals):
            raise Wrong(400, "A proposal is decided once.")
        decided = await self.deciding.call(lambda desk: _approved(desk, body.approvals))
        return JSONResponse({"decided": [view.outcome(each) for each in decided]})

    async def reject(self, request: Request) -> Response:
        """Refuses."""
        body = await _body(request, asked.Reject)
        reason = clean.line(body.reason, 0)
        decided = await self.deciding.call(
            lambda desk: desk.reject(body.ids, reason, may_ask_again=body.may_ask_again)
        )
        return JSONResponse({"decided": [view.outcome(each) for each in decided]})

    async def withdraw(self, request: Request) -> Response:
        """Ends a grant."""
        body = await _body(request, asked.Withdraw)
        await self.deciding.call(lambda desk: desk.withdraw(body.id))
        return JSONResponse({})


def make_app(page: Page, *, hosts: frozenset[str]) -> Guard:
    """The application, behind its guard."""
    routes = [Route(f"/static/{name}", _file(name)) for name in FILES]
    routes += [
        Route("/", _file("index.html")),
        Route("/session", page.enter, methods=["POST"]),
        Route("/api/leave", page.leave, methods=["POST"]),
        Route("/api/events", page.events),
        Route("/api/look", page.look, methods=["POST"]),
        Route("/api/history", page.history, methods=["POST"]),
        Route("/api/approve", page.approve, methods=["POST"]),
        Route("/api/reject", page.reject, methods=["POST"]),
        Route("/api/withdraw", page.withdraw, methods=["POST"]),
    ]
    handlers = {Wrong: _on_wrong, BotBottleError: _on_error}
    app = Starlette(routes=routes, exception_handlers=handlers, max_body_size=asked.BODY_BYTES)  # type: ignore[arg-type]
    return Guard(app, access=page.access, hosts=hosts, cookie=page.cookie)


def _looked_at(desk: Desk, body: asked.Look, terms: Terms | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in body.ids:
        try:
            shown = _shown(desk, name, terms, body.text)
            item = view.detail(shown, desk.routes_text(shown), _in_file(desk, shown))
            if terms is not None and not found:
                item["mark"] = view.row(desk.show(name))["mark"]  # the one that the list has
            found.append(item)
        except NotFoundError:
            if len(body.ids) == 1:
                raise
    return found


def _in_file(desk: Desk, shown: Shown) -> str:
    """What would change in the bottle's file; empty on other terms than for good."""
    if shown.terms.scope != "manifest" or not shown.applies or shown.proposal.state != "pending":
        return ""
    try:
        return desk.file_diff(shown)
    except StateError:
        raise
    except BotBottleError as error:
        return f"It can't be written there: {error}"


def _shown(desk: Desk, name: str, terms: Terms | None, text: str | None) -> Shown:
    return desk.show(name, terms) if text is None or terms is None else desk.edit(name, text, terms)


def _approved(desk: Desk, wanted: list[asked.Yes]) -> list[Decided]:
    """The decisions, each by the digest of what was shown: what was edited is computed anew, and has to give that digest."""
    approvals = []
    for yes in wanted:
        terms = yes.on.terms()
        if yes.text is not None:
            terms = desk.edit(yes.id, yes.text, terms).terms
        approvals.append(Approval(yes.id, yes.digest, terms))
    return desk.approve(approvals, wait=0)


async def _body(request: Request, kind: type[B]) -> B:
    """The request's body. Raises Wrong; longer ones than allowed were refused before."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            data = await request.body()
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise Wrong(400, clean.line(f"{where}: {first['msg']}" if where else first["msg"])) from error
    except (TimeoutError, ClientDisconnect) as error:
        raise Wrong(408, "The request did not come to its end.") from error


def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
    data = resources.files("bot_bottle.web").joinpath("static", name).read_bytes()
    kind = _TYPES[name.rpartition(".")[2]]

    async def answer(_request: Request) -> Response:
        return Response(data, media_type=kind)

    return answer


async def _on_wrong(_request: Request, error: Wrong) -> Response:
    return JSONResponse({"problem": str(error)}, error.status)


async def _on_error(_request: Request, error: BotBottleError) -> Response:
    status = next(status for kind, status in _STATUS if isinstance(error, kind))
    said = {"problem": clean.line(error.brief), "details": clean.block(error.details, 4000)}
    return JSONResponse(said, status)
