"""Compiles the program that is process 1 of an agent's container, `src/bot_bottle/backends/guest.MACHINE`.

python tools/make_guest.py            writes them (needs gcc; for the other machine Debian's cross compiler)
python tools/make_guest.py --check    exit code 1 when one differs from what this compiler makes
"""

import argparse
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "src/bot_bottle/backends"
MACHINES = ("x86_64", "aarch64")
FLAGS = (
    "-Os -std=c11 -Wall -Wextra -Werror -static -nostdlib -ffreestanding -fno-builtin -fno-stack-protector -fno-pie -no-pie "
    "-fno-tree-loop-distribute-patterns -fno-asynchronous-unwind-tables -fno-ident -s "
    "-Wl,--build-id=none,-z,noexecstack,-z,norelro,-z,max-page-size=4096,-z,noseparate-code"
).split()
OF_MACHINE = {"x86_64": ("-fcf-protection=none",), "aarch64": ("-mno-outline-atomics",)}


def compiler(machine: str) -> str:
    """The C compiler for `machine`, by Debian's name for it."""
    return "gcc" if platform.machine() == machine else f"{machine}-linux-gnu-gcc"


def compile_for(machine: str) -> bytes:
    """The program. Raises CalledProcessError, FileNotFoundError."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "guest")
        argv = [compiler(machine), *FLAGS, *OF_MACHINE[machine], "-o", str(target), str(FOLDER / "guest.c")]
        subprocess.run(argv, check=True)
        return target.read_bytes()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    wrong = 0
    for machine in MACHINES:
        path, made = FOLDER / f"guest.{machine}", compile_for(machine)
        if check:
            wrong += not path.exists() or path.read_bytes() != made
        else:
            path.write_bytes(made)
            sys.stdout.write(f"{path.name}: {len(made)} bytes\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
