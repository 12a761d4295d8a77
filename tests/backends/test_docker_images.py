"""The image a bottle is made from, on a real engine: found, built, built again only when something changed, refused."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bot_bottle.backends.docker import images
from bot_bottle.backends.docker.engine import Engine
from bot_bottle.backends.docker.images import Access, Image, Parts
from bot_bottle.backends.docker.layer import Program
from bot_bottle.errors import BotBottleError, HostError, ManifestError, NotFoundError, PlanError
from bot_bottle.host import paths
from bot_bottle.plan.model import INSIDE_HOME, ImageSpec, Mount
from support import engine as engines
from support.authorities import Authority
from support.engine import BASE
from support.images import nonce, written

pytestmark = pytest.mark.docker

OURS = ImageSpec(args=(("BASE", BASE),))


class Workshop:
    """Makes images, remembers what was said, and removes at the end what it made."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.said: list[str] = []

    def ensure(self, spec: ImageSpec, parts: Parts = images.NO_PARTS) -> Image:
        return images.ensure(spec, images.access(self.engine), self.said.append, parts)

    def refusal(self, spec: ImageSpec, kind: type[BotBottleError]) -> BotBottleError:
        with pytest.raises(kind) as raised:
            self.ensure(spec)
        return raised.value

    def run(self, image: Image, *argv: str, **options) -> str:
        """What `argv` says in a container of `image`, without a network."""
        container = self.engine.client.containers.run(
            image.id, argv, detach=True, network_mode="none", labels={"by": engines.LABEL}, **options
        )
        try:
            container.wait()  # what is followed while it runs may lack the end
            said: bytes = container.logs()
        finally:
            container.remove(force=True)
        return said.decode()

    def containers(self) -> list[str]:
        """Those that looking into images, or this test's steps, could have left; other tests have theirs."""
        found = self.engine.client.api.containers(all=True)
        ours = images._digest("lists", paths.cache_root())
        return [
            one["Id"]
            for one in found
            if one["Labels"].get(images.LABEL) == ours or "echo seen" in one["Command"]
        ]


@pytest.fixture
def workshop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workshop]:
    engine = engines.engine()
    for name in ("BUILT", "BOTTLE"):
        monkeypatch.setattr(images, name, f"bot-bottle-test/{name.lower()}-{nonce()}")
    try:
        yield Workshop(engine)
    finally:
        images.forget(engine)
        engine.client.close()


@pytest.fixture
def spec(tmp_path: Path) -> Callable[..., ImageSpec]:
    def make(dockerfile: str, **files: str) -> ImageSpec:
        return written(tmp_path / "image", dockerfile, **files)

    return make


def test_our_own_image_has_the_tools_an_agent_needs_and_a_user_who_is_not_root(workshop: Workshop) -> None:
    made = workshop.ensure(OURS)
    assert (made.user, made.uid, made.home, made.workdir) == ("node", 1000, INSIDE_HOME, "/workspace")
    told = workshop.run(
        made,
        "sh",
        "-c",
        "id -un; echo ~; cd /workspace && touch x && for one in git rg jq curl; do command -v $one; done",
    )
    assert told.split() == [
        "node",
        INSIDE_HOME,
        "/usr/bin/git",
        "/usr/bin/rg",
        "/usr/bin/jq",
        "/usr/bin/curl",
    ]


def test_what_is_there_is_found_by_asking_and_nothing_is_built_again(workshop: Workshop) -> None:
    made = workshop.ensure(OURS)
    workshop.said.clear()
    asked: list[str] = []

    def look(name: str) -> images.Found | None:
        asked.append(name)
        return images.look(workshop.engine, name)

    def whole() -> Engine:
        raise AssertionError("the SDK is only for building")

    assert images.ensure(OURS, Access(look, whole), workshop.said.append) == made
    assert len(asked) == 2
    assert workshop.said == []


def test_a_dockerfile_is_built_once_and_again_when_anything_in_its_context_changed(
    workshop: Workshop, spec: Callable[..., ImageSpec]
) -> None:
    asked = spec("FROM {base}\nCOPY word /word\nRUN cp /word /built\n", word=nonce())
    first = workshop.ensure(asked)
    assert any("step 3 of" in line and "RUN cp /word /built" in line for line in workshop.said)
    workshop.said.clear()
    assert workshop.ensure(asked) == first
    assert workshop.said == []
    Path(asked.context, "word").write_text("another")
    second = workshop.ensure(asked)
    assert second.id != first.id
    assert workshop.run(second, "cat", "/built") == "another"


