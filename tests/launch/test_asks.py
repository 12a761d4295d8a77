"""From an ask to an answer, with a real store: nothing is applied that was not shown, and nothing is said before it is so."""

import pytest
from tests.launch.keeping import BASE, Kept

from bot_bottle.launch.asks_limits import BURST, EACH, MOST_OPEN, REFUSAL_HOLDS
from bot_bottle.launch.change import Change
from bot_bottle.policy.approval import Approval, Terms
from bot_bottle.policy.model import EgressPolicy, Route, Upstream

DOCS = Route("docs.example.org", 443)


@pytest.fixture
def kept(tmp_path):
    kept = Kept(tmp_path / "store.db")
    yield kept
    kept.close()


def approve(kept, *shown, text="", **terms):
    """As an operator who looked at each on these terms."""
    with kept.desk() as desk:
        looked = [desk.show(each.proposal.id, Terms(**terms)) if terms else each for each in shown]
        if text:
            looked = [desk.edit(each.proposal.id, text, Terms(**terms)) for each in shown]
        done = desk.approve([Approval(each.proposal.id, each.digest, each.terms) for each in looked], wait=0)
    kept.asks.decided()
    return done


def reject(kept, *shown, reason="", **more):
    with kept.desk() as desk:
        done = desk.reject([each.proposal.id for each in shown], reason, **more)
    kept.asks.decided()
    return done


def waiting(kept):
    with kept.desk() as desk:
        return desk.waiting()


def ask(kept, *hosts, **more):
    """The answers to an ask for these hosts, and what an operator sees of it."""
    answers = kept.ask(hosts=list(hosts), **more)
    return answers, next(each for each in waiting(kept) if each.proposal.id == answers[0]["proposal"])


def states(answers):
    return [answer["state"] for answer in answers]


def hosts(kept):
    return {route.host for route in kept.policy.routes}


def kinds(kept):
    return [event.kind for event in kept.store.events()]


def test_what_was_refused_is_asked_decided_enforced_and_answered_in_that_order(kept):
    kept.confirms = False
    answers, shown = ask(kept, "docs.example.org", reason="the manual")
    assert states(answers) == ["pending"]
    assert shown.added == ("- {host: docs.example.org}",)
    assert approve(kept, shown)[0].state == "approved"
    assert states(answers) == ["pending"]
    assert kept.asks.proposals.grants() == []
    kept.confirm()
    assert states(answers) == ["pending", "applied"]
    assert answers[-1]["message"].startswith("APPROVED")
    assert kept.policy.routes[-1]._replace(grant="") == DOCS
    assert [grant.routes for grant in kept.asks.proposals.grants()] == [(DOCS,)]
    assert kinds(kept) == ["proposal.made", "proposal.approved", "proposal.applied"]
    assert kept.store.verify().ok


def test_a_rejection_is_told_with_its_reason_and_sticks_for_an_hour(kept):
    answers, shown = ask(kept, "drop.evil.example")
    reject(kept, shown, reason="not that\x1b[2J one")
    assert states(answers) == ["pending", "rejected"]
    assert "REFUSED" in answers[-1]["message"]
    assert "not that\ufffd[2J one" in answers[-1]["message"]
    for variant in (
        {"hosts": ["drop.evil.example"]}, {"hosts": ["drop.evil.example:8443"]}, {"hosts": ["a.drop.evil.example"]},
        {"hosts": ["other.evil.example"]}, {"urls": ["http://drop.evil.example/x"]},
        {"hosts": ["DROP.evil.example."], "methods": ["GET"]}, {"hosts": ["fine.example.org", "drop.evil.example"]},
        {"hosts": ["drop.evil.example"], "protocol": "tcp", "port": 22},
    ):  # fmt: skip
        again = kept.ask(**variant)
        assert (again[0]["state"], again[0]["proposal"]) == ("rejected", shown.proposal.id), variant
        assert "REFUSED" in again[0]["message"]
    assert waiting(kept) == []
    assert states(kept.ask(hosts=["fine.example.org"])) == ["pending"]
    kept.clock.ahead += REFUSAL_HOLDS + 1
    assert states(kept.ask(hosts=["drop.evil.example"])) == ["pending"]


