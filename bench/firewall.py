"""Area `egress`: what the firewall costs, beside connecting directly, mitmproxy and pipelock, each in turn."""

import contextlib
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import load
import mitm
import nginx
from bot_bottle.bundle.model import Injection
from bot_bottle.door.model import PROXY_ADDRESS, PROXY_PORT
from bot_bottle.policy.model import EgressPolicy, Route, SecretsPolicy, Upstream
from bot_bottle.secret import Secret
from bot_bottle.testing.certificates import make_certificate
from bottled import Bundle, idle_mib, opens_door, started
from load import Generator, Way
from measure import NO_GOAL, Figure, NotMeasured, figure, median
from place import Place

SECONDS = 0.5
DOWNLOADS = 3
FRESH = 15
"""New connections a round whose time is taken."""
POSTS = {10 << 10: 25, 1 << 20: 3}
"""Sizes of bodies, and how many a round."""
TUNNELLED, OPENED, SEARCHED = "tunnel.example", "opened.example", "searched.example"
LOCAL = "localhost"
"""The name that every proxy can resolve on its own."""
Progress = Callable[[str], None]


class World(NamedTuple):
    """Everything that runs while it is measured. `outside` generates load on the host, `inside` in the bottle's place."""

    outside: Generator
    inside: Generator
    bundle: Bundle
    ways: dict[str, Way]
    why_not: dict[str, str]

    def ask(self, what: str, way: str, number: float, size: int = 0) -> load.Answer:
        generator = self.inside if way.startswith("ours") else self.outside
        return generator.ask(what, self.ways[way], number, size)

    def rounds(
        self, what: str, ways: Sequence[str], number: float, rounds: int, progress: Progress, *, size: int = 0
    ) -> dict[str, list[load.Answer]]:
        """In turn; one round beforehand does not count. Ways that are not there are left out."""
        there = [way for way in ways if way in self.ways]
        found: dict[str, list[load.Answer]] = {way: [] for way in there}
        for at in range(-1, rounds):
            progress(f"{what}, {there[0]}: {max(0, at + 1)}/{rounds}")
            for way in there:
                answer = self._with_cpu(what, way, number, size)
                if at >= 0:
                    found[way].append(answer)
        return found

    def _with_cpu(self, what: str, way: str, number: float, size: int) -> load.Answer:
        before = self.bundle.cpu()
        answer = self.ask(what, way, number, size)
        if "count" in answer:
            answer["cpu"] = (self.bundle.cpu() - before) * 1000 / answer["count"]
        return answer


def of(answers: Sequence[load.Answer], what: str) -> float:
    return median([answer[what] for answer in answers])


def measure(place: Place, runs: int, progress: Progress) -> Iterator[Figure]:
    """Every line of the area but the tunnel by wrk."""
    with contextlib.ExitStack() as stack:
        try:
            idle = idle_mib(place)
            yield figure(
                "egress",
                "bundle that opens TLS and searches, idle (PSS)",
                idle,
                "MiB",
                goal="at most 20 MiB",
                ok=idle <= 20,
            )
            world = _world(stack, progress)
            for part in (_new_connections, _requests, _first_requests, _downloads, _searching):
                yield from part(world, runs, progress)
        except (OSError, RuntimeError) as error:
            raise NotMeasured(f"the firewall could not be measured: {error}") from error
        if world.why_not:
            raise NotMeasured("; ".join(world.why_not.values()))


def _new_connections(world: World, runs: int, progress: Progress) -> Iterator[Figure]:
    ways = ("ours, tunnel", "direct", "mitmproxy, tunnel", "pipelock, tunnel")
    found = world.rounds("new", ways, SECONDS, runs, progress)
    ours = of(found["ours, tunnel"], "rate")
    for other, factor in (("mitmproxy, tunnel", 4.0), ("pipelock, tunnel", 1.0), ("direct", 0.0)):
        if other in found:
            theirs = of(found[other], "rate")
            goal = f"at least {factor:g} x" if factor else NO_GOAL
            yield _beside(
                "new connections through the tunnel",
                ours,
                "/s",
                other,
                theirs,
                goal,
                ok=ours >= factor * theirs,
            )