def test_what_dockerignore_leaves_out_is_neither_sent_nor_built_for(
    workshop: Workshop, spec: Callable[..., ImageSpec]
) -> None:
    asked = spec(
        "FROM {base}\nCOPY . /all\n",
        secret="s",
        kept__secret="k",
        word=nonce(),
        **{".dockerignore": "secret\n"},
    )
    first = workshop.ensure(asked)
    there = workshop.run(first, "sh", "-c", "cd /all && find . -type f | sort").split()
    assert "./word" in there
    assert "./kept/secret" in there
    assert "./secret" not in there
    Path(asked.context, "secret").write_text("changed")
    workshop.said.clear()
    assert workshop.ensure(asked) == first
    assert workshop.said == []


def test_an_image_without_a_shell_gets_our_programs_its_tool_and_a_user(
    workshop: Workshop, spec: Callable[..., ImageSpec], tmp_path: Path
) -> None:
    tool = tmp_path / "tools"
    tool.mkdir(mode=0o700)
    (tool / "part").write_bytes(b"part")
    (tool / "program").write_bytes(b"program")
    (tool / "program").chmod(0o700)
    asked = spec("FROM scratch\nCOPY word /word\n", word=nonce())
    asked = asked._replace(layers=(Mount(str(tool), "/opt/bot-bottle/lib/tool"),))
    made = workshop.ensure(asked, Parts((Program("/.ours", b"\x7fELF"),)))
    assert (made.user, made.uid, made.gid) == ("agent", 1000, 1000)
    inside = _files(workshop.engine, made)
    assert inside["opt/bot-bottle/lib/tool/program"] == (b"program", 0o755, 0)
    assert inside["opt/bot-bottle/lib/tool/part"] == (b"part", 0o644, 0)
    assert inside[".ours"] == (b"\x7fELF", 0o755, 0)
    assert inside["etc/passwd"][0].decode().splitlines() == [
        "root:x:0:0:root:/root:/bin/sh", f"agent:x:1000:1000::{INSIDE_HOME}:/bin/sh",
    ]  # fmt: skip
    assert inside[INSIDE_HOME.lstrip("/") + "/"][2] == 1000


def _files(engine: Engine, image: Image) -> dict[str, tuple[bytes, int, int]]:
    """Content, mode and owner of all that is in it."""
    import io
    import tarfile

    made = engine.client.api.create_container(image.id, ["x"], labels={"by": engines.LABEL})
    try:
        raw = b"".join(engine.client.api.export(made["Id"]))
    finally:
        engine.client.api.remove_container(made["Id"])
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        return {
            one.name + "/" * one.isdir(): (
                archive.extractfile(one).read() if one.isfile() else b"",
                one.mode & 0o7777,
                one.uid,
            )
            for one in archive
        }


def test_the_agent_is_the_images_own_user_with_a_home_of_ours(
    workshop: Workshop, spec: Callable[..., ImageSpec]
) -> None:
    made = workshop.ensure(spec("FROM {base}\nUSER games:33\n"))
    assert (made.user, made.uid, made.gid) == ("games", 5, 33)
    told = workshop.run(made, "sh", "-c", "id -un; id -u; id -g; cd; pwd").split()
    assert told == ["games", "5", "33", INSIDE_HOME]


def test_an_image_by_name_is_taken_as_it_is_now(workshop: Workshop, spec: Callable[..., ImageSpec]) -> None:
    name = f"bot-bottle-test/moving:{nonce()}"
    client = workshop.engine.client
    texts = []
    for word in ("one", "two"):
        made = workshop.ensure(spec("FROM {base}\nRUN echo " + word + " >/word\n"))
        client.api.tag(made.id, *name.split(":"))
        texts.append(workshop.run(workshop.ensure(ImageSpec(reference=name)), "cat", "/word").strip())
    client.api.remove_image(name)
    assert texts == ["one", "two"]


def test_a_step_that_fails_is_named_with_what_it_said_and_leaves_no_container(
    workshop: Workshop, spec: Callable[..., ImageSpec]
) -> None:
    error = workshop.refusal(
        spec("FROM {base}\nRUN echo first\nRUN echo seen; echo 'b\033[31mad' >&2; exit 3\n"), HostError
    )
    assert error.brief == "The image could not be built: step 3 of 3 failed"
    for part in ("/image/Dockerfile", "RUN echo seen", "seen", "bad", "code: 3"):
        assert part in error.details
    assert "\033" not in error.details
    assert "first" not in error.details
    assert workshop.containers() == []


def test_a_dockerfile_that_is_none_is_told_with_its_line(
    workshop: Workshop, spec: Callable[..., ImageSpec]
) -> None:
    error = workshop.refusal(spec("FROM {base}\nRUNN true\n"), ManifestError)
    assert error.details.endswith("/image/Dockerfile:2: unknown instruction: RUNN")


@pytest.mark.parametrize("reference", ["127.0.0.1:1/no/such:1", "bot-bottle-test/no-such:1"])
def test_an_image_that_is_not_to_be_had_is_named(reference: str, workshop: Workshop) -> None:
    with pytest.raises((NotFoundError, HostError)) as raised:
        workshop.ensure(ImageSpec(reference=reference))
    assert reference in raised.value.brief
    assert "docker login" in raised.value.resolution


