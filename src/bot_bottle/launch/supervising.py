"""What a supervised run has beyond others: the server that its agent asks for help, and the agent's tool told of it.

The tool's own CLI registers the server. It takes its time, so it is begun as soon as its files are there, and waited for after
the policy and before the workspace's copy, which is made beside it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from bot_bottle.backends.base import Bottle, Place
from bot_bottle.launch.supervisor import Answers, Notes, Supervisor
from bot_bottle.plan.model import RunPlan, Supervise

if TYPE_CHECKING:
    from bot_bottle.launch.session import Session
    from bot_bottle.provision.supervise import Registering


class Now(NamedTuple):
    """What a person hears while the bottle starts: what goes wrong and ends nothing, and what is done."""

    warn: Callable[[str], None]
    say: Callable[[str], None]


class Supervising:
    """One run's, in the order of a start: `begin_registering`, `finish_registering`, `open_door`, `serve`; `stop` in the end.

    The door opens when the tool knows of it: a CLI that looked whether the server is there would wait for its answer.
    """

    def __init__(
        self, plan: RunPlan, supervise: Supervise, answers: Callable[[], Answers], notes: Notes, now: Now,
        *, place: Place | None = None,
    ) -> None:  # fmt: skip
        self._plan = plan
        self._supervise = supervise
        self._notes = notes
        self._now = now
        self._supervisor = Supervisor(plan, supervise, answers, notes, place=place)
        self._registering: Registering | None = None

    def open_door(self, bottle: Bottle) -> None:
        """Has the bottle listen where its agent asks. Raises SandboxError."""
        self._supervisor.open_door(bottle)

    def begin_registering(self, bottle: Bottle) -> None:
        """Sets the tool's CLI going, once the files are there that it reads and writes."""
        if self._supervise.registration is None:
            return
        from bot_bottle.provision.supervise import Registering

        self._notes.record("supervise.registering", {"url": self._supervise.url})
        self._registering = Registering(
            bottle, self._supervise.registration, self._plan.command.env, self._now.say
        )

    def finish_registering(self) -> None:
        """Waits for it. That it failed is told, and the run goes on."""
        registering, self._registering = self._registering, None
        if registering is None:
            return
        try:
            failed = registering.finish(self._supervisor.token)
        finally:
            registering.close()
        if failed is None:
            self._notes.record("supervise.registered", {})
            return
        self._notes.record("supervise.unregistered", {**failed._asdict(), "said": failed.said[:500]})
        self._now.warn(str(failed))

    def serve(self, session: "Session") -> None:
        """Watches for whoever asks, in the session's loop."""
        self._supervisor.serve(session)

    def stop(self) -> None:
        """Ends everything of it. Idempotent."""
        if self._registering is not None:
            self._registering.close()
            self._registering = None
        self._supervisor.stop()
