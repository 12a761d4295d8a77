"""What stands in /etc of a bottle about names and addresses: an engine writes it only for a network that it makes itself."""

import os
from collections.abc import Sequence

from bot_bottle.backends.docker import container
from bot_bottle.plan.model import Mount, RunPlan

FOLDER = "etc"
"""Below the run's folder."""


def write(plan: RunPlan) -> Sequence[Mount]:
    """Writes the files and answers where they are to be shown; they go with the run's folder."""
    folder = os.path.join(plan.paths.run, FOLDER)
    name = container.host_name(plan.id)
    texts = {
        "hosts": f"127.0.0.1 localhost {name}\n",
        "hostname": f"{name}\n",
        "resolv.conf": "nameserver 127.0.0.1\n",
    }
    os.makedirs(folder, exist_ok=True)
    made = []
    for file, text in texts.items():
        path = os.path.join(folder, file)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.fchmod(descriptor, 0o644)
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)
        made.append(Mount(source=path, target=f"/etc/{file}"))
    return made
