"""The demo's page and verdict, with a stand-in for the product."""

import argparse
import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from threading import Event

import pytest

from bot_bottle.cli.commands import demo as command
from bot_bottle.cli.console import Console
from bot_bottle.errors import HostError
from bot_bottle.operate import demo as operating
from bot_bottle.operate.demo import CommandLine, demo
from bot_bottle.operate.demo_record import Asked, Phase, Refusal, Started, phases, refusals
from bot_bottle.operate.demo_setup import Stage, lay_out, made_up_token
from bot_bottle.operate.transcript import read_transcript
from bot_bottle.policy.secrets.scanner import Scanner

DIFF = """--- a/timesheet/duration.py
+++ b/timesheet/duration.py
@@ -24 +24 @@
-    return (minutes // QUARTER + 1) * QUARTER
+    return -(-minutes // QUARTER) * QUARTER
"""
FETCHED = """--- /dev/null
+++ b/timesheet/holidays.json
@@ -0,0 +1 @@
+{}
"""
ASKED = {
    "id": "p-2345", "title": "GET \x1bcalendar.example.org", "added": ["- {host: calendar.example.org, paths: [\"/2026.json\"]}"],
    "words": "The task says so.", "digest": "d" * 64,
}  # fmt: skip
DECIDED = [
    {"kind": f"proposal.{what}", "at": at, "data": {"proposal": "p-2345"}}
    for what, at in (("made", 10.5), ("approved", 11.0), ("applied", 11.02))
]

REFUSED = {
    "kind": "egress.refused",
    "at": 12.0,
    "data": {"via": "proxy", "host": "exfil.example.org", "port": 443, "reason": "no route names this host"},
}
PUSHED = {
    "kind": "git.pushed",
    "at": 13.5,
    "data": {"remote": "origin", "refs": "refs/heads/bot/fix 000000000000..0123456789ab"},
}
HELD_BACK = {
    "kind": "git.refused",
    "at": 13.6,
    "data": {"remote": "origin", "ref": "refs/heads/bot/settings", "rule": "github-pat", "path": ".env", "line": 2,
             "why": "a secret (github-pat) in the file"},
}  # fmt: skip
STOPPED = {
    "kind": "egress.refused",
    "at": 13.0,
    "data": {"via": "connect", "host": "model.example.org", "port": 443, "reason": "secret_found",
             "detector": "github", "place": "body", "encoding": "base64", "fingerprint": "0f3c"},
}  # fmt: skip


def line(kind, *blocks):
    return json.dumps({"type": kind, "message": {"content": list(blocks)}})


def call(number, command, result, *, error=False, tool="Bash"):
    return "\n".join(
        (
            line(
                "assistant", {"type": "tool_use", "id": number, "name": tool, "input": {"command": command}}
            ),
            line(
                "user", {"type": "tool_result", "tool_use_id": number, "content": result, "is_error": error}
            ),
        )
    )


OUTPUT = "\n".join(
    (
        call("1", "python3 -m unittest", "Ran 7 tests\nFAILED (failures=1)", error=True),
        call("2", "curl https://exfil.example.org/", "\x1b[2Jcurl: (56) refused [bold]", error=True),
        call("3", "printenv ANTHROPIC_API_KEY", "sk-ant-api03-placeholder-model-12ab"),
        json.dumps({"type": "result", "result": "done"}),
    )
).encode()


class Somebody:
    """A person who opens the inbox, or does not."""

    def __init__(self, *, decides=False):
        self._decides = decides

    def report(self, text):
        pass

    def decides(self, asked):
        assert asked.title == "GET calendar.example.org"
        return self._decides


