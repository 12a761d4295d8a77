"""Renewing a login: once, whoever asks; written back whole, whoever is killed; and nothing said of a token."""

import json
import os
import stat
import threading
import time

import pytest

from bot_bottle.errors import HostError
from bot_bottle.host import oauth, oauth_http, renewing
from bot_bottle.host.oauth import Login, LoginLost, Token
from bot_bottle.secret import Secret
from support.logins import claude_login, connect_proxy, token_server, tokens_in
from support.tls import make_certificate


@pytest.fixture
def tokens():
    with token_server() as server:
        yield server


@pytest.fixture
def file(tmp_path):
    folder = tmp_path / ".claude"
    folder.mkdir()
    file = folder / ".credentials.json"
    file.write_text(claude_login())
    file.chmod(0o600)
    return file


@pytest.fixture
def login(file, tokens):
    return Login(str(file), tokens.url, "client-1")


def left(file):
    """What is in the login's folder besides it and our lock."""
    return {one.name for one in file.parent.iterdir()} - {file.name, f"{file.name}.bot-bottle.lock"}


def test_a_login_is_renewed_and_written_back_with_everything_else_in_its_file(login, file, tokens):
    before = time.time()
    token = renewing.renew_apart(login, held=None)
    assert token.access == Secret("access-1")
    assert before + 28790 < token.expires < time.time() + 28810
    written = json.loads(file.read_text())
    assert tokens_in(file) == ("access-1", "refresh-1")
    assert written["claudeAiOauth"]["expiresAt"] == int(token.expires * 1000)
    assert written["claudeAiOauth"]["subscriptionType"] == "max"
    assert written["mcpOAuth"] == {"other": {"accessToken": "kept"}}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert left(file) == set()
    asked = {"grant_type": "refresh_token", "refresh_token": "refresh-0", "client_id": "client-1"}
    assert [json.loads(body) for body in tokens.bodies] == [asked]


def test_another_kind_of_login_is_asked_for_as_the_standard_says(tmp_path, tokens):
    file = tmp_path / "login.json"
    file.write_text(json.dumps({"access_token": "access-0", "refresh_token": "refresh-0", "expires_at": 1}))
    token = renewing.renew_apart(Login(str(file), tokens.url, "bot"), held=None)
    assert token.access == Secret("access-1")
    assert tokens.bodies == ["grant_type=refresh_token&refresh_token=refresh-0&client_id=bot"]
    written = json.loads(file.read_text())
    assert (written["access_token"], written["refresh_token"]) == ("access-1", "refresh-1")
    assert written["expires_at"] == int(token.expires)


def test_of_many_that_renew_at_once_one_does_and_the_others_take_what_it_got(login, file, tokens):
    gate = threading.Barrier(6)
    results = []

    def one():
        gate.wait()
        results.append(renewing.renew_apart(login, held=Secret("access-0")))

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tokens.seen == ["refresh-0"]
    assert {token.access for token in results} == {Secret("access-1")}
    assert tokens_in(file) == ("access-1", "refresh-1")


def test_what_claude_code_itself_renewed_is_taken_and_not_renewed_again(login, file, tokens):
    file.write_text(claude_login("access-9", "refresh-9", lasts=3600))
    assert renewing.renew_apart(login, held=Secret("access-0")).access == Secret("access-9")
    assert tokens.seen == []


def test_a_refused_token_is_renewed_although_it_would_last(login, file, tokens):
    file.write_text(claude_login(lasts=3600))
    assert renewing.renew_apart(login, held=Secret("access-0")).access == Secret("access-1")


def test_at_launch_a_token_that_lasts_is_used_and_one_that_does_not_is_renewed(login, file, tokens):
    file.write_text(claude_login(lasts=3600))
    assert oauth.at_launch(login).access == Secret("access-0")
    assert tokens.seen == []
    file.write_text(claude_login(lasts=oauth.AHEAD - 5))
    assert oauth.at_launch(login).access == Secret("access-1")


def test_at_launch_a_token_that_lasts_a_little_is_used_when_it_can_not_be_renewed(login, file, tokens):
    tokens.status = 500
    file.write_text(claude_login(lasts=oauth.AHEAD - 5))
    assert oauth.at_launch(login).access == Secret("access-0")
    file.write_text(claude_login(lasts=5))
    with pytest.raises(HostError) as caught:
        oauth.at_launch(login)
    assert "answered 500 server_error" in str(caught.value)


STEPS = [
    ("before", "mkdir"), ("after", "mkdir"), ("before", "posix_fallocate"), ("after", "posix_fallocate"), ("before", "post"),
    ("after", "pwrite"), ("before", "ftruncate"), ("before", "fsync"), ("after", "fsync"), ("before", "replace"),
    ("after", "replace"), ("before", "rmdir"), ("after", "rmdir"),
]  # fmt: skip


