"""The scripted model, asked over HTTP."""

import http.client
import json
import os
import socket
import subprocess
import sys

import pytest

from bot_bottle.errors import UsageError
from bot_bottle.testing import model
from bot_bottle.testing.model import serving
from bot_bottle.testing.script import parse, reply

TOOLS = [{"name": "Bash"}, {"name": "Read"}]


def script(*turns, **more):
    return parse({"turns": list(turns), **more})


def conversation(*results, prompt="go"):
    """A prompt, and after it one exchange for each result."""
    messages = [{"role": "user", "content": prompt}]
    for number, result in enumerate(results):
        messages += [
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": f"t{number}", "name": "Bash", "input": {}}],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": f"t{number}", "content": result}],
            },
        ]
    return messages


def said(scripts, *results, offered=("Bash", "Read"), **more):
    turn = reply(scripts, conversation(*results, **more), offered).turn
    return turn.text if not turn.calls else [(call.tool, dict(call.input)) for call in turn.calls]


def ask(served, body, *, path="/v1/messages", method="POST", headers=None, chunked=False):
    connection = http.client.HTTPConnection(served.host, served.port, timeout=10)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    parts = iter([data[:5], data[5:]]) if chunked else data
    connection.request(method, path, parts, headers or {}, encode_chunked=chunked)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def test_turns_follow_each_other_with_the_results_in_them():
    scripts = script(
        {"tool": "Bash", "input": {"command": "ls", "n": [1, "{{last_result}}"]}},
        {"text": "saw {{last_result}}"},
    )
    assert said(scripts) == [("Bash", {"command": "ls", "n": [1, ""]})]
    assert said(scripts, "a file") == "saw a file"
    assert said(scripts, "a", "b") == "The script has ended."


def test_a_turn_is_repeated_until_its_result_matches_and_not_for_ever():
    scripts = script(
        {"label": "try", "tool": "Bash", "repeat_until": "ok", "max_repeat": 3}, {"text": "done"}
    )
    assert said(scripts, "no", "no") == [("Bash", {})]
    assert said(scripts, "no", "ok") == "done"
    assert said(scripts, "no", "no", "no") == "done"


def test_a_branch_goes_on_elsewhere():
    turns = [
        {"tool": "Bash", "branch": [{"when": "bad", "goto": "end"}]},
        {"text": "good"},
        {"label": "end", "text": "bad"},
    ]
    assert said(script(*turns), "bad") == "bad"
    assert said(script(*turns), "fine") == "good"


def test_the_script_is_chosen_by_the_latest_prompt():
    scripts = parse(
        {"scripts": [{"match": "^fix", "turns": [{"text": "fixing"}]}], "turns": [{"text": "else"}]}
    )
    assert said(scripts, prompt="fix it") == "fixing"
    assert said(scripts, prompt="now fix it") == "else"
    again = [*conversation("x"), {"role": "assistant", "content": "hm"}, {"role": "user", "content": "fix"}]
    assert reply(scripts, again, ()).turn.text == "fixing"


def test_a_background_report_is_no_new_prompt():
    messages = [
        *conversation("started"),
        {"role": "assistant", "content": "waiting"},
        {"role": "user", "content": "<task-notification>done</task-notification>"},
    ]
    scripts = script({"tool": "Bash"}, {"text": "second"}, {"text": "third"})
    assert reply(scripts, messages, ()).turn.text == "third"


@pytest.mark.parametrize(
    ("name", "offered", "sent"),
    [
        ("Bash", ("bash",), "bash"),
        ("mcp__supervise__policy", ("supervise_policy",), "supervise_policy"),
        ("mcp__supervise__policy", ("Bash",), "mcp__supervise__policy"),
        ("mcp__supervise__policy", ("x", "mcp_supervise_policy"), "mcp_supervise_policy"),
        ("mcp__supervise__git-block", ("mcp__supervise__git_block",), "mcp__supervise__git_block"),
        ("Read", ("Bash", "Read"), "Read"),
    ],
)
def test_a_tool_is_called_as_the_agent_spells_it(name, offered, sent):
    assert said(script({"tool": name}), offered=offered) == [(sent, {})]


@pytest.mark.parametrize(
    "wrong",
    [
        *([], {}, {"turns": 3}, {"turns": [3]}, {"turns": [{"txt": "x"}]}, {"scripts": [{"turns": []}]}),
        {"turns": [{"tool": "Bash", "branch": [{"when": "x", "goto": "nowhere"}]}]},
        {"turns": [{"tool": "Bash", "repeat_until": "("}]},
        {"turns": [{"tool": "Bash", "tools": [{}]}]},
        {"turns": [{"text": "x", "delay": "soon"}]},
    ],
)
def test_a_wrong_script_is_one_error_at_the_start(wrong):
    with pytest.raises(UsageError):
        parse(wrong)


