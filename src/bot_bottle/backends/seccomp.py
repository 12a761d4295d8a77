"""What of the kernel whatever runs in a bottle may not use: one list for every backend, made by tools/seccomp_agent.py."""

import os

from bot_bottle.errors import HostError
from bot_bottle.host import files


def agents_filter(machine: str = "") -> bytes:
    """The agent's filter for `machine` (default: this one). Raises HostError when there is none for it."""
    machine = machine or os.uname().machine
    try:
        return files.read(files.beside(__file__, f"agent.{machine}.bpf"))
    except FileNotFoundError as error:
        raise HostError(f"There is no seccomp filter for this machine ({machine})") from error
