"""Tells an operator who is elsewhere that something waits: by a webhook, or on the desktop. Runs as a short-lived process.

What is sent is ours alone: which bottle, and what would change. The agent's words stay where they can be shown as such.
"""

import os
import time
from collections.abc import Sequence
from typing import NamedTuple

from bot_bottle.errors import BotBottleError, HostError
from bot_bottle.host.operator import Operator, Webhook, desktop_program, read
from bot_bottle.policy.approval import Shown
from bot_bottle.policy.difference import bare

SECONDS = 10
TRIES = 3
MOST_LINES = 6
_DESKTOP_SECONDS = 5.0


class Message(NamedTuple):
    """A notice, as ntfy has them."""

    title: str
    text: str
    urgent: bool = False


def notify(ids: Sequence[str]) -> list[str]:
    """Sends a notice of those of `ids` that still wait; a sentence for each way that failed, which the record has as well."""
    from bot_bottle.events import NewEvent
    from bot_bottle.operate.approvals import Approvals
    from bot_bottle.operate.record import open_store

    with Approvals.open() as desk:
        waiting = [shown for shown in desk.waiting() if shown.proposal.id in ids]
    if not waiting:
        return []
    failed = send(read(), message(waiting))
    if failed:
        data = {"why": "; ".join(failed)[:500], "proposals": [shown.proposal.id for shown in waiting]}
        with open_store() as store:
            store.append([NewEvent(waiting[0].proposal.run, time.time(), "notice.failed", data)])
    return failed


def message(waiting: Sequence[Shown]) -> Message:
    """What is said of them."""
    lines = [_line(shown) for shown in waiting[:MOST_LINES]]
    if len(waiting) > MOST_LINES:
        lines.append(f"and {len(waiting) - MOST_LINES} more")
    what = f"{waiting[0].proposal.run} asks" if len(waiting) == 1 else f"{len(waiting)} proposals wait"
    return Message(f"bot-bottle: {what}", "\n".join(lines), any(shown.effect.sinks for shown in waiting))


def _line(shown: Shown) -> str:
    """Of an agent's that names things by itself (packages, a remote), how many there are."""
    ask = shown.proposal.ask
    changes = "; ".join(bare(line) for line in shown.added)
    known = {"capability": "a change of the image", "git": "git"}
    said = changes or known.get(ask.kind) or shown.title
    sinks = f"(known way out: {', '.join(shown.effect.sinks[:2])}) " if shown.effect.sinks else ""
    text = f"{shown.proposal.run}: {sinks}{said}"  # first, so that no length of what is asked cuts it off
    return text if len(text) <= 300 else text[:299] + "…"


def send(operator: Operator, said: Message) -> list[str]:
    """Sends it every way that is configured; a sentence for each that failed."""
    failed = []
    if operator.webhook is not None:
        try:
            post(operator.webhook, said)
        except BotBottleError as error:
            failed.append(str(error))
    if operator.desktop:
        try:
            show(said)
        except BotBottleError as error:
            failed.append(str(error))
    return failed


def show(said: Message) -> None:
    """On the desktop. Raises HostError."""
    from bot_bottle.host import process

    program = desktop_program()
    if not program:
        raise HostError("There is no desktop to show a notice on, or no notify-send")
    argv = [program, "--app-name=bot-bottle", f"--urgency={'critical' if said.urgent else 'normal'}", "--"]
    kept = ("DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR", "XAUTHORITY")
    env = {**process.base_environment(), **{name: os.environ[name] for name in kept if name in os.environ}}
    text = said.text.replace("&", "&amp;").replace("<", "&lt;")  # a notice's text may be markup
    process.run([*argv, said.title, text], env=env, timeout=_DESKTOP_SECONDS).or_raise(
        "The notice was not shown"
    )


def post(webhook: Webhook, said: Message) -> None:
    """To the webhook, as ntfy takes it. Raises HostError."""
    import urllib.error
    import urllib.request

    class NoRedirect(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: object, **__: object) -> None:
            """A token goes where it was meant to go, and nowhere else."""

    headers = {"Title": said.title, "Priority": "high" if said.urgent else "default", "Tags": "bottle"}
    request = urllib.request.Request(webhook.url, data=said.text.encode(), headers=headers, method="POST")  # noqa: S310
    if webhook.token:
        request.add_unredirected_header("Authorization", _token(webhook.token))
    opener = urllib.request.build_opener(NoRedirect())
    why = ""
    for attempt in range(TRIES):
        try:
            with opener.open(request, timeout=SECONDS):
                return
        except urllib.error.HTTPError as error:
            why = f"HTTP {error.code}"
            error.close()
            if error.code < 500:
                break
        except OSError as error:
            why = str(error)
        if attempt + 1 < TRIES:
            time.sleep(0.5 * 2**attempt)
    raise HostError("The webhook was not told", details=why)


def _token(source: str) -> str:
    from bot_bottle.host.secrets import read_all
    from bot_bottle.plan.model import Credential

    item = Credential("webhook", source, "header", "authorization", "Bearer ")
    return read_all((item,), ()).credentials["webhook"].value.reveal()