def events(content):
    return [
        json.loads(line.removeprefix("data: "))
        for line in content.decode().splitlines()
        if line.startswith("data: ")
    ]


def test_a_stream_puts_together_what_the_document_says():
    scripts = script({"text": "hm", "tools": [{"tool": "Bash", "input": {"command": "ü"}}, {"tool": "Read"}]})
    request = {"model": "m", "messages": conversation(), "tools": TOOLS}
    with serving(scripts) as served:
        _, whole = ask(served, request)
        status, stream = ask(served, {**request, "stream": True})
    assert status == 200
    told = events(stream)
    assert [one["type"] for one in told[:2]] == ["message_start", "content_block_start"]
    assert [one["type"] for one in told[-2:]] == ["message_delta", "message_stop"]
    deltas = [one["delta"] for one in told if one["type"] == "content_block_delta"]
    assert deltas[0]["text"] == "hm"
    assert json.loads(deltas[1]["partial_json"]) == {"command": "ü"}
    document = json.loads(whole)
    assert [block["type"] for block in document["content"]] == ["text", "tool_use", "tool_use"]
    assert document["stop_reason"] == told[-2]["delta"]["stop_reason"] == "tool_use"


def test_a_side_question_moves_nothing_and_a_chunked_body_is_read():
    with serving(script({"text": "first"})) as served:
        _, side = ask(served, {"model": "m", "messages": conversation()})
        _, main = ask(served, {"model": "m", "messages": conversation(), "tools": TOOLS}, chunked=True)
    assert json.loads(side)["content"][0]["text"] == "ok"
    assert json.loads(main)["content"][0]["text"] == "first"


def test_the_other_places_answer_as_agents_expect():
    with serving(script({"text": "x"})) as served:
        asked = [
            ask(served, b"", path=path, method=method)[0]
            for method, path in (
                ("HEAD", "/"),
                ("GET", "/v1/models"),
                ("GET", "/api/hello"),
                ("GET", "/nowhere"),
                ("POST", "/x"),
            )
        ]
        count = ask(served, {"messages": []}, path="/v1/messages/count_tokens")[0]
        absolute = ask(served, b"", path="http://model.example.org/v1/models?x=1", method="GET")[0]
    assert asked == [200, 200, 200, 404, 404]
    assert (count, absolute) == (200, 200)


def test_a_scripted_error_is_answered_as_one():
    with serving(script({"text": "x", "http_status": 529})) as served:
        assert ask(served, {"messages": conversation(), "tools": TOOLS})[0] == 529


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'"x"',
        b"\xff",
        {"messages": 3, "tools": TOOLS},
        {"messages": [3], "tools": TOOLS},
        {"tools": 3},
    ],
)
def test_a_body_that_is_no_conversation_is_refused_and_the_server_goes_on(body):
    with serving(script({"text": "x"})) as served:
        assert ask(served, body)[0] == 400
        assert ask(served, b"", path="/healthz", method="GET")[0] == 200


def test_a_body_that_is_too_large_is_refused_unread(monkeypatch):
    monkeypatch.setattr(model, "MOST_BODY", 10)
    with serving(script({"text": "x"})) as served:
        with socket.create_connection((served.host, served.port), timeout=10) as client:
            client.sendall(b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 413")
        with socket.create_connection((served.host, served.port), timeout=10) as client:
            client.sendall(
                b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\n"
            )
            assert client.recv(100).startswith(b"HTTP/1.1 413")


def test_one_connection_too_many_is_closed_and_the_others_are_served(monkeypatch):
    monkeypatch.setattr(model, "MOST_CONNECTIONS", 1)
    with serving(script({"text": "x"})) as served:
        first = http.client.HTTPConnection(served.host, served.port, timeout=10)
        first.request("GET", "/healthz")
        first.getresponse().read()
        with socket.create_connection((served.host, served.port), timeout=10) as second:
            assert second.recv(1) == b""
        first.request("GET", "/healthz")
        assert first.getresponse().status == 200
        first.close()


def test_the_log_has_a_line_for_each_request_and_no_credential(tmp_path):
    log = tmp_path / "log"
    headers = {"x-api-key": "sk-secret-1", "Authorization": "Bearer sk-secret-2", "Cookie": "sk-secret-3"}
    with serving(script({"tool": "Bash"}), log=log) as served:
        ask(served, {"model": "m", "messages": conversation("r" * 9999), "tools": TOOLS}, headers=headers)
        ask(served, b"", path="/v1/models?key=sk-secret-4", method="GET", headers=headers)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert "sk-secret" not in log.read_text()
    assert [(one["method"], one["path"]) for one in lines] == [
        ("POST", "/v1/messages"),
        ("GET", "/v1/models"),
    ]
    assert lines[0]["turn"] == "end"
    assert len(lines[0]["last_result"]) == 500


def program(*arguments, **options):
    argv = [sys.executable, "-m", "bot_bottle.testing.model", *map(str, arguments)]
    env = {"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def test_as_a_program_it_names_its_address_and_stops_with_its_input(tmp_path):
    (tmp_path / "s.json").write_text(json.dumps({"turns": [{"text": "hello"}]}))
    with program("--script", tmp_path / "s.json", "--until-eof", stdin=subprocess.PIPE) as child:
        line = child.stdout.readline().strip()
        assert line.startswith("listening on http://127.0.0.1:")
        port = int(line.rpartition(":")[2])
        served = model.Serving("127.0.0.1", port)
        assert ask(served, {"messages": conversation(), "tools": TOOLS})[0] == 200
        child.stdin.close()
        assert child.wait(10) == 0


def test_as_a_program_it_says_what_is_wrong(tmp_path):
    (tmp_path / "s.json").write_text("{}")
    for arguments in (("--script", tmp_path / "none.json"), ("--script", tmp_path / "s.json")):
        with program(*arguments) as child:
            assert child.wait(10) == 1
            assert "Traceback" not in child.stderr.read()


POLICY = script({"tool": "mcp__supervise__policy", "input": {"a": 1}}, {"text": "{{last_result}} again"})
OPENAI = {
    "model": "m",
    "tools": [
        {"type": "function", "name": "exec_command"},
        {"type": "namespace", "name": "mcp__supervise", "tools": [{"type": "function", "name": "policy"}]},
    ],
}
ASKED = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "go"}]}


