"""The bundle's life, from the fork to its end.

The keeper forks it while the sandbox is being made: imports and the warm-up of name look-ups happen meanwhile. Then it
waits for the door, confines itself, and only then reads anything that comes from the agent. It ends when the keeper does.
"""

import gc
import os
import select
import signal
import socket
from functools import partial

from bot_bottle.bundle import spare
from bot_bottle.bundle.model import BundleConfig
from bot_bottle.errors import BotBottleError
from bot_bottle.host import files
from bot_bottle.policy.egress import intercepted_names
from bot_bottle.typed import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from bot_bottle.bundle.egress.context import Context, Tls
    from bot_bottle.bundle.egress.dial import OpenTls
    from bot_bottle.bundle.egress.intercept import ServeTls
    from bot_bottle.bundle.egress.selector import DirectSelector
    from bot_bottle.bundle.egress.tls import TlsTransport
    from bot_bottle.policy.egress import Wanted

_KEPT_ENVIRONMENT = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_NO_SEARCH = "."
_RESOLVER_THREADS = 8
_GOODBYE_SECONDS = 2.0
_FOR_HTTP_2 = ("copy", "dataclasses", "hyperframe", "hpack", "h2", "bot_bottle.bundle.egress.http2")


def serve(config: BundleConfig, *, door: socket.socket, keeper: socket.socket) -> NoReturn:
    """Serves one bottle in this freshly forked process and never returns.

    `door` brings the listeners (`door/passing.py`), `keeper` carries a JSON object a line: `{"ready": true, …}` once the agent
    may run, or `{"failed": …}` and the end; then `{"event": …}` lines. What the keeper may send is in `orders.py`.
    """
    try:
        _detach(config.keeper, kept=(door.fileno(), keeper.fileno()))
        _import_all()
        _run(config, door, keeper)
    except BaseException as error:  # noqa: BLE001 - the end of the process: whatever it was, nothing is served any more
        _say_failed(keeper, error)
    finally:
        os._exit(1)


def serve_when_told(parent: int, *, door: socket.socket, keeper: socket.socket) -> NoReturn:
    """Like `serve`, forked before the config is known: imports what every bundle needs, then reads it from `keeper`.

    The config is the first line there, as `BundleConfig.document` gives it.
    """
    try:
        _detach(parent, kept=(door.fileno(), keeper.fileno()))
        _import_all()
        _run(_told(keeper), door, keeper)
    except BaseException as error:  # noqa: BLE001 - as in `serve`
        _say_failed(keeper, error)
    finally:
        os._exit(1)


def _told(keeper: socket.socket) -> BundleConfig:
    """The config that the keeper sends; ends the process when it changes its mind."""
    import json

    line = b""
    while not line.endswith(b"\n"):
        data = keeper.recv(65536)
        if not data:
            os._exit(0)
        line += data
    return BundleConfig.from_document(json.loads(line))


def _detach(parent: int, *, kept: tuple[int, int]) -> None:
    """Takes nothing along from the keeper: its terminal, folder, signals, descriptors, environment; and dies with it."""
    gc.freeze()
    from bot_bottle.bundle import linux

    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    os.setsid()
    os.chdir("/")
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    for number in (
        signal.SIGTERM,
        signal.SIGCHLD,
        signal.SIGWINCH,
        signal.SIGALRM,
        signal.SIGUSR1,
        signal.SIGUSR2,
    ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _close_others(kept)
    _forget_environment()


def _close_others(kept: tuple[int, int]) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        if standard not in kept:
            os.dup2(null, standard)
    at = 3
    for number in sorted(kept):
        os.closerange(at, number)
        at = max(at, number + 1)
    os.closerange(at, 1 << 20)


def _forget_environment() -> None:
    """The operator's environment may hold keys to other things than this bottle's."""
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    os.environ.clear()
    _wipe_environment()
    os.environ.update(kept)
    os.environ["LOCALDOMAIN"] = _NO_SEARCH  # a name of the policy is that name, not one below a search domain


def _wipe_environment() -> None:
    """Overwrites the block in which the program was given its environment: clearing it only forgets where it is."""
    import ctypes

    fields = files.read("/proc/self/stat").decode(errors="replace").rpartition(")")[2].split()
    start, end = int(fields[47]), int(fields[48])
    if 0 < start < end:
        ctypes.memset(start, 0, end - start)


def _run(config: BundleConfig, door: socket.socket, keeper: socket.socket) -> None:
    from asyncio.selector_events import BaseSelectorEventLoop
    from concurrent.futures import thread as threads
    from contextvars import copy_context

    from bot_bottle.bundle import confine, linux, memory
    from bot_bottle.bundle.egress import server
    from bot_bottle.bundle.egress.faults import Faults
    from bot_bottle.bundle.egress.selector import DirectSelector
    from bot_bottle.bundle.keeper import Keeper
    from bot_bottle.bundle.orders import Orders
    from bot_bottle.bundle.record import Record
    from bot_bottle.door.passing import receive_listeners

    confine.limit_process(config.limits.files)
    program = confine.load_filter()
    selector = DirectSelector()
    loop = BaseSelectorEventLoop(selector)
    with spare.left_out():
        tls = _speak_tls(config, selector)
        if config.needs_guard:
            from bot_bottle.bundle.egress import guarding  # can't be loaded any more once confined
    confine.drop_root(config.uid, config.gid)
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)  # forgotten by the kernel when the user changed
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    if os.getppid() != config.keeper:
        return
    _wait_for_door(door, keeper)
    listeners = receive_listeners(door, len(config.listeners), 0)
    code = memory.code() if config.needs_tls or config.needs_guard else []
    confined = confine.confine(program)

    async def live() -> None:
        line = Keeper(keeper, lambda message: orders.hear(message))
        # Its timers are nobody's: in the context of the connection that happened to start one, a fault would end that.
        later = partial(loop.call_later, context=copy_context())
        record = Record(line, clock=loop.time, later=later)
        executor = threads.ThreadPoolExecutor(_RESOLVER_THREADS)
        context = server.make_context(config, record, executor, tls, selector, tell=line.tell)
        faults = Faults(record, context.look.recorded)
        loop.set_exception_handler(faults.in_loop)
        selector.fault = faults.happened
        context.credentials.tell = line.tell
        if config.needs_guard:
            context.look.guard = guarding.Guarding(
                lambda: context.policy, context.credentials, config.sensitive, record.event
            )
        egress = server.Egress(context, rest=lambda: memory.give_back(code))
        egress.serve(config.listeners, listeners)
        orders = Orders(config, line, context, egress, door)
        if tls.interceptor is not None:
            authority = tls.interceptor.authority
            authority.changed = lambda pem: line.tell({"authority": pem})
            line.tell({"authority": authority.pem})
        line.tell({"ready": True, "policy": config.policy.fingerprint(), "confined": confined})
        # The start waits for what was just told, and not for this.
        gc.collect()
        gc.freeze()
        gc.enable()
        memory.give_back(code)
        await loop.create_future()

    loop.run_until_complete(live())


