#!/usr/bin/python3 -I
"""NOT pipelock: a stand-in that keeps the contract which our engine relies on, for machines without the real program.

What it does is written from pipelock's documentation: strict keys, strict allowlist (`*.x` is also `x`), private addresses refused
unless trusted, CONNECT and absolute-form requests judged and everything else answered by pages of its own, one secret format
found in plain requests, JSON log, reload by watching the folder, a bad config leaves the old one in force. It is a test's tool:
that our side holds together with it says nothing about the real program; `real` tests do.
"""

import hashlib
import ipaddress
import json
import os
import re
import socket
import sys
import threading
import time
from urllib.parse import urlsplit

KEYS = {
    "version", "mode", "api_allowlist", "fetch_proxy", "forward_proxy", "websocket_proxy", "request_body_scanning",
    "response_scanning", "dlp", "kill_switch", "logging", "trusted_domains",
}  # fmt: skip
SECRET = re.compile(rb"AKIA[0-9A-Z]{16}")
LOCK = threading.Lock()


def say(event, **fields):
    line = {"level": "info", "component": "pipelock", "time": int(time.time()), "event": event, **fields}
    with LOCK:
        os.write(1, json.dumps(line).encode() + b"\n")


def load(path):
    with open(path, "rb") as file:
        content = file.read()
    config = json.loads(content)
    if unknown := set(config) - KEYS:
        raise ValueError(f"field {sorted(unknown)[0]} not found in type config.Config")
    if config["mode"] == "strict" and not config["api_allowlist"]:
        raise ValueError("strict mode requires at least one domain in api_allowlist")
    return config, hashlib.sha256(content).hexdigest()


class StandIn:
    def __init__(self, path):
        self.path = path
        self.config, self.digest = load(path)

    def watch(self):
        seen = os.stat(self.path).st_ino
        while True:
            time.sleep(0.02)
            now = os.stat(self.path).st_ino
            if now == seen:
                continue
            seen = now
            try:
                config, digest = load(self.path)
                if set(config.get("trusted_domains", ())) - set(self.config.get("trusted_domains", ())):
                    raise ValueError("security downgrade: trusted_domains expanded")
            except (ValueError, KeyError) as error:
                say("error", method="CONFIG_RELOAD", resource=self.path, error=str(error))
                continue
            self.config, self.digest = config, digest
            say("config_reload", status="success", detail=f"mode={config['mode']}", config_hash=digest)

    def objection(self, host):
        listed = self.config["api_allowlist"]
        if not any(
            host == entry
            or (entry[:2] == "*." and (host + ".").endswith(entry[1:] + "."))
            or host == entry[2:]
            for entry in listed
        ):
            return f"domain not in allowlist: {host}"
        if host in self.config.get("trusted_domains", ()):
            return ""
        for found in socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM):
            if not ipaddress.ip_address(found[4][0]).is_global:
                return "SSRF: private address"
        return ""

    def serve(self, sock):
        with sock:
            head = b""
            while b"\r\n\r\n" not in head:
                data = sock.recv(65536)
                if not data:
                    return
                head += data
            head, _, rest = head.partition(b"\r\n\r\n")
            method, target, _ = head.partition(b"\r\n")[0].decode().split(" ")
            if method == "CONNECT":
                self.tunnel(sock, target)
            elif target.startswith("http://"):
                self.forward(sock, method, target, head, rest)
            else:
                answer(sock, 200, b"pipelock's own page")

    def tunnel(self, sock, target):
        host, _, port = target.rpartition(":")
        if why := self.objection(host):
            say("blocked", method="CONNECT", target=target, scanner="allowlist", reason=why)
            answer(sock, 403, f"CONNECT blocked: {why}".encode())
            return
        upstream = socket.create_connection((host, int(port)))
        sock.sendall(b"HTTP/1.1 200 Connection Established\r\n\r\n")
        say("tunnel_open", target=target)
        with upstream:
            total = both_ways(sock, upstream)
        say("tunnel_close", target=target, total_bytes=total, duration_ms=1.5)

    def forward(self, sock, method, target, head, rest):
        url = urlsplit(target)
        match = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
        while match and len(rest) < int(match[1]):
            rest += sock.recv(65536)
        why, scanner = self.objection(url.hostname), "allowlist"
        if not why and SECRET.search(head + rest):
            why, scanner = "request contains AWS Access Key ID", "body_dlp"
        if why:
            say("blocked", method=method, url=target, scanner=scanner, reason=why)
            answer(sock, 403, f"blocked: {why}".encode())
            return
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        lines = [line for line in head.split(b"\r\n")[1:] if not line.lower().startswith(b"connection:")]
        with socket.create_connection((url.hostname, url.port or 80)) as upstream:
            upstream.sendall(
                b"\r\n".join([f"{method} {path} HTTP/1.1".encode(), *lines, b"Connection: close", b"", b""])
            )
            upstream.sendall(rest)
            while data := upstream.recv(65536):
                sock.sendall(data)
        say("forward_http", method=method, url=target, status_code=200, size_bytes=1, duration_ms=1)


def both_ways(one, other):
    total = [0]

    def carry(source, target):
        try:
            while data := source.recv(65536):
                total[0] += len(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    up = threading.Thread(target=carry, args=(one, other))
    up.start()
    carry(other, one)
    up.join()
    return total[0]


def answer(sock, status, body):
    sock.sendall(
        b"HTTP/1.1 %d X\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
        % (status, len(body), body)
    )


def guarded(act, *arguments):
    try:
        act(*arguments)
    except (OSError, ValueError, IndexError):
        pass


def main():
    if sys.argv[1:] == ["version"]:
        print("pipelock 2.3.0 (stand-in)")
        return
    path = sys.argv[sys.argv.index("--config") + 1]
    try:
        stand_in = StandIn(path)
    except (ValueError, KeyError) as error:
        sys.exit(f"Error: invalid config: {error}")
    host, _, port = stand_in.config["fetch_proxy"]["listen"].rpartition(":")
    say("startup", listen=f"{host}:{port}", mode="strict", version="2.3.0", config_hash=stand_in.digest)
    threading.Thread(target=stand_in.watch, daemon=True).start()
    server = socket.create_server((host, int(port)), backlog=128)
    while True:
        connection, _ = server.accept()
        threading.Thread(target=guarded, args=(stand_in.serve, connection), daemon=True).start()


if __name__ == "__main__":
    main()
