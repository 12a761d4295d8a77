"""The keeper's side of a change of policy, one message at a time: what is not confirmed is not in force."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from bot_bottle.bundle.model import BundleConfig
from bot_bottle.door.model import Listener, listeners_for
from bot_bottle.errors import SandboxError
from bot_bottle.launch.change import CONFIRM_WITHIN, Change, Changes
from bot_bottle.policy.model import EgressPolicy, Route, Upstream

OLD = EgressPolicy(routes=(Route("old.example.org", 443),))
NEW = EgressPolicy(routes=(Route("new.example.org", 443),))
OTHER = EgressPolicy(routes=(Route("other.example.org", 443),))


class FakeEngine:
    """A second engine that takes every policy but those that it is told to refuse; `at` counts the orders before each."""

    def __init__(self, orders: list[Mapping[str, Any]], *refused: EgressPolicy) -> None:
        self.orders = orders
        self.refused = refused
        self.taken: list[tuple[EgressPolicy, int]] = []

    def apply(self, policy: EgressPolicy) -> None:
        if policy in self.refused:
            raise SandboxError("Pipelock refused a new config", details="no")
        self.taken.append((policy, len(self.orders)))


class FakeRun:
    """A run whose bundle says nothing by itself; keeps `launch.wishes.Kept` as far as a change needs it."""

    def __init__(self) -> None:
        self.policy = OLD
        self.plan = SimpleNamespace(trust=())
        self.has_way_out = True
        self.engine: FakeEngine | None = None
        self.orders: list[Mapping[str, Any]] = []
        self.opened: list[Listener] = []
        self.started: list[EgressPolicy] = []
        self.events: list[tuple[str, Mapping[str, Any]]] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.answers: list[dict[str, Any]] = []
        self.starts = True
        self.deaf = False
        self.taken: set[int] = set()
        config = BundleConfig("run", 1, OLD, listeners_for(OLD), 1, 1)
        self.sidecar = SimpleNamespace(config=config, order=self._order)
        self.changes = Changes(self, lambda seconds, act: self.timers.append((seconds, act)))  # type: ignore[arg-type]

    def _order(self, message: Mapping[str, Any]) -> None:
        if self.deaf:
            raise TimeoutError
        self.orders.append(message)

    def open_further(self, listeners: list[Listener]) -> None:
        if self.taken.intersection(listener.port for listener in listeners):
            raise SandboxError("The bottle's door could not be opened", details="in use")
        self.opened += listeners

    def start_anew(self, policy: EgressPolicy) -> None:
        self.has_way_out = self.starts
        if not self.starts:
            raise SandboxError("The bundle did not become ready")
        self.started.append(policy)

    def fresh(self, policy: EgressPolicy) -> EgressPolicy:
        return policy

    def record(self, kind: str, data: Mapping[str, object]) -> None:
        self.events.append((kind, data))

    def ask(self, policy: EgressPolicy, expecting: str = "") -> None:
        self.changes.ask(Change(policy, "me", "a test", expecting, self.answers.append))

    def confirm(self, policy: EgressPolicy) -> None:
        self.changes.hear({"policy": policy.fingerprint()})


@pytest.fixture
def run() -> FakeRun:
    return FakeRun()


def test_nothing_is_said_before_the_bundle_has_confirmed(run: FakeRun) -> None:
    run.ask(NEW)
    assert run.orders == [{"policy": NEW.document(), "further": 0}]
    assert (run.answers, run.events, run.policy) == ([], [], OLD)
    run.confirm(NEW)
    assert run.policy == NEW
    assert [kind for kind, _ in run.events] == ["policy.changed"]
    assert run.answers[0]["applied"] is True


def test_the_record_comes_before_the_answer(run: FakeRun) -> None:
    seen: list[int] = []
    run.changes.ask(Change(NEW, "me", "", "", lambda _: seen.append(len(run.events))))
    run.confirm(NEW)
    assert seen == [1]


@pytest.mark.parametrize("said", [OTHER.fingerprint(), OLD.fingerprint(), "", None, [], {}, True])
def test_another_answer_is_undone_by_a_new_bundle(run: FakeRun, said: object) -> None:
    run.ask(NEW)
    run.changes.hear({"policy": said})
    assert run.started == [OLD]
    assert run.policy == OLD
    assert [kind for kind, _ in run.events] == ["policy.refused"]
    assert run.answers[0]["applied"] is False


def test_a_bundle_that_does_not_answer_gives_way_to_one_with_the_new_policy(run: FakeRun) -> None:
    """An agent can keep its bundle busy: that must not be a way to keep what is taken from it."""
    run.ask(NEW)
    [(seconds, late)] = run.timers
    assert seconds == CONFIRM_WITHIN
    late()
    assert (run.started, run.policy) == ([NEW], NEW)
    assert [kind for kind, _ in run.events] == ["policy.changed"]
    run.changes.hear({"policy": OLD.fingerprint()})  # too late
    assert (run.started, run.policy) == ([NEW], NEW)
    assert [(answer["applied"], answer["restarted"]) for answer in run.answers] == [(True, True)]


def test_a_timer_of_a_change_that_is_done_undoes_nothing(run: FakeRun) -> None:
    run.ask(NEW)
    run.confirm(NEW)
    run.ask(OTHER)
    run.timers[0][1]()
    assert run.started == []
    run.confirm(OTHER)
    assert run.policy == OTHER


def test_a_bundle_that_takes_no_orders_is_replaced(run: FakeRun) -> None:
    run.deaf = True
    run.ask(NEW)
    assert (run.started, run.policy) == ([NEW], NEW)


def test_when_no_bundle_starts_again_that_is_said(run: FakeRun) -> None:
    run.starts = False
    run.ask(NEW)
    run.changes.hear({"policy": "x"})
    assert "no way out" in run.answers[0]["reason"]
    run.ask(OTHER)
    assert "no way out" in run.answers[1]["reason"]
    assert len(run.orders) == 1


def test_words_of_a_bundle_that_was_not_asked_mean_nothing(run: FakeRun) -> None:
    run.confirm(NEW)
    run.changes.hear({"policy_refused": "x"})
    assert (run.policy, run.events, run.answers) == (OLD, [], [])


def test_what_a_bundle_refuses_leaves_it_running(run: FakeRun) -> None:
    run.ask(NEW)
    run.changes.hear({"policy_refused": "no " * 1000})
    assert (run.started, run.policy) == ([], OLD)
    assert len(run.answers[0]["reason"]) <= 500


def test_changes_follow_each_other(run: FakeRun) -> None:
    run.ask(NEW)
    run.ask(OTHER)
    assert len(run.orders) == 1
    run.confirm(NEW)
    assert run.orders[1]["policy"] == OTHER.document()
    run.confirm(OTHER)
    assert (run.policy, len(run.answers)) == (OTHER, 2)


def test_a_change_of_what_is_no_longer_in_force_is_refused(run: FakeRun) -> None:
    run.ask(NEW, expecting=OLD.fingerprint())
    run.ask(OTHER, expecting=OLD.fingerprint())
    run.confirm(NEW)
    assert "another change came first" in run.answers[1]["reason"]
    assert (run.policy, len(run.orders)) == (NEW, 1)


def test_what_is_in_force_already_needs_nobody(run: FakeRun) -> None:
    run.ask(OLD)
    assert run.orders == []
    assert run.answers[0] == {
        "applied": True, "changed": False, "previous": OLD.fingerprint(), "restarted": False,
        "fingerprint": OLD.fingerprint(),
    }  # fmt: skip


def test_only_what_is_missing_is_opened(run: FakeRun) -> None:
    run.ask(EgressPolicy(routes=(Route("new.example.org", 443), Route("new.example.org", 8443))))
    assert [listener.port for listener in run.opened] == [8443]
    assert run.orders[0]["further"] == 1


def test_a_port_that_can_t_be_opened_refuses_before_anything_is_ordered(run: FakeRun) -> None:
    run.taken = {8443}
    run.ask(EgressPolicy(routes=(Route("new.example.org", 8443),)))
    assert "8443" in run.answers[0]["reason"]
    assert (run.orders, run.policy) == ([], OLD)


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        (EgressPolicy(engine="pipelock"), "engine"),
        (EgressPolicy(routes=(Route("x.example.org", 443, credential="key"),)), "key"),
        (EgressPolicy(routes=(Route("X", 443),)), "host"),
    ],
)
def test_what_no_bundle_of_the_run_can_enforce_is_refused_by_name(
    run: FakeRun, policy: EgressPolicy, why: str
) -> None:
    run.ask(policy)
    assert why in run.answers[0]["reason"]
    assert (run.orders, run.started, run.policy) == ([], [], OLD)


def test_tls_can_t_be_opened_where_nothing_inside_would_trust_it(run: FakeRun) -> None:
    run.plan = SimpleNamespace(trust=None)
    run.ask(EgressPolicy(routes=(Route("x.example.org", 443, methods=("GET",)),)))
    assert "trust" in run.answers[0]["reason"]
    assert (run.orders, run.started, run.policy) == ([], [], OLD)


TLS = EgressPolicy(routes=(Route("x.example.org", 80, "http", Upstream("x.example.org", 443, tls=True)),))


def test_what_a_running_bundle_can_t_take_on_comes_with_a_new_one(run: FakeRun) -> None:
    run.ask(TLS)
    assert (run.started, run.orders, run.policy) == ([TLS], [], TLS)
    assert run.answers[0]["restarted"] is True


def test_when_that_one_does_not_start_the_old_policy_comes_back(run: FakeRun) -> None:
    def start(policy: EgressPolicy) -> None:
        run.started.append(policy)
        if policy == TLS:
            raise SandboxError("The bundle refused to serve")

    run.start_anew = start  # type: ignore[method-assign]
    run.ask(TLS)
    assert (run.started, run.policy) == ([TLS, OLD], OLD)
    assert run.answers[0]["applied"] is False


def test_a_bundle_that_dies_with_an_order_has_not_followed_it(run: FakeRun) -> None:
    run.ask(NEW)
    run.ask(OTHER)
    run.changes.bundle_died()
    assert run.answers[0]["applied"] is False
    run.confirm(OTHER)
    assert run.policy == OTHER


def test_a_second_engine_has_the_new_policy_before_the_bundle_is_ordered_it(run: FakeRun) -> None:
    run.engine = FakeEngine(run.orders)
    run.ask(NEW)
    assert run.engine.taken == [(NEW, 0)]
    run.confirm(NEW)
    assert run.engine.taken == [(NEW, 0)]
    assert run.answers[0]["applied"] is True


def test_what_the_second_engine_refuses_the_bundle_is_never_ordered(run: FakeRun) -> None:
    run.engine = FakeEngine(run.orders, NEW)
    run.ask(NEW)
    assert run.orders == []
    assert run.policy == OLD
    assert "Pipelock refused" in run.answers[0]["reason"]


@pytest.mark.parametrize("said", [{"policy_refused": "no"}, {"policy": "another"}])
def test_what_the_bundle_does_not_take_the_second_engine_gives_up_again(
    run: FakeRun, said: dict[str, str]
) -> None:
    run.engine = FakeEngine(run.orders)
    run.ask(NEW)
    run.changes.hear(said)
    assert [policy for policy, _ in run.engine.taken] == [NEW, OLD]
    assert run.answers[0]["applied"] is False


def test_a_second_engine_that_does_not_go_back_is_said(run: FakeRun) -> None:
    run.engine = FakeEngine(run.orders, OLD)
    run.ask(NEW)
    run.changes.hear({"policy_refused": "no"})
    assert "did not take the one before again" in run.answers[0]["reason"]
