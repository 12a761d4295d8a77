"""What agents ask for: list it, watch for it, see what would change, approve or reject it; see and withdraw what was granted.

An approval names the digest of what was shown: ID@DIGEST, as `show` and `list --json` print it. Without one, at a terminal,
what would change is shown first and asked about.
"""

import argparse
import json
from collections.abc import Sequence

from bot_bottle.cli import arguments as common
from bot_bottle.cli.console import Console
from bot_bottle.errors import NotFoundError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bot_bottle.operate.approvals import Approvals
    from bot_bottle.policy.approval import Decided, Grant, Shown, Terms

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SPANS = (("hour", 3600), ("minute", 60), ("second", 1))
_SHORTEST_DIGEST = 12
_ALIKE = "also those of other bottles that ask for the same and would change the same"
_LOOK_EACH = 60.0
"""Seconds after which it looks even though nothing is said to have changed."""
_TERMS = "once, bottle (while it runs), manifest (for good), or a time: 30m, 2h; default: what is offered"


def arguments(parser: argparse.ArgumentParser) -> None:
    """One parser an action."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    listing = _action(actions, "list", "what waits for an answer")
    listing.add_argument("--all", "-a", action="store_true", help="also what was decided")
    listing.add_argument(
        "--limit", type=int, default=50, metavar="N", help="how many decided ones; default 50"
    )

    _action(actions, "watch", "what is asked for, as it comes; agents are told that somebody is there")

    showing = _action(actions, "show", "one proposal: what would change, what that means, and its digest")
    showing.add_argument("proposal", metavar="PROPOSAL", help="its id, or the beginning of it")
    _terms(showing)

    approving = _action(actions, "approve", "allow what was shown")
    approving.add_argument(
        "proposals", metavar="PROPOSAL[@DIGEST]", nargs="+", help="its id and the digest of what was shown"
    )
    _terms(approving)
    approving.add_argument(
        "--wait", type=float, default=10.0, metavar="SECONDS", help="for it to be enforced; default 10"
    )

    approving.add_argument("--alike", action="store_true", help=_ALIKE)

    rejecting = _action(actions, "reject", "refuse it; variants of it are refused likewise for an hour")
    rejecting.add_argument("proposals", metavar="PROPOSAL", nargs="+", help="its id, or the beginning of it")
    rejecting.add_argument("--reason", default="", metavar="TEXT", help="what the agent is told")
    rejecting.add_argument("--alike", action="store_true", help=_ALIKE)
    rejecting.add_argument(
        "--may-ask-again", action="store_true", help="variants of it may be asked for at once"
    )

    granted = _action(actions, "grants", "what was granted and holds")
    common.bottle(granted, nargs="?")

    withdrawing = _action(actions, "withdraw", "end what was granted, at once")
    withdrawing.add_argument("grants", metavar="GRANT", nargs="+", help="its id, or the beginning of it")


def _action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, says: str
) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = actions.add_parser(
        name, help=says, description=says[:1].upper() + says[1:] + "."
    )
    made.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="data as JSON, errors too"
    )
    return made


def _terms(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--for", dest="scope", metavar="HOW-LONG", help=_TERMS)
    parser.add_argument(
        "--routes",
        metavar="FILE",
        help="other routes than those shown, as under `egress: routes:`; - reads them from stdin",
    )


def run(options: argparse.Namespace, console: Console) -> int:
    """Does what was asked; errors are raised."""
    from bot_bottle.operate.approvals import Approvals
    from bot_bottle.operate.record import existing_store, open_store

    store = open_store() if options.action == "watch" else existing_store()
    if store is None:
        if options.action in ("list", "grants"):
            console.json([]) if console.as_json else console.say("Nothing was asked for yet.")
            return 0
        raise NotFoundError("Nothing was asked for yet", resolution="bot-bottle start AGENT makes a run.")
    with Approvals(store) as desk:
        return _ACTIONS[options.action](options, desk, console)


def _list(options: argparse.Namespace, desk: "Approvals", console: Console) -> int:
    found = desk.waiting() + (desk.decided(options.limit) if options.all else [])
    if console.as_json:
        console.json([_document(each, desk) for each in found])
        return 0
    if not found:
        console.say("Nothing waits for an answer.")
        return 0
    told = [_row(each) for each in found]
    if options.all:
        console.table(("PROPOSAL", "RUN", "STATE", "AGE", "ASKS TO", "EFFECT"), told)
    else:
        console.table(("PROPOSAL", "RUN", "AGE", "ASKS TO", "EFFECT"), [row[:2] + row[3:] for row in told])
    return 0


def _watch(_: argparse.Namespace, desk: "Approvals", console: Console) -> int:
    """A line for each proposal, those that wait already first, until it is interrupted."""
    told: set[str] = set()
    with desk.present():
        if not console.as_json:
            console.say("Agents that ask are told that somebody is there. Ctrl-C ends it.")
        try:
            while True:
                waiting = desk.waiting()
                for each in waiting:
                    if each.proposal.id in told:
                        continue
                    if console.as_json:
                        console.data(json.dumps(_document(each, desk), default=str), ours=True)
                    else:
                        console.data("  ".join(_row(each)))
                told = {each.proposal.id for each in waiting}
                desk.changed(_LOOK_EACH)
        except KeyboardInterrupt:  # watching has no other end than this one, so it is no failure
            return 0


def _row(shown: "Shown") -> list[str]:
    """Short enough for a line of most terminals: `show` has all of it."""
    import time

    from bot_bottle.tui.inbox import age

    proposal = shown.proposal
    effect = next(iter(_effects(shown)), "-")
    since = age(proposal.made_at, time.time())
    return [proposal.id, proposal.run, proposal.state, since, _cut(shown.title, 48), _cut(effect, 40)]


def _cut(text: str, longest: int) -> str:
    from bot_bottle.operate.text import visible

    text = visible(text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _effects(shown: "Shown") -> list[str]:
    """What it would do, the worst first."""
    effect = shown.effect
    parts = [f"KNOWN WAY OUT: {', '.join(effect.sinks)}"] if effect.sinks else []
    if effect.credentialed:
        parts.append(f"reaches a host with a credential: {', '.join(effect.credentialed)}")
    if effect.requests:
        refused, hosts = _many(effect.requests, "refused request"), _many(effect.hosts, "host")
        parts.append(f"lets through {refused} to {hosts}")
    return parts


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _show(options: argparse.Namespace, desk: "Approvals", console: Console) -> int:
    shown = _looked_at(options.proposal, options, desk)
    if console.as_json:
        console.json(_document(shown, desk))
    else:
        _print(shown, desk, console)
    return 0


def _looked_at(reference: str, options: argparse.Namespace, desk: "Approvals") -> "Shown":
    """The proposal on the terms that the options say."""
    first = desk.show(reference)
    terms = _terms_of(options, first.terms)
    if options.routes is None:
        return first if terms == first.terms else desk.show(first.proposal.id, terms)
    return desk.edit(first.proposal.id, _read(options.routes), terms)


def _terms_of(options: argparse.Namespace, offered: "Terms") -> "Terms":
    from bot_bottle.policy.approval import Terms

    said = options.scope
    if said is None:
        return offered
    if said in ("once", "bottle", "manifest"):
        return Terms(said)
    if said[:-1].isdigit() and len(said) < 12 and said[-1:] in _UNITS:
        return Terms("time", int(said[:-1]) * _UNITS[said[-1]])
    raise UsageError(f"--for {said!r} says nothing", resolution=f"It can be: {_TERMS}.")


def _read(file: str) -> str:
    import sys

    if file == "-":
        return sys.stdin.read(1 << 20)
    try:
        with open(file, encoding="utf-8") as stream:
            return stream.read(1 << 20)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} can't be read", details=str(error)) from error


def _print(shown: "Shown", desk: "Approvals", console: Console) -> None:
    """What would change first, then what it means, and what the agent says last: quoted, and whatever it is."""
    import textwrap

    from bot_bottle.operate.text import visible
    from bot_bottle.policy.difference import bare

    proposal = shown.proposal
    console.data(
        f"{proposal.id}: agent {shown.agent} in bottle {shown.bottle} ({proposal.run}) asks to {shown.title}"
    )
    lines = [f"+ {bare(line)}" for line in shown.added] + [f"- {bare(line)}" for line in shown.removed]
    console.data("\n".join(f"  {line}" for line in lines) or "  (no line of the policy changes)")
    console.data(f"terms: {_terms_text(shown.terms)}")
    if not shown.applies:
        console.data(
            "An approval is recorded and not applied: this version can't make such a change in a running bottle."
        )
    console.data(f"effect: {'; '.join(_effects(shown)) or 'lets through nothing that was refused so far'}")
    for note in shown.effect.notes:
        console.data(f"  {note}")
    if shown.terms.scope == "manifest" and not shown.problem:
        console.data(desk.file_diff(shown).rstrip("\n"))
    if shown.alike:
        console.data(f"alike: {', '.join(shown.alike)}")
    if shown.problem:
        console.data(f"can't be approved like this: {shown.problem}")
    words = textwrap.wrap(visible(shown.words), 100) or ["(nothing)"]
    console.data("the agent says:\n" + "\n".join(f"  > {line}" for line in words))
    console.data(f"digest: {shown.digest}")


def _terms_text(terms: "Terms") -> str:
    words = {
        "once": "one use",
        "bottle": "while the bottle runs",
        "manifest": "for good, in the bottle's file",
    }
    unit = next(name for name, size in _SPANS if not terms.seconds % size)
    return words.get(terms.scope, _many(terms.seconds // dict(_SPANS)[unit], unit))


def _approve(options: argparse.Namespace, desk: "Approvals", console: Console) -> int:
    from bot_bottle.policy.approval import Approval

    approvals: list[Approval] = []
    for word in options.proposals:
        name, at, digest = word.partition("@")
        shown = _looked_at(name, options, desk)
        before = len(approvals)
        if at:
            approvals.append(Approval(shown.proposal.id, _whole_digest(digest, shown), shown.terms))
        elif console.as_json or not console.can_ask:
            raise UsageError(
                "An approval has to name what was shown",
                details=f"{shown.proposal.id} has no digest",
                resolution=f"bot-bottle approvals show {shown.proposal.id} prints it; then: approve {shown.proposal.id}@DIGEST",
            )
        elif _asked(shown, desk, console):
            approvals.append(Approval(shown.proposal.id, shown.digest, shown.terms))
        if options.alike and len(approvals) > before and approvals[-1].digest == shown.digest:
            approvals += [Approval(each.proposal.id, each.digest, each.terms) for each in desk.alike(shown)]
    approvals = list({each.id: each for each in approvals}.values())
    return _told(desk.approve(approvals, wait=options.wait), console)


def _whole_digest(digest: str, shown: "Shown") -> str:
    """The digest that `digest` is the beginning of; itself when it is none."""
    return shown.digest if len(digest) >= _SHORTEST_DIGEST and shown.digest.startswith(digest) else digest


def _asked(shown: "Shown", desk: "Approvals", console: Console) -> bool:
    _print(shown, desk, console)
    return not shown.problem and console.confirm(f"Approve {shown.proposal.id} ({_terms_text(shown.terms)})?")


def _reject(options: argparse.Namespace, desk: "Approvals", console: Console) -> int:
    names = list(options.proposals)
    if options.alike:
        names += [other for name in options.proposals for other in desk.show(name).alike]
    return _told(
        desk.reject(list(dict.fromkeys(names)), options.reason, may_ask_again=options.may_ask_again), console
    )


def _told(done: "Sequence[Decided]", console: Console) -> int:
    if console.as_json:
        console.json([each._asdict() for each in done])
    else:
        for each in done:
            console.data(f"{each.id}: {each.state}{': ' if each.problem else ''}{each.problem}")
    return 1 if not done or any(each.problem for each in done) else 0


def _grants(options: argparse.Namespace, desk: "Approvals", console: Console) -> int:
    import time

    found = desk.grants(options.bottle)
    if console.as_json:
        console.json([_grant(each) for each in found])
    elif not found:
        console.say("Nothing that was granted holds now.")
    else:
        rows = []
        for each in found:
            until = time.strftime("%H:%M:%S", time.localtime(each.until)) if each.until else "-"
            rows.append((each.id, each.run, each.scope, until, each.used, "; ".join(_grant(each)["lines"])))
        console.table(("GRANT", "BOTTLE", "FOR", "UNTIL", "USED", "ALLOWS"), rows)
    return 0


def _withdraw(options: argparse.Namespace, desk: "Approvals", console: Console) -> int:
    for name in options.grants:
        desk.withdraw(name)
    if console.as_json:
        console.json({"withdrawn": options.grants})
    else:
        console.say(f"Withdrawn, and enforced: {', '.join(options.grants)}")
    return 0


def _grant(grant: "Grant") -> "dict[str, list[str]]":
    from bot_bottle.policy.difference import line_of

    shown = {**grant._asdict(), "lines": [line_of(route) for route in grant.routes]}
    del shown["routes"]
    return shown


def _document(shown: "Shown", desk: "Approvals") -> dict[str, object]:
    proposal = shown.proposal
    ask = {"kind": proposal.ask.kind, "subject": dict(proposal.ask.subject)}
    times = {name: getattr(proposal, name) for name in ("made_at", "expires_at", "decided_at", "ended_at")}
    return {
        "id": proposal.id, "run": proposal.run, "agent": shown.agent, "bottle": shown.bottle, "state": proposal.state, **ask,
        "title": shown.title, "added": shown.added, "removed": shown.removed, "routes": desk.routes_text(shown),
        "for": {"scope": shown.terms.scope, "seconds": shown.terms.seconds}, "effect": shown.effect._asdict(),
        "alike": shown.alike, "applies": shown.applies, "problem": shown.problem, "repeats": proposal.repeats, **times,
        "reason": proposal.reason, "words": shown.words, "digest": shown.digest,
    }  # fmt: skip


_ACTIONS = {
    "list": _list,
    "watch": _watch,
    "show": _show,
    "approve": _approve,
    "reject": _reject,
    "grants": _grants,
    "withdraw": _withdraw,
}
