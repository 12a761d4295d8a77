"""The installed program with bottles in real microVMs: start, the door, copies, and an agent that asks."""

import json
import re
import shutil
from pathlib import Path

import pytest

from support.microvms import DEADLINE, Place, until

IMPORTED = 270.0
"""Seconds in which an emulated machine in an emulated machine imports the protocol's client out of a mounted folder."""
PROBE = """
import socket, sys
def asked(place, request):
    with socket.create_connection(place, 60) as sock:
        sock.sendall(request)
        return sock.recv(4096).split(b"\\r\\n")[0].decode()
head = b"GET %s HTTP/1.1\\r\\nHost: denied.example.org\\r\\nConnection: close\\r\\n\\r\\n"
print(asked(("127.0.0.1", 3128), head % b"http://denied.example.org/"))
print(asked(("192.0.2.7", 80), head % b"/"))
sys.exit(7)
"""
pytestmark = [pytest.mark.vm, pytest.mark.timeout(400)]


def test_the_agent_s_exit_code_is_the_run_s_and_its_requests_reach_the_bundle(place: Place) -> None:
    place.agent("sh", "-c", f"exec /usr/bin/python3 -I -c '{PROBE}' > out 2>&1")
    done = place.start("--workspace", "mount")
    said = (place.work / "out").read_text()
    assert [line.split()[1] for line in said.splitlines()] == ["403", "403"], said
    assert done.returncode == 7
    assert place.machines.names() == []


def test_a_copy_keeps_the_repository_as_it_was_and_brings_the_changes_back(place: Place) -> None:
    (place.work / "out").write_text("before\n")
    place.agent("sh", "-c", "echo after > out; echo hello")
    done = place.start()
    assert (done.returncode, done.stdout) == (0, "hello\n")
    assert (place.work / "out").read_text() == "before\n"
    (run,) = re.findall(r"bot-bottle diff (\S+)", done.stderr)
    assert "+after" in place.run("diff", run).stdout


ASKER = """
import asyncio, json, os, sys, time
open("/workspace/ready", "w").close()
sys.path.insert(0, "/workspace/lib")
import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

print("imported after", time.process_time(), flush=True)

async def call(tool, arguments):
    with open(os.environ["BOT_BOTTLE_SUPERVISE_TOKEN_FILE"]) as file:
        headers = {"authorization": "Bearer " + file.read()}
    async with httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(120), verify=False, trust_env=False) as http:
        async with Client(streamable_http_client(os.environ["BOT_BOTTLE_SUPERVISE_URL"], http_client=http)) as client:
            return (await client.call_tool(tool, arguments)).structured_content

async def main():
    tool, arguments = "pipelock-block", {"urls": ["https://api.example.org/new"], "reason": "to read it"}
    while True:
        answer = await call(tool, arguments)
        print(answer["status"], answer["message"], flush=True)
        with open("/workspace/told", "w") as file:
            json.dump(answer, file)
        if answer["status"] not in ("pending", "approved"):
            return
        await asyncio.sleep(1)
        tool, arguments = "supervise-await", {"proposal": answer["proposal_id"]}

asyncio.run(main())
"""


def test_an_agent_asks_by_the_protocol_s_own_client_and_hears_what_was_decided(place: Place) -> None:
    import mcp

    site = Path(mcp.__file__).parent.parent
    shutil.copytree(
        site, place.work / "lib", ignore=shutil.ignore_patterns("textual", "docker", "rich", "pygments")
    )
    (place.work / "ask.py").write_text(ASKER)
    place.bottle("supervise: true\n")
    place.agent("sh", "-c", "exec /usr/bin/python3 -I /workspace/ask.py > out 2>&1")
    listed = ("approvals", "list", "--json")
    with place.running() as keeper:
        try:
            until(
                lambda: place.run(*listed).stdout.strip() not in ("", "[]") or keeper.poll() is not None,
                "it asks",
                every=5.0,
                within=IMPORTED,
            )
            assert keeper.poll() is None, f"the run ended with {keeper.returncode}"
            [shown] = json.loads(place.run(*listed).stdout)
            done = place.run("approvals", "approve", f"{shown['id']}@{shown['digest']}", "--json")
            # An emulated keeper can take longer than the command waits for it.
            assert json.loads(done.stdout)[0]["state"] in ("applied", "approved"), done.stdout + done.stderr
            assert keeper.wait(2 * DEADLINE) == 0
        finally:
            print((place.work / "out").read_text())
    assert json.loads((place.work / "told").read_text())["status"] == "applied"
