"""Durations as people write them: `2h`, `45m`, `1h30m`, `1:30`."""

import re

_WRITTEN = re.compile(r"(?:(?P<hours>\d+)h)?(?:(?P<minutes>\d+)m)?")
_CLOCK = re.compile(r"(?P<hours>\d+):(?P<minutes>[0-5]\d)")

QUARTER = 15


def parse(text: str) -> int:
    """Minutes. Raises ValueError for what is no duration."""
    text = text.strip()
    found = (_CLOCK.fullmatch(text) or _WRITTEN.fullmatch(text)) if text else None
    if found is None:
        raise ValueError(f"not a duration: {text!r}")
    return int(found["hours"] or 0) * 60 + int(found["minutes"] or 0)


def billable(minutes: int) -> int:
    """Minutes to bill: quarter hours, a started one counts whole."""
    return (minutes // QUARTER + 1) * QUARTER


def show(minutes: int) -> str:
    """`1h05m`; under an hour `45m`."""
    hours, rest = divmod(minutes, 60)
    return f"{hours}h{rest:02d}m" if hours else f"{rest}m"
