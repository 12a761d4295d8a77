"""A keeper whose bundle says that it has made the certificate authority in a file: `trust_driver.py AGENT FILE [opens]`.

The file is looked at whenever the bundle says something, until it is there; each bundle looks anew. With `opens`, the plan
holds that the policy opens TLS.
"""

import os
import sys

from bot_bottle.launch import sidecar
from bot_bottle.operate.runs import StartRequest, prepare, run_here
from bot_bottle.policy import egress


def main() -> int:
    agent, path = sys.argv[1:3]
    real = sidecar.Sidecar.read

    def read(self: sidecar.Sidecar) -> object:
        messages = real(self)
        if not self.authority and os.path.exists(path):
            with open(path) as file:
                self.authority = file.read()
        return messages

    sidecar.Sidecar.read = read
    if "opens" in sys.argv:
        egress.intercepts_any = lambda _: True
    prepared = prepare(StartRequest(agent=agent, folder=os.getcwd(), headless=True, workspace="mount"))
    done = run_here(prepared, foreground=True, phase=lambda _: None, ready=lambda _: None)
    print(f"exit {done.exit_code}: {done.reason} {done.warnings}", file=sys.stderr, flush=True)
    return done.exit_code


if __name__ == "__main__":
    sys.exit(main())
