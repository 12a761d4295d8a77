"""What `bot-bottle init` writes: a bottle in which Claude Code can work, and the agent that does."""

import contextlib
import os
from typing import Literal, NamedTuple

from bot_bottle.errors import HostError

BOTTLE = """\
---
# A bottle: the place an agent works in, and all that it may reach. What is not listed here can't be reached.
# Only files in this folder count; a repository can't grant itself anything. Check with: bot-bottle validate
backend: namespace

# What the bottle as a whole may use. Without a line, the host's own limit holds.
# resources: {cpus: 2, memory: 4GiB, pids: 512}

egress:
  routes:
    # The model. The agent speaks plain HTTP to the door and never holds the key; outside, the key is put in
    # and the connection goes on as TLS.
    - host: api.anthropic.com
      protocol: http
      upstream: https://api.anthropic.com
      credential: anthropic
    # More, as the work needs it:
    # - host: docs.python.org
    # - host: "*.example.org"

# The agent may ask for what is refused; you decide: bot-bottle inbox
supervise: true

credentials:
  # The secret itself does not stand here, only where it is read when a bottle starts.
  anthropic: {from: {env: ANTHROPIC_API_KEY}, header: x-api-key}
  # With the login of your own Claude Code instead; it is renewed outside:
  # anthropic: {from: {claude_login: ~/.claude/.credentials.json}, bearer: true}
---
The bottle that an agent runs in unless it names another. This text is for you; nothing reads it.
"""

AGENT = """\
---
# An agent: the tool that runs, and how. Start it in a repository with: bot-bottle start claude
provider: claude
# The bottle it runs in: the file of that name in ../bottles.
bottle: default
# Where the model is reached; the route of the same name in the bottle carries it on.
base_url: http://api.anthropic.com
# model: sonnet
# skills: []                # names of folders in ../skills
---
You work alone in this repository; nobody answers questions while you do. Read before you change, run the
tests before and after, and leave the repository in a state that a reviewer can follow. If something you need
is refused, ask for exactly that and say why; if the answer is no, go on with what is possible.
"""

FILES = (("bottles", "default.md", BOTTLE), ("agents", "claude.md", AGENT))


class Written(NamedTuple):
    """A file, and whether it was written, replaced, or kept because it was there."""

    file: str
    outcome: Literal["written", "replaced", "kept"]


def scaffold(*, root: str | os.PathLike[str], force: bool = False) -> list[Written]:
    """Writes a first bottle and agent under `root`, 0600 in 0700 folders; over files only with `force`.

    With `force` the file that was there stays as `NAME.md.bak`. Raises HostError when that fails.
    """
    top = os.path.abspath(os.fspath(root))
    written: list[Written] = []
    for folder, name, text in FILES:
        path = os.path.join(top, folder, name)
        try:
            os.makedirs(top, mode=0o700, exist_ok=True)
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            written.append(Written(path, _write(path, text, force=force)))
        except OSError as error:
            resolution = "Make the folder writable, or free some space, and run it again."
            raise HostError(f"{path} can't be written", details=str(error), resolution=resolution) from error
    return written


def _write(path: str, text: str, *, force: bool) -> Literal["written", "replaced", "kept"]:
    """Writes beside and links into place, so that a file that appears meanwhile is not overwritten either."""
    if os.path.lexists(path) and not force:
        return "kept"
    beside = f"{path}.{os.getpid()}.new"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        replaced = False
        if force:
            with contextlib.suppress(FileNotFoundError):
                os.replace(path, path + ".bak")
                replaced = True
        try:
            os.link(beside, path)
        except FileExistsError:
            return "kept"
        return "replaced" if replaced else "written"
    finally:
        os.unlink(beside)
