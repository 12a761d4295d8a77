"""A keeper that can be asked from outside as the process that serves its agent would: for tests and measurements.

`python -m bot_bottle.testing.asking AGENT [unlimited]` keeps a run of AGENT, headless, whose control socket takes the messages of
that process as well (`Asker` sends them). Nothing of the product listens to this.
"""

import json
import os
import select
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from bot_bottle.launch import control
from bot_bottle.launch.session import Client, Session
from bot_bottle.launch.wishes import Wishes

_WANT = "ask-as-the-agent-would"
_LONGEST = 60.0


class Asker:
    """The other end: `ask` calls a tool, `heard` are all answers so far."""

    def __init__(self, run_path: str) -> None:
        self._sock: socket.socket = control.connect(run_path, {"want": _WANT, "message": {}})
        self._frames = control.Frames()
        self._number = 0
        self.heard: list[dict[str, Any]] = []

    def send(self, message: dict[str, Any]) -> None:
        """One message, as it is."""
        self._sock.sendall(control.document(control.HELLO, {"want": _WANT, "message": message}))

    def ask(self, tool: str, **arguments: Any) -> int:
        """Calls `tool`; the number of the call."""
        self._number += 1
        self.send({"ask": self._number, "tool": tool, "arguments": arguments})
        return self._number

    def wait_for(self, proposal: str) -> int:
        """Waits for the answer to `proposal`; the number of the call."""
        self._number += 1
        self.send({"await": self._number, "proposal": proposal})
        return self._number

    def answer(
        self, number: int, wanted: Callable[[dict[str, Any]], bool] = lambda _: True
    ) -> dict[str, Any]:
        """The first answer to the call `number` that is `wanted`, heard before or now. Raises TimeoutError."""
        end = time.monotonic() + _LONGEST
        at = 0
        while True:
            for message in self.heard[at:]:
                if message.get("to") == number and wanted(message):
                    return message
            at = len(self.heard)
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._sock], [], [], left)[0]:
                raise TimeoutError(f"call {number} has no such answer; heard: {self.heard[-5:]}")
            data = self._sock.recv(65536)
            if not data:
                raise ConnectionError(f"the keeper went away; heard: {self.heard[-5:]}")
            self.heard += [
                json.loads(payload) for kind, payload in self._frames.feed(data) if kind == control.DONE
            ]

    def final(self, number: int) -> dict[str, Any]:
        """The answer to the call `number` after which there is no other."""
        return self.answer(number, lambda message: "problem" in message or bool(message.get("final")))

    def close(self) -> None:
        """Leaves."""
        self._sock.close()


def be_askable(*, unlimited: bool = False) -> None:
    """From now on, keepers in this process take such messages on their control socket; with `unlimited`, any number."""
    serve = Wishes.serve
    if unlimited:
        from bot_bottle.launch import asks

        for limit in ("BURST", "MOST_OPEN"):
            setattr(asks, limit, 1 << 20)

    def serve_and_ask(self: Wishes, session: Session, metrics: socket.socket) -> None:
        serve(self, session, metrics)

        def asked(client: Client, hello: dict[str, Any]) -> None:
            if message := hello["message"]:
                self.asks().hear(message, lambda answer: session.reply(client, answer))

        session.wishes[_WANT] = asked

    Wishes.serve = serve_and_ask  # type: ignore[method-assign]


def main(agent: str, *, unlimited: bool = False) -> int:
    """Keeps a run of `agent` until it has ended; its id and folder go to stdout as JSON when the agent runs."""
    from bot_bottle.operate.runs import StartRequest, prepare, run_here

    be_askable(unlimited=unlimited)
    prepared = prepare(StartRequest(agent=agent, folder=os.getcwd(), headless=True, workspace="mount"))

    def ready(_: object) -> None:
        sys.stdout.write(json.dumps({"id": prepared.plan.id, "run_path": prepared.plan.paths.run}) + "\n")
        sys.stdout.flush()

    done = run_here(prepared, foreground=False, phase=lambda _: None, ready=ready)
    return done.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], unlimited=sys.argv[2:] == ["unlimited"]))
