"""A process of a gate's place that was broken into: whatever becomes of its keeper, it stays."""

import os
import signal
import socket


def serve(_keeper: int, told: int) -> None:
    """Tells by `told` that it runs, with a child that has left its session, and does nothing more."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    if os.fork() == 0:
        os.setsid()
    else:
        socket.socket(fileno=os.dup(told)).send(b"here")
    while True:
        signal.pause()
