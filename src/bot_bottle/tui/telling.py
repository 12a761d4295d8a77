"""A proposal in words: what it would change first, then what is known of it, the terms, and the agent's own words last.

Makes `Content`, which knows no markup; every text of others goes through `clean` on its way in. Nothing is told by colour alone.
"""

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from textual.content import Content

from bot_bottle.policy.approval import Decided, Grant, Shown
from bot_bottle.policy.difference import bare, line_of
from bot_bottle.tui.clean import block, clean, cut, line
from bot_bottle.tui.inbox import OFFERED, Item, age, span, terms_text

Part = str | tuple[str, str] | Content
MOST_CHANGE = 24_000
"""Characters of a change that can be looked at; one that is larger can't be approved here."""
_MOST_ASKERS = 6
_STATES = {
    "pending": "waits",
    "approved": "approved, not yet in force",
    "applied": "approved, and in force",
    "failed": "approved, but could not be put in force",
    "rejected": "rejected",
    "expired": "expired: nobody decided it in time",
    "withdrawn": "withdrawn: its bottle has ended",
}

OUTCOMES = {
    **_STATES,
    "approved": "approved, but not seen in force yet (h tells)",
    "applied": "approved and in force",
    "failed": "could not be put in force",
}
"""What became of a decision that counted."""


def state_text(shown: Shown) -> str:
    """What became of a proposal."""
    proposal = shown.proposal
    if proposal.state == "approved" and not shown.applies:
        return "approved, which is recorded and not applied"
    return _STATES[proposal.state]


def title(shown: Shown) -> str:
    """What is asked, as a sentence begins."""
    said = line(shown.title)
    return said[:1].upper() + said[1:]


def who(shown: Shown) -> str:
    """The bottle and the agent, in one line."""
    return f"{cut(shown.proposal.run)} (agent {cut(shown.agent)}, bottle {cut(shown.bottle)})"


def heading(item: Item, now: float) -> Content:
    """What is asked, and by whom."""
    parts: list[Part] = [(title(item.first), "bold")]
    shown_of = item.members[:_MOST_ASKERS]
    for member in shown_of:
        proposal = member.proposal
        again = f", asked {proposal.repeats + 1} times" if proposal.repeats else ""
        parts.append(f"\n{who(member)}, {age(proposal.made_at, now)} ago{again}")
    if len(item.members) > len(shown_of):
        parts.append(f"\n… and {len(item.members) - len(shown_of)} more bottles")
    if len(item.members) > 1:
        parts.append((f"\n{len(item.members)} bottles ask for the same: it is one decision.", "bold"))
    return Content.assemble(*parts)


def outcome(shown: Shown) -> Content:
    """What became of a decided one, and when."""
    proposal = shown.proposal
    when = proposal.decided_at or proposal.ended_at
    parts: list[Part] = [("Outcome: ", "bold"), (state_text(shown), "bold")]
    if when:
        parts.append(time.strftime(", %Y-%m-%d %H:%M:%S", time.localtime(when)))
    if proposal.state in ("approved", "applied", "failed"):
        parts.append(f"\nTerms: {terms_text(shown.terms)}")
    if proposal.reason:
        parts.append(f"\nReason: {line(proposal.reason, 1000)}")
    return Content.assemble(*parts)


def change(shown: Shown) -> Content:
    """The policy's lines that come and go, whole."""
    waits = shown.proposal.state == "pending"
    parts: list[Part] = [("What changes" if waits else "What it was about", "bold underline")]
    if not shown.applies:
        parts.append("\nNothing: bot-bottle records an approval of this kind, and can't apply it yet.")
    elif not (shown.added or shown.removed):
        parts.append("\nNo line of the policy.")
    if too_large(shown):
        parts.append(
            (
                f"\n! {len(shown.added)} lines come and {len(shown.removed)} go: too much to be looked at.",
                "bold $text-error",
            )
        )
    else:
        parts += [(f"\n+ {_line(each)}", "$text-success") for each in shown.added]
        parts += [(f"\n- {_line(each)}", "$text-error") for each in shown.removed]
    return Content.assemble(*parts)


def too_large(shown: Shown) -> bool:
    """Whether nobody could look at all of the change."""
    lines = [*shown.added, *shown.removed]
    return sum(map(len, lines)) > MOST_CHANGE or sum(len(clean(each)) for each in lines) > MOST_CHANGE


def problem(shown: Shown) -> str:
    """Why it can't be approved here on these terms; empty when it can."""
    if too_large(shown):
        return "The change is too large to be looked at: edit it down first, or reject it."
    return line(shown.problem, 1000)


def effect(item: Item) -> Content:
    """What it would have let through, and what is dangerous about it."""
    parts: list[Part] = [("What that lets through", "bold underline"), f"\n{traffic(item)}"]
    parts += [(f"\n! {warning}", "bold $text-warning") for warning in warnings(item.first)]
    return Content.assemble(*parts)


def traffic(item: Item) -> str:
    """The recorded traffic that it would have let through."""
    known = [member for member in item.members if member.effect.requests]
    if not known:
        return "Nothing that was refused so far."
    requests = sum(member.effect.requests for member in known)
    hosts = max(member.effect.hosts for member in known)
    said = f"{counted(requests, 'refused request')} to {counted(hosts, 'host')} on record"
    return f"{said}, of {len(known)} of the bottles." if len(item.members) > 1 else f"{said}."