@pytest.mark.parametrize("way", ["inside", "link", "around", "certificates"])
def test_what_the_agent_writes_says_nothing_of_what_is_built(
    way: str, workshop: Workshop, spec: Callable[..., ImageSpec], tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    inside = written(repository / "docker", "FROM {base}\nRUN touch /chosen\n")
    asked = inside._replace(workspace=str(repository))
    if way == "link":
        (tmp_path / "bottles").symlink_to(repository / "docker")
        place = str(tmp_path / "bottles")
        asked = asked._replace(dockerfile=f"{place}/Dockerfile", context=place)
    elif way == "around":
        asked = spec("FROM {base}\n")._replace(context=str(tmp_path), workspace=str(repository))
    elif way == "certificates":
        asked = spec("FROM {base}\n")._replace(ca=str(repository / "ca.pem"), workspace=str(repository))
    workshop.refusal(asked, PlanError)
    assert workshop.said == []


def test_a_context_that_cannot_be_meant_is_refused(
    workshop: Workshop, spec: Callable[..., ImageSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = spec("FROM {base}\n", a="1", b="2")
    monkeypatch.setattr("bot_bottle.backends.docker.context.MOST_FILES", 2)
    error = workshop.refusal(asked, PlanError)
    assert ".dockerignore" in error.resolution
    assert "3 files" in error.details


def test_a_context_with_a_socket_and_a_dangling_link_is_built(
    workshop: Workshop, spec: Callable[..., ImageSpec]
) -> None:
    asked = spec("FROM {base}\nCOPY . /all\n")
    os.symlink("/nowhere", Path(asked.context, "link"))
    here = os.open(asked.context, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{here}/socket")
            made = workshop.ensure(asked)
    finally:
        os.close(here)
    assert workshop.run(made, "ls", "/all").split() == ["Dockerfile", "link"]


def test_builds_trust_the_certificates_that_are_named_and_the_image_keeps_no_variable_of_it(
    workshop: Workshop, spec: Callable[..., ImageSpec], tmp_path: Path
) -> None:
    certificate = tmp_path / "corporate.pem"
    certificate.write_text(Authority().pem)
    asked = spec(
        "FROM {base} AS first\nRUN env >/first\nFROM {base}\nCOPY --from=first /first /first\n"
        'RUN env >/second; cp "$SSL_CERT_FILE" /bundle; apt-config dump Acquire::https::CaInfo >/apt\n'
    )._replace(ca=str(certificate))
    made = workshop.ensure(asked)
    for file in ("/first", "/second"):
        told = dict(line.partition("=")[::2] for line in workshop.run(made, "cat", file).splitlines())
        assert {"SSL_CERT_FILE", "PIP_CERT", "NODE_EXTRA_CA_CERTS", "APT_CONFIG"} <= told.keys()
    assert certificate.read_text().strip() in workshop.run(made, "cat", "/bundle")
    assert "bot-bottle-build/ca.pem" in workshop.run(made, "cat", "/apt")
    assert [name for name, _ in made.env] == ["PATH"]


def test_many_who_want_the_same_image_at_once_get_one_that_was_built_once(
    workshop: Workshop, spec: Callable[..., ImageSpec]
) -> None:
    asked = spec("FROM {base}\nRUN echo " + nonce() + "\n")
    found: list[str] = []
    said: list[str] = []

    def want() -> None:
        engine = engines.engine()
        found.append(images.ensure(asked, images.access(engine), said.append).id)
        engine.client.close()

    threads = [threading.Thread(target=want) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert said.count("Building the image") == 1


def test_an_image_that_vanished_is_made_again(workshop: Workshop, spec: Callable[..., ImageSpec]) -> None:
    asked = spec("FROM {base}\nRUN echo " + nonce() + "\n")
    made = workshop.ensure(asked)
    workshop.engine.client.api.remove_image(made.id, force=True)
    assert images.look(workshop.engine, made.id) is None
    assert workshop.ensure(asked).uid == made.uid


def test_what_was_built_can_be_forgotten_but_not_what_a_container_uses(
    workshop: Workshop, spec: Callable[..., ImageSpec]
) -> None:
    first, second = (workshop.ensure(spec("FROM {base}\nRUN echo " + nonce() + "\n")) for _ in range(2))
    client = workshop.engine.client.api
    container = client.create_container(first.id, ["true"], labels={"by": engines.LABEL})
    try:
        assert len(images.forget(workshop.engine)) == 3
        assert images.look(workshop.engine, second.id) is None
        assert images.look(workshop.engine, first.id)
    finally:
        client.remove_container(container["Id"])
    assert len(images.forget(workshop.engine)) == 1
    assert images.forget(workshop.engine) == []