def test_an_operator_can_say_that_it_may_be_asked_for_again(kept):
    _answers, shown = ask(kept, "docs.example.org")
    reject(kept, shown, may_ask_again=True)
    assert states(kept.ask(hosts=["docs.example.org"])) == ["pending"]


def test_asking_again_while_it_is_open_is_the_same_proposal(kept):
    answers, shown = ask(kept, "docs.example.org", reason="one")
    more = [kept.ask(hosts=["DOCS.example.org."], reason=f"other {n}") for n in range(3)]
    assert {answer[0]["proposal"] for answer in more} == {shown.proposal.id}
    assert [each.proposal.repeats for each in waiting(kept)] == [3]
    approve(kept, waiting(kept)[0])
    assert [states(answer) for answer in (answers, *more)] == [["pending", "applied"]] * 4
    assert len(kept.asks.proposals.grants()) == 1


def test_what_is_allowed_already_asks_nobody(kept):
    answers = kept.ask(hosts=["known.example.org"])
    assert (answers[0]["state"], answers[0]["added"]) == ("applied", ["- {host: known.example.org}"])
    assert "ALLOWED ALREADY" in answers[0]["message"]
    assert kinds(kept) == []


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "[::1]",
        "0x7f000001",
        "localhost",
        "db",
        "x.internal",
        "a..b",
        "-",
        "",
        "*.example.org",
        "a\0b",
    ],
)
def test_what_can_t_be_asked_for_is_said_at_once(kept, host):
    [answer] = kept.ask(hosts=[host])
    assert answer["problem"].startswith("REFUSED")
    assert kinds(kept) == []


def test_a_digest_of_something_else_approves_nothing(kept):
    answers, shown = ask(kept, "docs.example.org")
    _, other = ask(kept, "other.example.net")
    with kept.desk() as desk:
        for digest, terms in (
            ("", shown.terms), (other.digest, shown.terms), (shown.digest, Terms("once")), (shown.digest, Terms("time", 60)),
            (shown.digest, Terms(routes=(Route("*.example.org", 443),))), (shown.digest.upper(), shown.terms),
        ):  # fmt: skip
            [done] = desk.approve([Approval(shown.proposal.id, digest, terms)], wait=0)
            assert (done.state, "not what was shown" in done.problem) == ("pending", True)
    kept.asks.decided()
    assert states(answers) == ["pending"]
    assert kept.policy == BASE


def test_a_policy_that_was_edited_meanwhile_makes_what_was_shown_stale(kept):
    _, shown = ask(kept, "docs.example.org")
    kept.reload(EgressPolicy((*BASE.routes, Route("new.example.org", 443))))
    [done] = approve(kept, shown)
    assert "look again" in done.problem
    assert approve(kept, waiting(kept)[0])[0].state == "approved"
    assert hosts(kept) == {"known.example.org", "new.example.org", "docs.example.org"}


def test_a_policy_that_was_edited_between_yes_and_enforcement_fails_it(kept):
    answers, shown = ask(kept, "docs.example.org")
    kept.confirms = False
    edited = EgressPolicy((*BASE.routes, Route("new.example.org", 443)))
    kept.changes.ask(
        Change(edited, "me", "", "", lambda _: kept.asks.rebased(edited), lambda: kept.asks.over(edited))
    )
    approve(kept, shown)
    kept.confirm()
    assert states(answers) == ["pending", "failed"]
    assert "NOT be put in force: the policy changed meanwhile" in answers[-1]["message"]
    assert hosts(kept) == {"known.example.org", "new.example.org"}
    assert kept.asks.proposals.grants() == []


