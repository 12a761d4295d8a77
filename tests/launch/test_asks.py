"""From an ask to an answer, with a real store: nothing is applied that was not shown, and nothing is said before it is so."""

import pytest
from tests.launch.keeping import BASE, Kept

from bot_bottle.policy.approval import Approval, Terms
from bot_bottle.policy.model import EgressPolicy, Route


@pytest.fixture
def kept(tmp_path):
    kept = Kept(tmp_path / "store.db")
    yield kept
    kept.close()


def approve(kept, shown, **terms):
    with kept.desk() as desk:
        shown = desk.show(shown.proposal.id, Terms(**terms)) if terms else shown
        [done] = desk.approve([Approval(shown.proposal.id, shown.digest, shown.terms)], wait=0)
    kept.asks.decided()
    return done


def waiting(kept):
    with kept.desk() as desk:
        return desk.waiting()


def test_what_was_refused_is_asked_decided_enforced_and_answered_in_that_order(kept):
    kept.confirms = False
    answers = kept.ask(hosts=["docs.example.org"], reason="the manual")
    assert [answer["state"] for answer in answers] == ["pending"]
    [shown] = waiting(kept)
    assert shown.added == ("- {host: docs.example.org}",)
    assert approve(kept, shown).state == "approved"
    assert [answer["state"] for answer in answers] == ["pending"]
    assert kept.asks.proposals.grants() == []
    kept.confirm()
    assert [answer["state"] for answer in answers] == ["pending", "applied"]
    assert kept.policy.routes[-1]._replace(grant="") == Route("docs.example.org", 443)
    assert [grant.routes for grant in kept.asks.proposals.grants()] == [(Route("docs.example.org", 443),)]
    assert kept.store.verify().ok
