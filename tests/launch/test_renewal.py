"""The keeper's part in renewing: in time, not again and again, and confirmed by the bundle before it is recorded."""

import select
import time

import pytest

from bot_bottle.bundle.model import Injection
from bot_bottle.host.secrets import Vault, outgoing
from bot_bottle.launch.credentials import Around, Credentials
from bot_bottle.plan.model import Credential, Outward
from bot_bottle.secret import Secret
from support.logins import claude_login, token_server


class Keeper:
    """The keeper's loop, record and words, and a bundle that says nothing by itself."""

    def __init__(self, credentials):
        self.watched, self.told, self.records, self.warnings = {}, [], [], []
        self.credentials = credentials
        credentials.begin(
            Around(
                watch=self.watched.__setitem__,
                forget=self.watched.pop,
                tell=self.told.append,
                record=lambda kind, data: self.records.append((kind, data)),
                warn=self.warnings.append,
            )
        )

    def turn(self):
        """Begins what is due, and hears whatever was begun to its end."""
        wait = self.credentials.tick()
        while self.watched:
            for descriptor in select.select(list(self.watched), [], [], 20)[0]:
                self.watched[descriptor]()
        return wait


@pytest.fixture
def tokens():
    with token_server() as server:
        yield server


@pytest.fixture
def make(tmp_path, tokens):
    file = tmp_path / ".credentials.json"

    def make(lasts):
        file.write_text(claude_login(lasts=lasts))
        source = f'oauth:{{"file": "{file}", "token_url": "{tokens.url}", "client_id": "me"}}'
        login = Credential("login", source, "header", "authorization", "Bearer ", placeholder="held")
        key = Credential("key", "env:KEY", "header", "x-api-key")
        held = outgoing(login, Secret("access-0"))._replace(expires=time.time() + lasts)
        vault = Vault({"login": held, "key": outgoing(key, Secret("fixed"))})
        return Keeper(Credentials([login, key], vault, outward=Outward()))

    make.file = file
    return make


def test_what_is_due_is_renewed_told_and_recorded_once_the_bundle_uses_it(make, tokens):
    keeper = make(0)
    assert keeper.turn() is None
    assert tokens.seen == ["refresh-0"]
    [message] = keeper.told
    told = {name: Injection.from_document(item) for name, item in message["credentials"].items()}
    assert told["login"] == Injection(
        "header", "authorization", Secret("Bearer access-1"), Secret("access-1"), "held", renewable=True
    )
    assert told["key"].secret == Secret("fixed")
    assert keeper.credentials.injections() == told
    assert keeper.records == []
    keeper.credentials.confirmed()
    assert [(kind, data["name"]) for kind, data in keeper.records] == [("credential.renewed", "login")]
    assert "access-" not in str(keeper.records)


def test_what_lasts_is_left_alone_and_looked_at_again_within_a_minute(make, tokens):
    keeper = make(3600)
    assert 0 < keeper.turn() <= 60
    assert tokens.seen == []


def test_whoever_asks_one_login_is_renewed_once_a_minute(make, tokens):
    keeper = make(3600)
    for _ in range(5):
        keeper.credentials.refused("login")
        keeper.turn()
    assert tokens.seen == ["refresh-0"]
    for name in ("key", "other", None, ["login"]):
        keeper.credentials.refused(name)
    assert keeper.turn() is not None
    assert tokens.seen == ["refresh-0"]


def test_a_server_that_is_away_is_asked_again_a_minute_later_and_the_old_token_stays(make, tokens):
    tokens.status = 500
    keeper = make(0)
    keeper.turn()
    assert 50 < keeper.turn() <= 60
    assert keeper.told == []
    [(kind, data)] = keeper.records
    assert (kind, data["lost"]) == ("credential.failed", False)
    assert "500" in data["details"]
    assert keeper.warnings == []
    assert keeper.credentials.injections()["login"].secret == Secret("access-0")


def test_a_lost_login_is_not_asked_for_again_until_somebody_logs_in(make, tokens, monkeypatch):
    tokens.good = "another"
    keeper = make(0)
    keeper.turn()
    assert "could not be renewed" in keeper.warnings[0]
    monkeypatch.setattr("bot_bottle.launch.credentials.AT_MOST_EVERY", 0.0)
    for renewal in keeper.credentials._renewals.values():
        renewal.not_before = 0.0
    assert keeper.turn() == 60
    assert tokens.seen == ["refresh-0"]
    make.file.write_text(claude_login("access-7", "another", lasts=-1))
    keeper.turn()
    assert tokens.seen == ["refresh-0", "another"]
    assert keeper.credentials.injections()["login"].secret == Secret("access-1")
