"""Which engine is meant: the rules of Docker's own command line, and nothing that an environment says is taken for an option."""

import contextlib
import hashlib
import json
import os
import socket
import ssl
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.backends.docker import dialing, endpoint, ssh
from bot_bottle.backends.docker.engine import connect
from bot_bottle.errors import HostError
from support.authorities import Authority


@pytest.mark.parametrize(
    ("said", "host"),
    [
        ("unix:///run/x.sock", "unix:///run/x.sock"),
        ("/run/x.sock", "unix:///run/x.sock"),
        ("tcp://far.example.org:2376", "tcp://far.example.org:2376"),
        ("https://far.example.org:2376", "tcp://far.example.org:2376"),
        ("far.example.org:2375", "tcp://far.example.org:2375"),
        ("ssh://me@far.example.org", "ssh://me@far.example.org"),
    ],
)
def test_docker_host_comes_first(said, host):
    found = endpoint.find({"DOCKER_HOST": said, "DOCKER_CONTEXT": "other", "HOME": "/nowhere"})
    assert (found.host, found.source) == (host, "DOCKER_HOST")


@pytest.mark.parametrize("said", ["ftp://x", "npipe:////./pipe/x", "unix://", "ssh://", "fd://3"])
def test_a_host_that_is_none_is_refused(said):
    with pytest.raises(HostError):
        endpoint.find({"DOCKER_HOST": said})


def _context(home: Path, name: str, host: str, **more: object) -> None:
    digest = hashlib.sha256(name.encode()).hexdigest()
    folder = home / ".docker/contexts/meta" / digest
    folder.mkdir(parents=True)
    document = {"Name": name, "Endpoints": {"docker": {"Host": host, **more}}}
    (folder / "meta.json").write_text(json.dumps(document))


def test_a_context_is_found_by_its_name_and_by_the_one_in_use(tmp_path):
    _context(tmp_path, "far", "ssh://me@far.example.org")
    home = {"HOME": str(tmp_path)}
    assert endpoint.find({**home, "DOCKER_CONTEXT": "far"}).host == "ssh://me@far.example.org"
    (tmp_path / ".docker/config.json").write_text(json.dumps({"currentContext": "far"}))
    assert endpoint.find(home).source == "the Docker context 'far'"
    assert endpoint.find({**home, "DOCKER_CONTEXT": "default"}).scheme == "unix"


def test_a_context_brings_its_own_certificates(tmp_path):
    _context(tmp_path, "far", "tcp://far.example.org:2376", SkipTLSVerify=True)
    digest = hashlib.sha256(b"far").hexdigest()
    (tmp_path / ".docker/contexts/tls" / digest / "docker").mkdir(parents=True)
    tls = endpoint.find({"HOME": str(tmp_path), "DOCKER_CONTEXT": "far"}).tls
    assert tls is not None
    assert not tls.verify
    assert digest in tls.ca


@pytest.mark.parametrize("content", ["", "[]", '{"Endpoints": {}}', '{"Endpoints": {"docker": []}}', "\0"])
def test_a_context_that_is_missing_or_broken_is_no_other_engine(tmp_path, content):
    _context(tmp_path, "far", "x")
    next(tmp_path.glob(".docker/contexts/meta/*/meta.json")).write_text(content)
    for name in ("far", "gone", "../far"):
        with pytest.raises(HostError):
            endpoint.find({"HOME": str(tmp_path), "DOCKER_CONTEXT": name})


def test_without_a_word_the_first_socket_that_is_there_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(endpoint, "DEFAULT_SOCKET", str(tmp_path / "none.sock"))
    environ = {"XDG_RUNTIME_DIR": str(tmp_path / "run"), "HOME": str(tmp_path / "home")}
    podman = tmp_path / "run/podman/podman.sock"
    podman.parent.mkdir(parents=True)
    podman.touch()
    assert endpoint.find(environ) == endpoint.Endpoint(f"unix://{podman}", "Podman's socket")
    rootless = tmp_path / "run/docker.sock"
    rootless.touch()
    assert endpoint.find(environ).source == "the rootless Docker's socket"


