"""Objects and requests that have broken git's servers, or who fetched from them: the gate takes none in, and stays up."""

import os
import signal
import socket

import pytest

from bot_bottle.policy.git import NOTHING
from support.gitservers import git
from support.waiting import wait_for

pytestmark = pytest.mark.namespace


def blob(work, content):
    return git(work, "hash-object", "-w", "--stdin", stdin=content)


def tree(work, *entries):
    """A tree as nobody's `git add` would make it: (mode, name, id)."""
    ordered = sorted(entries, key=lambda entry: entry[1] + ("/" if entry[0] == "40000" else ""))
    content = b"".join(
        mode.encode() + b" " + name.encode() + b"\0" + bytes.fromhex(oid) for mode, name, oid in ordered
    )
    return git(work, "hash-object", "-t", "tree", "-w", "--stdin", "--literally", stdin=content)


def gitmodules(work, text):
    return tree(work, ("100644", ".gitmodules", blob(work, text)))


def inner(work):
    return tree(work, ("100755", "config", blob(work, "[core]\n\tfsmonitor = id\n")))


HOSTILE = {
    "a folder .git": lambda work: tree(work, ("40000", ".git", inner(work))),
    "a folder .GIT": lambda work: tree(work, ("40000", ".GIT", inner(work))),
    "a folder git~1 (CVE-2014-9390)": lambda work: tree(work, ("40000", "git~1", inner(work))),
    "a folder .g\u200cit": lambda work: tree(work, ("40000", ".g\u200cit", inner(work))),
    "a name ..": lambda work: tree(work, ("40000", "..", inner(work))),
    "a name with a slash": lambda work: tree(work, ("100644", "a/b", blob(work, "x"))),
    "a name twice": lambda work: tree(
        work, ("100644", "a", blob(work, "x")), ("100644", "a", blob(work, "y"))
    ),
    "a .gitmodules that is a link": lambda work: tree(work, ("120000", ".gitmodules", blob(work, "../x"))),
    "a submodule's url that is an option (CVE-2018-17456)": lambda work: gitmodules(
        work, '[submodule "x"]\n\tpath = x\n\turl = -u./payload\n'
    ),
    "a submodule's path that is an option (CVE-2018-17456)": lambda work: gitmodules(
        work, '[submodule "x"]\n\tpath = -u\n\turl = https://example.org/x\n'
    ),
    "a submodule's name that leads out (CVE-2018-11235)": lambda work: gitmodules(
        work, '[submodule "../../modules/x"]\n\tpath = x\n\turl = https://example.org/x\n'
    ),
    "a submodule's command (CVE-2019-19604)": lambda work: gitmodules(
        work, '[submodule "x"]\n\tpath = x\n\turl = https://example.org/x\n\tupdate = !id\n'
    ),
    "a url with a line break (CVE-2020-5260)": lambda work: gitmodules(
        work, '[submodule "x"]\n\tpath = x\n\turl = "https://example.org\\n/x"\n'
    ),
    "a submodule's path that ends in CR (CVE-2025-48384)": lambda work: gitmodules(
        work, '[submodule "x"]\n\tpath = "x\r"\n\turl = https://example.org/x\n'
    ),
}


JUDGED_BY_PATH = ("a submodule's path that ends in CR (CVE-2025-48384)",)
"""Git itself takes them; `.gitmodules` is a protected path."""


@pytest.mark.parametrize("what", HOSTILE)
def test_objects_that_have_broken_those_who_fetch_them_are_not_taken_in(gate, upstream, what):
    work = gate.clone()
    commit = git(work, "commit-tree", "-m", "Look at this", "-p", "HEAD", HOSTILE[what](work))
    done = gate.git("push", "origin", f"{commit}:refs/heads/bot/x", cwd=work)
    assert done.code != 0, done.said
    assert git(upstream, "for-each-ref", "refs/heads/bot") == ""
    assert what in JUDGED_BY_PATH or "git does not take its objects" in done.said, done.said
    assert gate.kinds()[-1] == "git.refused", gate.events
    gate.assert_nothing_stands()
    assert gate.git("ls-remote", gate.url()).code == 0