@pytest.mark.parametrize(("when", "step"), STEPS)
def test_a_process_killed_at_any_step_loses_nothing(login, file, tokens, when, step):
    place = oauth_http if step == "post" else os
    real = getattr(place, step)

    def dying(*args, **keys):
        if when == "before":
            os.kill(os.getpid(), 9)
        done = real(*args, **keys)
        if step != "pwrite" or b"access-1" in args[1]:
            os.kill(os.getpid(), 9)
        return done

    pid = os.fork()
    if pid == 0:
        try:
            setattr(place, step, dying)
            oauth.renew(login, held=None)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9
    if (when, step) == (
        "after",
        "mkdir",
    ):  # it could not note yet that the lock is its own: that has to grow old
        old = time.time() - 61
        os.utime(file.parent / ".oauth_refresh.lock", (old, old))
    again = renewing.renew_apart(login, held=Secret("access-0"))
    assert again.access == Secret(f"access-{tokens.number}")
    assert tokens_in(file) == (f"access-{tokens.number}", tokens.good)
    assert tokens.number == len(tokens.seen) == len(set(tokens.seen)), "a refresh token was used twice"
    assert left(file) == set()


def test_ctrl_c_and_the_end_of_the_one_that_asked_do_not_stop_it(login, file, tokens):
    asked = threading.Event()
    go_on = threading.Event()
    tokens.before = lambda: (asked.set(), go_on.wait(20))
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        renewing.start(login, held=None)
        while True:
            time.sleep(1)
    assert asked.wait(20)
    os.killpg(pid, 2)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    go_on.set()
    deadline = time.monotonic() + 60
    while tokens_in(file) != ("access-1", "refresh-1"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_login_that_has_ended_says_so_and_who_can_mend_it(login, file, tokens):
    tokens.good = "another"
    with pytest.raises(LoginLost) as caught:
        renewing.renew_apart(login, held=None)
    assert "answered 400 invalid_grant" in caught.value.details
    assert "/login" in caught.value.resolution
    assert "refresh-0" not in str(caught.value)
    assert tokens_in(file) == ("access-0", "refresh-0")
    assert left(file) == set()


@pytest.mark.parametrize("status", [302, 500])
def test_a_server_that_fails_or_sends_elsewhere_gets_no_second_request(login, file, tokens, status):
    tokens.status = status
    with pytest.raises(HostError) as caught:
        renewing.renew_apart(login, held=None)
    assert not isinstance(caught.value, LoginLost)
    assert f"answered {status}" in caught.value.details
    assert "refresh-0" not in str(caught.value)
    assert tokens.seen == ["refresh-0"]


def test_a_server_that_drips_does_not_keep_the_locks(login, file, tokens, monkeypatch):
    stop = threading.Event()
    tokens.before = lambda: stop.wait(20)
    monkeypatch.setattr(oauth_http, "SECONDS", 1)
    with pytest.raises(HostError) as caught:
        renewing.renew_apart(login, held=None)
    stop.set()
    assert (
        "unreachable" in str(caught.value)
        or "took longer" in str(caught.value)
        or "time" in str(caught.value)
    )
    assert left(file) == set()


def test_nothing_is_asked_when_the_answer_could_not_be_kept(login, file, tokens, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(HostError, match="No space left"):
        oauth.renew(login, held=None)
    assert tokens.seen == []


def test_claude_codes_own_lock_is_respected_until_it_is_old(login, file, tokens, monkeypatch):
    monkeypatch.setattr(oauth, "LOCK_SECONDS", 0.2)
    lock = file.parent / ".oauth_refresh.lock"
    lock.mkdir()
    with pytest.raises(HostError, match="another program is renewing it"):
        renewing.renew_apart(login, held=None)
    assert tokens.seen == []
    assert lock.exists()
    os.utime(lock, (time.time() - 61, time.time() - 61))
    assert renewing.renew_apart(login, held=None).access == Secret("access-1")
    assert not lock.exists()


def test_it_is_renewed_over_verified_tls_by_the_bottles_authorities_and_proxy(login, file, tokens, tmp_path):
    certificate, tls = make_certificate(tmp_path)
    with token_server(tls=tls) as secured, connect_proxy() as (proxy, asked):
        place = login._replace(token_url=secured.url)
        with pytest.raises(HostError, match="certificate verify failed"):
            renewing.renew_apart(place, held=None)
        assert secured.seen == []
        place = place._replace(ca=str(certificate), proxy=proxy, proxy_login=Secret("Basic bWU6cHc="))
        assert renewing.renew_apart(place, held=None).access == Secret("access-1")
    assert asked[0].startswith(f"CONNECT {secured.url.split('/')[2]} HTTP/1.")
    assert "Proxy-Authorization: Basic bWU6cHc=" in asked[0]
    assert not any("Proxy-Auth" in one or "bWU6" in one for one in secured.heads)


def test_a_link_stays_a_link(login, file, tokens, tmp_path):
    real = tmp_path / "elsewhere.json"
    file.rename(real)
    file.symlink_to(real)
    renewing.renew_apart(login, held=None)
    assert file.is_symlink()
    assert tokens_in(real) == ("access-1", "refresh-1")


@pytest.mark.parametrize(
    "content",
    [
        *("", "{}", "[]", "null", '{"claudeAiOauth": []}', '{"access_token": 5}'),
        '{"claudeAiOauth": {"accessToken": ""}}',
    ],
)
def test_a_file_without_a_login_is_refused(login, file, content):
    file.write_text(content)
    with pytest.raises(LoginLost, match="There is no login in"):
        oauth.at_launch(login)


def test_a_token_is_due_ten_minutes_ahead_or_when_three_quarters_are_over():
    assert Token(Secret("x"), 10_000).due(0) == 10_000 - 600
    assert Token(Secret("x"), 100).due(0) == 75
    assert Token(Secret("x"), 100).due(200) == 100
    assert Token(Secret("x"), None).due(0) is None
