"""Waiting for a program's end, and no longer."""

import os
import select
import subprocess


def wait(process: "subprocess.Popen[bytes]", within: float) -> int:
    """Its exit code. Raises TimeoutExpired after `within` seconds.

    `Popen.wait` with a timeout looks again and again, at last every 50 ms: that is half of what gitleaks takes for a small push.
    """
    if process.poll() is None:
        descriptor = os.pidfd_open(process.pid)
        try:
            ends = select.poll()
            ends.register(descriptor, select.POLLIN)
            if not ends.poll(within * 1000):
                raise subprocess.TimeoutExpired(process.args, within)
        finally:
            os.close(descriptor)
    return process.wait()
