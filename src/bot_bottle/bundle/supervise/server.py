"""The MCP server: its tools, answered by the keeper, each call held open with progress until a person has decided.

Stateless, one request a call, answered as a stream of events. Who asks is known by the bearer token of the run, before anything is
read of what is asked.
"""

import asyncio
import hmac
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    ToolAnnotations,
)
from mcp_types import Tool as OfferedTool
from pydantic import AnyHttpUrl
from starlette.applications import Starlette

from bot_bottle import __version__
from bot_bottle.bundle.supervise import answers, tools
from bot_bottle.bundle.supervise.calls import Call, Calls, TooManyCalls

PATH = "/mcp"
LARGEST_BODY = 64 * 1024
FIRST_ANSWER = 30.0
"""Seconds for the keeper to have written down what was asked; it takes a thousandth of it."""
_SCOPE = "ask"
_ALWAYS = {"anthropic/alwaysLoad": True}


class Holding(NamedTuple):
    """How long a call is held open, and how often it is said that it is: in seconds."""

    seconds: float
    progress: float = 10.0


class Progress(Protocol):
    """Where a call says that it goes on."""

    async def report_progress(
        self, progress: float, total: float | None = None, message: str | None = None
    ) -> None: ...


class OneToken:
    """Verifies the bearer token of the run; keeps the SDK's `TokenVerifier`."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def verify_token(self, token: str) -> AccessToken | None:
        if not self._token or not hmac.compare_digest(token.encode(), self._token):
            return None
        return AccessToken(token=token, client_id="agent", scopes=[_SCOPE])


class Asked:
    """Answers the calls of one bottle's agent."""

    def __init__(self, calls: Calls, holding: Holding) -> None:
        self._calls = calls
        self._holding = holding

    async def call(self, name: str, arguments: Mapping[str, Any], progress: Progress) -> answers.Result:
        """The result of the tool `name`, which exists."""
        try:
            given = tools.checked(name, arguments)
            if name == "policy":
                return await self._survey()
            if name == "supervise-await":
                with self._calls.begin("await", proposal=given["proposal"]) as call:
                    return await self._held(call, progress)
            with self._calls.begin("ask", tool=name, arguments=given) as call:
                return await self._held(call, progress)
        except tools.WrongArguments as error:
            return answers.problem(f"Nothing was asked, because the arguments are wrong: {error}")
        except TooManyCalls:
            return answers.problem("Nothing was asked, because too many calls wait already: wait for those")

    async def _survey(self) -> answers.Result:
        with self._calls.begin("policy") as call:
            message = await call.answer(FIRST_ANSWER)
            call.ended = message is not None
            return answers.survey(message) if message is not None else _silence()

    async def _held(self, call: Call, progress: Progress) -> answers.Result:
        """Waits for what becomes of it, for as long as calls are held, and says every so often that it waits."""
        message = await call.answer(FIRST_ANSWER)
        if message is None:
            return _silence()
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not (answers.is_answer(message) or answers.nobody_decides(message)):
            waited = loop.time() - began
            left = self._holding.seconds - waited
            if left <= 0:
                break
            await progress.report_progress(waited, None, f"waiting for a person to decide ({waited:.0f} s)")
            message = await call.answer(min(self._holding.progress, left)) or message
        call.ended = answers.has_ended(message)
        return answers.outcome(message)


def _silence() -> answers.Result:
    return answers.problem(
        "The bottle's keeper does not answer; whether it was asked is not known. Ask again."
    )


def make_app(asked: Asked, *, token: str, port: int) -> Starlette:
    """The server as an ASGI application, for `http://127.0.0.1:PORT/mcp`."""
    offered = [_offered(name, tool) for name, tool in tools.TOOLS.items()]
    schemas = {tool.name: tool.input_schema for tool in offered}

    async def list_tools(
        _context: ServerRequestContext[Any], _params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        return ListToolsResult(tools=offered)

    async def call_tool(context: ServerRequestContext[Any], params: CallToolRequestParams) -> CallToolResult:
        name = tools.named(params.name)
        if name is None:
            raise MCPError(INVALID_PARAMS, f"There is no such tool; there are {', '.join(tools.TOOLS)}")
        result = await asked.call(name, params.arguments or {}, context.session)
        return CallToolResult(
            content=[TextContent(type="text", text=result.text)],
            structured_content=result.structured,
            is_error=result.is_error,
        )

    server: Server[Any] = Server(
        "supervise",
        version=__version__,
        instructions=tools.INSTRUCTIONS,
        get_tool_input_schema=lambda name: schemas.get(tools.named(name) or ""),
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )
    places = [f"127.0.0.1:{port}", f"localhost:{port}"]
    return server.streamable_http_app(
        streamable_http_path=PATH,
        stateless_http=True,
        json_response=False,
        max_request_body_size=LARGEST_BODY,
        transport_security=TransportSecuritySettings(
            allowed_hosts=places, allowed_origins=[f"http://{place}" for place in places]
        ),
        auth=AuthSettings(
            issuer_url=AnyHttpUrl(f"http://{places[0]}"), resource_server_url=None, required_scopes=[_SCOPE]
        ),
        token_verifier=OneToken(token),
    )


def _offered(name: str, tool: tools.Tool) -> OfferedTool:
    return OfferedTool(
        name=name,
        description=tool.description,
        input_schema=tools.input_schema(name),
        output_schema=tools.output_schema(name),
        annotations=ToolAnnotations(
            read_only_hint=not tool.changes,
            destructive_hint=False,
            idempotent_hint=True,
            open_world_hint=False,
        ),
        _meta=dict(_ALWAYS),
    )
