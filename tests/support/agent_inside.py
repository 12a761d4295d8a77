"""An agent that does as it is told: asks through the protocol's own SDK, and tries its door. Runs inside a bottle.

Lines of JSON come by a FIFO; what became of each goes to a file, whole lines only. A server that went away is asked again, as an
agent would: by the same call, or for the answer to the proposal that it knows of.
"""

import asyncio
import json
import os
import sys
import threading
import urllib.error
import urllib.request

FOLDER = "/workspace"


def say(**what):
    descriptor = os.open(f"{FOLDER}/told", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(descriptor, json.dumps(what).encode() + b"\n")
    os.close(descriptor)


def tried(url):
    """The status of a GET through the door; 0 while nobody serves it."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def reach(url):
    for _ in range(2000):
        if status := tried(url):
            return status
        threading.Event().wait(0.01)  # the door is shut while another bundle takes the place of one that died
    return 0


async def call(tool, arguments):
    import httpx2
    from mcp.client.client import Client
    from mcp.client.streamable_http import streamable_http_client

    with open(os.environ["BOT_BOTTLE_SUPERVISE_TOKEN_FILE"]) as file:
        headers = {"authorization": "Bearer " + file.read()}
    async with httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(60), trust_env=False) as http:
        transport = streamable_http_client(os.environ["BOT_BOTTLE_SUPERVISE_URL"], http_client=http)
        async with Client(transport) as client:
            return (await client.call_tool(tool, arguments)).structured_content


async def ask(number, url):
    """Until it is decided; then whether the door does what was said."""
    tool, arguments, failures = "pipelock-block", {"urls": [url], "reason": "to read it"}, 0
    while True:
        try:
            answer = await call(tool, arguments)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                raise
            failures += 1
            say(number=number, failed=repr(error)[:300])
            if failures > 2000:
                raise
            await asyncio.sleep(0.02)
            continue
        say(number=number, answer=answer)
        if answer["status"] not in ("pending", "approved"):
            break
        tool, arguments = "supervise-await", {"proposal": answer["proposal_id"]}
    code = await asyncio.to_thread(reach, url)
    say(number=number, final=answer["status"], code=code, failures=failures)


async def main():
    import httpx2  # noqa: F401
    import mcp.client.client
    import mcp.client.streamable_http  # noqa: F401

    say(ready=True)
    tasks = set()
    with open(
        os.open(f"{FOLDER}/asks", os.O_RDWR)
    ) as asks:  # never at its end, as it could write there itself
        while line := await asyncio.to_thread(asks.readline):
            what = json.loads(line)
            if "ask" in what:
                tasks.add(asyncio.create_task(ask(what["number"], what["ask"])))
            else:
                code = await asyncio.to_thread(reach, what["get"])
                say(number=what["number"], got=code)


if __name__ == "__main__":
    sys.path.insert(0, f"{FOLDER}/lib")
    asyncio.run(main())