def _requests(world: World, runs: int, progress: Progress) -> Iterator[Figure]:
    ways = ("ours, opened", "direct, certified", "mitmproxy, opened", "pipelock, opened")
    found = world.rounds("rate", ways, SECONDS, runs, progress)
    name = "requests with a credential, 32 connections"
    ours = of(found["ours, opened"], "rate")
    for other, factor in (("mitmproxy, opened", 8.0), ("direct, certified", 0.0)):
        if other in found:
            theirs = of(found[other], "rate")
            goal = f"at least {factor:g} x" if factor else NO_GOAL
            yield _beside(name, ours, "/s", other, theirs, goal, ok=ours >= factor * theirs)
    p50 = of(found["ours, opened"], "p50")
    for other, factor in (("pipelock, opened", 2.0), ("mitmproxy, opened", 0.0)):
        if other in found:
            theirs = of(found[other], "p50")
            goal = f"at most {factor:g} x" if factor else NO_GOAL
            yield _beside(
                f"{name}, p50", p50, "ms", other, theirs, goal, ok=not factor or p50 <= factor * theirs
            )
    cpu = of(found["ours, opened"], "cpu")
    yield figure(
        "egress", "processor of the bundle for one of them", cpu, "ms", goal="at most 0.25 ms", ok=cpu <= 0.25
    )


def _first_requests(world: World, runs: int, progress: Progress) -> Iterator[Figure]:
    found = world.rounds(
        "first", ("ours, opened", "direct, certified", "mitmproxy, opened"), FRESH, runs, progress
    )
    ours, direct = of(found["ours, opened"], "p50"), of(found["direct, certified"], "p50")
    name = "new connection that is opened, to the end of its first response, p50"
    yield _beside(name, ours, "ms", "direct", direct, "at most 3 ms more", ok=ours <= direct + 3)
    if "mitmproxy, opened" in found:
        yield _beside(name, ours, "ms", "mitmproxy", of(found["mitmproxy, opened"], "p50"), NO_GOAL, ok=True)


def _downloads(world: World, runs: int, progress: Progress) -> Iterator[Figure]:
    world.bundle.forget_peak()  # what came before had connections of its own
    before = world.bundle.memory("VmRSS")
    ways = ("ours, opened", "direct, certified", "nginx, opened", "mitmproxy, opened")
    found = world.rounds("download", ways, 0, min(runs, DOWNLOADS), progress)
    grown = (world.bundle.memory("VmHWM") - before) / 1024
    ours, direct = of(found["ours, opened"], "rate"), of(found["direct, certified"], "rate")
    name = "1 GiB that is opened"
    yield _beside(name, ours, "MB/s", "direct", direct, "at least 0.5 x", ok=ours >= 0.5 * direct)
    for other, way in (("nginx that opens it", "nginx, opened"), ("mitmproxy", "mitmproxy, opened")):
        if way in found:
            yield _beside(name, ours, "MB/s", other, of(found[way], "rate"), NO_GOAL, ok=True)
    yield figure(
        "egress", "growth while it went through", grown, "MiB", goal="at most 10 MiB", ok=grown <= 10
    )


def _searching(world: World, runs: int, progress: Progress) -> Iterator[Figure]:
    for size, count in POSTS.items():
        found = world.rounds("post", ("ours, searched", "ours, opened"), count, runs, progress, size=size)
        searched, plain = of(found["ours, searched"], "p50"), of(found["ours, opened"], "p50")
        if size < 1 << 20:
            name, goal, ok = (
                "request of 10 KiB, searched for secrets, p50",
                "at most 1.2 x",
                searched <= 1.2 * plain,
            )
        else:
            name, goal, ok = (
                "request of 1 MiB, searched for secrets, p50",
                "at most 25 ms more",
                searched <= plain + 25,
            )
        yield _beside(name, searched, "ms", "not searched", plain, goal, ok=ok)


def _beside(name: str, value: float, unit: str, other: str, theirs: float, goal: str, *, ok: bool) -> Figure:
    return figure("egress", name, value, unit, yardstick=other, yardstick_value=theirs, goal=goal, ok=ok)


