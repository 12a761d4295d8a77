"""What the page may ask for, and what it is told: decisions by what was shown, live, with the desk off the event loop."""

import threading

import pytest

from bot_bottle.errors import StateError
from bot_bottle.policy.approval import Decided, Effect
from bot_bottle.policy.egress import EgressPolicy
from bot_bottle.policy.model import Route
from support.waiting import wait_for
from web.feed import Feed

BOTTLE = {"scope": "bottle"}


def look(client, *ids, on=None, text=None):
    return client.post("/api/look", {"ids": list(ids), "on": on, "text": text}).json["shown"]


def approval(item, **more):
    return {"id": item["id"], "digest": item["digest"], "on": {"scope": item["scope"]}, **more}


def titles(data):
    return [item["title"] for item in data["waiting"]]


def test_what_waits_is_told_at_once_the_oldest_first(client, desk):
    desk.ask("later.example.org", age=10)
    desk.ask("earlier.example.org", age=100)
    with Feed(client) as feed:
        assert titles(feed.next()[1]) == ["Reach earlier.example.org:443", "Reach later.example.org:443"]
        desk.ask("third.example.org")
        assert len(feed.until(lambda _, data: len(data["waiting"]) == 3)["waiting"]) == 3


def test_the_mark_changes_with_everything_that_an_operator_would_decide_by(client, desk):
    name = desk.ask("a.example.org")
    marks = []
    for parts in (
        {}, {"effect": Effect(7)}, {"effect": Effect(7, 1, ("a.example.org",))}, {"effect": Effect(7, 1, (), ("a.example.org",))},
        {"effect": Effect(notes=("Careful.",))}, {"problem": "No."}, {"title": "Another"},
    ):  # fmt: skip
        desk.say(name, **parts)
        marks.append(look(client, name)[0]["mark"])
    desk.end(name, "expired")
    marks.append(look(client, name)[0]["mark"])
    assert len(set(marks)) == len(marks)


def test_an_approval_is_of_what_was_shown(client, desk):
    name = desk.ask("a.example.org")
    (shown,) = look(client, name)
    assert shown["added"] == ["{host: a.example.org}"]
    desk.put("fixer-2345", EgressPolicy((Route("other.example.org", 443),)))
    desk.say(name, effect=Effect(sinks=("a.example.org",)))
    (decided,) = client.post("/api/approve", {"approvals": [approval(shown)]}).json["decided"]
    assert decided["state"] == "pending"
    assert "look again" in decided["problem"]
    assert desk.approvals == []


def test_an_approval_on_other_terms_than_those_shown_does_not_count(client, desk):
    name = desk.ask("a.example.org")
    (shown,) = look(client, name, on={"scope": "once"})
    (decided,) = client.post(
        "/api/approve", {"approvals": [{**approval(shown), "on": {"scope": "manifest"}}]}
    ).json["decided"]
    assert decided["problem"]
    assert desk.approvals == []


def test_what_was_edited_is_computed_by_the_server_and_approved_as_it_was_shown(client, desk):
    name = desk.ask("a.example.org")
    text = "- {host: a.example.org, methods: [GET], paths: [/docs/**]}"
    (shown,) = look(client, name, on=BOTTLE, text=text)
    assert shown["edited"]
    assert shown["added"] == ['{host: a.example.org, methods: [GET], paths: ["/docs/**"]}']
    (decided,) = client.post("/api/approve", {"approvals": [approval(shown, text=text)]}).json["decided"]
    assert decided["state"] == "applied"
    assert desk.policies["fixer-2345"].routes == (
        Route("a.example.org", 443, methods=("GET",), paths=("/docs/**",)),
    )


def test_another_text_than_the_one_that_was_shown_is_not_approved(client, desk):
    name = desk.ask("a.example.org")
    (shown,) = look(client, name, on=BOTTLE, text="- {host: a.example.org, methods: [GET]}")
    for text in ("- {host: a.example.org}", "- {host: '*.example.org'}", None):
        (decided,) = client.post("/api/approve", {"approvals": [approval(shown, text=text)]}).json["decided"]
        assert decided["problem"]
    assert desk.approvals == []


@pytest.mark.parametrize(
    "text",
    ["- {host: a.example.org, method: GET}", "{", "- !!python/object:os.system {}", "x" * 32769, "- &a [*a]"],
)
def test_routes_that_are_none_are_refused_with_what_is_wrong(client, desk, text):
    name = desk.ask("a.example.org")
    answer = client.post("/api/look", {"ids": [name], "on": BOTTLE, "text": text})
    assert answer.status in (400, 422)
    assert answer.json["problem"]


