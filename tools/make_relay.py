"""Builds the programs that go into virtual machines for both architectures, byte for byte the same everywhere: the door's relay
(`src/bot_bottle/door/relay/relay.c`) and the deputy (`src/bot_bottle/backends/smolmachines/inside/deputy.c`).

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

PACKAGE = Path(__file__).parent.parent / "src" / "bot_bottle"
RELAY = PACKAGE / "door" / "relay" / "relay.c"
SOURCES = (RELAY, PACKAGE / "backends" / "smolmachines" / "inside" / "deputy.c")
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


def build(source: Path, machine: str, folder: Path) -> bytes:
    """The program for `machine`."""
    made = folder / f"{source.stem}.{machine}"
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
        source.name,
    ]
    subprocess.run(argv, check=True, cwd=source.parent)
    return made.read_bytes()


def source_digest(source: Path = RELAY) -> str:
    """What the committed programs were built from."""
    return hashlib.sha256(source.read_bytes() + "\0".join(FLAGS).encode()).hexdigest()


def main() -> int:
    check = "--check" in sys.argv[1:]
    same = True
    for source in SOURCES:
        same = _one(source, check=check) and same
    if check:
        print("the same" if same else "NOT the same: run tools/make_relay.py")
    return 0 if same else 1


def _one(source: Path, *, check: bool) -> bool:
    """Whether what is kept is what this source gives; written, unless it is only to be checked."""
    digests = {"source": source_digest(source)}
    same = True
    with tempfile.TemporaryDirectory() as folder:
        for machine in TARGETS:
            built = build(source, machine, Path(folder))
            digests[machine] = hashlib.sha256(built).hexdigest()
            committed = source.with_name(f"{source.stem}.{machine}")
            if check:
                same = same and committed.read_bytes() == built
            else:
                committed.write_bytes(built)
                committed.chmod(0o755)
    record = source.with_name("built.json")
    if check:
        return same and bool(json.loads(record.read_text()) == digests)
    record.write_text(json.dumps(digests, indent=2) + "\n")
    return True


if __name__ == "__main__":
    sys.exit(main())