def _import_all() -> None:
    """Everything that takes long and needs no config."""
    with spare.left_out(ssl=True):
        import asyncio
        import asyncio.selector_events
        import asyncio.timeouts  # noqa: F401
        from concurrent.futures import thread  # noqa: F401

        from bot_bottle.bundle import keeper, orders, record  # noqa: F401
        from bot_bottle.bundle.egress import server, via  # noqa: F401

    _warm_up()


def _speak_tls(config: BundleConfig, selector: "DirectSelector") -> "Tls":
    """What speaks TLS for this bottle, where anything has to: loaded, and its authority made, while that is possible."""
    from bot_bottle.bundle.egress.context import Tls

    if not config.needs_tls:
        return Tls(None, None)
    names = intercepted_names(config.policy)
    serve_h2 = (
        _stored_h2() if names else None
    )  # first: what reading it takes for a moment, the others take for good
    from bot_bottle.bundle.egress.origin import Origin

    origin = Origin(selector, seconds=config.limits.dial_seconds, authorities=config.authorities)
    to_proxy = _tls_to_proxy(config, selector)
    if serve_h2 is None:
        return Tls(origin, None, to_proxy)
    from bot_bottle.bundle.egress.authority import Authority
    from bot_bottle.bundle.egress.intercept import Interceptor

    return Tls(origin, Interceptor(Authority(names), serve_h2=serve_h2), to_proxy)


def _stored_h2() -> "ServeTls":
    """What serves HTTP/2: imported when the first client comes that speaks nothing else."""
    from bot_bottle.bundle.stored import Stored

    Stored().hold(_FOR_HTTP_2)

    async def serve_h2(context: "Context", via: str, wanted: "Wanted", transport: "TlsTransport") -> None:
        with spare.left_out():
            from bot_bottle.bundle.egress.http2 import serve
        await serve.serve_h2(context, via, wanted, transport)

    return serve_h2


def _tls_to_proxy(config: BundleConfig, selector: "DirectSelector") -> "OpenTls | None":
    """What speaks TLS to a proxy that asks for it."""
    if config.proxy is None or not any(one is not None and one.tls for one in config.proxy[:3]):
        return None
    from bot_bottle.bundle.egress.via import TlsToProxy

    limits = config.limits
    made = TlsToProxy(
        selector, authorities=config.authorities, seconds=limits.dial_seconds, idle=limits.idle_seconds
    )
    return made.open


def _warm_up() -> None:
    """Loads what would be loaded on first use: a confined process can't load code any more."""
    import ctypes
    import encodings.ascii
    import encodings.latin_1  # noqa: F401

    for name in ("libgcc_s.so.1", *(f"libnss_{source}.so.2" for source in _host_sources())):
        try:
            ctypes.CDLL(name)
        except OSError:  # built into libc, or not installed
            continue
    try:
        socket.getaddrinfo(b"localhost", 80, type=socket.SOCK_STREAM)
    except OSError:
        return


def _host_sources() -> list[str]:
    """The sources that `/etc/nsswitch.conf` names for hosts."""
    try:
        text = files.read("/etc/nsswitch.conf").decode(errors="replace")
    except OSError:
        return []
    lines = [line.partition("#")[0].split() for line in text.splitlines()]
    return [
        word
        for line in lines
        if line[:1] == ["hosts:"]
        for word in line[1:]
        if word.isidentifier() or "_" in word
    ]


def _wait_for_door(door: socket.socket, keeper: socket.socket) -> None:
    """Until the listeners are there; ends the process when the keeper is gone first."""
    waiting = select.poll()
    waiting.register(door, select.POLLIN)
    waiting.register(keeper, select.POLLRDHUP)
    ready = dict(waiting.poll())
    if keeper.fileno() in ready:
        os._exit(0)


def _say_failed(keeper: socket.socket, error: BaseException) -> None:
    import json

    said = str(error) if isinstance(error, (BotBottleError, OSError)) else f"{type(error).__name__}: {error}"
    try:
        keeper.settimeout(_GOODBYE_SECONDS)
        keeper.sendall(json.dumps({"failed": said}).encode() + b"\n")
    except OSError:
        return
