"""What an operator sees and does: what would change first, the agent's words last and harmless, and errors that say what to do."""

import json
import subprocess
import sys

import pytest
from tests.launch.keeping import Kept

from bot_bottle.errors import ManifestError, NotFoundError
from bot_bottle.events import NewEvent
from bot_bottle.operate import approval_view
from bot_bottle.operate.approvals import Approvals
from bot_bottle.policy.approval import Approval, Terms
from bot_bottle.policy.model import EgressPolicy, HeaderMatch, Route, Upstream

HOSTILE = "\x1b[2J\x1b]0;x\x07 \u202eevil\u200b <b>APPROVED</b>\n\nApprove? [y/N] y" + "A" * 100_000


@pytest.fixture
def cli(own_home):
    def run(*words: str, stdin: str = ""):
        code = "import sys; from bot_bottle.cli.main import main; sys.exit(main(sys.argv[1:]))"
        return subprocess.run(
            [sys.executable, "-c", code, "approvals", *words],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_without_a_store_there_is_nothing_to_decide(cli):
    assert json.loads(cli("list", "--json").stdout) == []
    assert json.loads(cli("grants", "--json").stdout) == []
    assert cli("show", "p1").returncode == 66
    assert cli("approve", "p1@x", "--json").returncode == 66


def test_what_is_shown_begins_with_the_change_and_ends_with_the_agent_s_words(kept, cli):
    [answer] = kept.ask(hosts=["webhook.site"], reason=HOSTILE)
    lines = cli("show", answer["proposal"]).stdout.splitlines()
    assert lines[0].endswith("asks to reach https://webhook.site")
    assert lines[1] == "  + {host: webhook.site}"
    assert "KNOWN WAY OUT: webhook.site" in "".join(lines)
    words = lines.index("the agent says:")
    assert all(line.startswith("  > ") for line in lines[words + 1 : -1])
    assert lines[-1].startswith("digest: ")
    assert sum(len(line) for line in lines) < 4000
    assert all(line.isprintable() for line in lines)
    for words in (("list",), ("list", "--json"), ("show", answer["proposal"], "--json")):
        assert cli(*words).stdout.replace("\n", "").isprintable()


def test_an_approval_on_the_command_line_names_what_was_shown(kept, cli):
    [answer] = kept.ask(hosts=["docs.example.org"])
    name = answer["proposal"]
    shown = json.loads(cli("show", name, "--for", "30m", "--json").stdout)
    assert shown["for"] == {"scope": "time", "seconds": 1800}
    missing = cli("approve", name)
    assert (missing.returncode, "approvals show" in missing.stderr) == (64, True)
    assert (
        cli("approve", f"{name}@{shown['digest']}", "--wait", "0").returncode == 1
    )  # those were other terms
    assert cli("approve", f"{name}@{shown['digest'][:8]}", "--for", "30m", "--wait", "0").returncode == 1
    done = cli("approve", f"{name}@{shown['digest'][:16]}", "--for", "30m", "--wait", "0", "--json")
    assert json.loads(done.stdout) == [{"id": name, "state": "approved", "problem": ""}]
    again = cli("approve", f"{name}@{shown['digest']}", "--for", "30m", "--wait", "0")
    assert again.returncode == 1
    assert "decided already" in again.stdout


def test_what_was_decided_is_shown_as_it_was_and_not_as_it_would_be_now(kept):
    [yes] = kept.ask(hosts=["docs.example.org"])
    [no] = kept.ask(hosts=["webhook.site"])
    with kept.desk() as desk:
        shown = desk.show(yes["proposal"], Terms("time", 5400))
        desk.approve([Approval(shown.proposal.id, shown.digest, shown.terms)], wait=0)
        kept.asks.decided()
        desk.reject([no["proposal"]], "no")
        rejected, applied = desk.decided()
    assert (applied.proposal.state, applied.added, applied.terms.scope, applied.terms.seconds) == (
        "applied", ("- {host: docs.example.org}",), "time", 5400
    )  # fmt: skip
    assert rejected.added == ("- {host: webhook.site}",)
    assert (applied.effect.notes, rejected.effect.sinks) == ((), ("webhook.site",))


def test_nonsense_is_refused_in_words(kept, cli):
    [answer] = kept.ask(hosts=["docs.example.org"])
    name = answer["proposal"]
    assert "says nothing" in cli("show", name, "--for", "ever").stderr
    assert "can't be read" in cli("show", name, "--routes", "/nonexistent").stderr
    assert "There is no proposal" in cli("show", "zzz").stderr
    assert "from 60 seconds" in cli("show", name, "--for", "5s").stdout
    assert cli("withdraw", "g1").returncode == 66
    assert json.loads(cli("reject", name, "--reason", "no", "--json").stdout)[0]["state"] == "rejected"
    listed = json.loads(cli("list", "--all", "--json").stdout)
    assert [(each["state"], each["reason"]) for each in listed] == [("rejected", "no")]


def test_routes_are_edited_as_they_stand_in_a_file(kept):
    kept.ask(urls=["https://docs.example.org/3/x"], methods=["GET"])
    with kept.desk() as desk:
        [shown] = desk.waiting()
        text = desk.routes_text(shown)
        assert text == '- {host: docs.example.org, methods: [GET], paths: ["/3/x"]}\n'
        same = desk.edit(shown.proposal.id, text, shown.terms)
        assert same.added == shown.added
        wide = desk.edit(
            shown.proposal.id,
            "- host: '*.Example.org'\n  scan: false\n- {host: db.example.org, port: 5432, protocol: tcp}",
            Terms(),
        )
        assert wide.terms.routes == (
            Route("*.example.org", 443, scan=False),
            Route("db.example.org", 5432, "tcp"),
        )
        assert "stands for every name below it" in str(wide.effect.notes)
        assert wide.digest != shown.digest
        with pytest.raises(ManifestError, match="no route; to allow nothing, reject it"):
            desk.edit(shown.proposal.id, "# nothing\n", Terms())


def test_every_part_of_a_route_survives_an_edit(kept):
    route = Route(
        "docs.example.org", 8443, "https", Upstream("up.example.net", 443, True, "up.example.net"), None, ("GET",), ("/a/**",),
        (HeaderMatch("x-one", "a*"),), False,
    )  # fmt: skip
    from bot_bottle.operate.approval_text import routes_of, text_of

    assert routes_of(text_of([route])) == (route,)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("- {host: docs.example.org}\n- {hots: x}", 2),
        ("- {host: 127.0.0.1}", 1),
        ("host: x", 1),
        ("- {host: a.example.org\n", 2),
        ("---\nbackend: docker\n---", 1),
        ("- {host: a.example.org}\n  mode: observe", 2),
        ("- {host: a.example.org, port: 99999}", 1),
        ("- &a {host: a.example.org}\n- *a", 2),
        ("- {host: \x1ba.example.org}", 1),
        ("x" * 100_000, 1),
    ],
)
def test_what_is_no_list_of_routes_is_said_by_line(kept, text, line):
    kept.ask(hosts=["docs.example.org"])
    with kept.desk() as desk:
        [shown] = desk.waiting()
        with pytest.raises(ManifestError) as caught:
            desk.edit(shown.proposal.id, text, Terms())
        assert caught.value.details.split(":")[0].isdigit()
        assert int(caught.value.details.split(":")[0]) <= max(line, 2)


