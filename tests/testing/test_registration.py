"""The supervise server made known to the real tools, in real bottles, by their own CLIs."""

import json
import tomllib

import pytest

from support.mcp_server import URL, mcp_server
from support.supervised_tools import TOKEN, Bench, watching

pytestmark = [pytest.mark.claude, pytest.mark.namespace]

ELSEWHERE = {"base_url": "http://127.0.0.1:9/v1"}
"""A model's API that is not there: the tools ask it nothing here, and nobody else either."""
LOOKS = ("gemini", "opencode")
"""Whose `mcp list` connects to the servers; Codex's does not, and Claude Code's first waits for what no bottle reaches."""
ENTRIES = {
    "claude": {"type": "http", "timeout": 90_000_000, "alwaysLoad": True},
    "codex": {"tool_timeout_sec": 90_000},
    "gemini": {"type": "http", "timeout": 90_000_000, "trust": True},
    "opencode": {"type": "remote", "timeout": 90_000_000, "enabled": True, "oauth": False},
}


@pytest.fixture
def bench(tool, tmp_path):
    name, program = tool
    made = Bench(tmp_path, name, program, **ELSEWHERE)
    yield made
    made.close()


def entry_of(bench):
    registration = bench.setup.registration
    text = bench.config()
    found = json.loads(text) if registration.format == "json" else tomllib.loads(text)
    for key in registration.entry:
        found = found[key]
    return found


def assert_registered(bench, name):
    entry = entry_of(bench)
    headers = entry.pop("http_headers" if name == "codex" else "headers")
    assert headers == {"Authorization": f"Bearer {TOKEN}"}
    assert entry == {**ENTRIES[name], "url": URL}


def assert_reached(bench, name):
    """The tool itself says that it knows the server, and where it looks, it comes with the token."""
    if name not in LOOKS:
        got = bench.cli("mcp", "get", "supervise")
        assert (got.code, URL in got.said) == (0, True), got
        return
    with mcp_server(bench.bottle, TOKEN) as server:
        listed = bench.cli("mcp", "list")
    assert listed.code == 0, listed
    assert b"supervise" in listed.stdout + listed.stderr
    assert b"onnected" in listed.stdout + listed.stderr
    assert server.seen
    assert all(right for _, right in server.seen)


def test_the_tool_knows_the_server_and_comes_with_the_token(bench, tool):
    assert bench.register() is None
    assert bench.reported == [f"registering supervise at {URL}"]
    assert_registered(bench, tool[0])
    assert bench.inside("stat", "-c", "%a", bench.setup.registration.config).stdout == b"600\n"
    assert_reached(bench, tool[0])


def test_registering_twice_is_no_error_and_changes_nothing(bench, tool):
    assert bench.register() is None
    once = entry_of(bench)
    assert bench.register() is None
    assert entry_of(bench) == once
    assert_registered(bench, tool[0])


def test_the_token_stands_in_no_process_of_the_host(bench):
    with watching(secret=TOKEN, other=URL) as found:
        assert bench.register() is None
    assert found == {TOKEN: False, URL: True}


def test_a_tool_that_is_missing_is_a_warning_with_a_command_that_works_once_it_is_there(bench, tool):
    registration = bench.setup.registration
    failed = bench.register(registration._replace(program=("/opt/bot-bottle/gone",)))
    assert failed is not None
    assert (failed.code, "/opt/bot-bottle/gone" in failed.said) == (127, True)
    assert f"(exit code 127): {failed.said}" in str(failed)
    assert str(failed).endswith(failed.command)
    assert TOKEN not in str(failed)
    with watching(secret=TOKEN, other=URL) as found:
        by_hand = bench.inside("sh", "-c", failed.command)
    assert by_hand.code == 0, by_hand
    assert found == {TOKEN: False, URL: True}
    assert_registered(bench, tool[0])
    assert_reached(bench, tool[0])


def test_a_configuration_that_cant_be_written_is_a_warning_and_the_agent_runs(bench):
    config = bench.setup.registration.config
    bench.inside("sh", "-c", f"rm -f {config}; mkdir -p {config}/x")
    failed = bench.register()
    assert failed is not None
    assert failed.said
    assert failed.command.startswith(bench.setup.registration.called)
    assert bench.runs_on()


def test_what_the_tool_refuses_is_a_warning_with_its_own_words_and_the_agent_runs(bench):
    failed = bench.register(bench.setup.registration._replace(add=("mcp", "add", "--no-such-option")))
    assert failed is not None
    assert failed.code not in (None, 0)
    assert "no-such-option" in failed.said or "mcp add" in failed.said
    assert bench.runs_on()