def test_a_reload_keeps_what_was_granted_and_its_end_leaves_the_reload(kept):
    _, shown = ask(kept, "docs.example.org")
    approve(kept, shown)
    kept.reload(EgressPolicy((Route("new.example.org", 443),)))
    assert hosts(kept) == {"new.example.org", "docs.example.org"}
    [grant] = kept.asks.proposals.grants()
    kept.asks.withdraw(grant.id, "me", lambda *_: None)
    assert hosts(kept) == {"new.example.org"}


def test_a_bundle_that_refuses_fails_the_proposal(kept):
    kept.refuses = lambda _: "no room"
    answers, shown = ask(kept, "docs.example.org")
    approve(kept, shown)
    assert states(answers) == ["pending", "failed"]
    assert "no room" in answers[-1]["message"]
    assert kept.policy == BASE


def test_a_bundle_that_dies_with_the_change_leaves_it_undone(kept):
    kept.confirms = False
    answers, shown = ask(kept, "docs.example.org")
    approve(kept, shown)
    kept.changes.bundle_died()
    assert states(answers) == ["pending", "failed"]
    assert (kept.policy, kept.asks.proposals.grants()) == (BASE, [])


def test_a_bundle_that_says_it_enforces_something_else_is_not_believed(kept):
    kept.confirms = False
    answers, shown = ask(kept, "docs.example.org")
    approve(kept, shown)
    kept.changes.hear({"policy": BASE.fingerprint()})
    assert states(answers) == ["pending", "failed"]
    assert kept.enforced[-1] == BASE


def test_of_a_batch_only_what_can_t_be_enforced_fails(kept):
    kept.refuses = lambda policy: (
        "bad" if any(route.host == "bad.example.net" for route in policy.routes) else ""
    )
    asked = {name: ask(kept, name) for name in ("one.example.org", "bad.example.net", "two.example.com")}
    approve(kept, *(shown for _, shown in asked.values()))
    assert {name: states(answers)[-1] for name, (answers, _) in asked.items()} == {
        "one.example.org": "applied", "bad.example.net": "failed", "two.example.com": "applied",
    }  # fmt: skip
    assert hosts(kept) == {"known.example.org", "one.example.org", "two.example.com"}


def test_a_batch_is_one_change_of_the_policy(kept):
    shown = [ask(kept, f"h{n}.example{n}.org")[1] for n in range(8)]
    approve(kept, *shown)
    assert len(kept.orders) == 1
    assert len(hosts(kept)) == 9


def test_an_edit_narrows_what_is_granted(kept):
    answers, shown = ask(kept, "docs.example.org")
    approve(kept, shown, text='- {host: docs.example.org, methods: [GET], paths: ["/3/**"]}', scope="bottle")
    assert kept.policy.routes[-1].paths == ("/3/**",)
    assert answers[-1]["added"] == ['- {host: docs.example.org, methods: [GET], paths: ["/3/**"]}']


def test_once_ends_with_its_use_and_a_new_bundle_never_gets_it_again(kept):
    _answers, shown = ask(kept, "docs.example.org")
    approve(kept, shown, scope="once")
    [grant] = kept.asks.proposals.grants()
    assert [(route.grant, route.once) for route in kept.policy.routes[1:]] == [(grant.id, True)]
    kept.asks.hear_bundle({"used": grant.id})
    assert kept.fresh(kept.policy) == BASE
    assert "docs.example.org" in hosts(kept)
    kept.asks.hear_bundle({"spent": grant.id})
    assert kept.policy == BASE
    assert kept.asks.proposals.grants() == []
    assert [(each.used, each.ended) for each in kept.asks.proposals.grants(ended=True)] == [(1, "used")]
    assert "NOT IN FORCE ANY MORE" in kept.wait_for(shown.proposal.id)[0]["message"]


