"""Text of others on a screen that is drawn cell by cell: every character is as wide as it is thought, and in its place."""

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from bot_bottle.tui import clean
from support import hostile_text


@pytest.mark.parametrize("name", hostile_text.CASES)
def test_hostile_text_keeps_no_character_that_moves_hides_or_reorders(name):
    text = hostile_text.CASES[name]
    assert hostile_text.dangers(clean.line(text), keep="") == []
    assert hostile_text.dangers(clean.block(text), keep="\n") == []
    assert len(clean.line(text)) < 5000
    assert len(clean.block(text)) < 100_000
    assert clean.block(text).count("\n") <= clean.MOST_LINES + 1


def test_no_character_of_unicode_is_shown_that_would_be_elsewhere_than_it_stands():
    for code in (*range(0x20000), *range(0x20000, sys.maxunicode + 1, 97), *range(0xE0000, 0xE0200)):
        character = chr(code)
        shown = clean.clean(f"a{character}b")
        if shown != f"a{character}b":
            assert shown.isascii(), hex(code)
            continue
        assert unicodedata.bidirectional(character) not in ("R", "AL", "AN", "RLO", "LRO"), hex(code)
        wide = unicodedata.east_asian_width(character) in "WF"
        expected = 0 if unicodedata.category(character) == "Mn" else 2 if wide else 1
        assert cell_len(character) == expected, hex(code)


@given(st.text())
def test_what_was_cleaned_is_clean(text):
    once = clean.clean(text)
    assert clean.clean(once) == once
    assert hostile_text.dangers(once, keep="") == []


def test_common_languages_stay_readable():
    for text in (
        "Grüße, naïve façade",
        "Привет, мир",
        "漢字かな交じり",
        "Tiếng Việt",
        "한국어",
        "Ελληνικά ✓ → 3 €",
    ):
        assert clean.clean(text) == text


def test_marks_do_not_pile_up():
    assert clean.clean("Z" + "\u0300" * 5) == "Z\u0300\u0300" + "\\u0300" * 3
    assert clean.clean("-\u0300") == "-\\u0300"


def test_what_is_left_out_is_counted():
    assert clean.line("a" * 310) == "a" * 300 + "… (10 more characters)"
    assert clean.cut("a" * 41) == "a" * 39 + "…"
    assert clean.cut("\u202e" * 41) == "\\u202e" * 6 + "\\u2…"
    assert clean.block("x\n" * 100).endswith("… (20 more characters)")