def test_what_was_refused_can_be_fetched_by_nobody(gate, upstream):
    work = gate.clone()
    head = gate.commit(work, content="not to be seen\n")
    assert gate.git("push", "origin", "HEAD:refs/heads/main", cwd=work).code != 0
    second = gate.clone("second")
    for words in ([head], ["--depth=1", head]):
        done = gate.git("fetch", "-q", "origin", *words, cwd=second)
        assert done.code != 0, done.said
    assert gate.git("cat-file", "-e", head, cwd=second).code != 0


def request(gate, data):
    with socket.create_connection(("127.0.0.1", gate.port), timeout=60) as sock:
        sock.sendall(data)
        said = b""
        while part := sock.recv(65536):
            said += part
        return said


def packet(text):
    return b"%04x" % (len(text) + 4) + text


@pytest.mark.parametrize(
    "ref",
    [b"refs/heads/bot/../main", b"refs/heads/bot/x.lock", b"HEAD", b"refs/heads/bot/\x1b[2J", b"../../x"],
)
def test_names_of_refs_that_no_client_would_send_are_refused(gate, upstream, ref):
    head = git(upstream, "rev-parse", "main")
    gate.clone()
    before = git(upstream, "for-each-ref")
    wanted = packet(f"{NOTHING} {head} ".encode() + ref + b"\0 report-status side-band-64k atomic") + b"0000"
    empty = b"PACK\0\0\0\2\0\0\0\0" + bytes.fromhex("029d08823bd8a8eab510ad6ac75c823cfd3ed31e")
    body = wanted + empty
    head_lines = (
        b"POST /origin.git/git-receive-pack HTTP/1.1\r\nhost: gate\r\nconnection: close\r\n"
        b"content-type: application/x-git-receive-pack-request\r\ncontent-length: %d\r\n\r\n" % len(body)
    )
    said = request(gate, head_lines + body)
    assert b"ok " + ref not in said
    assert git(upstream, "for-each-ref") == before
    gate.assert_nothing_stands()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /origin.git/config HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /origin.git/../../etc/passwd HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /origin.git/info/refs?service=git-upload-archive HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /origin.git/info/refs HTTP/1.1\r\nhost: x\r\n\r\n",
        b"PUT /origin.git/git-receive-pack HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
        b"\0" * 100 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: " + b"b" * 100_000 + b"\r\n\r\n",
    ],
)
def test_requests_that_are_none_of_gits_get_nothing(gate, data):
    gate.clone()
    try:
        said = request(gate, data)
    except ConnectionError:
        said = b""
    assert b"HTTP/1.1 200" not in said
    assert b"root:" not in said
    assert gate.git("ls-remote", gate.url()).code == 0


def test_a_push_that_brings_too_much_is_refused(gated, place_for_git, ssh, upstream):
    from support import gates

    rules = gates.ONLY_REFS._replace(max_push=1 << 20)
    gate = gated(gates.over_ssh(place_for_git, ssh, upstream, rules=rules))
    work = gate.clone()
    (work / "large").write_bytes(os.urandom(3 << 20))
    gate.commit(work)
    done = gate.git("push", "origin", "HEAD:refs/heads/bot/x", cwd=work)
    assert done.code != 0
    assert "exceeds maximum allowed size" in done.said, done.said
    gate.assert_nothing_stands()


def test_a_stopped_client_holds_up_nobody(gate, upstream):
    work = gate.clone()
    with socket.create_connection(("127.0.0.1", gate.port)) as idle:
        idle.sendall(
            b"POST /origin.git/git-receive-pack HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n0000"
        )
        wait_for(gate.standing, "its quarantine")
        gate.commit(work)
        assert gate.git("push", "origin", "HEAD:refs/heads/bot/x", cwd=work).code == 0
    gate.assert_nothing_stands()


def test_a_keeper_that_is_killed_takes_all_three_with_it(gate):
    gate.clone()
    pids = [gate.pid(name) for name in ("gate", "courier", "checker")]
    for name in ("gate", "courier", "checker"):
        os.kill(gate.gate.pids[name], signal.SIGKILL)  # bubblewrap's, as when its keeper dies
    wait_for(lambda: not any(os.path.exists(f"/proc/{pid}/root/mirrors") for pid in pids), "them to end")
