"""The bottle's own certificate authority: real clients inside trust it, by whatever they look at, and nothing on the host does.

What a bundle says late, or should not, is said by `trust_driver.py` in its place: the server outside presents what that
authority signed, and nothing is opened.
"""

import hashlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pip
import pytest
import uv
from tests.bundle.harness import Server
from tests.bundle.proxies import relay

from bot_bottle.testing import model
from bot_bottle.testing.script import parse
from support.authorities import Authority, serving
from support.bottles import write_agent, write_bottle, write_script
from support.place import program, python
from support.waiting import wait_for

pytestmark = pytest.mark.namespace
DRIVER = Path(__file__).with_name("trust_driver.py")
HOST = "ok.example.org"
URL = f"https://{HOST}"
BARE = "env -i PATH=/usr/bin:/bin HOME=/home/agent"
"""Without a single variable: what is trusted then is trusted by the system's own store."""

JAVA = """
import java.io.*; import java.net.*;
public class Fetch {
  public static void main(String[] a) throws Exception {
    System.out.println(new BufferedReader(new InputStreamReader(new URL(a[0]).openStream())).readLine());
  }
}
"""
GO = """
package main
import ("crypto/tls"; "fmt"; "io"; "os")
func main() {
  c, err := tls.Dial("tcp", os.Args[1]+":443", nil)
  if err != nil { fmt.Println(err); os.Exit(1) }
  fmt.Fprintf(c, "GET /yes HTTP/1.0\\r\\nHost: %s\\r\\n\\r\\n", os.Args[1])
  body, _ := io.ReadAll(c)
  os.Stdout.Write(body)
}
"""
URLLIB = f"import urllib.request as u; print(u.urlopen('{URL}/yes').read().decode())"
FETCH = f"fetch('{URL}/yes').then(async r => console.log(await r.text()), e => {{ console.log(e.cause); process.exit(1) }})"
S_CLIENT = f"openssl s_client -connect {HOST}:443 -servername {HOST} -verify_return_error </dev/null"

CLIENTS = {
    "curl": f"curl -sS --noproxy '*' {URL}/yes",
    "curl by the proxy": f"curl -sS {URL}/yes",
    "curl, bare": f"{BARE} curl -sS {URL}/yes",
    "wget (GnuTLS), bare": f"{BARE} wget -nv -O - {URL}/yes",
    "openssl, bare": f"{BARE} {S_CLIENT} && echo yes",
    "openssl, hashed folder": f"{BARE} {S_CLIENT} -no-CAfile -no-CAstore -CApath /etc/ssl/certs && echo yes",
    "git": f"git clone -q {URL}/repo.git cloned && cat cloned/yes",
    "git, bare": f"{BARE} git clone -q {URL}/repo.git cloned && cat cloned/yes",
    "python": f'/usr/bin/python3 -c "{URLLIB}"',
    "python, bare": f'{BARE} /usr/bin/python3 -I -c "{URLLIB}"',
    "pip (requests)": f"PYTHONPATH=../lib /usr/bin/python3 -m pip download -q --no-deps -i {URL}/simple thing && echo yes",
    "uv": f"../uv pip install -q --no-cache --target out -i {URL}/simple thing && cat out/thing/yes",
    "node": f'node -e "{FETCH}"',
    "java": f"java ../Fetch.java {URL}/yes",
    "java, bare": f"{BARE} java ../Fetch.java {URL}/yes",
    "go": f"../fetch {HOST}",
    "go, bare": f"{BARE} ../fetch {HOST}",
}
PROGRAMS = {"wget": "wget", "openssl": "openssl", "node": "node", "java": "java", "go": "go", "uv": ""}


def installed(name):
    """Whether this machine has what the client `name` needs."""
    needed = PROGRAMS.get(name.split(",")[0].split(" ")[0], "")
    return not needed or shutil.which(needed) is not None


@pytest.fixture(scope="session")
def go_program(tmp_path_factory):
    """A Go program that speaks TLS; compiling Go's library for it takes a while."""
    folder = tmp_path_factory.mktemp("go")
    (folder / "main.go").write_text(GO)
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GOCACHE": str(folder / "cache"),
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
    }
    subprocess.run(
        ["go", "build", "-o", "fetch", "main.go"], cwd=folder, env=env, check=True, capture_output=True
    )
    shutil.rmtree(folder / "cache")
    return folder / "fetch"


