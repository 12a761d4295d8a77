"""What an agent's tool sees of the supervise server: the SDK's own client, in both eras of the protocol, over the real process."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError

from bot_bottle.bundle.egress.denial import Refusal, text
from bot_bottle.bundle.supervise.tools import Block
from bot_bottle.launch.supervisor import Timing
from bot_bottle.policy.approval import Ask
from bot_bottle.policy.approval_change import Standing, change_for
from bot_bottle.policy.approval_intake import ask_of
from bot_bottle.policy.egress import Wanted
from bot_bottle.policy.model import Route
from support.mcp_clients import ERAS, connected
from support.supervised import Supervised, until

ASK = {"hosts": ["api.example.org"], "reason": "to read it"}
TOOLS = ["pipelock-block", "credential-block", "capability-block", "git-block", "supervise-await", "policy"]
VALID: dict[str, dict[str, Any]] = {
    "pipelock-block": ASK,
    "credential-block": {"host": "api.example.org", "reason": "to write"},
    "capability-block": {"packages": ["jq"], "reason": "to read JSON"},
    "git-block": {"operation": "push", "remote": "origin", "reason": "to hand it in"},
    "supervise-await": {"proposal": "p-1"},
}


@pytest.fixture(scope="module")
def server() -> Iterator[Supervised]:
    with Supervised(timing=Timing(progress=0.05)) as made:
        made.wait_ready()
        yield made


@pytest.fixture(autouse=True)
def as_ever(server: Supervised) -> None:
    server.desk.present, server.desk.state, server.desk.silent = True, "pending", False
    server.desk.heard.clear()
    until(lambda: not server.desk.waiting)


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    async def within() -> Any:
        async with asyncio.timeout(20):
            return await work()

    return asyncio.run(within())


async def decided(server: Supervised, state: str, **more: Any) -> None:
    """Decides as soon as somebody waits."""
    while not server.desk.waiting:
        await asyncio.sleep(0.005)
    server.decide(state, **more)


@pytest.mark.parametrize("era", ERAS)
def test_it_offers_exactly_its_tools_always_loaded_with_bounded_arguments(
    server: Supervised, era: str
) -> None:
    async def work() -> None:
        async with connected(server, era) as client:
            offered = (await client.list_tools()).tools
        assert [tool.name for tool in offered] == TOOLS
        for tool in offered:
            assert tool.meta == {"anthropic/alwaysLoad": True}
            assert tool.input_schema["type"] == "object"
            assert tool.input_schema["additionalProperties"] is False
            assert not {"oneOf", "anyOf", "allOf", "$ref", "$defs"} & set(tool.input_schema), (
                "models' providers refuse these"
            )
            for schema in tool.input_schema["properties"].values():
                bounded = {"maxLength", "maxItems", "maximum", "enum"} & set(schema)
                assert bounded, f"{tool.name}: {schema}"
            assert tool.output_schema

    run(work)


@pytest.mark.parametrize("era", ERAS)
def test_it_tells_a_model_when_and_how_to_ask(server: Supervised, era: str) -> None:
    async def work() -> str:
        async with connected(server, era) as client:
            return client.instructions or ""

    said = run(work)
    assert all(tool in said for tool in TOOLS)
    assert "no message of the user's" in said
    assert "pending" in said
    assert "not a yes" in said
    assert len(said) < 2048, "some tools cut off what is longer"


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("name", ["pipelock-block", "pipelock_block"])
def test_a_call_is_answered_only_once_it_is_decided(server: Supervised, era: str, name: str) -> None:
    seen: list[float] = []

    async def progress(done: float, _total: float | None, _message: str | None) -> None:
        seen.append(done)
        if len(seen) == 3:
            await asyncio.to_thread(server.decide, "applied")

    async def work() -> Any:
        async with connected(server, era) as client:
            return await client.call_tool(name, ASK, progress_callback=progress)

    result = run(work)
    assert seen == sorted(seen)
    assert len(seen) >= 3
    assert result.structured_content["status"] == "applied"
    assert result.structured_content["allowed"] == ["https api.example.org"]
    assert result.content[0].text.startswith("Status: applied\n")
    assert server.desk.asked("ask") == [
        {"ask": server.desk.asked("ask")[0]["ask"], "tool": "pipelock-block", "arguments": ASK}
    ]


@pytest.mark.parametrize("state", ["rejected", "expired", "withdrawn", "failed"])
def test_a_no_is_said_as_a_no_and_never_with_what_is_allowed(server: Supervised, state: str) -> None:
    async def work() -> Any:
        async with connected(server) as client:
            deciding = asyncio.create_task(asyncio.to_thread(until, lambda: server.desk.waiting))
            asked = asyncio.create_task(client.call_tool("pipelock-block", ASK))
            await deciding
            await asyncio.to_thread(server.decide, state, added=["https api.example.org"])
            return await asked

    result = run(work)
    assert result.structured_content["status"] == state
    assert "allowed" not in result.structured_content
    assert "Allowed" not in result.content[0].text


@pytest.mark.parametrize("tool", ["capability-block", "git-block"])
def test_what_can_only_be_recorded_ends_with_its_approval(server: Supervised, tool: str) -> None:
    async def work() -> Any:
        async with connected(server) as client:
            asked = asyncio.create_task(client.call_tool(tool, VALID[tool]))
            await decided(server, "approved", final=True)
            return await asked

    assert run(work).structured_content["status"] == "approved"


def test_an_approval_that_is_not_yet_enforced_is_no_answer(server: Supervised) -> None:
    async def work() -> Any:
        async with connected(server) as client:
            asked = asyncio.create_task(client.call_tool("pipelock-block", ASK))
            await decided(server, "approved")
            done, _ = await asyncio.wait([asked], timeout=0.3)
            assert not done
            await asyncio.to_thread(server.decide, "applied")
            return await asked

    assert run(work).structured_content["status"] == "applied"


def test_a_state_that_it_does_not_know_is_an_error_and_not_a_yes(server: Supervised) -> None:
    async def work() -> Any:
        async with connected(server) as client:
            asked = asyncio.create_task(client.call_tool("pipelock-block", ASK))
            await decided(server, "granted")
            return await asked

    result = run(work)
    assert result.is_error
    assert result.structured_content["status"] == "error"


@pytest.mark.parametrize("tool", [name for name in TOOLS if name != "policy"])
def test_with_nobody_there_it_answers_at_once_and_says_how_to_go_on(server: Supervised, tool: str) -> None:
    server.desk.present = False

    async def work() -> Any:
        async with connected(server) as client:
            return await client.call_tool(tool, VALID[tool])

    result = run(work)
    assert result.structured_content["status"] == "pending"
    assert result.structured_content["next"] == "supervise-await"
    assert result.structured_content["proposal_id"] in result.content[0].text
    assert not result.is_error
    until(lambda: server.desk.asked("leave"))


def test_when_the_last_who_could_decide_leaves_it_answers_too(server: Supervised) -> None:
    async def work() -> Any:
        async with connected(server) as client:
            asked = asyncio.create_task(client.call_tool("pipelock-block", ASK))
            await decided(server, "pending", present=False)
            return await asked

    assert run(work).structured_content["status"] == "pending"


def test_a_call_is_held_for_as_long_as_is_set_and_no_longer() -> None:
    with Supervised(hold=1, timing=Timing(progress=0.1)) as server:

        async def work() -> Any:
            async with connected(server) as client:
                return await client.call_tool("pipelock-block", ASK)

        result = run(work)
        assert result.structured_content["status"] == "pending"
        assert result.structured_content["next"] == "supervise-await"
        until(lambda: server.desk.asked("leave"))


def test_the_outcome_of_an_earlier_proposal_can_be_awaited(server: Supervised) -> None:
    async def work() -> Any:
        async with connected(server) as client:
            asked = asyncio.create_task(client.call_tool("supervise-await", {"proposal": "p-1"}))
            await decided(server, "rejected")
            return await asked

    assert run(work).structured_content == {
        "status": "rejected",
        "message": "It is rejected.",
        "proposal_id": "p-1",
    }


def test_a_proposal_that_is_not_this_runs_is_a_problem(server: Supervised) -> None:
    async def work() -> Any:
        async with connected(server) as client:
            return await client.call_tool("supervise-await", {"proposal": "another"})

    result = run(work)
    assert result.is_error
    assert "no such proposal" in result.content[0].text


@pytest.mark.parametrize("era", ERAS)
def test_the_policy_can_be_read(server: Supervised, era: str) -> None:
    async def work() -> Any:
        async with connected(server, era) as client:
            return await client.call_tool("policy", {})

    result = run(work)
    assert result.structured_content["allowed"] == ["https api.example.org"]
    assert "https api.example.org" in result.content[0].text


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("pipelock-block", {"reason": "x"}, "hosts or urls"),
        ("pipelock-block", {"hosts": ["a.example.org"]}, "reason"),
        ("pipelock-block", {"hosts": ["a"] * 17, "reason": "x"}, "hosts"),
        ("pipelock-block", {"hosts": ["a" * 254], "reason": "x"}, "hosts.0"),
        ("pipelock-block", {"hosts": ["a"], "reason": "x" * 2001}, "reason"),
        ("pipelock-block", {"hosts": ["a"], "reason": "x", "port": 65536}, "port"),
        ("pipelock-block", {"hosts": ["a"], "reason": "x", "protocol": "ftp"}, "protocol"),
        ("pipelock-block", {"hosts": ["a"], "reason": "x", "run": "another"}, "run"),
        ("capability-block", {"reason": "x"}, "packages or tools or change"),
        ("git-block", {"operation": "clone", "reason": "x"}, "operation"),
        ("supervise-await", {"proposal": "../x"}, "proposal"),
        ("supervise-await", {}, "proposal"),
        ("policy", {"run": "another"}, "run"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_said_to_be_wrong_and_ask_nobody(
    server: Supervised, tool: str, arguments: dict[str, Any], said: str
) -> None:
    async def work() -> Any:
        async with connected(server) as client:
            return await client.call_tool(tool, arguments)

    result = run(work)
    assert result.is_error
    assert said in result.content[0].text
    assert server.desk.heard == []


@pytest.mark.parametrize("era", ERAS)
def test_a_tool_that_is_not_there_is_an_error_of_the_protocol(server: Supervised, era: str) -> None:
    async def work() -> None:
        async with connected(server, era) as client:
            with pytest.raises(MCPError, match="no such tool"):
                await client.call_tool("approve", {"proposal": "p-1"})

    run(work)
    assert server.desk.heard == []


@pytest.mark.parametrize("era", ERAS)
def test_a_client_that_goes_away_is_told_of_and_decides_nothing(server: Supervised, era: str) -> None:
    async def work() -> None:
        async with connected(server, era) as client:
            asked = asyncio.create_task(client.call_tool("pipelock-block", ASK))
            while not server.desk.waiting:
                await asyncio.sleep(0.005)
            asked.cancel()
            await asyncio.wait([asked])

    run(work)
    (ask,) = server.desk.asked("ask")
    until(lambda: server.desk.asked("leave") == [{"leave": ask["ask"]}])
    assert [next(iter(message)) for message in server.desk.heard] == ["ask", "leave"]


def test_hostile_words_come_through_as_they_are_and_break_no_line(server: Supervised) -> None:
    words = 'a\n{"leave": 1}\n\x1b[2J\u202e\u200b\x00 "}]'
    server.desk.present = False

    async def work() -> None:
        async with connected(server) as client:
            await client.call_tool("pipelock-block", {"hosts": ["a.example.org"], "reason": words})

    run(work)
    (ask,) = server.desk.asked("ask")
    assert ask["arguments"]["reason"] == words
    until(lambda: len(server.desk.heard) == 2)
    assert json.dumps(server.desk.heard[1]) == json.dumps({"leave": ask["ask"]})


@pytest.mark.parametrize(
    ("wanted", "reason", "route"),
    [
        (Wanted("docs.test", 443, "https", "PUT", "/4/x"), "path_not_allowed",
         Route("docs.test", 443, methods=("PUT",), paths=("/4/x",))),
        (Wanted("docs.test", 8443, "https", "GET", "/x"), "method_not_allowed",
         Route("docs.test", 8443, methods=("GET",), paths=("/x",))),
        (Wanted("docs.test", 443, "https", "GET", "/" + "x" * 900), "path_not_allowed", Route("docs.test", 443)),
        (Wanted("docs.test", 443, "https"), "host_not_allowed", Route("docs.test", 443)),
        (Wanted("docs.test", 5432, "tcp"), "host_not_allowed", Route("docs.test", 5432, "tcp")),
        (Wanted("docs.test", 8080, "http"), "port_not_allowed", Route("docs.test", 8080, "http")),
    ],
)  # fmt: skip
def test_what_a_refusal_says_to_ask_with_is_taken_by_the_tool_and_asks_for_just_that(
    wanted: Wanted, reason: str, route: Route
) -> None:
    said = json.loads(text(Refusal(403, reason, "No.", wanted=wanted, needed="- {}"), ""))["ask"]
    given = {**said["with"], "reason": "It is needed."}
    Block.model_validate(given)
    ask = ask_of(said["tool"], given)
    assert isinstance(ask, Ask), ask
    assert change_for(ask, Standing()).routes == (route,)
