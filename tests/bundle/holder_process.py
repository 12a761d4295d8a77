"""Keeps a network namespace for a test: passes the door's listeners, and makes sockets in it on request."""

import array
import ctypes
import json
import os
import socket
import subprocess
import sys
import tempfile

from bot_bottle.door.inside import open_listeners
from bot_bottle.door.model import Listener
from bot_bottle.door.passing import send_listeners

NEW_MOUNTS, NEW_USER, NEW_NETWORK = 0x20000, 0x10000000, 0x40000000


def enter_namespaces() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.geteuid(), os.getegid()
    kinds = NEW_NETWORK | NEW_MOUNTS | (NEW_USER if uid else 0)
    if libc.unshare(kinds):
        raise OSError(ctypes.get_errno(), "unshare")
    if uid:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)


def use_own_resolver() -> None:
    """`/etc/resolv.conf` in this mount namespace names the bottle's DNS."""
    with tempfile.NamedTemporaryFile("w") as file:
        file.write("nameserver 127.0.0.1\n")
        file.flush()
        os.chmod(file.name, 0o644)
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "--bind", file.name, os.path.realpath("/etc/resolv.conf")], check=True)


def serve(channel: socket.socket) -> None:
    while True:
        request, ancillary, _, _ = channel.recvmsg(65536, 64)
        if not request:
            return
        asked = json.loads(request)
        if "listeners" in asked:
            numbers = array.array("i")
            numbers.frombytes(ancillary[0][2])
            door = socket.socket(fileno=numbers[0])
            opened = open_listeners([Listener(*entry) for entry in asked["listeners"]])
            send_listeners(door, opened)
            for sock in (door, *opened):
                sock.close()
            channel.send(b"passed")
        else:
            with socket.socket(*asked["socket"]) as made:
                numbers = array.array("i", [made.fileno()])
                channel.sendmsg([b"made"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])


if __name__ == "__main__":
    enter_namespaces()
    use_own_resolver()
    ours = socket.socket(fileno=int(sys.argv[1]))
    ours.send(b"ready")
    serve(ours)
