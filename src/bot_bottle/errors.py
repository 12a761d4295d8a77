"""The one shape in which bot-bottle says that something went wrong.

Every error that a person can meet is one of these classes. `brief` says what happened, `details` what was seen
(the other program's own words, redacted), `resolution` what to do. The class is the kind; the command line turns
the kind into an exit code (`cli/exits.py`), so nothing below `cli/` knows exit codes. Any other exception is a fault of
ours, of which a record tells no more than `described`.
"""

import os


class BotBottleError(Exception):
    """What happened, what was seen, what to do."""

    def __init__(self, brief: str, *, details: str = "", resolution: str = "") -> None:
        super().__init__(brief)
        self.brief = brief
        self.details = details
        self.resolution = resolution

    def __str__(self) -> str:
        return "\n".join(part for part in (self.brief, self.details, self.resolution) if part)


class UsageError(BotBottleError):
    """The call itself is wrong: an option, a combination, a value."""


class ManifestError(BotBottleError):
    """A bottle or agent file is wrong; `details` has one `FILE:LINE: what` a line."""


class NotFoundError(BotBottleError):
    """Something that was named does not exist: an agent, a bottle, a skill, a file."""


class PlanError(BotBottleError):
    """The files are right, but this host or backend can't keep what they promise; all mismatches are listed."""


class HostError(BotBottleError):
    """The machine lacks something or refuses it: bubblewrap, user namespaces, space, permission."""


class SandboxError(BotBottleError):
    """The bottle itself is gone or could not be made; never used for a command that ran in it and failed."""


class StateError(BotBottleError):
    """The record of what happened can't be read or written, or was tampered with."""


class BusyError(StateError):
    """Another process has held the record for too long; what was wanted may be tried again."""


class InterruptedRun(BotBottleError):
    """The operator stopped it (Ctrl-C, SIGTERM); everything made so far was removed."""


def described(error: BaseException | None) -> str:
    """What kind of error it is, and where it was raised. Not what it says: that may hold what was being looked at."""
    if error is None:
        return "no exception"
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    kind = type(error).__name__
    return (
        f"{kind} in {os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
        if trace
        else kind
    )
