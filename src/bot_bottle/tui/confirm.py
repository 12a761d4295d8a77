"""The last look before a yes: exactly what will be approved, and a key that can't be pressed by accident."""

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.events import Key

from bot_bottle.policy.approval import Approval, Shown
from bot_bottle.tui import telling
from bot_bottle.tui.dialog import Dialog
from bot_bottle.tui.inbox import OFFERED, Item
from bot_bottle.tui.threads import News

_CHANGED = "changed since it was shown: look at it again, by itself"
_GONE = "waits no more"
_GO_BACK = "n, Esc: go back"
_TERMS = "Other terms: " + "   ".join(f"{key} {name}" for key, _, name in OFFERED)


class Confirm(Dialog[None]):
    """Approves exactly what it shows, by `y`, once that could be read and was seen to its end. Enter does nothing.

    What changes meanwhile is taken out; the operator looks at that again, by itself.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        *[Binding(key, f"terms('{key}')", name, show=False) for key, _, name in OFFERED]
    ]

    def __init__(self, items: Sequence[Item]) -> None:
        super().__init__()
        self._items: list[Item] = []
        self._left_out: list[tuple[Item, str]] = []
        self._files: dict[str, str] = {}
        self._awaiting_terms = False
        self._seen_to_end = False
        self._sort(items)

    def on_mount(self) -> None:
        self._files = dict(self.inbox.news.files) if self.inbox.news else {}
        self.watch(self.query_one("#what", VerticalScroll), "scroll_y", self._look_for_end, init=False)
        self._tell()

    def take(self, news: News) -> None:
        now = {shown.proposal.id: shown for shown in news.waiting}
        if self._awaiting_terms:
            if news.wants == self.inbox.wants():
                self._awaiting_terms = False
                self._files = dict(news.files)
                self._take_terms(now)
            return
        kept = []
        files = dict(news.files)
        before = len(self._left_out)
        for item in self._items:
            same = tuple(
                member for member in item.members if self._is_same(member, now.get(member.proposal.id), files)
            )
            other = [member for member in item.members if member not in same]
            self._left_out += [
                (Item((member,)), _CHANGED if member.proposal.id in now else _GONE) for member in other
            ]
            kept += [Item(same)] if same else []
        if len(self._left_out) != before:
            self._items = kept
            self._tell()

    def on_key(self, event: Key) -> None:
        if event.key in ("y", "enter"):
            event.stop()
            event.prevent_default()
            self._answer(event.key, event.time)

    def action_terms(self, key: str) -> None:
        terms = next(terms for offered, terms, _ in OFFERED if offered == key)
        for item in self._all():
            for member in item.members:
                self.inbox.terms[member.proposal.id] = terms._replace(routes=member.terms.routes)
        self._awaiting_terms = True
        self.wait_until_read()
        self.inbox.look()

    def _answer(self, key: str, at: float) -> None:
        if key != "y":
            self.say("Press y to approve what is shown, n to go back.")
        elif not self._items:
            self.say("Nothing is left to approve.")
        elif not self.was_read(at) or self._awaiting_terms:
            self.say("That came up only just now. Look at it, then press y.")
        elif not self._seen_to_end:
            self.say("There is more below: look at it to the end first (End).")
        else:
            approvals: list[Approval] = [approval for item in self._items for approval in item.approvals()]
            self.inbox.approve(approvals)
            self.dismiss(None)

    def _is_same(self, shown: Shown, now: Shown | None, files: dict[str, str]) -> bool:
        """Whether an approval of it would still do what is shown."""
        if now is None or (shown.digest, shown.problem) != (now.digest, now.problem):
            return False
        return files.get(shown.proposal.id) == self._files.get(shown.proposal.id)

    def _all(self) -> list[Item]:
        return [*self._items, *(item for item, why in self._left_out if why not in (_CHANGED, _GONE))]

    def _take_terms(self, now: dict[str, Shown]) -> None:
        """The same proposals, on the terms that the operator chose."""
        items = []
        for item in self._all():
            members = tuple(now[id_] for id_ in item.ids if id_ in now)
            items += [Item(members)] if members else []
        self._left_out = [each for each in self._left_out if each[1] in (_CHANGED, _GONE)]
        self._sort(items)
        self._tell()

    def _sort(self, items: Sequence[Item]) -> None:
        """Those that can be approved, and those that can't, with the reason."""
        self._items = []
        for item in items:
            good = tuple(member for member in item.members if not telling.problem(member))
            self._items += [Item(good)] if good else []
            self._left_out += [
                (Item((member,)), telling.problem(member)) for member in item.members if member not in good
            ]

    def _tell(self) -> None:
        count = sum(len(item.members) for item in self._items)
        bottles = len({member.proposal.run for item in self._items for member in item.members})
        title = f"Approve {telling.counted(count, 'proposal')} of {telling.counted(bottles, 'bottle')}?"
        parts: list[Content] = [_totals(self._items)] if len(self._items) > 1 else []
        parts += [telling.brief(item, self._files) for item in self._items]
        if self._left_out:
            parts.append(Content.styled("Left out, and not decided:", "bold underline"))
            parts += [telling.left_out(item, why) for item, why in self._left_out]
        if not self._items:
            title = "Nothing of this can be approved"
        self._seen_to_end = False
        self.say("")
        keys = f"y: approve this    {_GO_BACK}" if self._items else _GO_BACK
        self.show(title, Content("\n\n").join(parts), f"{keys}\n{_TERMS}")
        self.call_after_refresh(self._look_for_end)

    def _look_for_end(self) -> None:
        what = self.query_one("#what", VerticalScroll)
        if what.size.height and what.scroll_y >= what.max_scroll_y - 0.5:
            self._seen_to_end = True


def _totals(items: Sequence[Item]) -> Content:
    """What all of them do together."""
    first = [item.first for item in items]
    lines = (
        f"{sum(len(each.added) for each in first)} lines come, {sum(len(each.removed) for each in first)} go"
    )
    warned = sum(1 for each in first if telling.warnings(each))
    told = f"\n! {warned} of them with a warning" if warned else ""
    return Content.assemble(
        (f"{telling.counted(len(items), 'decision')}: {lines}.", "bold"), (told, "bold $text-warning")
    )


class Ask(Dialog[bool]):
    """A question with `y` for yes, under the same conditions."""

    def __init__(self, title: str, text: Content, yes: str) -> None:
        super().__init__()
        self._asked = (title, text, yes)

    def on_mount(self) -> None:
        title, text, yes = self._asked
        self.show(title, text, f"y: {yes}    {_GO_BACK}")

    def on_key(self, event: Key) -> None:
        if event.key == "y":
            event.stop()
            if self.was_read(event.time):
                self.dismiss(True)
            else:
                self.say("That came up only just now. Look at it, then press y.")