def test_openais_responses_call_a_tool_by_its_namespace_and_see_what_came_back():
    with serving(POLICY) as served:
        _, first = ask(served, {**OPENAI, "input": [ASKED]}, path="/v1/responses")
        (call,) = json.loads(first)["output"]
        came = {"type": "function_call_output", "call_id": call["call_id"], "output": "RESULT"}
        said = {**OPENAI, "input": [ASKED, call, came], "stream": True}
        _, stream = ask(served, said, path="/v1/responses")
    assert (call["type"], call["namespace"], call["name"]) == ("function_call", "mcp__supervise", "policy")
    assert json.loads(call["arguments"]) == {"a": 1}
    told = events(stream)
    assert [one["type"] for one in told][:1] + [one["type"] for one in told][-1:] == [
        "response.created",
        "response.completed",
    ]
    assert told[-1]["response"]["output"][0]["content"][0]["text"] == "RESULT again"


def test_openais_tools_that_stand_in_the_input_are_known_and_take_plain_text():
    told = {"type": "additional_tools", "tools": [{"type": "custom", "name": "exec"}]}
    with serving(script({"tool": "exec", "input": {"input": "text(1)"}})) as served:
        _, answer = ask(served, {"model": "m", "input": [told, ASKED]}, path="/v1/responses")
    (call,) = json.loads(answer)["output"]
    assert (call["type"], call["name"], call["input"]) == ("custom_tool_call", "exec", "text(1)")


def test_googles_generate_content_calls_a_tool_and_sees_what_came_back():
    tools = [{"functionDeclarations": [{"name": "mcp_supervise_policy"}]}]
    go = {"role": "user", "parts": [{"text": "go"}]}
    path = "/v1beta/models/gemini-3:generateContent"
    with serving(POLICY) as served:
        _, first = ask(served, {"contents": [go], "tools": tools}, path=path)
        (call,) = json.loads(first)["candidates"][0]["content"]["parts"]
        came = {"functionResponse": {"name": "mcp_supervise_policy", "response": {"output": "RESULT"}}}
        contents = [go, {"role": "model", "parts": [call]}, {"role": "user", "parts": [came]}]
        streamed = path.replace("generateContent", "streamGenerateContent") + "?alt=sse"
        _, stream = ask(served, {"contents": contents, "tools": tools}, path=streamed)
    assert call == {"functionCall": {"name": "mcp_supervise_policy", "args": {"a": 1}}}
    (event,) = events(stream)
    assert event["candidates"][0]["content"]["parts"] == [{"text": "RESULT again"}]


def test_googles_side_questions_are_answered_in_the_shape_that_they_want():
    shape = {
        "type": "OBJECT",
        "properties": {"n": {"type": "INTEGER"}, "why": {"type": "STRING"}},
        "required": ["n", "why"],
    }
    asked = {"contents": [], "generationConfig": {"responseJsonSchema": shape}}
    with serving(POLICY) as served:
        _, answer = ask(served, asked, path="/v1beta/models/gemini-3:generateContent")
    (part,) = json.loads(answer)["candidates"][0]["content"]["parts"]
    assert json.loads(part["text"]) == {"n": 1, "why": "ok"}