def test_a_batch_is_one_decision(client, desk, monkeypatch):
    calls = []
    approve = desk.approve
    monkeypatch.setattr(
        desk, "approve", lambda approvals, wait: calls.append(wait) or approve(approvals, wait=wait)
    )
    names = [desk.ask(f"h{number}.example.org", run=f"run-{number}") for number in range(320)]
    shown = look(client, *names)
    decided = client.post("/api/approve", {"approvals": [approval(item) for item in shown]}).json["decided"]
    assert [each["id"] for each in decided] == names
    assert {each["state"] for each in decided} == {"applied"}
    assert calls == [0], "one call, and the page is not held up by what it waits for"


def test_a_proposal_stands_in_a_batch_once(client, desk):
    (shown,) = look(client, desk.ask("a.example.org"))
    assert client.post("/api/approve", {"approvals": [approval(shown)] * 2}).status == 400
    assert desk.approvals == []


def test_a_refusal_has_a_reason_and_says_whether_it_sticks(client, desk):
    names = [desk.ask("a.example.org"), desk.ask("b.example.org")]
    body = {"ids": names, "reason": "Use the \u202emirror\x1b[2J.", "may_ask_again": True}
    assert [each["state"] for each in client.post("/api/reject", body).json["decided"]] == ["rejected"] * 2
    assert desk.rejections == [(name, "Use the \\u202emirror\\x1b[2J.", True) for name in names]


def test_a_grant_is_shown_and_withdrawn(client, desk):
    (shown,) = look(client, desk.ask("a.example.org"), on={"scope": "time", "minutes": 10})
    client.post("/api/approve", {"approvals": [{**approval(shown), "on": {"scope": "time", "minutes": 10}}]})
    with Feed(client) as feed:
        (grant,) = feed.next()[1]["grants"]
        assert (grant["scope"], grant["lines"], round(grant["until"] - grant["since"])) == (
            "time",
            ["{host: a.example.org}"],
            600,
        )
        assert client.post("/api/withdraw", {"id": grant["id"]}).status == 200
        feed.until(lambda _, data: data["grants"] == [])
    assert client.post("/api/withdraw", {"id": grant["id"]}).status == 404


def test_the_history_says_what_became_of_each(client, desk):
    desk.end(desk.ask("a.example.org"), "failed", "The policy changed meanwhile.")
    (item,) = client.post("/api/history", {}).json["decided"]
    assert (item["state"], item["reason"]) == ("failed", "The policy changed meanwhile.")


def test_an_approval_that_is_not_enforced_yet_is_not_called_applied(client, desk):
    name = desk.ask("a.example.org")
    desk.outcomes[name] = Decided(name, "approved")
    (shown,) = look(client, name)
    (decided,) = client.post("/api/approve", {"approvals": [approval(shown)]}).json["decided"]
    assert decided["state"] == "approved"
    assert look(client, name)[0]["state"] == "approved"


def test_a_slow_desk_does_not_hold_up_the_page(client, desk):
    """The desk's calls wait; who opens the page meanwhile gets it."""
    (shown,) = look(client, desk.ask("a.example.org"))
    desk.gate.clear()
    waiting = threading.Thread(target=lambda: client.post("/api/approve", {"approvals": [approval(shown)]}))
    waiting.start()
    try:
        for _ in range(5):
            assert client.get("/").status == 200
            assert client.get("/api/none").status == 404
        assert waiting.is_alive()
    finally:
        desk.gate.set()
        waiting.join()


def watch(desk, method, threads, monkeypatch):
    """Notes in `threads` which threads call `method`."""
    real = getattr(desk, method)

    def called(*words, **options):
        threads.setdefault(method, set()).add(threading.get_ident())
        return real(*words, **options)

    monkeypatch.setattr(desk, method, called)


