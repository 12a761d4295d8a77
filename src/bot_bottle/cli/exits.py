"""Exit codes by kind of failure, after sysexits.h; below 64 and above 127 they are the agent's own."""

from bot_bottle import errors

OK = 0
USAGE = 64
INTERNAL = 70
INTERRUPTED = 130
UNWRITABLE = 74
"""The output could not be written (EX_IOERR)."""

BY_KIND: tuple[tuple[type[errors.BotBottleError], int, str], ...] = (
    (errors.UsageError, USAGE, "usage"),
    (errors.ManifestError, 65, "manifest"),
    (errors.NotFoundError, 66, "not-found"),
    (errors.HostError, 69, "host"),
    (errors.SandboxError, 71, "sandbox"),
    (errors.StateError, 74, "state"),
    (errors.PlanError, 78, "plan"),
    (errors.InterruptedRun, INTERRUPTED, "interrupted"),
)


def kind_and_code(error: errors.BotBottleError) -> tuple[str, int]:
    """The kind's name (for `--json`) and the exit code of `error`."""
    return next(
        ((name, code) for kind, code, name in BY_KIND if isinstance(error, kind)), ("internal", INTERNAL)
    )