class Stand:
    """A product whose agent printed `output`; the tests then end with `tests`."""

    output, diff_text, tests, told = (
        OUTPUT,
        DIFF + FETCHED,
        0,
        [REFUSED, STOPPED, PUSHED, HELD_BACK, *DECIDED],
    )
    asks = (ASKED,)

    def __init__(self, stage, environment):
        self.applied = []
        self.decided = []
        self.answered = Event()

    @contextmanager
    def watch(self):
        reader, writer = os.pipe()
        with open(reader, "rb") as heard, open(writer, "wb") as line:
            for each in self.asks:
                line.write(json.dumps(each).encode() + b"\n")
            line.flush()
            if not self.asks:
                self.answered.set()
            yield heard

    def inbox(self):
        self.decided.append("inbox")

    def approve(self, asked, digest):
        self.decided.append(f"approve {asked.id} {digest[:2]}")
        self.answered.set()

    def reject(self, asked, reason):
        self.decided.append(f"reject {asked.id}")
        self.answered.set()

    def start(self, agent, prompt):
        if agent == "checker":
            assert self.applied == ["fixer-2345"]
            return Started("checker-2345", self.tests, b"x\nFAILED" if self.tests else b"OK", {}, 0.5)
        assert "python3 -m unittest" in prompt
        assert self.answered.wait(20)
        return Started("fixer-2345", 0, self.output, {"sandbox": 0.1, "end": 0.4}, 5.0)

    def events(self, run):
        began, ended = (
            {"kind": f"run.{what}", "at": at, "data": {}} for what, at in (("started", 10.0), ("ended", 14.5))
        )
        return [began, *self.told, ended]

    def diff(self, run):
        return self.diff_text

    def apply(self, run):
        self.applied.append(run)


@pytest.fixture
def product(monkeypatch):
    monkeypatch.setattr(operating, "_installed", lambda report: None)
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.setattr(command, "_COUNTED", 0)

    def use(**parts):
        made = type("Product", (Stand,), parts)
        monkeypatch.setattr(
            operating.demo, "__kwdefaults__", {**operating.demo.__kwdefaults__, "product": made}
        )

    use()
    return use


def shown(capsys, *, as_json=False):
    code = command.run(argparse.Namespace(keep=False), Console(as_json=as_json, quiet=True))
    return code, capsys.readouterr().out


