"""A run whose keeper is a process of its own: for `--detach`, and for terminals that come and go.

It is forked before anything is planned and plans by itself, so that its bundle, forked first of all, has none of what planning
needs: neither its time nor its memory.
"""

import json
import os
import signal
import socket
from collections.abc import Callable

from bot_bottle import errors
from bot_bottle.errors import BotBottleError, InterruptedRun, SandboxError
from bot_bottle.typed import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from bot_bottle.launch.sidecar import Sidecar
    from bot_bottle.operate.runs import StartRequest


def start_detached(
    request: "StartRequest",
    *,
    phase: Callable[[str], None],
    noted: Callable[[str], None],
    said: Callable[[str], None] = lambda _: None,
    owner: bool,
) -> dict[str, Any]:
    """Starts the run in a keeper of its own and returns when the agent runs: `{"id", "phases", "run_path", "copied", "pid"}`.

    With `owner`, the agent is held back until the owner's terminal is attached, which is to be done next.

    `noted` hears the plan's notes, and what goes wrong and ends nothing; `said` what is done. Raises what the keeper raised
    when it could not start it. Ctrl-C stops the keeper, too.
    """
    reading, writing = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        os.close(reading)
        _keep(request, writing, owner=owner)
    os.close(writing)
    try:
        with open(reading, encoding="utf-8") as news:
            for line in news:
                message = json.loads(line)
                if "phase" in message:
                    phase(message["phase"])
                elif "note" in message:
                    noted(message["note"])
                elif "said" in message:
                    said(message["said"])
                elif "error" in message:
                    os.waitpid(keeper, 0)
                    raise _error(message["error"])
                else:
                    return {**message, "pid": keeper}
    except KeyboardInterrupt:
        os.kill(keeper, signal.SIGTERM)
        os.waitpid(keeper, 0)
        raise InterruptedRun("Interrupted; everything made so far was removed") from None
    _, status = os.waitpid(keeper, 0)
    raise SandboxError(
        "The keeper ended while starting", details=f"exit code {os.waitstatus_to_exitcode(status)}"
    )


def _error(shape: dict[str, str]) -> BotBottleError:
    kind = getattr(errors, shape["class"], SandboxError)
    error: BotBottleError = kind(shape["brief"], details=shape["details"], resolution=shape["resolution"])
    return error


def _keep(request: "StartRequest", news: int, *, owner: bool) -> NoReturn:
    """The keeper; what cannot go on is told over `news`."""
    code = 70
    tell = _teller(news)
    try:
        code = _run(request, news, tell, owner=owner)
    except BotBottleError as error:
        tell({"error": _shape(error)})
    except Exception as error:  # noqa: BLE001 - the process boundary
        from bot_bottle.host.crash import save

        failed = SandboxError("The keeper failed", details=f"{error!r}\n{save([])}")
        tell({"error": _shape(failed)})
    finally:
        os._exit(code)


def _run(request: "StartRequest", news: int, tell: Callable[[dict[str, Any]], None], *, owner: bool) -> int:
    from bot_bottle.operate import ahead

    early = ahead.bundle()  # before all other imports
    try:
        from bot_bottle.operate.runs import prepare, run_here

        prepared = prepare(
            request
        )  # still at the terminal, where a program that gives a credential may ask for something
        for note in prepared.plan.notes:
            tell({"note": note})
        _leave_terminal(news, early)
        place = {"run_path": prepared.plan.paths.run, "copied": prepared.plan.workspace.mode == "copy"}
        outcome = run_here(
            prepared,
            early=early,
            foreground=False,
            owner=owner,
            phase=lambda name: tell({"phase": name}),
            ready=lambda begun: tell({"id": begun.id, "phases": begun.phases, **place}),
            noted=lambda note: tell({"note": note}),
            said=lambda text: tell({"said": text}),
        )
    finally:
        early.discard()
    return outcome.exit_code


def _leave_terminal(news: int, early: "Sidecar") -> None:
    """A session of its own, and nothing of the starter's but the pipe that tells it the news."""
    from bot_bottle.host import spawn

    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    kept = {early.sock.fileno(), early.door.fileno()} if isinstance(early.door, socket.socket) else set()
    spawn.close_all_but({0, 1, 2, news, *kept})
    os.chdir("/")


def _shape(error: BotBottleError) -> dict[str, str]:
    """What `_error` makes an error of the same kind of, on the other side."""
    kind = next(one for one in type(error).__mro__ if getattr(errors, one.__name__, None) is one)
    return {
        "class": kind.__name__,
        "brief": error.brief,
        "details": error.details,
        "resolution": error.resolution,
    }


def _teller(news: int) -> Callable[[dict[str, Any]], None]:
    def tell(message: dict[str, Any]) -> None:
        try:
            os.write(news, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            return  # whoever started it has gone; the run goes on

    return tell