def test_a_bundle_that_takes_the_place_of_one_that_used_a_grant_for_once_does_not_get_it(kept):
    _, shown = ask(kept, "docs.example.org")
    approve(kept, shown, scope="once")
    [grant] = kept.asks.proposals.grants()
    kept.asks.hear_bundle({"used": grant.id})
    kept.confirms = False
    kept.changes.hear({})
    _, other = ask(kept, "other.example.com")
    approve(kept, other)
    kept.fire()  # it does not answer in time
    assert "docs.example.org" not in {route.host for route in kept.enforced[-1].routes}
    kept.confirms = True
    kept.asks.holding.bundle_began()
    assert hosts(kept) == {"known.example.org", "other.example.com"}


def test_a_time_ends(kept):
    answers, shown = ask(kept, "docs.example.org")
    approve(kept, shown, scope="time", seconds=60)
    assert answers[-1]["until"] > kept.clock()
    kept.asks.tick()
    assert "docs.example.org" in hosts(kept)
    kept.clock.ahead += 61
    kept.asks.tick()
    assert kept.policy == BASE
    assert kinds(kept)[-1] == "grant.ended"


def test_what_is_not_used_for_an_hour_is_withdrawn_and_what_is_used_stays(kept):
    for name in ("used.example.org", "idle.example.com"):
        approve(kept, ask(kept, name)[1])
    by_host = {grant.routes[0].host: grant.id for grant in kept.asks.proposals.grants()}
    kept.asks.hear_bundle({"used": by_host["used.example.org"]})
    kept.clock.ahead += 3601
    kept.asks.tick()
    assert hosts(kept) == {"known.example.org", "used.example.org"}


def test_a_grant_for_good_goes_into_the_file_and_is_not_withdrawn(kept, tmp_path, own_home):
    file = own_home / ".bot-bottle/bottles/default.md"
    file.parent.mkdir(parents=True)
    file.write_text("---\n# mine\negress:\n  routes:\n    - {host: known.example.org}\n---\n")
    kept.plan.bottle_file = str(file)
    answers, shown = ask(kept, "docs.example.org")
    with kept.desk() as desk:
        assert "+    - {host: docs.example.org}" in desk.file_diff(shown)
    [done] = approve(kept, shown, scope="manifest")
    assert done.problem == ""
    assert states(answers) == ["pending", "applied"]
    assert (
        file.read_text()
        == "---\n# mine\negress:\n  routes:\n    - {host: known.example.org}\n    - {host: docs.example.org}\n---\n"
    )
    kept.clock.ahead += 4000
    kept.asks.tick()
    assert "docs.example.org" in hosts(kept)


def test_a_file_that_can_t_be_changed_can_t_be_approved_for_good(kept, own_home):
    file = own_home / ".bot-bottle/bottles/default.md"
    file.parent.mkdir(parents=True)
    file.write_text("---\negress: [what]\n---\n")
    _, shown = ask(kept, "docs.example.org")
    [done] = approve(kept, shown, scope="manifest")
    assert done.state == "pending"
    assert done.problem


def test_nobody_answers_within_a_day(kept):
    answers, shown = ask(kept, "docs.example.org")
    kept.clock.ahead += 24 * 3600 + 1
    kept.asks.tick()
    assert states(answers) == ["pending", "expired"]
    assert "no answer means no" in answers[-1]["message"]
    with kept.desk() as desk:
        [done] = desk.approve([Approval(shown.proposal.id, shown.digest, shown.terms)], wait=0)
    assert "already: expired" in done.problem


def test_the_end_of_the_run_leaves_nothing_open(kept):
    answers, shown = ask(kept, "docs.example.org")
    kept.confirms = False
    other, more = ask(kept, "other.example.com")
    approve(kept, more)
    kept.asks.end()
    assert states(answers) == ["pending", "withdrawn"]
    assert states(other) == ["pending", "failed"]
    with kept.desk() as desk:
        assert desk.waiting() == []
        assert desk.approve([Approval(shown.proposal.id, shown.digest, shown.terms)], wait=0)[0].problem
    assert kept.store.verify().ok


