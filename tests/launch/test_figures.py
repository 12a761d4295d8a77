"""A bundle's figures are checked before anybody shows them, and what is shown is what Prometheus reads."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.launch import figures, metrics

GOOD: dict[str, Any] = {
    "policy": "ab", "seconds": 1.5, "open": 2, "up": 10, "down": 20,
    "decisions": [["egress.refused", "host_not_allowed", 3], ["egress.allowed", "allowed", 4]],
    "flows": [["a.example.org", 443, "https", 1, 2, 3]],
}  # fmt: skip
values = (
    st.none()
    | st.integers()
    | st.text(max_size=9)
    | st.lists(st.integers() | st.text(max_size=4), max_size=6)
    | st.floats()
)


def shown(said: object, **more: Any) -> dict[str, Any]:
    found = figures.read(said)
    return {
        "run": "fixer-2345", "agent": "fixer", "bottle": "default", "policy": "ab", "mode": "enforce", "routes": 2,
        "way_out": True, "restarts": 0, "figures": None, **more,
        **({} if found is None else {"figures": {**found._asdict(), "decisions": [d._asdict() for d in found.decisions],
                                                 "flows": [f._asdict() for f in found.flows]}}),
    }  # fmt: skip


def test_good_ones_are_read_whole() -> None:
    found = figures.read(GOOD)
    assert found is not None
    assert (found.up, found.down, found.open) == (10, 20, 2)
    assert found.flows[0].host == "a.example.org"


@pytest.mark.parametrize("name", GOOD)
@given(value=values)
def test_bad_ones_are_none_or_harmless(name: str, value: object) -> None:
    found = figures.read({**GOOD, name: value})
    if found is not None:
        text = metrics.render([shown({**GOOD, name: value})])
        assert all(
            re.fullmatch(r'# (HELP|TYPE) .*|bot_bottle_\w+\{(\w+="[^"\n]*",?)*\} [-+.e\dinf]+|', line)
            for line in text.split("\n")
        )


@given(
    st.recursive(
        values,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    )
)
def test_whatever_a_bundle_says_it_is_no_crash(said: object) -> None:
    figures.read(said)


def test_a_bundle_can_t_make_up_metrics_without_end() -> None:
    made_up = [[f'x{n}"\n', f"r{n} ", 1] for n in range(5000)] + [[f"k{n}", "", 1] for n in range(5000)]
    text = metrics.render([shown({**GOOD, "decisions": made_up})])
    assert len(text.splitlines()) < 200
    assert 'kind="other"' in text


def test_the_text_is_in_prometheus_form() -> None:
    text = metrics.render([shown(GOOD), shown(None, run='odd"\\\nname')])
    assert text.endswith("\n")
    assert text.count("# TYPE bot_bottle_up gauge\n") == 1
    assert 'bot_bottle_up{run="fixer-2345",agent="fixer",bottle="default"} 1\n' in text
    assert 'bot_bottle_up{run="odd\\"\\\\\\nname",agent="fixer",bottle="default"} 0\n' in text
    assert (
        'bot_bottle_egress_bytes_total{run="fixer-2345",agent="fixer",bottle="default",direction="up"} 10\n'
        in text
    )
    for name, kind, _ in metrics.METRICS:
        assert (kind == "counter") == name.endswith("_total")
        assert not re.search("milli|_ms|_kb", name)


def test_no_metric_has_a_host_in_it() -> None:
    assert "a.example.org" not in metrics.render([shown(GOOD)])


@pytest.mark.parametrize(
    ("more", "status", "state"),
    [
        ({}, 200, "ok"),
        ({"figures": None}, 503, "silent"),
        ({"figures": None, "way_out": False}, 503, "closed"),
    ],
)
def test_health(more: dict[str, Any], status: int, state: str) -> None:
    code, said = metrics.health({**shown(GOOD), **more})
    assert (code, said["status"]) == (status, state)
