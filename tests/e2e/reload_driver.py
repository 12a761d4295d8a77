"""A keeper that kills itself at a step of a change of policy, or whose first bundle answers wrongly: `AGENT STEP`.

Prints the run's id when the agent runs. STEP is one of test_reload.py's, or `bundle ANSWER`.
"""

import os
import signal
import sys

from bot_bottle.bundle import orders
from bot_bottle.launch import change, wishes
from bot_bottle.launch.sidecar import Sidecar
from bot_bottle.operate.runs import StartRequest, prepare, run_here
from bot_bottle.state.store import Store


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def around(owner, name, *, before=False, only=lambda *_: True):
    """Makes this process kill itself before or after `owner.name`."""
    real = getattr(owner, name)

    def wrapped(*args, **kwargs):
        if before and only(*args):
            die()
        done = real(*args, **kwargs)
        if only(*args):
            die()
        return done

    setattr(owner, name, wrapped)


def is_change(_store, events):
    return any(event.kind == "policy.changed" for event in events)


def lie(answer):
    """The first bundle answers like this instead of changing anything; those after it are honest."""
    real = orders.Orders._order_policy

    def wrapped(self, message):
        if self._config.first_name:
            real(self, message)
        elif answer == "another":
            self._line.tell({"policy": "0" * 64})
        elif answer == "nonsense":
            self._line.tell({"policy": ["x"]})
        elif answer == "refused":
            self._line.tell({"policy_refused": "I \x1b[31mwon't"})
        elif answer == "death":
            os._exit(3)

    orders.Orders._order_policy = wrapped


step = sys.argv[2]
if step == "before the order":
    around(change.Changes, "_send", before=True)
elif step == "after the order":
    around(Sidecar, "order")
elif step == "after the answer":
    around(wishes.Wishes, "hear", before=True, only=lambda _, message: "policy" in message)
elif step == "after the record":
    around(Store, "append", only=is_change)
else:
    lie(step.removeprefix("bundle "))
prepared = prepare(StartRequest(agent=sys.argv[1], folder=os.getcwd(), headless=True, workspace="mount"))
run_here(
    prepared,
    foreground=False,
    phase=lambda _: None,
    ready=lambda outcome: print(outcome.id, flush=True),
)
