"""Builds the door's relay for both architectures from `src/bot_bottle/door/relay/relay.c`, byte for byte the same everywhere.

    python -m pip install --require-hashes -r requirements/relay.txt
    python tools/make_relay.py [--check]

The compiler is the one that the `ziglang` package brings, with its own C library (musl), so nothing of this machine gets in.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

RELAY = Path(__file__).parent.parent / "src" / "bot_bottle" / "door" / "relay"
TARGETS = {"x86_64": "x86_64-linux-musl", "aarch64": "aarch64-linux-musl"}
FLAGS = (
    "-std=c11",
    "-Os",
    "-static",
    "-s",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-fstack-protector-strong",
    "-ffile-prefix-map=.=.",
)


def build(machine: str, folder: Path) -> bytes:
    """The program for `machine`."""
    made = folder / f"relay.{machine}"
    argv = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-target",
        TARGETS[machine],
        *FLAGS,
        "-o",
        str(made),
        "relay.c",
    ]
    subprocess.run(argv, check=True, cwd=RELAY)
    return made.read_bytes()


def source_digest() -> str:
    """What the committed programs were built from."""
    return hashlib.sha256((RELAY / "relay.c").read_bytes() + "\0".join(FLAGS).encode()).hexdigest()


def main() -> int:
    check = "--check" in sys.argv[1:]
    digests = {"source": source_digest()}
    same = True
    with tempfile.TemporaryDirectory() as folder:
        for machine in TARGETS:
            built = build(machine, Path(folder))
            digests[machine] = hashlib.sha256(built).hexdigest()
            committed = RELAY / f"relay.{machine}"
            if check:
                same = same and committed.read_bytes() == built
            else:
                committed.write_bytes(built)
                committed.chmod(0o755)
    record = RELAY / "built.json"
    if check:
        same = same and json.loads(record.read_text()) == digests
        print("the same" if same else "NOT the same: run tools/make_relay.py")
        return 0 if same else 1
    record.write_text(json.dumps(digests, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
