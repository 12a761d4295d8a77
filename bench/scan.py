"""Measures the search for secrets alone: what it adds to a body of 10 KiB, and what a whole MiB costs, by kind of content.

Run alone it prints what `measure` gives; with paths it counts what is found in those files instead, which should be nothing.
"""

import base64
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bot_bottle.policy.secrets.known import Known
from bot_bottle.policy.secrets.scanner import Scanner, TooTangled
from bot_bottle.policy.secrets.unpack import Unreadable

KIB, MIB = 1 << 10, 1 << 20
ROUNDS = 15
KNOWN = [
    Known("key", base64.urlsafe_b64encode(os.urandom(60))),
    Known("placeholder", b"placeholder-key-5d2c9a7f"),
]


def contents() -> dict[str, bytes]:
    """A MiB of each kind."""
    code = b"".join(path.read_bytes() for path in sorted(Path(os.__file__).parent.glob("*.py"))[:80])[:MIB]
    source = (code * (MIB // len(code) + 1))[:MIB]
    said = json.dumps({"messages": [{"role": "user", "content": source.decode("latin-1")}]}).encode()
    return {
        "source": source,
        "source in JSON": said[:MIB],
        "source in base64": base64.b64encode(source)[:MIB],
        "a picture in base64": base64.b64encode(os.urandom(MIB * 3 // 4)),
        "random bytes": os.urandom(MIB),
    }


def measure() -> dict[str, Any]:
    """Milliseconds of CPU for 10 KiB and for 1 MiB of each kind, the best of some rounds."""
    scanner = Scanner(KNOWN)
    return {
        kind: {
            "10 KiB, ms": _best(lambda data=data[: 10 * KIB]: scanner.scan(data), 50),
            "1 MiB, ms": _best(lambda data=data: scanner.scan(data), 1),
        }
        for kind, data in contents().items()
    }


def _best(work: Callable[[], Any], times: int) -> float:
    work()
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(times):
            work()
        best = min(best, (time.process_time() - began) / times)
    return best * 1e3


def alarms(paths: list[str]) -> dict[str, Any]:
    """What is found in the first MiB of every file below `paths`."""
    scanner = Scanner(KNOWN)
    counts: Counter[str] = Counter()
    where: list[tuple[str, str]] = []
    for path in _files(paths):
        try:
            found = {match.detector for match in scanner.scan(path.read_bytes()[:MIB])}
        except (TooTangled, Unreadable) as error:
            found = {type(error).__name__}
        except OSError:
            continue
        counts.update(["files", *found])
        where += [(str(path), name) for name in found]
    return {"counts": dict(counts), "where": where}


def _files(paths: list[str]) -> Iterator[Path]:
    for path in map(Path, paths):
        yield from (
            one
            for one in (path.rglob("*") if path.is_dir() else [path])
            if one.is_file() and not one.is_symlink()
        )


if __name__ == "__main__":
    print(json.dumps(alarms(sys.argv[1:]) if sys.argv[1:] else measure(), indent=1))
