"""Where the measured programs run: a home with one bottle and two agents, and a small repository, removed afterwards."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import NotMeasured, Program

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.prefix) / "bin"
BOTTLE = "---\nbackend: namespace\n---\n"
AGENT = "---\nprovider: command\nbottle: bench\ncommand: [{command}]\n---\nNothing to do.\n"


class Place:
    """A context manager: made with `with`, gone at its end, with the bottles that still run in it."""

    def __enter__(self) -> "Place":
        self.root = Path(tempfile.mkdtemp(prefix="bb-bench-", dir="/tmp"))
        self.home, self.workspace = self.root / "home", self.root / "repository"
        files = {
            self.home / ".bot-bottle/bottles/bench.md": BOTTLE,
            self.home / ".bot-bottle/agents/true.md": AGENT.format(command='"true"'),
            self.home / ".bot-bottle/agents/sleeper.md": AGENT.format(command='"sleep", "3600"'),
            self.workspace / "hello.txt": "hello\n",
        }
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        identity = ["-c", "user.name=Bench", "-c", "user.email=bench@example.org"]
        for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "Start"]):
            subprocess.run(["git", *words], cwd=self.workspace, env=self.env, check=True)
        return self

    def __exit__(self, *reason: object) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    @property
    def env(self) -> dict[str, str]:
        """The whole environment of what is measured."""
        path = os.pathsep.join([str(BIN), "/usr/local/bin", "/usr/bin", "/bin"])
        return {"PATH": path, "HOME": str(self.home), "LANG": "C.UTF-8"}

    def program(self, name: str, *argv: str, path: str = "") -> Program:
        """`argv` as a program to be timed here, its PATH starting with `path`."""
        env = self.env
        if path:
            env["PATH"] = path + os.pathsep + env["PATH"]
        return Program(name, argv, env, str(self.workspace))

    def bot_bottle(self, name: str, *words: str) -> Program:
        """Ours."""
        return self.program(name, str(BIN / "bot-bottle"), *words)

    def ask(self, *words: str) -> str:
        """What `bot-bottle WORDS` printed; NotMeasured when it failed."""
        argv = [str(BIN / "bot-bottle"), *words]
        done = subprocess.run(
            argv, cwd=self.workspace, env=self.env, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise NotMeasured(
                f"bot-bottle {' '.join(words)}: exit code {done.returncode}: {done.stderr.strip()}"
            )
        return done.stdout.strip()
