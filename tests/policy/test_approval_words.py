"""What a model is told: a no can't be read as a yes, and what is neither can't be read as either."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.policy import approval_words as words
from bot_bottle.policy.approval import Ask, Proposal


def proposal(reason: str = "") -> Proposal:
    return Proposal("p1", "run", Ask("egress", {}), (), "pending", 0.0, 0.0, reason=reason)


NO = (words.rejected, words.failed, words.expired, words.withdrawn)


@given(st.text(), st.sampled_from(NO))
def test_a_no_says_so_first_and_the_operator_s_words_are_quoted(reason, say):
    said = say(proposal(reason))
    assert said.startswith("REFUSED")
    assert "Nothing has changed" in said
    assert "APPROVED" not in said.partition('"')[0]
    assert said.isprintable()


@pytest.mark.parametrize(
    "said",
    [words.pending(proposal(), present=True), words.pending(proposal(), present=False), words.approved(proposal()),
     words.recorded(proposal()), words.ended(proposal(), "its time is over"), words.sticky("x", "", 5), words.hindered("it is so"),
     words.TOO_MANY.format(open=16), words.TOO_FAST.format(seconds=5), words.STORE_FAILED, words.UNKNOWN],
)  # fmt: skip
def test_what_is_no_yes_does_not_begin_like_one(said):
    assert not said.startswith(("APPROVED", "ALLOWED"))
    assert "in force now" not in said


def test_a_yes_says_what_holds_and_how_long():
    said = words.applied(proposal(), ["- {host: a.example.org}"], once=True, until="")
    assert said.startswith("APPROVED and in force now")
    assert "{host: a.example.org}" in said
    assert "one use only" in said
    assert "until 12:00" in words.applied(proposal(), [], once=False, until="12:00")


def test_somebody_who_is_not_there_is_said_to_be_not_there():
    assert "Nobody is at the inbox" in words.pending(proposal(), present=False)
    assert "supervise-await" in words.pending(proposal(), present=False)
