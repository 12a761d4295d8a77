"""What an idle bundle that opens TLS keeps of the machine's memory."""

import json
import ssl
import subprocess
import sys
from pathlib import Path

from bot_bottle.bundle import memory
from bot_bottle.policy.model import EgressPolicy, Route, SecretsPolicy
from tests.bundle.conftest import Certificate
from tests.bundle.harness import Server, in_header, read_response, served, until
from tests.bundle.origins import echo_heads, over_tls, server_context


def test_code_that_is_given_back_comes_back_when_it_is_used() -> None:
    mappings = memory.code()
    assert len(mappings) > 10
    for _ in range(2):
        memory.give_back(mappings)
        assert ssl.create_default_context().cert_store_stats() is not None


def test_only_what_is_as_in_its_file_is_given_back() -> None:
    given_back = {mapping.start for mapping in memory.code()}
    text = Path("/proc/self/smaps").read_text()
    for part in text.split("VmFlags:"):
        lines = part.strip().splitlines()
        heads = [line for line in lines if "-" in line.split()[0] and not line.split()[0].endswith(":")]
        changed = any(line.startswith("Anonymous:") and not line.endswith(" 0 kB") for line in lines)
        if heads and int(heads[0].split("-")[0], 16) in given_back:
            assert not changed
            assert heads[0].split()[1][1] == "-"  # not writable


def pss(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def test_an_idle_bundle_that_opens_tls_takes_at_most_20_mib(certificate: Certificate) -> None:
    server = Server(over_tls(server_context(certificate.certificate, certificate.key), echo_heads))
    routes = (Route("ok.test", 443, upstream=server.upstream(), paths=("/**",)),)
    with served(EgressPolicy(routes=routes), env={"SSL_CERT_FILE": certificate.certificate}) as (
        holder,
        bundle,
    ):
        until(lambda: pss(bundle.pid) <= 20 * 1024)  # it tidies up once it has said that it is ready
        authority = bundle.hear(lambda message: "authority" in message)["authority"]
        client = ssl.create_default_context(cadata=authority)
        with client.wrap_socket(holder.connect("192.0.2.9", 443), server_hostname="ok.test") as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: ok.test\r\n\r\n")
            assert read_response(sock)[0].startswith(b"HTTP/1.1 200 ")
    server.close()


def test_with_a_credential_and_the_search_for_secrets_it_takes_no_more() -> None:
    routes = (Route("ok.test", 443, paths=("/**",), credential="key"),)
    credentials = {"key": in_header("authorization", "Bearer kj4h5Hg7df8Kd9fGh2")}
    with served(EgressPolicy(routes=routes, secrets=SecretsPolicy()), credentials=credentials) as (_, bundle):
        until(lambda: pss(bundle.pid) <= 20 * 1024)


def imported(script: str) -> list[str]:
    """What is imported after `script`, in a process that has imported nothing else."""
    script += "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    found: list[str] = json.loads(done.stdout)
    return found


def test_a_bundle_that_opens_nothing_has_imported_nothing_of_what_that_takes() -> None:
    modules = imported("from bot_bottle.bundle import main; main._import_all()")
    assert "asyncio.selector_events" in modules
    heavy = {"ssl", "inspect", "dataclasses", "cryptography", "re2", "encodings.idna", "email", "tokenize"}
    heavy |= {"logging", "asyncio.unix_events", "asyncio.streams", "asyncio.sslproto", "random"}
    assert heavy.isdisjoint(modules)


def test_what_serves_http_2_is_imported_from_memory_alone_and_not_before_it_is_needed() -> None:
    script = """
import sys
import bot_bottle.bundle.model
from bot_bottle.bundle import main, spare
main._import_all()
with spare.left_out():
    import bot_bottle.bundle.egress.authority, bot_bottle.bundle.egress.intercept, bot_bottle.bundle.egress.origin
    main._stored_h2()
assert not {"h2", "hpack", "hyperframe", "bot_bottle.bundle.egress.http2.serve"} & set(sys.modules)
path, sys.path[:] = list(sys.path), []
sys.path_importer_cache.clear()
for module in list(sys.modules.values()):
    if hasattr(module, "__path__"):
        module.__path__ = []
with spare.left_out():
    from bot_bottle.bundle.egress.http2 import serve
assert serve.serve_h2
sys.path[:] = path
"""
    assert {"h2.connection", "hpack.huffman_table", "hyperframe.frame"} <= set(imported(script))


def test_what_stands_for_a_module_is_the_module_as_soon_as_it_is_used() -> None:
    script = """
from bot_bottle.bundle import main
main._import_all()
import asyncio
async def ours(): pass
assert asyncio.iscoroutinefunction(ours)
"""
    assert "inspect" in imported(script)


def test_a_keeper_forks_its_bundle_without_what_decides() -> None:
    modules = imported(
        "import bot_bottle.bundle.model, bot_bottle.launch.sidecar, bot_bottle.launch.launcher"
    )
    assert {"bot_bottle.policy.egress", "bot_bottle.policy.paths"}.isdisjoint(modules)


def test_source_that_a_confined_bundle_can_not_read_is_missing_from_tracebacks_and_nothing_else() -> None:
    script = """
from bot_bottle.bundle import main
main._import_all()
import traceback
try:
    1 / 0
except ZeroDivisionError:
    assert "ZeroDivisionError" in traceback.format_exc()
"""
    assert "tokenize" not in imported(script)