@pytest.mark.parametrize(
    "url",
    [
        "ssh://-oProxyCommand=touch%20x", "ssh://me:secret@far", "ssh://me@far/run/$(touch x)", "ssh://far;touch", "ssh://@",
        "ssh://far?x=1", "ssh://-x@far", "ssh://far:99999", "ssh://far/%0atouch", "ssh://me%20x@far",
    ],
)  # fmt: skip
def test_an_ssh_host_can_be_nothing_but_a_host(url):
    with pytest.raises(HostError) as raised:
        ssh.read(url)
    assert "secret" not in str(raised.value)


@given(st.text(max_size=40))
def test_whatever_stands_there_no_word_of_the_command_is_an_option_or_for_a_shell(text):
    with contextlib.suppress(HostError):
        words = ssh.command(ssh.read(f"ssh://{text}"))
        ours = words.index("--")
        given_words = [
            *words[ours + 1 :],
            *(words[words.index("-l") + 1 : words.index("-l") + 2] if "-l" in words else ()),
        ]
        assert not [
            word for word in given_words if set(word) & set(" \t\n;|&$`'\"\\<>(){}*?!#~") or word == ""
        ]
        assert not words[ours + 1].startswith("-")


def test_an_engine_that_is_not_there_is_said_to_be_not_there(tmp_path):
    with pytest.raises(HostError) as raised:
        connect({"DOCKER_HOST": f"unix://{tmp_path}/none.sock"})
    assert "DOCKER_HOST" in raised.value.details


@pytest.mark.skipif(os.geteuid() != 0, reason="must be root, to be somebody else")
def test_one_that_refuses_this_user_is_told_from_one_that_is_not_there(tmp_path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        path.chmod(0o600)
        tmp_path.chmod(0o755)
        pid = os.fork()
        if pid == 0:
            code = 1
            with contextlib.suppress(BaseException):
                for folder in path.parents:
                    with contextlib.suppress(OSError):
                        folder.chmod(folder.stat().st_mode | 0o111)
                os.setresuid(65534, 65534, 65534)
                try:
                    connect({"DOCKER_HOST": f"unix://{path}"})
                except HostError as error:
                    code = 0 if "refuses this user" in error.brief and "group" in error.resolution else 2
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


ANSWER = json.dumps({"ApiVersion": "1.41", "Version": "20.10", "KernelVersion": "0", "Os": "linux"}).encode()


def _serve(server: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as tls:
            tls.recv(65536)
            tls.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                % len(ANSWER)
                + ANSWER
            )


@pytest.fixture
def tls_engine(tmp_path):
    """Something that answers as an engine does, to whoever has a certificate of its authority; and a folder with all that takes."""
    authority = Authority()
    folder = tmp_path / "certificates"
    folder.mkdir()
    (folder / "ca.pem").write_text(authority.pem)
    leaf = authority.leaf(folder, "localhost").read_bytes()
    for name in ("cert.pem", "key.pem"):
        (folder / name).write_bytes(leaf)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(folder / "ca.pem")
    with socket.create_server(("127.0.0.1", 0)) as server:
        serving = threading.Thread(target=_serve, args=(server, context), daemon=True)
        serving.start()
        yield f"tcp://localhost:{server.getsockname()[1]}", folder
        server.shutdown(socket.SHUT_RDWR)
        serving.join(10)


def _environ(host, folder, **more):
    return {"DOCKER_HOST": host, "DOCKER_CERT_PATH": str(folder), **more}


def test_tls_is_spoken_with_the_certificates_that_are_named(tls_engine):
    host, folder = tls_engine
    environ = _environ(host, folder, DOCKER_TLS_VERIFY="1")
    engine = dialing.engine_at(endpoint.find(environ), environ)
    assert engine.call("GET", "/version")["Version"] == "20.10"
    assert not dialing.traits(engine).local
    found = connect(environ)
    assert not found.local
    found.client.close()


def test_an_engine_with_another_certificate_is_not_spoken_to(tls_engine, tmp_path):
    host, folder = tls_engine
    (folder / "ca.pem").write_text(Authority().pem)
    environ = _environ(host, folder, DOCKER_TLS_VERIFY="1")
    with pytest.raises(HostError):
        dialing.engine_at(endpoint.find(environ), environ).call("GET", "/version")
    with pytest.raises(HostError):
        connect(environ)


def test_certificates_that_are_missing_are_said_to_be(tls_engine):
    host, folder = tls_engine
    (folder / "key.pem").unlink()
    with pytest.raises(HostError) as raised:
        connect(_environ(host, folder, DOCKER_TLS_VERIFY="1"))
    assert "key.pem" in raised.value.details
