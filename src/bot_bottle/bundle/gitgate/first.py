"""Process 1 of each of the gate's places: it starts what runs there, and ends it all when the keeper is gone.

A process that was broken into may stay when its line to the keeper ends; this one reads nothing that anybody says, and with it the
kernel ends everything of its place. Bubblewrap's own way is not used: when it is killed between making its child and letting it
go on, the child waits for ever.
"""

import importlib
import os
import select
import signal
from typing import NoReturn

from bot_bottle.bundle import linux


def begin(module: str, *numbers: str) -> NoReturn:
    """Has a child do `module.serve(…)` with the descriptors `numbers`, and ends as it does; the first one is the lifeline."""
    life, *descriptors = map(int, numbers)
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    heard, said = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    child = os.fork()
    if child == 0:
        for descriptor in (life, heard, said):
            os.close(descriptor)
        importlib.import_module(module).serve(*descriptors)
        os._exit(1)
    signal.set_wakeup_fd(said)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for descriptor in descriptors:
        os.close(descriptor)
    _watch(child, life, heard)


def _watch(child: int, life: int, heard: int) -> NoReturn:
    waiting = select.poll()
    waiting.register(life, 0)  # its end alone is of interest
    waiting.register(heard, select.POLLIN)
    while True:
        _reap(child)
        if life in dict(waiting.poll()):
            os._exit(0)
        os.read(heard, 4096)


def _reap(child: int) -> None:
    """Whatever has ended is removed; with the child it all ends."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            os._exit(1)
        if not pid:
            return
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