def test_floods_are_stopped_by_rate_and_by_number(kept):
    taken = [kept.ask(hosts=[f"h{n}.example{n}.org"])[0] for n in range(30)]
    assert [answer.get("state") for answer in taken[:BURST]] == ["pending"] * BURST
    assert all("too fast" in answer["problem"] for answer in taken[BURST:])
    for n in range(40):
        kept.clock.ahead += EACH
        taken.append(kept.ask(hosts=[f"i{n}.example{n}.com"])[0])
    assert len(waiting(kept)) == MOST_OPEN
    assert "wait already" in taken[-1]["problem"]
    for _ in range(500):
        kept.ask(hosts=["h0.example0.org"])
    assert len(kinds(kept)) < 60


def test_with_nobody_there_it_is_kept_and_said(kept):
    kept.present = False
    answers, shown = ask(kept, "docs.example.org")
    assert answers[0]["present"] is False
    assert "Nobody is at the inbox" in answers[0]["message"]
    assert "supervise-await" in answers[0]["message"]
    approve(kept, shown)
    assert states(kept.wait_for(shown.proposal.id)) == ["applied"]
    assert kept.notified == [shown.proposal.id]


@pytest.mark.parametrize("name", ["\ud800", "\0", "p" * 100_000, "' OR 1=1 --", "p%", "P2345678", "\u202e"])
def test_an_id_that_is_none_is_not_looked_for(kept, name):
    assert "no such proposal" in kept.wait_for(name)[0]["problem"]


@pytest.mark.parametrize(
    "text",
    ["\ud800.example.org", "a\udfff", "\0", "xn--\ud800", "\u202e.example.org", "é" * 300, "a" * 70_000],
)
def test_text_that_no_encoding_has_ends_no_keeper(kept, text):
    for arguments in (
        {"hosts": [text]},
        {"urls": [f"https://{text}/{text}"]},
        {"urls": [f"https://a.example.org/{text}"]},
    ):
        [answer] = kept.ask(**arguments)
        assert "problem" in answer or answer["state"] == "pending"
    for tool, arguments in (
        ("capability-block", {"packages": [text], "change": text}),
        ("git-block", {"remote": text, "ref": text, "operation": "push"}),
        ("credential-block", {"host": text, "credential": text}),
        (text, {"reason": text}),
    ):
        kept.ask(tool, reason=text, **{name: value for name, value in arguments.items() if name != "reason"})
    place = {"host": text, "port": 443, "protocol": "https", "method": text, "path": text}
    for kind in ("request", "secret", text):
        kept.asks.hear_bundle({"hold": 1, "kind": kind, **place, "detector": text})
        kept.asks.hear_bundle({"hold": 2, "kind": kind, **place, "host": "a.example.org", "detector": text})
    kept.asks.hear_bundle({"used": text})
    kept.asks.hear_bundle({"spent": text})
    assert all(each.title.isprintable() and each.words.isprintable() for each in waiting(kept))
    assert kept.store.verify().ok


def test_another_runs_proposal_is_not_there(kept, tmp_path):
    other = Kept(tmp_path / "store.db", "other-cd34")
    _, shown = ask(other, "docs.example.org")
    assert kept.wait_for(shown.proposal.id) == [
        {"to": 1, "problem": "There is no such proposal of this bottle."}
    ]
    assert kept.wait_for("") == [{"to": 2, "problem": "There is no such proposal of this bottle."}]
    kept.ask(hosts=["docs.example.org"])
    by_run = {each.proposal.run: each for each in waiting(kept)}
    assert by_run["fixer-ab12"].alike == (by_run["other-cd34"].proposal.id,)
    other.close()


def test_what_can_t_be_applied_yet_is_recorded_and_said_to_be_no_more(kept):
    answers = kept.ask("capability-block", packages=["jq"], reason="to parse")
    [shown] = waiting(kept)
    assert (shown.applies, shown.added, shown.title) == (False, (), "get jq")
    approve(kept, shown)
    assert states(answers) == ["pending", "approved"]
    assert answers[-1]["final"]
    assert answers[-1]["message"].startswith("RECORDED, NOT APPLIED")
    assert states(kept.ask("capability-block", packages=["jq"])) == ["approved"]
    kept.asks.end()
    assert kept.asks.proposals.find(shown.proposal.id).state == "approved"


