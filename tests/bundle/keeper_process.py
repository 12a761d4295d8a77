"""A keeper for tests: forks the bundle, says its process id, and waits.

Usage: DOOR KEEPER [HOOK]. HOOK is Python that runs in the bundle once it is confined; what it leaves in `found` is told.
"""

import os
import pickle
import socket
import sys

from bot_bottle.bundle import confine, main
from bot_bottle.bundle.model import BundleConfig, Injection, UpstreamProxy
from bot_bottle.secret import Secret


def hooked(code: str) -> None:
    real = confine.confine
    program = compile(code, "hook", "exec")
    scope: dict[str, object] = {"found": {}}
    exec(compile("import ctypes, errno, os, resource, signal, socket", "imports", "exec"), scope)

    def confine_then_try(filter_program: bytes) -> dict[str, object]:
        confined = real(filter_program)
        exec(program, scope)
        return {**confined, "found": scope["found"]}

    confine.confine = confine_then_try


if __name__ == "__main__":
    door, keeper = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    config, credentials = pickle.load(sys.stdin.buffer)
    if config["proxy"]:
        config["proxy"] = UpstreamProxy.from_document(config["proxy"])
    if sys.argv[3]:
        hooked(sys.argv[3])
    if os.geteuid() == 0:
        os.setgroups([4, 24])  # so that giving them up can be seen
    pid = os.fork()
    if not pid:
        config["sensitive"] = tuple(map(Secret, config["sensitive"]))
        resolved = {name: Injection.from_document(item) for name, item in credentials.items()}
        main.serve(
            BundleConfig(keeper=os.getppid(), credentials=resolved, **config), door=door, keeper=keeper
        )
    door.close()
    keeper.close()
    sys.stdout.write(f"{pid}\n")
    sys.stdout.flush()
    os.waitpid(pid, 0)