def warnings(shown: Shown) -> list[str]:
    """What an operator must know, a line each."""
    known = shown.effect
    said = []
    if known.credentialed:
        said.append(f"A credential is put in for {_names(known.credentialed)}.")
    if known.sinks:
        said.append(f"Known for taking in whatever is sent there: {_names(known.sinks)}.")
    return said + [line(note, 500) for note in known.notes[:20]]


def in_file(text: str) -> Content:
    """What an approval for good would change in the bottle's file."""
    shown = block(text, MOST_CHANGE) if text.strip() else "Nothing."
    return Content.assemble(("In the bottle's file", "bold underline"), f"\n{shown}".rstrip())


def terms(shown: Shown) -> Content:
    """On what terms, and which key gives which."""
    parts: list[Part] = [("Terms", "bold underline")]
    if not shown.applies:
        return Content.assemble(*parts, "\nNone: it is only recorded.")
    for number, (key, offered, name) in enumerate(OFFERED):
        chosen = shown.terms._replace(routes=None) == offered
        before = "   " if number % 2 else "\n"  # two in a line, one under the other
        parts += [before, (f"({'•' if chosen else ' '}) {key} {name:13}", "bold" if chosen else "")]
    if not any(shown.terms._replace(routes=None) == offered for _, offered, _ in OFFERED):
        parts.append((f"\n(•) {terms_text(shown.terms)}", "bold"))
    if shown.terms.routes is not None:
        parts.append("\nWith the routes as you edited them.")
    return Content.assemble(*parts)


def obstacle(shown: Shown) -> Content:
    """Why it can't be approved, if so."""
    said = problem(shown)
    return Content.styled(f"✗ Can't be approved so: {said}", "bold $text-error") if said else Content("")


def words(item: Item) -> list[tuple[str, str]]:
    """Whose words, and the words, quoted by whoever shows them; the same words of several once."""
    told: dict[str, list[str]] = {}
    for member in item.members:
        told.setdefault(block(member.words).strip("\n"), []).append(cut(member.proposal.run))
    said = [(", ".join(runs[:3]) + (f" and {len(runs) - 3} more" if len(runs) > 3 else ""), text)
            for text, runs in told.items() if text.strip()]  # fmt: skip
    if len(said) > _MOST_ASKERS:
        left = len(said) - _MOST_ASKERS
        return [*said[:_MOST_ASKERS], ("", f"({left} more: press f to see the bottles one by one)")]
    return said


def brief(item: Item, files: Mapping[str, str] = MappingProxyType({})) -> Content:
    """An item among many that are decided together: everything but the agent's words."""
    names = ", ".join(cut(member.proposal.run) for member in item.members[:_MOST_ASKERS])
    more = f" and {len(item.members) - _MOST_ASKERS} more" if len(item.members) > _MOST_ASKERS else ""
    first = item.first
    parts: list[Part] = [
        (title(first), "bold"),
        f"\n  {names}{more} · {terms_text(first.terms)} · {traffic(item)}",
    ]
    parts += [(f"\n  + {_line(each)}", "$text-success") for each in first.added]
    parts += [(f"\n  - {_line(each)}", "$text-error") for each in first.removed]
    parts += [] if first.applies else ["\n  Recorded, not applied."]
    parts += [(f"\n  ! {warning}", "bold $text-warning") for warning in warnings(first)]
    if item.key in files:
        parts += ["\n", in_file(files[item.key])]
    return Content.assemble(*parts)


def grant(held: Grant, now: float) -> Content:
    """A grant: what it allows, for how long, and whether it was used."""
    used = (
        f"Used {counted(held.used, 'time')}, last {age(held.used_at, now)} ago."
        if held.used
        else "Not used yet."
    )
    parts: list[Part] = [(cut(held.run), "bold"), f"  {how_long(held, now)}"]
    parts += [f"\n  {_line(line_of(route))}" for route in held.routes]
    return Content.assemble(*parts, f"\nGiven {age(held.since, now)} ago. {used}")


def how_long(held: Grant, now: float) -> str:
    """For how long a grant holds."""
    if held.scope == "manifest":
        return "for good: it stands in the bottle's file"
    if held.scope == "once":
        return "for one use"
    return f"for {span(held.until - now)} more" if held.until else "until the bottle ends"


def counted(number: int, what: str) -> str:
    """`1 host`, `2 hosts`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def _line(text: str) -> str:
    """A line of the policy, behind whatever mark stands before it."""
    return line(bare(text), MOST_CHANGE)


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(cut(name, 80) for name in names[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown


def short(item: Item) -> Content:
    """An item on one line."""
    more = f" and {len(item.members) - 1} more" if len(item.members) > 1 else ""
    return Content.assemble((title(item.first), "bold"), f"  {cut(item.first.proposal.run)}{more}")


def left_out(item: Item, why: str) -> Content:
    """An item that is not decided with the others, and why."""
    return Content.assemble(short(item), f"\n  ✗ {line(why, 1000)}")


def not_counted(answer: Decided) -> Content:
    """A decision that did not come about, and why."""
    return Content.assemble(
        (f"✗ {cut(answer.id)}", "bold"), f": {line(answer.problem, 1000)}\n  It {_STATES[answer.state]}."
    )
