#!/usr/bin/env python3
"""Fuzzes what reads the agent's and the upstreams' bytes, guided by coverage (atheris); `make fuzz` installs that beforehand.

    make fuzz [ARGS="--seconds 600 --target 'DNS messages'"]

The targets are those of `tests/fuzz/targets.py`, which `make test` runs over generated messages. What libFuzzer finds worth
keeping stays in build/fuzz/TARGET and is the start of the next run. Ends with 1 at the first finding, whose input it leaves there.
"""

import argparse
import os
import random
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "build" / "fuzz"
SEEDS = 300
SECONDS = 60
_ONE = "BOT_BOTTLE_FUZZ_ONE"


def names() -> list[str]:
    from tests.fuzz.targets import TARGETS

    return list(TARGETS)


def corpus(name: str) -> Path:
    """The folder with what is known for a target; begun with generated messages."""
    from tests.fuzz.targets import TARGETS

    folder = KEPT / name.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(SEEDS):
        path = folder / f"seed-{seed}"
        if not path.exists():
            path.write_bytes(TARGETS[name].make(random.Random(seed)))
    return folder


def one(name: str, words: list[str]) -> None:
    """In a process of its own, as libFuzzer ends it: the target's code instrumented, then run until the time is over."""
    import atheris

    with atheris.instrument_imports(include=["bot_bottle.bundle", "bot_bottle.policy"]):
        from tests.fuzz.targets import TARGETS
    atheris.Setup([sys.argv[0], *words], TARGETS[name].check)
    atheris.Fuzz()


def main() -> int:
    sys.path[:0] = [str(ROOT), str(ROOT / "src")]
    if name := os.environ.get(_ONE):
        one(name, sys.argv[1:])
        return 0
    parser = argparse.ArgumentParser(description="Fuzzes the egress firewall, guided by coverage.")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="for each target")
    parser.add_argument("--target", action="append", choices=names(), help="default: all of them")
    options = parser.parse_args()
    for name in options.target or names():
        folder = corpus(name)
        print(f"{name}: {options.seconds} s", flush=True)
        words = [
            str(folder),
            f"-max_total_time={options.seconds}",
            "-max_len=8192",
            "-timeout=10",
            "-rss_limit_mb=2048",
        ]
        words += ["-print_final_stats=1", "-verbosity=1", f"-artifact_prefix={folder}/found-"]
        done = subprocess.run([sys.executable, __file__, *words], env={**os.environ, _ONE: name}, check=False)
        if done.returncode:
            print(f"{name}: found something; its input is in {folder}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