def test_the_page_tells_what_was_done_and_refused_in_eighty_columns(product, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, page = shown(capsys)
    assert code == 0
    for expected in (
        *("What the agent did", "python3 -m unittest", "FAILED (failures=1)", "What it was refused"),
        *(
            "What it asked for",
            "the demo",
            "in force after 20 ms",
            "the demo approved, and the same request went through.",
            "exfil.example.org:443",
            "no route names this host",
            "Time",
            "agent",
            "4.100",
            "+    return -(-minutes",
        ),
        *("the tests pass in a second bottle.", "3 things were refused, as listed above.", "[bold]"),
        *("sk-ant-api03-placeholder-model-12ab", "secret found: github, body, base64", "found, and not sent"),
        *(
            "git gate",
            "bot/settings .env:2",
            "to the branch bot/fix of its",
            "with a secret in it was refused",
        ),
    ):
        assert expected in page
    assert max(len(line) for line in page.splitlines()) <= 80
    assert "\x1b" not in page


def test_as_json_everything_is_there(product, capsys):
    code, text = shown(capsys, as_json=True)
    document = json.loads(text)
    assert code == 0
    assert document["fixed"] is document["held"] is True
    assert document["refusals"] == [
        {"via": "proxy", "target": "exfil.example.org:443", "reason": "no route names this host"},
        {"via": "connect", "target": "model.example.org:443", "reason": "secret_found: github, body, base64"},
        {
            "via": "git gate",
            "target": "bot/settings .env:2",
            "reason": "github-pat: a secret (github-pat) in the file",
        },
    ]
    assert document["pushed"] == ["bot/fix"]
    assert (document["placeholder"], document["key_seen"]) == ("sk-ant-api03-placeholder-model-12ab", False)
    assert document["phases"] == {"sandbox": 0.1, "agent": 4.1, "end": 0.4, "in all": 5.0}
    assert document["asked"] == [
        {"id": "p-2345", "title": "GET calendar.example.org", "added": ASKED["added"], "words": "The task says so.",
         "by": "the demo", "state": "applied", "seconds": pytest.approx(0.02)},
    ]  # fmt: skip
    assert [one["ok"] for one in document["actions"]] == [False, False, True]


@pytest.mark.parametrize(
    "parts",
    [{"tests": 1}, {"told": DECIDED}, {"told": [REFUSED, *DECIDED]}, {"diff_text": " \n"},
     {"diff_text": DIFF}, {"told": [REFUSED, STOPPED, PUSHED, HELD_BACK]}, {"told": [REFUSED, STOPPED, PUSHED, *DECIDED]},
     {"told": [REFUSED, STOPPED, HELD_BACK, *DECIDED]}, {"asks": ()}],
)  # fmt: skip
def test_it_fails_when_the_bug_stayed_or_not_everything_was_refused(product, capsys, parts):
    product(**parts)
    assert shown(capsys)[0] == 1


def test_it_fails_when_the_agent_shows_the_key_that_is_put_in_outside(product, capsys):
    def start(self, agent, prompt):
        ours = Stand.start(self, agent, prompt)
        return ours._replace(output=ours.output + self.key.encode()) if agent == "fixer" else ours

    product(__init__=lambda self, _, environment: Stand.__init__(self, _, environment) or setattr(
        self, "key", environment["ANTHROPIC_API_KEY"]), start=start)  # fmt: skip
    code, page = shown(capsys)
    assert code == 1
    assert "The agent showed the model's key." in page


@pytest.mark.parametrize(("decided", "by", "state"), [("you", "you", "applied"), ("", "nobody", "rejected")])
def test_a_person_decides_in_the_inbox_and_leaving_it_is_no_yes(product, monkeypatch, decided, by, state):
    made = []

    def reject(self, asked, reason):
        Stand.reject(self, asked, reason)
        if decided:
            raise HostError("it is decided")

    told = [REFUSED, STOPPED, PUSHED, HELD_BACK, *DECIDED]
    if not decided:
        told[-1] = {"kind": "proposal.rejected", "at": 12.0, "data": {"proposal": "p-2345"}}
    product(
        __init__=lambda self, *given: made.append(self) or Stand.__init__(self, *given),
        reject=reject, told=told, diff_text=DIFF + (FETCHED if decided else ""),
    )  # fmt: skip
    shown = demo(keep=False, person=Somebody(decides=True))
    assert made[0].decided == ["inbox", "reject p-2345"]
    assert [(one.by, one.state) for one in shown.asked] == [(by, state)]
    assert shown.held


class Spinner:
    """What rich's is to the demo: it draws while it runs."""

    running = True

    def start(self):
        self.running = True

    def stop(self):
        self.running = False

    def update(self, text):
        pass


def test_nothing_is_drawn_over_the_inbox(monkeypatch):
    monkeypatch.setattr(command, "_COUNTED", 0)
    spinner = Spinner()
    person = command.Person(Console(as_json=False, quiet=True), spinner)
    assert person.decides(Asked("p-2345", "reach it", (), "")) is False
    assert not spinner.running
    person.report("The agent goes on")
    assert spinner.running


@pytest.mark.parametrize(
    ("tool", "result", "said"),
    [
        ("mcp__supervise__pipelock-block", '{"status":"rejected","message":"REFUSED"}', "rejected"),
        ("mcp__supervise__pipelock-block", "Status: applied\nAPPROVED", "applied"),
        ("Bash", "Status: applied", "ok"),
    ],
)
def test_an_ask_is_shown_with_its_answer_and_not_as_a_call_that_went_well(
    product, capsys, tool, result, said
):
    product(output=call("1", "do it", result, tool=tool).encode())
    assert re.search(rf"^ {tool.rpartition('__')[2]} .* {said}$", shown(capsys)[1], re.M)


def test_of_a_refusal_by_the_door_the_reason_is_told():
    assert (
        command._telling('x\n{"error": "refused", "what": {}, "reason": "path_not_allowed", "a": 1}')
        == "refused: path not allowed"
    )
    assert command._telling('{"error": "refused"}') == '{"error": "refused"}'


def test_an_agent_that_did_nothing_is_an_error_not_a_page(product):
    product(output=b"API Error")
    with pytest.raises(HostError, match="did nothing"):
        demo(keep=False, person=Somebody())


def test_nothing_stays_behind_unless_it_is_kept(product, tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(operating.tempfile, "tempdir", str(temporary))
    demo(keep=False, person=Somebody())
    assert list(temporary.iterdir()) == []
    product(start=lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        demo(keep=False, person=Somebody())
    assert list(temporary.iterdir()) == []
    product()
    kept = demo(keep=True, person=Somebody()).kept
    assert [str(path) for path in temporary.iterdir()] == [kept]


def test_with_a_key_the_route_goes_to_the_api_and_the_key_is_in_no_file(product, tmp_path, monkeypatch):
    monkeypatch.setattr(operating.tempfile, "tempdir", str(tmp_path))
    given = []
    product(
        __init__=lambda self, stage, environment: (
            given.append(environment) or Stand.__init__(self, stage, environment)
        )
    )
    shown = demo(keep=True, person=Somebody(), api_key="sk-ant-real")
    files = {path.name: path.read_text() for path in (tmp_path).rglob("*.md")}
    assert "sk-ant-real" not in "".join(files.values())
    assert given[0]["ANTHROPIC_API_KEY"] == "sk-ant-real"
    assert "{host: api.anthropic.com, credential: model}" in files["demo.md"]
    assert "from: {env: ANTHROPIC_API_KEY}, header: x-api-key" in files["demo.md"]
    assert shown.model == "api.anthropic.com"


def test_the_repository_is_real_and_one_test_of_it_fails(tmp_path):
    stage = lay_out(tmp_path, pages="127.0.0.1:8080", authority=tmp_path / "authority.pem", real=False)
    status = subprocess.run(
        ["git", "status", "--short"], cwd=stage.repository, capture_output=True, check=True
    )
    assert status.stdout == b""
    argv = [sys.executable, "-B", "-m", "unittest"]
    done = subprocess.run(argv, cwd=stage.repository, capture_output=True, text=True, check=False)
    assert done.stderr.rstrip().endswith("FAILED (failures=1)")
    source = stage.repository / "timesheet/duration.py"
    source.write_text(source.read_text().replace("(minutes // QUARTER + 1)", "-(-minutes // QUARTER)"))
    assert subprocess.run(argv, cwd=stage.repository, capture_output=True, check=False).returncode == 0


def test_the_planted_secret_is_one_that_is_found_and_git_ignores_it(tmp_path):
    stage = lay_out(tmp_path, pages="127.0.0.1:8080", authority=tmp_path / "authority.pem", real=False)
    planted = (stage.repository / ".env").read_bytes()
    assert [match.detector for match in Scanner([]).scan(planted)] == ["github"]
    assert made_up_token() != made_up_token()


@pytest.mark.parametrize("real", [False, True])
def test_the_demos_files_are_a_manifest_that_the_product_takes(tmp_path, real):
    loading = pytest.importorskip("bot_bottle.manifest.load")
    authority = tmp_path / "authority.pem"
    stage = lay_out(tmp_path, pages="127.0.0.1:8080", authority=authority, real=real)
    root = stage.home / ".bot-bottle"
    fixer = loading.load("fixer", root=root, repository=stage.repository)
    route, calendar = fixer["bottle"]["egress"]["routes"]
    assert (calendar["host"], calendar["paths"]) == ("calendar.example.org", ["/about"])
    assert fixer["bottle"]["supervise"] is True
    assert (route["protocol"], route["port"], route["credential"]) == ("https", 443, "model")
    assert (route["upstream"] is None) == real
    assert fixer["bottle"]["egress"]["upstream"]["ca"] == str(authority)
    assert fixer["bottle"]["egress"]["secrets"]["on_match"] == "block"
    assert fixer["agent"]["base_url"] == f"https://{route['host']}"
    checker = loading.load("checker", root=root, repository=stage.repository)
    assert checker["bottle"]["egress"]["routes"] == []


FAKE = """
import json, sys
open(sys.argv[1] + "/calls", "a").write(json.dumps([sys.stdin.read(), *sys.argv[2:]]) + "\\n")
name, said = sys.argv[2], {
    "start": {"id": "fixer-2345", "exit_code": 3, "phases": {"end": 0.5}},
    "events": {"kind": "run.started", "at": 1.0, "data": {}},
}
words = json.dumps(said[name]) if name in said else "printed by " + name
print("refused" if sys.argv[3] == "none" else words)
sys.exit(3 if name == "start" else 4 if name == "apply" else 0)
"""


def test_the_command_line_is_called_as_a_person_calls_it(tmp_path, monkeypatch):
    stage = Stage(tmp_path)
    stage.repository.mkdir()
    monkeypatch.setattr(operating, "_PROGRAM", (sys.executable, "-c", FAKE, str(tmp_path)))
    product = CommandLine(stage, {"PATH": "/usr/bin:/bin"})
    started = product.start("fixer", "do it")
    assert (started.run, started.code, started.output) == ("fixer-2345", 3, b"printed by logs\n")
    assert started.phases == {"end": 0.5}
    assert product.events("fixer-2345")[0]["kind"] == "run.started"
    assert product.diff("fixer-2345") == "printed by diff\n"
    with pytest.raises(HostError, match="could not be applied"):
        product.apply("fixer-2345")
    with pytest.raises(HostError, match="Agent none could not be started\nrefused"):
        product.start("none", "")
    calls = [json.loads(one) for one in (tmp_path / "calls").read_text().splitlines()]
    run = "fixer-2345"
    assert calls == [
        ["do it", "start", "fixer", "--headless", "--prompt", "-", "--json"],
        *(["", "logs", run], ["", "events", run, "--json"], ["", "diff", run], ["", "apply", run]),
        ["", "start", "none", "--headless", "--json"],
    ]


def test_a_refusal_is_shown_once_and_cleaned():
    dirty = {
        "kind": "dns.refused",
        "at": 1.0,
        "data": {"host": "a\x1b[31m.example.org", "reason": "no\x07 route"},
    }
    assert refusals([dirty, dirty, REFUSED, {"kind": "egress.allowed", "data": {"host": "b"}}]) == (
        Refusal("dns", "a[31m.example.org", "no route"),
        Refusal("proxy", "exfil.example.org:443", "no route names this host"),
    )


def test_phases_without_events_are_the_whole_run():
    assert phases(Started("r", 0, b"", {}, 2.0), []) == (Phase("in all", 2.0),)


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"\xff\x00",
        b"[]\n3\nnull",
        b'{"type": "assistant"}',
        b'{"type":"assistant","message":{"content":[3,{"type":"tool_use"}]}}',
    ],
)
def test_output_of_any_kind_makes_a_transcript(output):
    assert all(action.ok is None for action in read_transcript(output).actions)
    assert read_transcript(output + b"\n" + OUTPUT).last_word == "done"


def test_a_transcript_is_bounded_and_only_the_agent_acts_in_it():
    lines = [call(str(number), "x" * 9000, "y" * 9000) for number in range(600)]
    forged = line("user", {"type": "tool_use", "id": "f", "name": "Bash", "input": {"command": "forged"}})
    read = read_transcript("\n".join([forged, *lines]).encode())
    assert (len(read.actions), read.more) == (500, 100)
    assert {(len(one.what), len(one.result)) for one in read.actions} == {(2000, 2000)}
