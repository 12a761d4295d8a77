"""The process that has the upstreams' credentials, and a gate that was broken into and asks it."""

import json
import socket
import threading

from bot_bottle.bundle.gitgate.line import Line
from bot_bottle.launch.gitgate import courier
from support.waiting import wait_for


class Counting(courier.Courier):
    """Answers when it is told to, and counts how many wait for that."""

    def __init__(self, keeper, checker):
        super().__init__({"remotes": []}, keeper, checker)
        self.go_on = threading.Event()
        self._counting = threading.Lock()
        self.now = self.most = 0

    def _answer(self, message, say):
        with self._counting:
            self.now += 1
            self.most = max(self.most, self.now)
        self.go_on.wait(30)
        with self._counting:
            self.now -= 1
        return {"ok": True}


def test_a_gate_that_asks_without_end_is_answered_by_so_many_threads_and_no_more():
    questions = 4 * courier.AT_ONCE
    ours, theirs = socket.socketpair()
    with ours, theirs:
        one = Counting(Line(ours), Line(ours))
        hearing = threading.Thread(target=one.hear_gate, args=(Line(ours),), daemon=True)
        theirs.settimeout(30)
        theirs.sendall(b"".join(json.dumps({"ask": n}).encode() + b"\n" for n in range(questions)))
        hearing.start()
        wait_for(lambda: one.now >= courier.AT_ONCE, "as many as may are being answered")
        one.go_on.set()
        answers = theirs.makefile("rb")
        assert {json.loads(answers.readline())["answer"] for _ in range(questions)} == set(range(questions))
        theirs.shutdown(socket.SHUT_RDWR)
        hearing.join(30)
        assert one.most == courier.AT_ONCE