def test_a_withdrawn_grant_is_told_when_it_is_enforced(kept):
    approve(kept, ask(kept, "docs.example.org")[1])
    [grant] = kept.asks.proposals.grants()
    told = []
    kept.confirms = False
    kept.asks.withdraw(grant.id, "me", lambda *said: told.append(said))
    assert told == []
    kept.confirm()
    assert told == [(True, "")]
    assert kept.policy == BASE
    kept.asks.withdraw(grant.id, "me", lambda *said: told.append(said))
    assert told[1][0] is False


def test_a_held_request_passes_once_it_is_in_force(kept):
    hold = {
        "hold": 7,
        "kind": "request",
        "host": "docs.example.org",
        "port": 443,
        "protocol": "https",
        "method": "",
        "path": "",
    }
    kept.asks.hear_bundle(hold)
    [shown] = waiting(kept)
    assert (shown.proposal.ask.kind, shown.terms.scope, shown.added) == (
        "request",
        "once",
        ("- {host: docs.example.org}",),
    )
    kept.confirms = False
    approve(kept, shown)
    assert kept.said == []
    kept.confirm()
    assert kept.said == [{"release": 7, "pass": True, "reason": "held_applied"}]
    assert kept.policy.routes[-1].once


def test_a_request_for_what_is_just_used_up_is_asked_about_anew(kept):
    hold = {
        "kind": "request",
        "host": "docs.example.org",
        "port": 443,
        "protocol": "https",
        "method": "",
        "path": "",
    }
    kept.asks.hear_bundle({"hold": 1, **hold})
    approve(kept, waiting(kept)[0])
    [grant] = kept.asks.proposals.grants()
    kept.asks.hear_bundle({"used": grant.id})
    kept.asks.hear_bundle({"hold": 2, **hold})
    kept.asks.hear_bundle({"hold": 3, **hold})
    assert [each["release"] for each in kept.said] == [1]  # neither passes by what the first one used
    kept.asks.hear_bundle({"unhold": 3})
    [shown] = waiting(kept)
    assert shown.added == ("- {host: docs.example.org}",)
    approve(kept, shown)
    assert [each["release"] for each in kept.said] == [1, 2]
    assert kept.said[-1]["pass"]


def test_a_held_request_that_is_rejected_or_leaves_does_not_pass(kept):
    for number, host in ((1, "a.example.org"), (2, "b.example.com")):
        kept.asks.hear_bundle(
            {
                "hold": number,
                "kind": "request",
                "host": host,
                "port": 443,
                "protocol": "https",
                "method": "GET",
                "path": "/x",
            }
        )
    first, _second = waiting(kept)
    reject(kept, first)
    assert kept.said == [{"release": 1, "pass": False, "reason": "held_rejected"}]
    kept.asks.hear_bundle({"unhold": 2})
    assert waiting(kept) == []
    assert len(kept.said) == 1
    kept.asks.hear_bundle(
        {"hold": 3, "kind": "request", "host": "a.example.org", "port": 443, "protocol": "https"}
    )
    assert kept.said[-1] == {"release": 3, "pass": False, "reason": "held_rejected"}


def test_a_held_secret_passes_alone_and_changes_no_policy(kept):
    hold = {"hold": 1, "kind": "secret", "host": "known.example.org", "port": 443, "protocol": "https", "method": "POST",
            "path": "/x", "detector": "github-token", "place": "body", "fingerprint": "ab12"}  # fmt: skip
    kept.asks.hear_bundle(hold)
    [shown] = waiting(kept)
    assert "github-token" in shown.title
    with kept.desk() as desk:
        assert desk.show(shown.proposal.id, Terms("bottle")).problem
    approve(kept, shown)
    assert kept.said == [{"release": 1, "pass": True, "reason": "held_applied"}]
    assert (kept.policy, kept.orders) == (BASE, [])


