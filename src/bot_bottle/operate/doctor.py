"""What this machine can do: each check tries the thing itself rather than ask whether it should work."""

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from bot_bottle.errors import BotBottleError
from bot_bottle.host import paths

Status = Literal["ok", "note", "missing"]


class Finding(NamedTuple):
    """One check's answer: `missing` means that bottles can't run, `note` that something is weaker or absent."""

    name: str
    status: Status
    seen: str
    do: str = ""


def examine() -> list[Finding]:
    """Every check, in the order in which a person would mend things."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _bubblewrap, _confinement, _limits, _branches, _docker, _microvms, _git, _certificates,
        _proxies, _gitleaks, _providers, _pipelock, _manifest, _secrets, _record,
    )  # fmt: skip
    found: list[Finding] = []
    for check in checks:
        try:
            found += check()
        except BotBottleError as error:
            found.append(
                Finding(check.__name__.strip("_"), "missing", error.brief, error.resolution or error.details)
            )
    return found


def _bubblewrap() -> Iterator[Finding]:
    from bot_bottle.backends.namespace import doctor

    path, version = doctor.bubblewrap()
    yield Finding("bubblewrap", "ok", f"{version} at {path}")
    doctor.try_a_sandbox(path)
    yield Finding("namespaces", "ok", "a sandbox of its own starts and ends")


def _confinement() -> Iterator[Finding]:
    from bot_bottle.bundle import landlock

    version = landlock.version()
    if version:
        yield Finding("landlock", "ok", f"version {version}")
    else:
        yield Finding(
            "landlock",
            "note",
            "this kernel has none",
            "The bundle is confined by seccomp alone. Linux 5.13 and newer have it.",
        )


def _microvms() -> Iterator[Finding]:
    """Only bottles with `backend: smolmachines` need them, so that what is amiss with them is a note."""
    from bot_bottle.backends.smolmachines import doctor, kvm

    try:
        kvm.check()
        found, version = doctor.smolvm()
        doctor.try_a_machine(found)
    except BotBottleError as error:
        said = error.brief + (f" ({error.details})" if error.details else "")
        yield Finding("microVMs", "note", said, error.resolution)
    else:
        yield Finding("microVMs", "ok", f"{version} boots one")


def _limits() -> Iterator[Finding]:
    from bot_bottle.host import cgroups

    kept = cgroups.available()
    if kept:
        yield Finding("limits", "ok", "cgroups keep " + ", ".join(kept))
    else:
        yield Finding(
            "limits",
            "note",
            "no cgroup is delegated to this user",
            "Bottles that state `resources:` are refused. Where systemd runs, a delegated scope allows them:\n"
            "systemd-run --user --scope -p Delegate=yes bot-bottle start …",
        )


def _branches() -> Iterator[Finding]:
    from bot_bottle.host.copying import can_share

    folder = paths.state_root()
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    if can_share(folder):
        yield Finding("branches", "ok", "copies of stopped bottles share their blocks")
    else:
        yield Finding(
            "branches", "ok", "copies of stopped bottles are whole: the file system shares no blocks"
        )


def _docker() -> Iterator[Finding]:
    """What the engine offers; none is needed unless a bottle asks for it."""
    from bot_bottle.backends.docker import doctor

    try:
        for name, seen, do in doctor.examine(os.environ):
            yield Finding(name, "note" if do else "ok", seen, do)
    except BotBottleError as error:
        do = f"Only bottles with `backend: docker` need it. {error.resolution}"
        seen = "; ".join([error.brief, *error.details.splitlines()])
        yield Finding("docker", "note", seen, do)


def _git() -> Iterator[Finding]:
    from bot_bottle.host.process import run

    if shutil.which("git"):
        yield Finding("git", "ok", run(["git", "--version"]).stdout.decode().strip())
    else:
        yield Finding("git", "missing", "not found", "Install git: the changes of a run are kept with it.")


def _gitleaks() -> Iterator[Finding]:
    from bot_bottle.bundle.gitgate import gitleaks
    from bot_bottle.bundle.gitgate.model import CheckFailed

    what = "Only bottles with `git: remotes:` need it; without it they push nothing."
    try:
        path = gitleaks.find()
        said, is_new = gitleaks.version(path)
    except CheckFailed as error:
        yield Finding("gitleaks", "note", str(error), f"{what} {gitleaks.INSTALL}")
        return
    if is_new:
        yield Finding("gitleaks", "ok", f"{said} at {path}")
    else:
        yield Finding("gitleaks", "note", f"{said} at {path} is too old", f"{what} {gitleaks.INSTALL}")


def _certificates() -> Iterator[Finding]:
    from bot_bottle.host import stores

    found = stores.look()
    if found.list:
        yield Finding("certificates", "ok", found.list)
    else:
        yield Finding(
            "certificates",
            "note",
            "this host has no list of certificate authorities",
            "Install ca-certificates: without it no TLS can be checked, outside or in bottles.",
        )


def _proxies() -> Iterator[Finding]:
    from bot_bottle.host import proxies

    found = proxies.find()
    for name in found.wrong:
        do = f"Unset {name}, or set `egress.upstream.proxy` in the bottles: http:// and https:// proxies are used."
        yield Finding("proxy", "missing", f"{name} names no HTTP proxy", do)
    for reference in dict.fromkeys(one for one in (found.https, found.http) if one):
        url, name = reference
        login = "with a login" if proxies.login(name) else "without a login"
        trouble = proxies.trouble(url)
        said = f"{url} (from {name}), {login}"
        do = f"Connections of bottles go through it: mend it, or unset {name}."
        yield (
            Finding("proxy", "missing", f"{said}: {trouble}", do) if trouble else Finding("proxy", "ok", said)
        )
    if found.direct and (found.https or found.http):
        yield Finding("no proxy for", "ok", ", ".join(found.direct))


def _providers() -> Iterator[Finding]:
    from bot_bottle.providers.place import locate

    found = {name: locate(paths.data_root(), name) for name in ("claude", "codex", "gemini", "opencode")}
    for name, program in found.items():
        if program:
            yield Finding(name, "ok", program)
    if not any(found.values()):
        yield Finding("claude", "note", "not installed", "Install it: bot-bottle provider install claude")


def _pipelock() -> Iterator[Finding]:
    from bot_bottle.engines.pipelock import program

    try:
        path = program.find()
        yield Finding("pipelock", "ok", f"{program.version(path)} at {path}")
    except BotBottleError as error:
        yield Finding(
            "pipelock",
            "note",
            error.brief,
            f"Only bottles with `engine: pipelock` need it. {error.resolution}",
        )


def _manifest() -> Iterator[Finding]:
    root = paths.manifest_root()
    if not os.path.isdir(os.path.join(root, "bottles")):
        yield Finding("bottles", "note", f"none in {root}", "Write a first bottle and agent: bot-bottle init")
        return
    open_to_others = os.stat(root).st_mode & 0o022
    if open_to_others or os.stat(root).st_uid != os.getuid():
        yield Finding(
            "bottles",
            "missing",
            f"others may write {root}",
            f"Who writes there decides what is allowed: chmod go-w {root}",
        )
    else:
        yield Finding("bottles", "ok", root)


def _secrets() -> Iterator[Finding]:
    """Whether what the bottles' files name can be read; nothing is."""
    from bot_bottle.operate import sources

    ring, do = sources.keyring()
    yield Finding("keyring", "note" if do else "ok", ring, do)
    yield from (
        Finding("secrets", "note", f"bottle {one.bottle}, {one.name}: {one.seen}", one.do)
        for one in sources.missing(paths.manifest_root())
    )


def _record() -> Iterator[Finding]:
    from bot_bottle.operate.record import open_store

    with open_store() as store:
        checked = store.verify()
    if checked.ok:
        yield Finding("record", "ok", f"{checked.checked} events, whole")
    else:
        yield Finding(
            "record",
            "missing",
            f"broken at event {checked.first_bad}: {checked.why}",
            "See: bot-bottle verify",
        )