def test_the_desk_that_looks_and_the_one_that_decides_are_each_used_by_a_thread_of_their_own(
    client, desk, monkeypatch
):
    threads = {}
    methods = ["waiting", "show", "decided", "grants", "changed", "present", "approve", "reject", "withdraw"]
    for method in methods:
        watch(desk, method, threads, monkeypatch)
    name = desk.ask("a.example.org")
    with Feed(client) as feed:
        feed.next()
        (shown,) = look(client, name)
        client.post("/api/history", {})
        client.post("/api/approve", {"approvals": [approval(shown)]})
        client.post("/api/reject", {"ids": [name]})
        client.post("/api/withdraw", {"id": "g0001"})
    deciding = {"approve", "reject", "withdraw"}
    assert [len(threads[method]) for method in sorted(threads)] == [1] * 9
    assert len(set.union(*(threads[method] for method in deciding))) == 1
    assert len(set.union(*(threads[method] for method in threads.keys() - deciding))) == 1
    assert threading.get_ident() not in set.union(*threads.values())


def test_looking_goes_on_while_a_decision_takes_its_time(client, desk):
    name = desk.ask("a.example.org")
    (shown,) = look(client, name)
    desk.gate.clear()
    waiting = threading.Thread(target=lambda: client.post("/api/approve", {"approvals": [approval(shown)]}))
    waiting.start()
    try:
        with Feed(client) as feed:
            assert len(feed.next()[1]["waiting"]) == 1
            desk.ask("b.example.org")
            feed.until(lambda _, data: len(data["waiting"]) == 2)
            assert look(client, name)[0]["state"] == "pending"
        assert waiting.is_alive()
    finally:
        desk.gate.set()
        waiting.join()


def test_an_approval_for_good_shows_what_it_changes_in_the_bottles_file(client, desk):
    name = desk.ask("a.example.org")
    assert look(client, name)[0]["in_file"] == ""
    (shown,) = look(client, name, on={"scope": "manifest"})
    assert "a.example.org" in shown["in_file"]


def test_an_operator_is_present_while_a_page_is_open_and_not_by_the_server_alone(client, desk, monkeypatch):
    monkeypatch.setattr("bot_bottle.web.live.AWAY_SECONDS", 0.2)
    assert desk.watching == 0
    with Feed(client) as feed, Feed(client) as other:
        feed.next()
        other.next()
        assert desk.watching == 1
    wait_for(lambda: desk.watching == 0, "the operator to have gone")
    with Feed(client) as feed:
        feed.next()
        assert desk.watching == 1


def test_a_reload_does_not_make_the_operator_absent(client, desk):
    with Feed(client) as feed:
        feed.next()
    with Feed(client) as feed:
        feed.next()
        assert desk.watching == 1


def test_a_store_that_fails_is_said_and_the_feed_goes_on_after_it(client, desk):
    desk.ask("a.example.org")
    with Feed(client) as feed:
        feed.next()
        desk.trouble = StateError("The record can't be read", details="disk\x1b[2J failed")
        assert feed.until(lambda name, _: name == "trouble") == {
            "problem": "The record can't be read\ndisk\\x1b[2J failed"
        }
        answer = client.post("/api/history", {})
        assert (answer.status, answer.json["details"]) == (503, "disk\\x1b[2J failed")
        desk.trouble = None
        assert len(feed.until(lambda name, _: name == "inbox")["waiting"]) == 1


def test_an_error_that_nobody_foresaw_tells_the_page_nothing_and_is_kept_for_the_operator(
    client, desk, service, monkeypatch
):
    def broken(_limit):
        raise ZeroDivisionError("a secret of the inside")

    monkeypatch.setattr(desk, "decided", broken)
    answer = client.post("/api/history", {})
    assert answer.status == 500
    assert b"secret" not in answer.body
    wait_for(lambda: [line for line in service.said if "crashes" in line], "the operator to be told")
    assert client.post("/api/look", {"ids": ["p0"]}).status == 404


def test_the_feed_ends_when_the_desk_breaks_and_does_not_look_live(client, desk, monkeypatch):
    monkeypatch.setattr(desk, "waiting", lambda: 1 / 0)
    with Feed(client) as feed:
        with pytest.raises((AssertionError, ConnectionError)):
            feed.next()


def test_what_is_gone_is_said_or_left_out(client, desk):
    name = desk.ask("a.example.org")
    assert client.post("/api/look", {"ids": ["p7777"]}).status == 404
    assert [item["id"] for item in look(client, name, "p7777")] == [name]


def test_a_change_too_large_to_be_looked_at_is_not_approved_here(client, desk):
    routes = [Route(f"h{number}.example.org", 443, paths=("/" + "x" * 200,)) for number in range(200)]
    (shown,) = look(client, desk.ask(routes=routes))
    assert "too large" in shown["problem"]