def test_a_yes_to_a_secret_is_for_one_request_alone(kept):
    hold = {
        "kind": "secret",
        "host": "known.example.org",
        "port": 443,
        "protocol": "https",
        "fingerprint": "ab12",
    }
    for number in (1, 2):
        kept.asks.hear_bundle({"hold": number, **hold})
    first, _ = waiting(kept)
    approve(kept, first)
    assert [(each["release"], each["pass"]) for each in kept.said] == [(1, True)]


def test_a_yes_that_comes_when_the_request_has_gone_is_not_said_to_be_applied(kept):
    kept.asks.hear_bundle(
        {"hold": 1, "kind": "secret", "host": "known.example.org", "port": 443, "protocol": "https"}
    )
    [shown] = waiting(kept)
    with kept.desk() as desk:
        desk.approve([Approval(shown.proposal.id, shown.digest, shown.terms)], wait=0)
    kept.asks.hear_bundle({"unhold": 1})
    kept.asks.decided()
    assert kept.asks.proposals.find(shown.proposal.id).state == "failed"
    assert kept.said == []


def test_what_a_bundle_held_ends_with_it(kept):
    kept.asks.hear_bundle(
        {"hold": 1, "kind": "request", "host": "a.example.org", "port": 443, "protocol": "https"}
    )
    kept.asks.bundle_gone()
    assert waiting(kept) == []
    assert kept.said == []


@pytest.mark.parametrize(
    "message",
    [
        {"hold": "1"},
        {"hold": 1},
        {"hold": 1, "kind": "request", "host": "127.0.0.1", "port": 1, "protocol": "http"},
        {"unhold": []},
        {"unhold": 99},
        {"used": 1},
        {"used": "g"},
        {"spent": "g"},
        {"hold": 1, "kind": "x", "host": "a.b", "port": 1, "protocol": "tcp"},
        {"hold": True},
    ],
)
def test_nonsense_from_a_bundle_that_was_broken_into_changes_nothing(kept, message):
    kept.asks.hear_bundle(message)
    assert kinds(kept) == []
    assert all(not said["pass"] for said in kept.said)


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"ask": "1"},
        {"ask": True, "tool": 1},
        {"ask": 1},
        {"ask": 1, "tool": []},
        {"ask": 1, "tool": "pipelock-block"},
        {"ask": 1, "tool": "pipelock-block", "arguments": {"hosts": "x"}},
        {"ask": 1, "tool": "approve", "arguments": {}},
        {"ask": 1, "tool": "pipelock-block", "arguments": {"hosts": ["a.example.org"], "approve": True}},
        {"ask": 1, "tool": "pipelock-block", "arguments": {"hosts": ["a.example.org"] * 17}},
        {"await": 1, "proposal": {}},
        {"leave": 4},
        {"release": 1, "pass": True},
        {"decided": True},
        {"want": "decided"},
    ],
)
def test_nonsense_from_the_supervise_process_changes_nothing(kept, message):
    answers = []
    kept.asks.hear(message, answers.append)
    assert kinds(kept) == []
    assert all("problem" in answer for answer in answers)


def test_the_policy_that_an_agent_is_told_has_no_upstream(kept):
    kept.reload(EgressPolicy((Route("known.example.org", 443, upstream=Upstream("10.1.1.1", 8443)),)))
    answers = []
    kept.asks.hear({"policy": 3}, answers.append)
    assert answers[0]["allowed"] == ["- {host: known.example.org}"]
    assert "10.1.1.1" not in str(answers)


def test_a_credential_is_put_in_where_the_bottle_has_it(tmp_path):
    kept = Kept(tmp_path / "store.db")
    kept.sidecar.config = kept.sidecar.config._replace(credentials={"forge": object()})
    answers = kept.ask("credential-block", host="known.example.org", reason="to push")
    assert states(answers) == ["pending"]
    [shown] = waiting(kept)
    assert shown.added == ("- {host: known.example.org, credential: forge}",)
    assert shown.effect.credentialed == ("known.example.org",)
    approve(kept, shown)
    assert [route.credential for route in kept.policy.routes] == ["forge"]
    assert shown.removed == ("- {host: known.example.org}",)
    kept.close()


