#!/usr/bin/python3 -IB
"""A stand-in for smolvm, for tests where no virtual machine boots: a container of this kernel, made by its own root.

It takes what bottles ask of the real one and keeps state as that does; the machine is an overlay over the image, with the folders
and sockets mounted. It shows that our side holds together and nothing about smolvm. Needs root.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time


def main() -> int:
    words = list(sys.argv[1:])
    if words == ["--version"]:
        print("smolvm 1.32.2")
        return 0
    command: list[str] = []
    if "--" in words:
        at = words.index("--")
        words, command = words[:at], words[at + 1 :]
    options: dict[str, list[str]] = {}
    verbs = []
    while words:
        word = words.pop(0)
        if word in ("--json", "--force"):
            options[word] = []
        elif word.startswith("--"):
            options.setdefault(word, []).append(words.pop(0))
        else:
            verbs.append(word)
    state = options["--state-dir"][0]
    verb = verbs[-1]
    if verb == "ls":
        print(json.dumps([{"name": name} for name in sorted(os.listdir(state))]))
        return 0
    name = options["--name"][0]
    folder = os.path.join(state, name)
    if verb == "create":
        os.makedirs(folder)
        save(folder, {"options": options, "command": command, "pid": None})
        return 0
    if not os.path.isdir(folder):
        return fail("NOT_FOUND", f"vm not found: {name}")
    with open(os.path.join(folder, "machine.json")) as file:
        machine = json.load(file)
    return {"start": start, "stop": stop, "delete": delete, "status": status}[verb](folder, machine)


def save(folder: str, machine: dict) -> None:
    with open(os.path.join(folder, "machine.json"), "w") as file:
        json.dump(machine, file)


def fail(code: str, message: str) -> int:
    print(json.dumps({"error": {"code": code, "message": message}}), file=sys.stderr)
    return 1


def start(folder: str, machine: dict) -> int:
    script = os.path.join(folder, "boot")
    with open(script, "w") as file:
        file.write("\n".join(boot(folder, machine)) + "\n")
    argv = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "sh", "-e", script]
    with open(os.path.join(folder, "log"), "wb") as log:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )
    machine["pid"] = child.pid
    save(folder, machine)
    return 0


def boot(folder: str, machine: dict) -> list[str]:
    options, root = machine["options"], f"{folder}/disk/merged"
    lines = [
        f"mkdir -p {folder}/disk",
        f"mount -t tmpfs disk {folder}/disk",
        f"mkdir {folder}/disk/upper {folder}/disk/work {root}",
        f"mount -t overlay none {root} -o lowerdir={options['--image'][0]},upperdir={folder}/disk/upper,workdir={folder}/disk/work",
        f"mkdir -p {root}/proc {root}/dev {root}/sys",
        f"mount -t proc proc {root}/proc",
        f"mount -t tmpfs dev {root}/dev -o mode=755",
        f"mkdir {root}/dev/pts",
        f"mount -t devpts pts {root}/dev/pts -o newinstance,mode=620,ptmxmode=666",
        f"ln -s pts/ptmx {root}/dev/ptmx",
    ]
    for name in ("null", "zero", "full", "random", "urandom", "tty", "kmsg"):
        lines += [f"touch {root}/dev/{name}", f"mount --bind /dev/{name} {root}/dev/{name}"]
    for volume in options.get("--volume", []):
        source, target, *mode = volume.split(":")
        lines += [f"mkdir -p {root}{target}", f"mount --bind {source} {root}{target}"]
        if mode == ["ro"]:
            lines.append(f"mount -o remount,bind,ro {root}{target}")
    for mounted in options.get("--mount-socket", []):
        source, target = mounted.split(":")
        lines += [
            f"mkdir -p $(dirname {root}{target})",
            f"touch {root}{target}",
            f"mount --bind {source} {root}{target}",
        ]
    words = " ".join(machine["command"])
    return [*lines, f"exec env -i /usr/sbin/chroot {root} {words}"]


def stop(folder: str, machine: dict) -> int:
    if pid := machine["pid"]:
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        machine["pid"] = None
        save(folder, machine)
    return 0


def delete(folder: str, machine: dict) -> int:
    stop(folder, machine)
    deadline = time.monotonic() + 10
    while True:
        try:
            shutil.rmtree(folder)
            return 0
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def status(folder: str, machine: dict) -> int:
    print(json.dumps({"pid": machine["pid"], "state": "running" if machine["pid"] else "stopped"}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