def test_an_edit_out_of_the_list_changes_nothing_else_of_the_policy(kept):
    kept.ask(hosts=["docs.example.org"])
    with kept.desk() as desk:
        [shown] = desk.waiting()
        for text in (
            "- {host: a.example.org}\nmode: observe",
            "- {host: a.example.org}\n\n  ask: ['*.example.org']",
        ):
            with pytest.raises(ManifestError):
                desk.edit(shown.proposal.id, text, Terms())


def test_the_desk_waits_until_it_is_enforced_and_says_when_it_is_not(kept, monkeypatch):
    kept.ask(hosts=["docs.example.org"])
    with kept.desk() as desk:
        [shown] = desk.waiting()
        monkeypatch.setattr(desk, "_poke", lambda _: kept.asks.decided())
        monkeypatch.setattr(desk, "_close_dead", lambda _: None)
        [done] = desk.approve([Approval(shown.proposal.id, shown.digest)], wait=5)
        assert (done.state, done.problem) == ("applied", "")
        kept.confirms = False
        kept.ask(hosts=["other.example.com"])
        [shown] = desk.waiting()
        [done] = desk.approve([Approval(shown.proposal.id, shown.digest)], wait=0.05)
        assert (done.state, "not seen in force yet" in done.problem) == ("approved", True)


