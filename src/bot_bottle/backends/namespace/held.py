"""What the agent's process does while it is held back: it writes the files it is sent, and waits for the word to go.

It is inside already, as the agent's user and under the agent's confinement, so files written by it are as if the agent had
written them; and nothing that costs a process of its own has to be started for that. Nothing hostile has run inside by then.
"""

import contextlib
import json
import os
import socket
from collections.abc import Sequence

from bot_bottle.plan.model import File

_GO, _WRITE = b"g", b"w"
_DONE = b"+"
_NUMBER = 8
_LONGEST_ANSWER = 4096


# The keeper's side


def let_go(channel: socket.socket) -> None:
    """Lets the agent run; nothing happens when it has been let go before, or ended while it was held."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        channel.send(_GO, socket.MSG_NOSIGNAL)


def send_files(channel: socket.socket, files: Sequence[File], patience: float) -> str:
    """Has the held process write `files`; what it says went wrong, else nothing. Raises OSError when it is gone or too slow."""
    names = json.dumps([[file.target, file.mode & 0o777, len(file.content)] for file in files]).encode()
    channel.settimeout(patience)
    channel.sendall(_WRITE + len(names).to_bytes(_NUMBER, "big") + names)
    for file in files:
        channel.sendall(file.content)
    answer = channel.recv(_LONGEST_ANSWER)
    if not answer:
        raise ConnectionResetError("the process inside ended")
    return "" if answer == _DONE else answer.decode(errors="replace")


# The held process's side; here nothing may be imported any more


def wait(channel: int) -> bool:
    """Writes what is sent until there is the word to go; whether that came, and not the keeper's end."""
    while word := os.read(channel, 1):
        if word == _GO:
            return True
        names = json.loads(_exactly(channel, int.from_bytes(_exactly(channel, _NUMBER), "big")))
        problem = b""
        for path, mode, size in names:
            content = _exactly(channel, size)
            try:
                write_file(path, mode, content)
            except OSError as error:
                problem = problem or f"{path}: {error.strerror}".encode(errors="replace")
        os.write(channel, problem[:_LONGEST_ANSWER] or _DONE)
    return False


def write_file(path: str, mode: int, content: bytes) -> None:
    """Writes one file, in place of whatever file or link is there; folders on the way are the agent's alone."""
    before = os.umask(0o077)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(made, rest) :]
            os.fchmod(made, mode)
        finally:
            os.close(made)
    finally:
        os.umask(before)


def _exactly(channel: int, size: int) -> bytes:
    """The next `size` bytes; the process ends when they do not come."""
    parts, left = [], size
    while left:
        part = os.read(channel, min(left, 1 << 20))
        if not part:
            os._exit(125)
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
