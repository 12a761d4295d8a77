"""The keeper's side of the git gate: its three processes, started when somebody comes, heard, and ended when nobody does.

The keeper keeps the listening socket and never reads from it: that it becomes readable is what starts the gate (which faces the
agent), the courier (which goes to the upstreams) and the checker (which looks at what was pushed), with lines between them and
to the keeper. They live and die together; whatever was half done then is removed, and no upstream's ref was.
"""

import os
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from bot_bottle.backends.base import Bottle
from bot_bottle.door.model import GIT
from bot_bottle.door.passing import receive_listeners
from bot_bottle.errors import BotBottleError, HostError, SandboxError
from bot_bottle.host import spawn, tree
from bot_bottle.host.secrets import Vault
from bot_bottle.launch import heard
from bot_bottle.launch.gitgate import jail
from bot_bottle.launch.outward import Outside
from bot_bottle.launch.supervise_process import Process, beside
from bot_bottle.launch.supervisor import Notes
from bot_bottle.plan.model import GitGate, GitRemote, RunPlan
from bot_bottle.plan.remotes import parse
from bot_bottle.policy.git import GitRules

if TYPE_CHECKING:
    from bot_bottle.launch.session import Session

DEATHS, FORGIVEN = 8, 600.0
"""How often they may die in so many seconds before the gate stays closed."""
IDLE = 60.0
"""Seconds without anybody after which they end."""
MEMORY = {"gate": 1 << 30, "checker": 2 << 30, "courier": 0}
"""Bytes of memory that each of their programs may have."""
_MIRRORS, _PUSHES, _HELD, _HOOKS, _KEYS = "/mirrors", "/pushes", "/held", "/hooks", "/keys"
_SIGNING_KEY = f"{_KEYS}/.signing"
_LOOK_EVERY = 0.25
CONFIRM_WITHIN = 2.0
"""Seconds for the courier to say that it goes by changed rules, which takes it 0.001."""