@pytest.fixture
def authority():
    return Authority()


@pytest.fixture
def site(tmp_path):
    """What the server serves: a file, a git repository, a package index."""
    folder = tmp_path / "site"
    source = tmp_path / "source"
    (folder / "simple" / "thing").mkdir(parents=True)
    (folder / "yes").write_text("yes\n")
    source.mkdir()
    (source / "yes").write_text("yes\n")
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    for words in (
        ["init", "-q"],
        ["add", "."],
        [*who, "commit", "-qm", "Start"],
        ["clone", "-q", "--bare", ".", folder / "repo.git"],
    ):
        subprocess.run(["git", *words], cwd=source, check=True)
    subprocess.run(["git", "update-server-info"], cwd=folder / "repo.git", check=True)
    wheel = "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(folder / "simple" / "thing" / wheel, "w") as made:
        made.writestr("thing/yes", "yes\n")
        made.writestr("thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
        made.writestr(
            "thing-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        made.writestr(
            "thing-1.0.dist-info/RECORD",
            "thing/yes,,\nthing-1.0.dist-info/METADATA,,\nthing-1.0.dist-info/WHEEL,,\nthing-1.0.dist-info/RECORD,,\n",
        )
    (folder / "simple" / "thing" / "index.html").write_text(f'<a href="{wheel}">{wheel}</a>')
    return folder


@pytest.fixture
def server(place, site, authority, tmp_path):
    """A server whose certificate `authority` signed, and a bottle whose one route leads to it, in a tunnel."""
    with serving(site, authority.leaf(tmp_path, HOST)) as served:
        write_bottle(place, egress={"routes": [{"host": HOST, "upstream": f"127.0.0.1:{served.port}"}]})
        yield served


def drive(place, agent, pem, *more):
    """Runs the agent, its bundle having made the authority `pem`."""
    path = place.write("authority.pem", pem) if pem else place.home / "authority.pem"
    return place.run([*python(), "-c", DRIVER.read_text(), agent, str(path), *more])


@pytest.fixture
def clients(place, repository, request):
    """An agent that tries every client that this machine has, and says of each whether it got what it asked for."""
    names = [name for name in CLIENTS if installed(name)]
    (place.workspace / "Fetch.java").write_text(JAVA)
    shutil.copytree(Path(pip.__file__).parent, place.workspace / "lib" / "pip")
    shutil.copy(uv.find_uv_bin(), place.workspace / "uv")
    if "go" in names:
        shutil.copy(request.getfixturevalue("go_program"), place.workspace / "fetch")
    lines = [
        f"mkdir {at}; (cd {at}; {CLIENTS[name]}) >said 2>&1 && grep -q yes said && echo '{name}: got it'"
        f" || {{ echo '{name}: did not'; cat said >&2; }}"
        for at, name in enumerate(names)
    ]
    (place.workspace / "all.sh").write_text("\n".join(lines))
    write_agent(place, "fetch", ["sh", "all.sh"])
    return names


@pytest.mark.slow
def test_every_client_trusts_the_bottles_authority(place, cli, server, authority, clients):
    """TLS is opened on the way; outside, what the company's authority signed is trusted."""
    ca = place.write("company.pem", authority.pem)
    route = {"host": HOST, "upstream": f"127.0.0.1:{server.port}", "methods": ["GET", "HEAD"]}
    write_bottle(place, egress={"routes": [route], "upstream": {"ca": str(ca)}})
    done = cli("start", "fetch", "--headless", "--workspace", "mount", timeout=110)
    assert done.stdout.splitlines() == [f"{name}: got it" for name in clients], done.stderr
    [event, *_] = events(place, "egress.allowed")
    assert (event["data"]["method"], event["data"]["path"]) == ("GET", "/yes"), "it was not opened"
    missing = sorted({name.split(",")[0] for name in CLIENTS} - {name.split(",")[0] for name in clients})
    if missing:
        pytest.skip(f"tried without {', '.join(missing)}, which this machine has not got")


@pytest.mark.slow
def test_what_an_authority_of_the_bottles_file_signed_is_trusted_in_a_tunnel(
    place, cli, server, authority, clients
):
    """Nothing is opened: programs inside check the server's own certificate, and are given the company's authority for it."""
    ca = place.write("company.pem", authority.pem)
    route = {"host": HOST, "upstream": f"127.0.0.1:{server.port}"}
    write_bottle(place, egress={"routes": [route], "upstream": {"ca": str(ca)}})
    done = cli("start", "fetch", "--headless", "--workspace", "mount", timeout=110)
    by_hash = "openssl, hashed folder"  # only the bottle's own authority is found by its hash
    said = [f"{name}: {'did not' if name == by_hash else 'got it'}" for name in clients]
    assert done.stdout.splitlines() == said, done.stderr


@pytest.mark.slow
def test_no_client_trusts_what_another_authority_signed(place, cli, server, clients):
    """They do check: else the tests above would show nothing."""
    done = cli("start", "fetch", "--headless", "--workspace", "mount", timeout=110)
    assert done.stdout.splitlines() == [f"{name}: did not" for name in clients], done.stderr


@pytest.mark.claude
def test_claude_code_works_on_a_route_that_is_opened(
    place, cli, repository, authority, claude_data, tmp_path
):
    (place.home / ".local/share/bot-bottle").mkdir(parents=True)
    (place.home / ".local/share/bot-bottle/providers").symlink_to(claude_data / "bot-bottle/providers")
    for folder in (".local", ".local/share", ".local/share/bot-bottle"):
        os.chown(place.home / folder, place.uid, place.uid)
    ca, host = place.write("company.pem", authority.pem), "api.anthropic.com"
    write = {"tool": "Write", "input": {"file_path": "/workspace/made", "content": "by claude"}}
    script = parse({"turns": [write, {"text": "Done."}]})
    with model.serving(script) as plain, tunnelling(plain.port, authority.leaf(tmp_path, host)) as port:
        route = {"host": host, "upstream": f"127.0.0.1:{port}", "paths": ["/v1/**"]}
        write_bottle(place, egress={"routes": [route], "upstream": {"ca": str(ca)}})
        place.write(".bot-bottle/agents/coder.md", "---\nprovider: claude\n---\nWork.\n")
        done = cli("start", "coder", "--headless", "--workspace", "mount", "--prompt", "go", timeout=110)
    assert (place.workspace / "made").read_text() == "by claude", done.stdout + done.stderr
    paths = [event["data"]["path"] for event in events(place, "egress.allowed")]
    assert "/v1/messages" in paths


CURL = f"curl -sS -m 5 {URL}/yes"


def test_without_an_authority_a_policy_that_opens_tls_starts_no_agent(place, repository, server):
    write_script(place, "fetch", "echo ran; " + CURL)
    done = drive(place, "fetch", "", "opens")
    assert "has made no certificate authority" in done.stderr
    assert "ran" not in done.stdout


@pytest.mark.parametrize(
    "text",
    ["", "x", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "\0" * 70000],
    ids=["nothing", "a letter", "a short one", "zeros"],
)
def test_what_is_no_certificate_starts_no_agent(place, repository, server, text):
    write_script(place, "fetch", "echo ran")
    done = drive(place, "fetch", text, "opens")
    assert done.code != 0
    assert "ran" not in done.stdout


def test_an_authority_that_comes_while_the_agent_works_is_trusted_from_then_on(
    place, repository, server, authority
):
    """As after a reload that first opens TLS. The refusal is what makes the bundle say something."""
    place.run(["mkfifo", "pipe"])
    script = f"{CURL} 2>&1; echo asked > pipe; read go < pipe; until {CURL} 2>/dev/null; do curl -s https://no.example.org; done"
    write_script(place, "fetch", script)
    with place_running(place, "fetch", "") as keeper:
        place.run(["sh", "-c", "read said < pipe"])
        place.write("authority.pem", authority.pem)
        place.run(["sh", "-c", "echo go > pipe"])
        said, _ = keeper.communicate(timeout=60)
    assert said.startswith("curl: ")
    assert said.splitlines()[-1] == "yes", said


def test_a_bundle_that_is_started_again_brings_an_authority_of_its_own(
    place, repository, server, authority, tmp_path
):
    second = Authority()
    place.run(["mkfifo", "pipe"])
    write_script(place, "fetch", f"{CURL}; echo asked > pipe; read go < pipe; {CURL}")
    with place_running(place, "fetch", authority.pem, "opens") as keeper:
        place.run(["sh", "-c", "read said < pipe"])
        place.write("authority.pem", second.pem)
        server.present(second.leaf(tmp_path, HOST))
        [bundle] = bundles(keeper.pid)
        os.kill(bundle, signal.SIGKILL)
        wait_for(lambda: events(place, "door.opened"), "the door to be open again")
        place.run(["sh", "-c", "echo go > pipe"])
        said, _ = keeper.communicate(timeout=60)
    assert said.split() == ["yes", "yes"]
    [started], [opened] = events(place, "run.started"), events(place, "door.opened")
    assert started["data"]["authority"] == hashlib.sha256(authority.der).hexdigest()
    assert opened["data"]["authority"] == hashlib.sha256(second.der).hexdigest()


def test_inside_nothing_of_the_stores_can_be_written_and_outside_nothing_changes(
    place, repository, server, authority
):
    before = stores()
    tries = [
        f"echo x 2>/dev/null >> {path} && echo wrote {path}"
        for path in (
            "/etc/ssl/certs/bot-bottle.pem",
            "/etc/ssl/certs/ca-certificates.crt",
            "/etc/ssl/certs/new",
            "/etc/ssl/certs/java/cacerts",
        )
    ]
    more = "{ chmod 777 /etc/ssl/certs && echo chmod; umount /etc/ssl/certs && echo umount; } 2>/dev/null"
    more += "; grep -r PRIVATE /etc/ssl/certs; true"
    write_script(place, "try", "; ".join([*tries, more]))
    done = drive(place, "try", authority.pem, "opens")
    assert (done.stdout, done.code) == ("", 0), done.stderr
    assert stores() == before


def bundles(keeper):
    """The children of `keeper` that are confined and outside every sandbox."""
    found = []
    for child in Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split():
        lines = Path(f"/proc/{child}/status").read_text().splitlines()
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        if status["Seccomp"] == "2" and len(status["NSpid"].split()) == 1:
            found.append(int(child))
    return found


def stores():
    """Every file of the host's own stores, with its content."""
    files = [
        path
        for folder in ("/etc/ssl/certs", "/usr/local/share/ca-certificates")
        for path in Path(folder).rglob("*")
    ]
    return {
        str(path): (os.readlink(path) if path.is_symlink() else path.read_bytes())
        for path in files
        if not path.is_dir()
    }


def test_a_bottle_that_may_reach_nothing_is_shown_the_hosts_own_store(place, cli, repository):
    write_script(place, "look", "ls /etc/ssl/certs | grep bot-bottle; env | grep -c SSL_CERT_FILE; true")
    assert cli("start", "look", "--headless").stdout.split() == ["0"]


def events(place, kind):
    """The place's events of one kind."""
    run = max((place.home / ".local/state/bot-bottle/runs").iterdir()).name
    lines = place.run([str(program()), "events", run, "--json"]).stdout.splitlines()
    return [event for line in lines if (event := json.loads(line))["kind"] == kind]


@contextmanager
def place_running(place, agent, pem, *more):
    """`drive`, while it runs."""
    path = place.write("authority.pem", pem) if pem else place.home / "authority.pem"
    argv = place.argv([*python(), "-c", DRIVER.read_text(), agent, str(path), *more])
    keeper = subprocess.Popen(
        argv, cwd=place.workspace, env=place.environment, stdout=subprocess.PIPE, text=True
    )
    with keeper:
        try:
            yield keeper
        finally:
            keeper.kill()


@contextmanager
def tunnelling(port, certificate):
    """Speaks TLS with `certificate` in front of a plain server on this host; the port of that."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def handle(sock):
        with context.wrap_socket(sock, server_side=True) as wrapped:
            with socket.create_connection(("127.0.0.1", port)) as inner:
                relay(wrapped, inner)

    server = Server(handle)
    try:
        yield server.port
    finally:
        server.close()