def _world(stack: contextlib.ExitStack, progress: Progress) -> World:
    progress("egress: starting what is compared")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-egress-")))
    folder.chmod(0o755)
    certificate, key = make_certificate(folder, LOCAL, OPENED, SEARCHED)
    certified = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certified.load_cert_chain(certificate, key)
    bare = stack.enter_context(load.server(load.anonymous(server=True)))
    port = stack.enter_context(load.server(certified))
    door, other_end = socket.socketpair()
    stack.enter_context(door)
    stack.enter_context(other_end)
    inside, outside = Generator(stack, opens_door(door)), Generator(stack)
    bundle = stack.enter_context(started(_policy(bare, port), _credentials(), folder, certificate, other_end))
    ways = {"direct": Way(LOCAL, bare), "direct, certified": Way(LOCAL, port, authority=certificate)}
    ways |= _ours(bundle)
    why_not: dict[str, str] = {}
    for name, others in (("nginx", _nginx), ("mitmproxy", _mitmproxy), ("pipelock", _pipelock)):
        try:
            ways |= others(stack, folder, bare, port, certificate)
        except NotMeasured as error:
            why_not[name] = str(error)
    return World(outside, inside, bundle, ways, why_not)


def _policy(bare: int, port: int) -> EgressPolicy:
    to = Upstream("127.0.0.1", port)
    routes = (
        Route(TUNNELLED, 443, upstream=Upstream("127.0.0.1", bare), scan=False),
        Route(
            OPENED, 443, upstream=to, credential="key", methods=("GET", "POST"), paths=("/**",), scan=False
        ),
        Route(SEARCHED, 443, upstream=to, credential="key", methods=("GET", "POST"), paths=("/**",)),
    )
    return EgressPolicy(routes=routes, secrets=SecretsPolicy())


def _credentials() -> dict[str, Injection]:
    secret = "k" * 20 + "3f9" * 7
    return {"key": Injection("header", "authorization", Secret(f"Bearer {secret}"), Secret(secret))}


def _ours(bundle: Bundle) -> dict[str, Way]:
    proxy = (PROXY_ADDRESS, PROXY_PORT)
    return {
        "ours, tunnel": Way(TUNNELLED, 443, proxy),
        "ours, opened": Way(OPENED, 443, proxy, bundle.authority),
        "ours, searched": Way(SEARCHED, 443, proxy, bundle.authority),
    }


def _nginx(
    stack: contextlib.ExitStack, folder: Path, _bare: int, port: int, certificate: str
) -> dict[str, Way]:
    """What two more ends of TLS cost with no Python in between, and nothing looked for."""
    key = str(folder / "key.pem")
    server = nginx.opening(certificate=certificate, key=key, host=LOCAL, port=port)
    opened = stack.enter_context(nginx.started(lambda _: server))
    return {"nginx, opened": Way(LOCAL, opened, authority=certificate)}


def _mitmproxy(
    stack: contextlib.ExitStack, folder: Path, bare: int, port: int, certificate: str
) -> dict[str, Way]:
    tunnel, _ = stack.enter_context(mitm.started(folder / "passing", *mitm.NOTHING_OPENED))
    opened, authority = stack.enter_context(mitm.started(folder / "opening", *mitm.opening(certificate)))
    return {
        "mitmproxy, tunnel": Way(LOCAL, bare, ("127.0.0.1", tunnel)),
        "mitmproxy, opened": Way(LOCAL, port, ("127.0.0.1", opened), str(authority)),
    }


def _pipelock(
    stack: contextlib.ExitStack, _folder: Path, bare: int, _port: int, _certificate: str
) -> dict[str, Way]:
    """Only as a tunnel: the config that the product renders for it opens nothing."""
    import pipelock

    program = pipelock.program()
    if program is None:
        raise NotMeasured("pipelock is not installed, so nothing could be measured beside it")
    made = stack.enter_context(pipelock.started(program, (LOCAL, bare)))
    return {"pipelock, tunnel": Way(LOCAL, bare, ("127.0.0.1", made.port))}
