"""What is searched in windows is found as if it were searched whole: at every place, in every encoding, in any text."""

import base64
import gzip
import json
import random
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot_bottle.policy.secrets import windows as cutting
from bot_bottle.policy.secrets.known import Known
from bot_bottle.policy.secrets.scanner import MOST_MATCHES, Scanner, TooTangled
from bot_bottle.policy.secrets.windows import WINDOW, windows
from tests.policy.test_secret_scanner import BREAKS, ENCODINGS, MAKERS, found
from tests.support.tokens import crc_token

CHANCE = random.Random(11)
TOKEN = crc_token("ghp", CHANCE).encode()
PROSE = b'{"role": "user", "content": "def look(self): return self.table[name]  # \\u2019 and 100%\\n"}, '
FILLERS = {
    "prose": PROSE,
    "Chinese": "这是一个很长的对话。".encode(),
    "Chinese, escaped": json.dumps("这是一个很长的对话。").encode(),
    "zeros": bytes(100),
    "a picture": base64.b64encode(random.Random(5).randbytes(3000)),
    "line ends, escaped": b"\\n" * 50,
    "points and dashes": b"-.-." * 20,
}


def filled(kind: str, size: int) -> bytes:
    return (FILLERS[kind] * (size // len(FILLERS[kind]) + 1))[:size]


@pytest.fixture(scope="module", autouse=True)
def small():
    """Windows of a size at which there are many of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutting, "WINDOW", 16 * 1024)
        patch.setattr(cutting, "REACH", 4 * 1024)
        patch.setattr(cutting, "_SHORT", 8 * 1024)
        yield


@pytest.fixture
def large(small, monkeypatch):
    monkeypatch.setattr(cutting, "WINDOW", WINDOW)
    monkeypatch.setattr(cutting, "REACH", 32 * 1024)
    monkeypatch.setattr(cutting, "_SHORT", 256 * 1024)


def test_at_every_byte_of_the_border_of_two_real_windows(large) -> None:
    around = filled("prose", WINDOW + 50_000)
    for at in range(WINDOW - len(TOKEN) - 2, WINDOW + 2):
        assert found(around[:at] + b" " + TOKEN + b" " + around[at:]) == {"github"}, at


@pytest.mark.parametrize("kind", FILLERS)
def test_anywhere_in_many_windows_of_any_text(kind: str) -> None:
    text = filled(kind, 100_000)
    assert not found(text)
    for at in range(0, 100_000, 1999):
        assert found(text[:at] + b" " + TOKEN + b" " + text[at:]) == {"github"}, at


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(sorted(MAKERS)),
    st.one_of(
        st.lists(st.sampled_from(sorted(ENCODINGS)), max_size=2).map(tuple),
        st.sampled_from(sorted(BREAKS)).map(lambda way: (way,)),
    ),
    st.sampled_from(sorted(FILLERS)),
    st.integers(-6_000, 500),
)
def test_what_is_found_alone_is_found_across_a_border(
    name: str, ways: tuple[str, ...], kind: str, at: int
) -> None:
    data = MAKERS[name](random.Random(f"{name} {at}")).encode()
    for way in ways:
        data = {**ENCODINGS, **BREAKS}[way](data)
    data = b". " + data + b" ."
    if name not in found(data) or len(data) > 12_000:
        return
    text = filled(kind, 16 * 1024 + at)
    assert name in found(text + data + filled("prose", 30_000))


@pytest.mark.parametrize("gap", [" ", "\u200b", "\\u200b", "\\n", "%20", "\\u0020", "., ;", "\\n . "])
@pytest.mark.parametrize("length", [20, 700, 3000])
def test_what_is_laced_with_any_number_of_signs_is_found(gap: str, length: int) -> None:
    laced = (gap * (length // len(gap))).encode().join(TOKEN[at : at + 1] for at in range(len(TOKEN)))
    for before in (16_000, 10_000, 16_384 - len(laced) // 2):
        if before > 0:
            assert found(filled("prose", before) + b" " + laced + b" " + filled("prose", 20_000)) == {
                "github"
            }


def test_a_value_that_has_no_letters_is_found_at_every_byte_of_a_border() -> None:
    value = "пароль-моей-бутылки".encode()
    only = Scanner([Known("mine", value)], formats=False)
    for kind in ("prose", "Chinese", "zeros"):
        text = filled(kind, 40_000)
        for at in range(16_384 - len(value) - 2, 16_386):
            assert found(text[:at] + value + text[at:], only) == {"mine"}, (kind, at)


def test_compressed_text_is_read_to_its_end_however_long_it_is() -> None:
    packed = gzip.compress(random.Random(3).randbytes(60_000).hex().encode() + b" " + TOKEN)
    assert TOKEN not in packed
    before, after = filled("prose", 15_000), filled("prose", 20_000)
    for data in (packed, base64.b64encode(packed), json.dumps(base64.encodebytes(packed).decode()).encode()):
        assert found(before + b'"' + data + b'"}' + after) == {"github"}


def test_all_windows_together_have_every_byte_and_little_more(large) -> None:
    for kind in FILLERS:
        data = filled(kind, 5 * WINDOW + 77)
        made = list(windows(data))
        assert sum(map(len, made)) < 1.3 * len(data), kind
        assert made[0] == data[:WINDOW]
        assert data.endswith(made[-1][-10_000:])
        assert max(map(len, made)) < 2 * WINDOW
    assert list(windows(b"")) == [b""]
    assert list(windows(data[:WINDOW])) == [data[:WINDOW]]


def test_what_is_held_for_a_long_text_does_not_grow_with_it(large) -> None:
    data = filled("prose", 12 * WINDOW) + TOKEN
    scanner = Scanner()
    scanner.prepare()
    tracemalloc.start()
    try:
        assert found(data, scanner) == {"github"}
        assert tracemalloc.get_traced_memory()[1] < 8 * WINDOW
    finally:
        tracemalloc.stop()


def test_more_secrets_than_can_be_told_are_as_many_as_can() -> None:
    many = b" ".join(crc_token("ghp", CHANCE).encode() for _ in range(3 * MOST_MATCHES))
    assert len(Scanner().scan(many + filled("prose", 30_000) + many)) == MOST_MATCHES


def test_a_window_that_is_too_tangled_is_told() -> None:
    with pytest.raises(TooTangled):
        Scanner().scan(filled("prose", 40_000) + b"AIzaSy" * 20_000)