def test_what_was_allowed_once_is_not_kept_by_an_approval_that_does_not_show_it(kept):
    _, both = ask(kept, "one.example.com", "docs.example.org")
    kept.ask(hosts=["one.example.com"])
    [one] = [each for each in waiting(kept) if each.proposal.id != both.proposal.id]
    approve(kept, one, scope="once")
    [again] = waiting(kept)
    assert again.added == ("- {host: docs.example.org}", "- {host: one.example.com}")
    assert approve(kept, both)[0].state == "approved"  # it is what was shown before the other
    bottle = next(grant for grant in kept.asks.proposals.grants() if grant.scope == "bottle")
    assert bottle.routes == (DOCS, Route("one.example.com", 443))


def test_what_was_used_up_is_asked_for_again_and_never_said_to_be_allowed(kept):
    held = {"kind": "request", "host": "docs.example.org", "port": 443, "protocol": "https"}
    kept.asks.hear_bundle({"hold": 1, **held})
    approve(kept, waiting(kept)[0])
    [grant] = kept.asks.proposals.grants()
    kept.asks.hear_bundle({"used": grant.id})
    kept.said.clear()
    kept.asks.hear_bundle({"hold": 2, **held})
    assert kept.said == []
    [second] = waiting(kept)
    assert (second.added, second.problem) == (("- {host: docs.example.org}",), "")
    assert states(kept.ask(hosts=["docs.example.org"])) == ["pending"]
    approve(kept, second)
    assert kept.said == [{"release": 2, "pass": True, "reason": "held_applied"}]
    kept.asks.hear_bundle({"spent": grant.id})
    assert [each.used for each in kept.asks.proposals.grants(ended=True)] == [1]
    assert [each.proposal for each in kept.asks.proposals.grants()] == [second.proposal.id]


def test_two_runs_of_one_bottle_write_a_line_for_good_into_its_file_once(kept, tmp_path, own_home):
    file = own_home / ".bot-bottle/bottles/default.md"
    file.parent.mkdir(parents=True)
    file.write_text('---\negress:\n  routes:\n    - host: "known.example.org"\n---\n')
    other = Kept(tmp_path / "store.db", "other-cd34", policy=EgressPolicy())
    shown = []
    for each in (kept, other):
        each.plan.bottle_file = str(file)
        shown.append(ask(each, "docs.example.org")[1])
    approve(kept, shown[0], scope="manifest")
    with other.desk() as desk:
        assert desk.file_diff(shown[1]) == ""
    assert approve(other, shown[1], scope="manifest")[0].problem == ""
    approve(other, ask(other, "known.example.org")[1], scope="manifest")
    assert file.read_text().count("docs.example.org") == file.read_text().count("known.example.org") == 1
    other.close()


def test_what_was_used_once_before_the_bundle_was_heard_to_enforce_it_is_used(kept):
    kept.confirms = False
    _, shown = ask(kept, "docs.example.org")
    approve(kept, shown, scope="once")
    spent = []

    def start_anew(policy):
        """As a keeper that was kept from hearing that the one before had taken it, and that it was used."""
        kept.asks.hear_bundle({"used": "g" + shown.proposal.id[1:]})
        kept.asks.hear_bundle({"used": "gmadeup"})
        spent.extend(kept.asks.holding.spent())
        kept.enforced.append(policy)

    kept.start_anew = start_anew
    kept.fire()
    [grant] = kept.asks.proposals.grants()
    assert spent == [grant.id]
    kept.confirms = True
    kept.asks.holding.bundle_began()
    assert (kept.policy, kept.asks.holding.spent()) == (BASE, ())
    assert [each.used for each in kept.asks.proposals.grants(ended=True)] == [1]
