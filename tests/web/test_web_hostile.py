"""Text that was written to deceive changes nothing on the page but its quoted, cleaned self. In a real browser."""

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.policy.approval import Effect
from bot_bottle.web import clean
from support.hostile_text import CASES, dangers

pytestmark = pytest.mark.xdist_group("chromium")
CALM = """() => ({
  tags: [...document.querySelectorAll('*')].map((e) => e.tagName).join(' '),
  names: [...document.querySelectorAll('*')].flatMap((e) => [...e.attributes].map(({name, value}) => {
    const said = value.replace('settling', '').trim();
    return name === 'class' && !said ? '' : name + '=' + (['class', 'id', 'type', 'dir'].includes(name) ? said : '');
  })).filter(Boolean).join(' '),
  width: document.documentElement.scrollWidth,
})"""
"""Everything of the page that text must not change."""


@pytest.mark.parametrize("name", CASES)
def test_what_is_cleaned_has_nothing_dangerous_left_and_an_end(name):
    for shown in (clean.line(CASES[name]), clean.block(CASES[name])):
        assert dangers(shown) == []
        assert not {unicodedata.bidirectional(c) for c in shown} & {
            "RLO",
            "LRO",
            "RLE",
            "LRE",
            "PDF",
            "RLI",
            "LRI",
            "FSI",
            "PDI",
        }
        assert len(shown) < 10 * clean.WORDS + 100
    assert "\n" not in clean.line(CASES[name])


@given(st.text(st.characters(), max_size=200))
def test_any_text_is_cleaned(text):
    shown = clean.block(text)
    assert dangers(shown) == []
    shown.encode()
    assert clean.block(shown) == shown, "what was cleaned stays as it is"
    assert not {unicodedata.bidirectional(c) for c in clean.line(text)} & {"R", "AL", "AN"}


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"]), max_size=200))
def test_plain_text_stays_as_it_is(text):
    assert clean.line(text) == text


@pytest.mark.parametrize("blank", "\u034f\u115f\u1160\u17b4\u180b\u2800\u3164\uffa0\ufe0f\U000e0101")
def test_what_counts_as_printable_and_shows_as_nothing_is_written_out(blank):
    assert clean.line(f"a{blank}b").isascii()
    assert clean.block(f"a{blank}b") != "ab"


def test_letters_from_right_to_left_stay_in_the_agents_own_words_alone():
    assert clean.line("\u05d0\u0627\u0661").isascii()
    assert clean.block("\u05d0\u0627\u0661") == "\u05d0\u0627\u0661"


def test_marks_are_not_piled_up_and_vietnamese_stays():
    assert clean.block("o" + "\u0300" * 1000 + "k") == "o\u0300\u0300k"
    assert clean.block("Tie\u0302\u0301ng Vie\u0323\u0302t") == "Tie\u0302\u0301ng Vie\u0323\u0302t"


def test_text_that_is_cut_says_so():
    assert clean.line("a" * 400) == "a" * 300 + " … (100 more characters)"


def ask_everything(desk, said, run):
    """One that waits and one that was decided, with `said` wherever a text can stand."""
    effect = Effect(1, 1, (said,), (said,), (said,))
    asked = {"run": run, "agent": said, "bottle": said, "title": said, "words": said, "effect": effect}
    desk.ask("a.example.org", id=f"{run}-p", problem=said or "No.", **asked)
    desk.end(desk.ask("a.example.org", id=f"{run}-q", **asked), "failed", said or "No.")


def state_of(page, expected):
    """What the page is once it has come to rest: as expected, or else after a while."""
    end = time.monotonic() + 30
    while (state := page.evaluate(CALM)) != expected and expected and time.monotonic() < end:
        page.wait_for_timeout(50)
    return state


def seen_of(page, run, calm=None, calm_history=None):
    """What the page is, and what it says, with that run's proposal open, and in the history."""
    page.evaluate("id => { location.hash = '#/' + id; }", f"{run}-p")
    page.wait_for_selector(f".detail .meta >> text=run {run}")
    page.wait_for_selector(".list button.open[aria-current]")  # the list has it, too
    parts = (".words", ".detail h2", ".effect", ".problem", ".list")
    detail, shown = state_of(page, calm), [page.inner_text(part) for part in parts]
    page.click("nav >> text=History")
    page.wait_for_selector(f".page [data-id={run}-q]")
    history = state_of(page, calm_history)
    shown.append(page.inner_text(".page"))
    page.click("nav >> text=Waiting")
    return detail, history, shown


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_page_stays_what_it_is(open_page, desk):
    ask_everything(desk, "calm", "calm")
    page = open_page()
    page.wait_for_selector("text=calm")
    calm, calm_history, _ = seen_of(page, "calm")
    for number, (name, text) in enumerate(CASES.items()):
        if not text:
            continue  # no quote stands where nothing was said
        run = f"run-{number}"
        desk._made.clear()
        ask_everything(desk, text, run)
        detail, history, shown = seen_of(page, run, calm, calm_history)
        assert detail == calm, name
        assert history == calm_history, name
        assert [dangers(part) for part in shown] == [[]] * len(shown), name
        words = shown[0].partition("misled.")[2]
        assert words.split() == clean.block(text).split(), name
    page.wait_for_selector("#line.inbox")