class Gate:
    """One run's."""

    def __init__(self, plan: RunPlan, git: GitGate, vault: Vault, outside: Outside, notes: Notes) -> None:
        self._plan = plan
        self._git = git
        self._vault = vault
        self._outside = outside
        self._notes = notes
        self._rules = {remote.name: remote.rules for remote in git.remotes}
        self._once: dict[str, GitRules | None] = {}
        self._changes: dict[int, Callable[[str], None]] = {}
        self._number = 0
        self._timer: float | None = None
        self.tell: Callable[[Mapping[str, Any]], None] = lambda _: None
        """Hears of every push that an upstream has; and, of an empty message, that the processes died."""
        self._listener: socket.socket | None = None
        self._session: Session | None = None
        self._processes: dict[str, Process] = {}
        self._deaths: list[float] = []
        self._due: float | None = None
        self._room = heard.Room(time.monotonic)

    @property
    def pids(self) -> dict[str, int]:
        """Its processes by name, while they run."""
        return {name: process.child.pid for name, process in self._processes.items()}

    def open_door(self, bottle: Bottle) -> None:
        """Has the bottle listen where its git goes. Raises SandboxError, HostError."""
        self._make_folders()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            bottle.open_door((GIT,), theirs)
            try:
                (self._listener,) = receive_listeners(ours, 1, 0)
            except OSError as error:
                raise SandboxError("The git gate's listener did not come", details=str(error)) from error

    def serve(self, session: "Session") -> None:
        """Watches, in the session's loop, for the first who comes."""
        self._session = session
        session.also(self._tick)
        self._wait_for_somebody()

    def stop(self) -> None:
        """Ends everything of it. Idempotent."""
        self._due = None
        self._end()
        self._close()
        tree.remove(self._git.folder)

    # Beginning and ending

    def _make_folders(self) -> None:
        try:
            for name in ("pushes", "held"):
                os.makedirs(f"{self._git.folder}/{name}", mode=0o755)
                self._own(f"{self._git.folder}/{name}")
            for remote in self._git.remotes:
                os.makedirs(os.path.dirname(remote.mirror), mode=0o700, exist_ok=True)
                os.makedirs(remote.mirror, mode=0o755, exist_ok=True)
        except OSError as error:
            raise HostError("The git gate's folders can't be made", details=str(error)) from error

    def _own(self, path: str) -> None:
        if os.geteuid() == 0:
            os.chown(path, self._plan.bundle_uid, self._plan.bundle_gid)

    def _wait_for_somebody(self) -> None:
        if self._session and self._listener:
            self._session.watch(self._listener, self._begin)

    def _begin(self) -> None:
        assert self._session is not None
        if self._listener is None or self._processes:
            return
        self._session.forget(self._listener)
        self._due = None
        try:
            self._start_all(self._listener)
        except (spawn.ChildFailed, OSError, BotBottleError) as error:
            self._died(str(error))
            return
        for name, process in self._processes.items():
            self._session.watch(process.sock, partial(self._hear, name, process))

    def _start_all(self, listener: socket.socket) -> None:
        with ExitStack() as lines:
            gate, gates_courier = self._pair(lines)
            checker, checkers_courier = self._pair(lines)
            mirrors = tuple((one.mirror, f"{_MIRRORS}/{one.name}.git") for one in self._git.remotes)
            pushes, held = f"{self._git.folder}/pushes", f"{self._git.folder}/held"
            hooks = os.path.join(
                os.path.dirname(os.path.dirname(os.path.dirname(__file__))), "bundle/gitgate/hooks"
            )
            checking = jail.Place(
                readable=(*mirrors, *_gitleaks(), (pushes, _PUSHES)), writable=((held, _HELD),)
            )
            facing = jail.Place(readable=(*mirrors, (hooks, _HOOKS)), writable=((pushes, _PUSHES),))
            going = jail.Place(
                readable=((held, _HELD), *self._keys()), writable=(*mirrors, *self._locals()), network=True
            )
            self._start(
                "checker", "bot_bottle.bundle.gitgate.checker", (checker,), checking, self._checkers_order()
            )
            self._start("courier", "bot_bottle.launch.gitgate.courier", (gates_courier, checkers_courier), going,
                        self._couriers_order())  # fmt: skip
            self._start(
                "gate", "bot_bottle.bundle.gitgate.main", (gate, listener), facing, self._gates_order()
            )

    def _pair(self, held: ExitStack) -> tuple[socket.socket, socket.socket]:
        one, other = socket.socketpair()
        return held.enter_context(one), held.enter_context(other)

    def _start(
        self,
        name: str,
        module: str,
        lines: tuple[socket.socket, ...],
        place: jail.Place,
        order: Mapping[str, object],
    ) -> None:
        def begin(keeper: int) -> jail.Jailed:
            return jail.start(module, (keeper, *(line.fileno() for line in lines)), place)

        user = {"uid": 0, "gid": 0}
        if name != "courier":  # which reads the operator's key, and writes mirrors
            user = {"uid": self._plan.bundle_uid, "gid": self._plan.bundle_gid}
        self._processes[name] = Process(partial(beside, begin), {**order, **user, "memory": MEMORY[name]})

    def _keys(self) -> tuple[tuple[str, str], ...]:
        signing = self._git.signing_key
        return (
            *(
                (os.path.realpath(one.key), f"{_KEYS}/{one.name}")
                for one in self._git.remotes
                if one.key and not _lack(one)
            ),
            *([(os.path.realpath(signing), _SIGNING_KEY)] if os.path.isfile(signing) else []),
        )

    def _locals(self) -> tuple[tuple[str, str], ...]:
        found = (one.url for one in self._git.remotes if parse(one.url).kind == "local" and not _lack(one))
        return tuple((os.path.realpath(path), path) for path in found)

    # What they are told

    def _gates_order(self) -> dict[str, object]:
        remotes = {one.name: {"max_push": one.rules.max_push} for one in self._git.remotes}
        return {"remotes": remotes, "idle": IDLE}

    def _checkers_order(self) -> dict[str, object]:
        secrets = {name: held.secret.reveal() for name, held in self._vault.credentials.items()}
        secrets |= {f"sensitive-{number}": one.reveal() for number, one in enumerate(self._vault.sensitive)}
        return {"secrets": secrets}

    def _couriers_order(self) -> dict[str, object]:
        proxy = self._outside.proxy.https if self._outside.proxy else None
        through = None
        if proxy:
            through = {
                "url": f"{'https' if proxy.tls else 'http'}://{proxy.host}:{proxy.port}",
                "authorization": proxy.authorization.reveal() if proxy.authorization else "",
            }
        remotes = [self._remote(one) for one in self._git.remotes]
        key = _SIGNING_KEY if self._git.signing_key else ""
        return {"remotes": remotes, "ca": self._outside.authorities, "proxy": through, "signing_key": key}

    def _remote(self, remote: GitRemote) -> dict[str, object]:
        name = remote.credential.name if remote.credential else ""
        held = self._vault.credentials.get(name)
        return {
            "name": remote.name,
            "url": remote.url,
            "key": f"{_KEYS}/{remote.name}",
            "known_host": remote.known_host,
            "authorization": held.value.reveal() if held else "",
            "rules": self._rules[remote.name]._asdict(),
            "once": _document(self._once.get(remote.name)),
            "lacks": _lack(remote),
        }

    def base(self) -> tuple[tuple[str, GitRules], ...]:
        """What the bottle's file says of each remote, by name."""
        return tuple((remote.name, remote.rules) for remote in self._git.remotes)

    def change(
        self, remote: str, rules: GitRules, once: GitRules | None, told: Callable[[str], None]
    ) -> None:
        """From now on `rules` hold for `remote`, and `once` for one push that would not pass by them; `told` hears when they do.

        Processes that don't confirm in time are ended: those that are started next know nothing else.
        """
        self._rules[remote], self._once[remote] = rules, once
        courier = self._processes.get("courier")
        if courier is None:
            told("")
            return
        self._number += 1
        self._changes[self._number] = told
        self._timer = self._timer or time.monotonic() + CONFIRM_WITHIN
        courier.tell(
            {"remote": remote, "rules": rules._asdict(), "once": _document(once), "change": self._number}
        )

    def _settled(self) -> None:
        """No process is there that could know other rules than the last."""
        changes, self._changes, self._timer = self._changes, {}, None
        for told in changes.values():
            told("")

    # What they say

    def _hear(self, name: str, process: Process) -> None:
        if self._processes.get(name) is not process:
            return
        messages = process.read()
        for message in messages or ():
            if message.get("idle") is True and name == "gate":
                self._end()
                self._wait_for_somebody()
                return
            if "failed" in message:
                process.failed = str(message["failed"])[:300]
            process.ready = process.ready or message.get("ready") is True
        if name == "courier" and messages:
            self._record(messages)
            for message in messages:
                self._hear_courier(message)
        if messages is None:
            why = process.failed
            code = self._end().get(name)
            self._died(why or f"the {name} ended with {code}")

    def _hear_courier(self, message: Mapping[str, Any]) -> None:
        if "pushed" in message:
            if message.get("once") is True:
                self._once[str(message["pushed"])] = (
                    None  # also for processes that are started before it is ended
                )
            self.tell(message)
        told = self._changes.pop(message["in_force"], None) if type(message.get("in_force")) is int else None
        if not self._changes:
            self._timer = None
        if told is not None:
            told("")

    def _record(self, messages: list[dict[str, Any]]) -> None:
        told = [found for message in messages if (found := heard.event(message, heard.GATES)) is not None]
        for kind, data in self._room.take(told):
            self._notes.record(kind, data)

    def _end(self) -> dict[str, int | None]:
        """All of them, and whatever stood half done; their exit codes."""
        processes, self._processes = self._processes, {}
        codes = {}
        for name, process in processes.items():
            if self._session:
                self._session.forget(process.sock)
            if name == "courier":
                self._last_words(process)
            codes[name] = process.end()
        for name in ("pushes", "held"):
            folder = f"{self._git.folder}/{name}"
            for left in os.listdir(folder) if os.path.isdir(folder) else ():
                tree.remove(f"{folder}/{left}")
        if processes:
            self._settled()
        return codes

    def _last_words(self, process: Process) -> None:
        while messages := process.read():
            self._record(messages)
            for message in messages:
                self._hear_courier(message)

    def _died(self, why: str) -> None:
        self._end()
        self.tell({})
        now = time.monotonic()
        self._deaths = [at for at in self._deaths if now - at < FORGIVEN] + [now]
        self._notes.record("git.died", {"why": why[:300], "times": len(self._deaths)})
        if len(self._deaths) >= DEATHS:
            self._close()
            self._notes.warn("The git gate died again and again; the agent can't fetch or push any more.")
            return
        self._due = now + (_LOOK_EVERY * 2 ** (len(self._deaths) - 2) if len(self._deaths) > 1 else 0.0)

    def _close(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            if self._session:
                self._session.forget(listener)
            listener.close()

    def _tick(self) -> float | None:
        now = time.monotonic()
        if self._due is not None and now >= self._due:
            self._due = None
            self._wait_for_somebody()
        if self._timer is not None and now >= self._timer:
            self._died("a change of what may be pushed was not confirmed")
            return None
        for name, process in list(self._processes.items()):
            if not process.flush() or not (process.ready or now < process.due):
                self._died(f"the {name} did not answer")
                return None
        waits = [max(0.0, at - now) for at in (self._due, self._timer) if at is not None]
        if any(process.waiting or not process.ready for process in self._processes.values()):
            waits.append(_LOOK_EVERY)
        return min(waits, default=None)


def _lack(remote: GitRemote) -> str:
    """What of this host the remote needs and can't be had; empty when it is there."""
    if parse(remote.url).kind == "local" and not os.path.isdir(remote.url):
        return "its folder is not there on the host; tell the operator"
    if remote.key and not os.path.isfile(remote.key):
        return "its key is not there on the host; tell the operator"
    return ""


def _document(rules: GitRules | None) -> dict[str, Any] | None:
    return None if rules is None else rules._asdict()


def _gitleaks() -> tuple[tuple[str, str], ...]:
    """Where the host has gitleaks; without it the checker refuses what needs it, and says so."""
    found = shutil.which("gitleaks")
    return ((os.path.realpath(found), f"{jail.PROGRAMS}/gitleaks"),) if found else ()
