"""Events: every decision is reported or counted, and no flood of them fills the keeper's disk."""

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.bundle.record import BURST, DIFFERENT, EACH_TIME, INTERVAL, RATE, Record, clean


class Keeper:
    """Hears everything; time passes only when it is told to."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.now = 0.0
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.room = True
        self.record = Record(self, clock=lambda: self.now, later=self.call_later)

    def has_room(self) -> bool:
        return self.room

    def tell(self, message: dict[str, Any]) -> None:
        self.heard.append(message)

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        self.later.append((self.now + delay, callback))

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [entry for entry in self.later if entry[0] <= end]:
            entry = min(due, key=lambda item: item[0])
            self.later.remove(entry)
            self.now = entry[0]
            entry[1]()
        self.now = end

    def total(self) -> int:
        """How many events were reported, alone or in numbers."""
        return sum(
            sum(message["data"]["counts"].values())
            if message["event"] == "egress.folded"
            else message["data"].get("count", 1)
            for message in self.heard
        )


def refusal(host: str = "evil.test") -> dict[str, Any]:
    return {"via": "proxy", "host": host, "port": 443, "reason": "host_not_allowed"}


def test_the_first_refusal_is_heard_at_once_and_its_repetitions_as_one() -> None:
    keeper = Keeper()
    for _ in range(10_000):
        keeper.record.event("egress.refused", refusal())
    assert [message["data"].get("count") for message in keeper.heard] == [None]
    keeper.pass_time(INTERVAL)
    assert [message["data"].get("count") for message in keeper.heard] == [None, 9_999]


def test_a_flood_of_different_refusals_is_bounded_and_still_counted() -> None:
    keeper = Keeper()
    for number in range(20_000):
        keeper.record.event("egress.refused", refusal(f"h{number}.test"))
    keeper.pass_time(INTERVAL * DIFFERENT)
    assert len(keeper.heard) <= BURST + DIFFERENT + DIFFERENT // EACH_TIME + 2
    assert keeper.total() == 20_000
    assert any(message["event"] == "egress.folded" for message in keeper.heard)


def test_a_flood_that_lasts_an_hour_stays_within_its_rate() -> None:
    keeper = Keeper()
    for second in range(3600):
        for number in range(20):
            keeper.record.event("egress.allowed", refusal(f"h{second}-{number}.test"))
        keeper.pass_time(1)
    assert len(keeper.heard) <= BURST + 3600 * (RATE + (EACH_TIME + 1) / INTERVAL) + DIFFERENT
    keeper.pass_time(INTERVAL * DIFFERENT)
    assert keeper.total() == 3600 * 20


def test_a_keeper_that_does_not_read_gets_it_in_numbers_later() -> None:
    keeper = Keeper()
    keeper.room = False
    for _ in range(1000):
        keeper.record.event("egress.allowed", refusal())
    keeper.pass_time(100)
    assert keeper.heard == []
    keeper.room = True
    keeper.pass_time(INTERVAL)
    assert keeper.total() == 1000


def test_bytes_of_folded_connections_add_up() -> None:
    keeper = Keeper()
    keeper.room = False
    for _ in range(3):
        keeper.record.event("egress.closed", {"via": "tls", "host": "a", "up": 10, "down": 5, "seconds": 0.5})
    keeper.room = True
    keeper.pass_time(INTERVAL)
    assert keeper.heard[0]["data"] == {
        "via": "tls",
        "host": "a",
        "up": 30,
        "down": 15,
        "seconds": 1.5,
        "count": 3,
    }


@given(st.text(max_size=1000))
def test_what_stands_in_an_event_is_printable_and_short(text: str) -> None:
    shown = clean(text)
    assert len(shown) <= 300
    assert all(" " <= char <= "~" or char in "\ufffd\u2026" for char in shown)


def test_terminal_escapes_and_bidi_do_not_reach_the_reader() -> None:
    keeper = Keeper()
    keeper.record.event(
        "egress.refused", {**refusal("\x1b[2J\u202eevil\u200b\n.test"), "path": "/" + "a" * 5000}
    )
    data = keeper.heard[0]["data"]
    assert data["host"] == "\ufffd[2J\ufffdevil\ufffd\ufffd.test"
    assert len(data["path"]) == 300


def test_what_is_only_watched_is_told_apart_by_its_path_and_folded_as_refusals_are() -> None:
    keeper = Keeper()
    for path in ("/a", "/b", "/a", "/a"):
        keeper.record.event("egress.observed", {**refusal(), "method": "GET", "path": path})
    assert [message["data"]["path"] for message in keeper.heard] == ["/a", "/b"]
    keeper.pass_time(INTERVAL)
    assert [message["data"].get("count") for message in keeper.heard] == [None, None, 2]


def test_everything_is_counted_even_what_is_folded() -> None:
    keeper = Keeper()
    for number in range(1000):
        keeper.record.event("egress.refused", refusal(f"host-{number}.test"))
        keeper.record.event("egress.closed", {**refusal(), "up": 2, "down": 3, "reason": "done"})
    assert keeper.record.counts == {
        ("egress.refused", "host_not_allowed"): 1000,
        ("egress.closed", "done"): 1000,
    }
    assert (keeper.record.up, keeper.record.down) == (2000, 3000)


def test_what_is_counted_on_without_its_data_is_reported_as_if_it_had_come_with_it() -> None:
    closed = {"via": "connect", "host": "ok.test", "port": 443, "protocol": "https", "reason": "done"}
    place = ("egress.closed", "connect", "ok.test", 443, "https", "done")
    keeper, other = Keeper(), Keeper()
    for _ in range(BURST):
        keeper.record.event("egress.closed", {**closed, "up": 1, "down": 2, "seconds": 0.1})
        other.record.event("egress.closed", {**closed, "up": 1, "down": 2, "seconds": 0.1})
    assert not keeper.record.again(*place, up=1, down=2, seconds=0.1)  # nothing waits yet
    for number in range(100):
        other.record.event("egress.closed", {**closed, "up": number, "down": 2, "seconds": 0.1})
        if not keeper.record.again(*place, up=number, down=2, seconds=0.1):
            keeper.record.event("egress.closed", {**closed, "up": number, "down": 2, "seconds": 0.1})
    for one in (keeper, other):
        one.pass_time(2 * INTERVAL)
    assert [message["data"] for message in keeper.heard] == [message["data"] for message in other.heard]
    assert (keeper.record.counts, keeper.record.up, keeper.record.down) == (
        other.record.counts,
        other.record.up,
        other.record.down,
    )
    assert not keeper.record.again(*place, up=1, down=2, seconds=0.1)  # it was reported
