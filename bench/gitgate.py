"""Area `git`: clone, fetch and push through a warm gate, beside plain git to the same server; and its memory in a large push.

The gate's real processes, a real sshd, gitleaks as it is installed. The agent's git is outside a bottle here: what a bottle adds is
measured in the area `start`. Fewer rounds than elsewhere: each takes seconds.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from measure import Figure, NotMeasured, figure, median
from place import ROOT, Place

sys.path.insert(0, str(ROOT / "tests"))

COMMITS, OBJECTS_EACH = 17_000, 3
PUSHED = 100
SMALL, LARGE = 20, 100
"""MiB of the pushes that memory is compared over; `ARGS=--quick` takes a fifth of the large one."""
Progress = Callable[[str], None]


def measure(_: Place, runs: int, progress: Progress) -> Iterator[Figure]:
    """Raises NotMeasured."""
    found = shutil.which("gitleaks") or next(map(str, ROOT.glob("build/gitleaks/*/gitleaks")), "")
    if not found:
        raise NotMeasured("gitleaks is not installed")
    os.environ["PATH"] = f"{os.path.dirname(found)}:{os.environ['PATH']}"
    from support import gates
    from support.gitservers import Ssh, git, make_upstream

    folder = gates.folder()
    ssh = Ssh(folder / "ssh")
    try:
        upstream = make_upstream(folder / "srv/project.git", COMMITS)
        git(upstream, "repack", "-adq")
        checked = gates.over_ssh(folder, ssh, upstream, rules=gates.GitRules())
        gate = gates.Gated(folder, checked, gates.over_ssh(folder, ssh, upstream, name="unsearched"))
        try:
            yield from _Rounds(folder, ssh, gate, ssh.url(upstream)).run(max(3, runs // 4), progress)
            yield _memory(gate, LARGE if runs > 3 else LARGE // 5, progress)
        finally:
            gate.close()
    except AssertionError as error:
        raise NotMeasured(f"git: {error}") from error
    finally:
        ssh.stop()
        gates.remove(folder)


class _Rounds:
    def __init__(self, folder: Path, ssh: object, gate: object, direct: str) -> None:
        self.folder = folder
        self.gate = gate
        self.urls = {"gate": gate.url(), "direct": direct}  # type: ignore[attr-defined]
        key = f"{ssh.folder}/user"  # type: ignore[attr-defined]
        self.env = {
            "PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_GLOBAL": str(folder / "config"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "B", "GIT_AUTHOR_EMAIL": "b@example.org", "GIT_COMMITTER_NAME": "B",
            "GIT_COMMITTER_EMAIL": "b@example.org", "LC_ALL": "C.UTF-8",
            "GIT_SSH_COMMAND": f"ssh -F none -i {key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "
            "-o LogLevel=ERROR",
        }  # fmt: skip

    def git(self, *words: str, cwd: Path | None = None, stdin: str = "") -> float:
        before = time.perf_counter()
        done = subprocess.run(
            ["git", *words],
            cwd=cwd or self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            input=stdin,
        )
        if done.returncode:
            raise NotMeasured(f"git {' '.join(words)}: {done.stderr[-500:]}")
        return time.perf_counter() - before

    def run(self, rounds: int, progress: Progress) -> Iterator[Figure]:
        times: dict[tuple[str, str], list[float]] = {}
        self.git("clone", "-q", "--bare", self.urls["gate"], "warm")
        for number in range(rounds):
            progress(f"git: {number}/{rounds}")
            for way in ("direct", "gate") if number % 2 else ("gate", "direct"):
                times.setdefault(("clone", way), []).append(
                    self.git("clone", "-q", self.urls[way], f"{way}-{number}")
                )
            for way in ("direct", "gate") if number % 2 else ("gate", "direct"):
                work = self.folder / f"{way}-{number}"
                times.setdefault(("fetch", way), []).append(self.git("fetch", "-q", cwd=work))
                self._commit(work, f"bot/{way}-{number}")
                taken = self.git("push", "-q", "origin", f"bot/{way}-{number}", cwd=work)
                times.setdefault(("push", way), []).append(taken)
                shutil.rmtree(work)
        goals = {"clone": 1.3, "push": 2.0, "fetch": 0.0}
        names = {
            "clone": f"clone, {COMMITS * OBJECTS_EACH} objects, warm", "push": f"push of {PUSHED} commits, checked",
            "fetch": "fetch of nothing new",
        }  # fmt: skip
        for what in ("clone", "push", "fetch"):
            ours, direct = (median(times[what, way]) * 1000 for way in ("gate", "direct"))
            goal = f"at most {goals[what]} x" if goals[what] else "none, stated only"
            ok = not goals[what] or ours <= goals[what] * direct
            yield figure(
                "git",
                names[what],
                ours,
                "ms",
                yardstick="plain git over ssh",
                yardstick_value=direct,
                goal=goal,
                ok=ok,
            )

    def _commit(self, work: Path, branch: str) -> None:
        lines = []
        for number in range(PUSHED):
            content = f"def f{number}():\n    return {branch!r}\n" * 20
            lines += [
                f"commit refs/heads/{branch}", f"committer B <b@example.org> {1_800_000_000 + number} +0000", "data 3", "Fix",
                *(["from refs/heads/main^0"] if number == 0 else []), f"M 100644 inline new-{number % 20}.py",
                f"data {len(content)}", content,
            ]  # fmt: skip
        self.git("fast-import", "--quiet", cwd=work, stdin="\n".join(lines) + "\n")


def _memory(gate: object, large: int, progress: Progress) -> Figure:
    """Private memory of everything of the gate's, at its peak, for a small and a large push."""
    from support.watching import Peak

    work = gate.clone("memory", remote="unsearched")  # type: ignore[attr-defined]
    peaks = []
    for size in (SMALL // 4 if large < LARGE else SMALL, large):
        progress(f"git: a push of {size} MiB")
        for number in range(4):
            (work / f"data-{number}").write_bytes(os.urandom(size << 18))
        gate.commit(work)  # type: ignore[attr-defined]
        with Peak(gate.processes) as watch:  # type: ignore[attr-defined]
            done = gate.git("push", "-q", "origin", f"HEAD:refs/heads/bot/m{size}", cwd=work, timeout=900)  # type: ignore[attr-defined]
        if done.code:
            raise NotMeasured(f"a push of {size} MiB: {done.said[-500:]}")
        peaks.append(watch.kib / 1024)
    small, full = peaks
    name = f"peak memory, push of {large} MiB (refs judged, own secrets sought)"
    return figure(
        "git",
        name,
        full,
        "MiB",
        yardstick="a small push",
        yardstick_value=small,
        goal="at most 2 x",
        ok=full <= 2 * small,
    )
