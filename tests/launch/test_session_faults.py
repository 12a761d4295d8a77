"""What a client of a running bottle wants, and a fault of the keeper's own in answering it."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bot_bottle.errors import HostError
from bot_bottle.launch import control
from bot_bottle.launch.session import Session

Wish = Callable[[Any, dict[str, Any]], None]


class Kept:
    """A session over a bottle that does nothing, and what it was told of."""

    def __init__(self, folder: Path, made: ExitStack) -> None:
        def end() -> socket.socket:
            ours, theirs = socket.socketpair()
            made.enter_context(theirs)
            return made.enter_context(ours)

        self.path = folder / "control"
        server = made.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(str(self.path))
        server.listen()
        server.setblocking(False)
        bottle: Any = SimpleNamespace(agent=end())
        interrupts: Any = end()
        self.session = Session(None, bottle, log=None, server=server, interrupts=interrupts)  # type: ignore[arg-type]
        made.callback(self.session.selector.close)
        self.told: list[dict[str, Any]] = []
        self.session.failed = self.told.append

    def wants(self, wish: Wish) -> tuple[bytes, bytes]:
        """The answer to a client that wants what `wish` does."""
        self.session.wishes["a wish"] = wish
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.path))
            client.sendall(control.document(control.HELLO, {"want": "a wish"}))
            for _ in range(3):
                self.session._turn(1.0)
            client.setblocking(False)
            (answer,) = control.Frames().feed(client.recv(4096))
            return answer


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    with ExitStack() as made:
        yield Kept(tmp_path, made)


@pytest.mark.parametrize("error", [ValueError("secret"), KeyError("secret"), AttributeError("secret")])
def test_a_fault_of_the_keeper_s_own_is_told_of_and_does_not_end_it(kept: Kept, error: Exception) -> None:
    def fails(*_: object) -> None:
        raise error

    kind, _ = kept.wants(fails)
    assert kind == control.ERROR
    (told,) = kept.told
    assert told["what"] == "a wish"
    assert told["why"].startswith(f"{type(error).__name__} in test_session_faults.py:")
    assert "secret" not in str(told)
    kept.wants(lambda client, _: kept.session.reply(client, {}))


def test_what_a_client_is_refused_is_no_fault_of_the_keeper_s(kept: Kept) -> None:
    def refuses(*_: object) -> None:
        raise HostError("There is no room")

    assert kept.wants(refuses) == (control.ERROR, b'{"brief": "There is no room"}')
    assert kept.told == []