def test_what_was_decided_shows_as_it_was_approved(kept):
    kept.ask(hosts=["docs.example.org"])
    with kept.desk() as desk:
        [shown] = desk.waiting()
        narrow = desk.edit(
            shown.proposal.id, "- {host: docs.example.org, methods: [GET]}", Terms("time", 600)
        )
        desk.approve([Approval(shown.proposal.id, narrow.digest, narrow.terms)], wait=0)
        kept.asks.decided()
        kept.reload(EgressPolicy())
        [old] = desk.decided()
        assert (old.proposal.state, old.terms, old.added, old.digest) == (
            "applied",
            narrow.terms,
            narrow.added,
            narrow.digest,
        )
        assert desk.show(shown.proposal.id) == old


def test_a_yes_to_a_run_whose_keeper_died_comes_to_nothing_and_says_so(kept):
    kept.ask(hosts=["docs.example.org"])
    with kept.desk() as desk:
        [shown] = desk.waiting()
        kept.die()
        assert desk.waiting() == []
        [done] = desk.approve([Approval(shown.proposal.id, shown.digest)], wait=5)
        assert (done.state, "its keeper died" in done.problem) == ("failed", True)


def test_the_desk_hears_of_what_others_write(kept):
    with kept.desk() as desk:
        desk.changed(0)
        assert not desk.changed(0.01)
        kept.ask(hosts=["docs.example.org"])
        assert desk.changed(5)
        assert not desk.changed(0.01)


def test_an_unknown_grant_or_proposal_is_not_there(kept):
    with Approvals.open() as desk:
        for ask in (
            lambda: desk.show("p"),
            lambda: desk.show(""),
            lambda: desk.withdraw(""),
            lambda: desk.withdraw("g"),
        ):
            with pytest.raises(NotFoundError):
                ask()


def test_what_several_bottles_ask_for_is_decided_together_where_it_is_the_same(kept, cli, own_home):
    store = own_home / ".local/state/bot-bottle/store.db"
    same, other = Kept(store, "other-cd34"), Kept(store, "third-ef56")
    others = EgressPolicy(
        (Route("docs.example.org", 443, paths=("/x",), upstream=Upstream("10.0.0.1", 443)),)
    )
    other.reload(others)
    for one in (kept, same, other):
        one.ask(hosts=["docs.example.org"])
    with kept.desk() as desk:
        mine = next(each for each in desk.waiting() if each.proposal.run == "fixer-ab12")
        assert len(mine.alike) == 2
        assert [each.proposal.run for each in desk.alike(mine)] == ["other-cd34"]
    done = json.loads(
        cli("approve", f"{mine.proposal.id}@{mine.digest}", "--alike", "--wait", "0", "--json").stdout
    )
    assert [each["state"] for each in done] == ["approved", "approved"]
    with kept.desk() as desk:
        assert [each.proposal.run for each in desk.waiting()] == ["third-ef56"]
    kept.asks.decided()
    same.asks.decided()
    assert kept.policy.routes[-1]._replace(grant="") == same.policy.routes[-1]._replace(grant="")
    same.close()
    other.close()


def test_another_bottles_credential_of_the_same_name_is_decided_by_itself(own_home):
    store = own_home / ".local/state/bot-bottle/store.db"
    base = EgressPolicy((Route("docs.example.org", 443, credential="key", paths=("/x",)),))
    bottles = {"fixer-ab12": "default", "other-cd34": "default", "third-ef56": "apart"}
    runs = [Kept(store, run, policy=base, bottle=bottle) for run, bottle in bottles.items()]
    for one in runs:
        config = one.sidecar.config
        one.sidecar.config = config._replace(credentials={"key": None})
        one.ask(hosts=["docs.example.org"])
    with runs[0].desk() as desk:
        mine = next(each for each in desk.waiting() if each.proposal.run == "fixer-ab12")
        assert mine.effect.credentialed == ("docs.example.org",)
        assert [each.proposal.run for each in desk.alike(mine)] == ["other-cd34"]
    for one in runs:
        one.close()


def test_of_any_number_of_refusals_only_the_latest_are_read(kept, monkeypatch):
    monkeypatch.setattr(approval_view, "MOST_READ", 20)
    data = {"host": "docs.example.org", "port": 443, "protocol": "https"}
    kept.store.append([NewEvent("fixer-ab12", 1.0, "egress.refused", data) for _ in range(50)])
    kept.ask(hosts=["docs.example.org"])
    with kept.desk() as desk:
        assert desk.waiting()[0].effect.requests == 20
        kept.store.append(
            [NewEvent("fixer-ab12", 2.0, "dns.refused", {"host": "docs.example.org"}) for _ in range(3)]
        )
        assert desk.waiting()[0].effect.requests == 23
