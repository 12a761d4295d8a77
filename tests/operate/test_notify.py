"""An operator who is elsewhere is told what waits, in our words, and nobody else is; an inbox that is open says so."""

import http.server
import os
import signal
import stat
import threading

import pytest

from bot_bottle.errors import HostError, ManifestError
from bot_bottle.host import operator, presence
from bot_bottle.operate import notify
from bot_bottle.operate.presence import present
from support.waiting import wait_for


class Hook:
    """A webhook that answers as it is told, and what was posted to it."""

    def __init__(self) -> None:
        posted = self.posted = []
        self.codes = [200]
        codes = self.codes

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                posted.append((self.path, dict(self.headers), body))
                self.send_response(codes.pop(0) if len(codes) > 1 else codes[0])
                self.send_header("location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_) -> None:
                """Nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/bottles"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def hook():
    made = Hook()
    yield made
    made.close()


@pytest.fixture
def write(own_home):
    def write(text: str) -> None:
        folder = own_home / ".bot-bottle"
        folder.mkdir(exist_ok=True)
        (folder / "operator.yaml").write_text(text)

    return write


def test_a_webhook_gets_what_would_change_and_not_a_word_of_the_agent(kept, hook, write, monkeypatch):
    monkeypatch.setenv("NTFY_TOKEN", "tk_secret")
    write(f'webhook: {{url: "{hook.url}", token: {{env: NTFY_TOKEN}}}}\n')
    ids = [
        kept.ask(hosts=["docs.example.org"], reason="CLICK HERE http://evil.example")[0]["proposal"],
        kept.ask(hosts=["webhook.site"], reason="please")[0]["proposal"],
        kept.ask("capability-block", packages=["CLICK-HERE"], change="CLICK")[0]["proposal"],
    ]
    assert notify.notify(ids) == []
    [(path, headers, body)] = hook.posted
    assert (path, headers["Authorization"]) == ("/bottles", "Bearer tk_secret")
    assert (headers["Title"], headers["Priority"]) == ("bot-bottle: 3 proposals wait", "high")
    text = body.decode()
    assert "fixer-ab12: {host: docs.example.org}" in text
    assert "known way out: webhook.site" in text
    assert "CLICK" not in text
    assert "evil" not in text


def test_what_was_decided_meanwhile_is_not_told(kept, hook, write):
    write(f'webhook: {{url: "{hook.url}"}}\n')
    [answer] = kept.ask(hosts=["docs.example.org"])
    with kept.desk() as desk:
        desk.reject([answer["proposal"]])
    assert notify.notify([answer["proposal"]]) == []
    assert hook.posted == []


@pytest.mark.parametrize(
    ("codes", "times", "fails"),
    [([503, 502, 200], 3, False), ([500], 3, True), ([404], 1, True), ([302], 1, True)],
)
def test_a_webhook_that_fails_is_tried_again_and_a_redirect_is_not_followed(
    hook, codes, times, fails, monkeypatch
):
    monkeypatch.setattr("time.sleep", lambda _: None)
    hook.codes[:] = codes
    said = notify.send(operator.Operator(operator.Webhook(hook.url)), notify.Message("title", "text"))
    assert bool(said) is fails
    assert [path for path, _, _ in hook.posted] == ["/bottles"] * times


def test_a_webhook_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(HostError):
        notify.post(operator.Webhook("http://127.0.0.1:1/x"), notify.Message("title", "text"))


def test_the_desktop_is_told_by_notify_send(tmp_path, monkeypatch):
    program = tmp_path / "notify-send"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/said\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert operator.desktop_program() == ""
    with pytest.raises(HostError):
        notify.show(notify.Message("t", "x"))
    monkeypatch.setenv("DISPLAY", ":9")
    notify.show(notify.Message("--title", "<b>bold</b> & co", urgent=True))
    said = (tmp_path / "said").read_text().splitlines()
    assert said == [
        "--app-name=bot-bottle",
        "--urgency=critical",
        "--",
        "--title",
        "&lt;b>bold&lt;/b> &amp; co",
    ]


def test_a_keeper_tells_by_a_process_of_its_own_and_goes_on(kept, hook, write):
    from bot_bottle.launch.notices import Notices

    write(f'webhook: {{url: "{hook.url}"}}\n')
    timers = []
    notices = Notices(lambda _, act: timers.append(act))
    for host in ("a.example.org", "b.example.com"):
        notices.tell(kept.ask(hosts=[host])[0]["proposal"])
    assert len(timers) == 1
    timers.pop()()
    wait_for(lambda: hook.posted, "the notice")
    assert "a.example.org" in hook.posted[0][2].decode()
    assert "b.example.com" in hook.posted[0][2].decode()
    [pid] = notices._running
    wait_for(lambda: (timers.pop()(), not notices._running)[1], "the process to be collected")
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_without_a_notifier_nothing_is_started(kept):
    from bot_bottle.launch.notices import Notices

    Notices(lambda *_: pytest.fail("something was to be sent")).tell("p1")


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("webhok: {url: x}\n", 1, "did you mean `webhook`"),
        ("desktop: yes please\n", 1, "true or false"),
        ("desktop: true\nwebhook:\n  url: ftp://example.org\n", 3, "http"),
        ("webhook:\n  url: https://me:pw@example.org/\n", 2, "without a login"),
        ("webhook:\n  url: https://example.org/\n  token: tk_plain\n", 3, "never the token itself"),
        ("webhook:\n  url: https://example.org/\n  token: {env: A, file: B}\n", 3, "one of"),
        ("webhook:\n  url: https://example.org/\n  token: {command: ls}\n", 3, "list of words"),
        ("webhook: [1]\n", 1, "map"),
        ("- x\n", 1, "map"),
        ("desktop: true\ndesktop: true\n", 2, ""),
        ("webhook: {url: [}\n", 1, "YAML"),
    ],
)
def test_a_file_that_is_wrong_is_said_by_line_and_counts_as_nobody(write, text, line, what):
    write(text)
    with pytest.raises(ManifestError) as caught:
        operator.read()
    assert f"operator.yaml:{line}: " in caught.value.details
    assert what in caught.value.details
    assert not presence.anybody()


def test_the_file_says_what_it_says(write, own_home):
    assert operator.read() == operator.Operator()
    write("# nothing\n")
    assert operator.read() == operator.Operator()
    write('webhook: {url: "https://ntfy.example.org/x", token: {file: ~/token}}\ndesktop: true\n')
    assert operator.read() == operator.Operator(
        operator.Webhook("https://ntfy.example.org/x", f"file:{own_home}/token"), True
    )
    write('webhook: {url: "https://ntfy.example.org/x", token: {command: [pass, ntfy]}}\n')
    assert operator.read().webhook.token == 'command:["pass", "ntfy"]'
    assert presence.anybody()


def test_an_open_inbox_is_somebody_until_it_ends_however_it_ends():
    assert not presence.anybody()
    with present():
        assert presence.inbox_open()
        with present():
            pass
        assert presence.inbox_open()
    assert not presence.inbox_open()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with present():
            os.write(writing, b".")
            signal.pause()
    assert os.read(reading, 1) == b"."
    assert presence.anybody()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(reading)
    os.close(writing)
    assert not presence.anybody()
    [left] = os.listdir(presence.folder())
    os.utime(os.path.join(presence.folder(), left), (1, 1))
    assert not presence.inbox_open()
    assert os.listdir(presence.folder()) == []


@pytest.mark.parametrize("good", [True, False])
def test_the_schema_takes_what_the_reader_takes(write, good):
    import jsonschema
    import yaml

    texts = (
        [
            'webhook: {url: "https://ntfy.example.org/x", token: {env: A}}\ndesktop: true\n',
            "desktop: false\n",
            "{}\n",
        ]
        if good
        else [
            "desktop: 1\n",
            "webhok: {}\n",
            "webhook: {url: ftp://x}\n",
            "webhook: {url: https://a@b/, token: {}}\n",
        ]
    )
    for text in texts:
        write(text)
        assert (operator.problems() == ()) is good
        wrong = list(jsonschema.Draft202012Validator(operator.SCHEMA).iter_errors(yaml.safe_load(text)))
        assert (wrong == []) is good


def test_a_notice_that_failed_is_in_the_record(kept, write, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    write('webhook: {url: "http://127.0.0.1:1/x"}\n')
    [answer] = kept.ask(hosts=["docs.example.org"])
    assert len(notify.notify([answer["proposal"]])) == 1
    last = kept.store.events()[-1]
    assert (last.kind, last.data["proposals"]) == ("notice.failed", [answer["proposal"]])
