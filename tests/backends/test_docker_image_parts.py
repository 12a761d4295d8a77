"""What an image is named after, who the agent is in it, and what a build is told: without an engine."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.backends.docker import building, context, images, layer, sending
from bot_bottle.backends.docker.images import Access, Parts
from bot_bottle.backends.docker.layer import Lists, Program
from bot_bottle.errors import HostError
from bot_bottle.plan.model import INSIDE_HOME, ImageSpec, Mount

PASSWD = "root:x:0:0:root:/root:/bin/bash\ntoor:x:0:0::/root:/bin/sh\ngames:x:5:60:games:/usr/games:/usr/sbin/nologin\nbroken\n"
GROUP = "root:x:0:\nstaff:x:50:me,you\ngames:x:60:\n"
KNOWN = Lists(PASSWD, GROUP)


class NothingThere(Exception):
    pass


def names(spec: ImageSpec, parts: Parts = images.NO_PARTS) -> tuple[str, ...]:
    """The images that are asked for, on an engine that has the references and nothing else."""
    asked: list[str] = []

    def look(name: str) -> images.Found | None:
        asked.append(name)
        return {"Id": f"sha256:{name}"} if not name.startswith("bot-bottle/") else None

    def whole() -> None:
        raise NothingThere

    with pytest.raises(NothingThere):
        images.ensure(spec, Access(look, whole), lambda _: None, parts)
    return tuple(asked)


@pytest.fixture
def spec(tmp_path: Path) -> ImageSpec:
    for path, text in (
        ("image/Dockerfile", "FROM one"),
        ("image/.dockerignore", "secret\n"),
        ("image/word", "1"),
        ("tool", "1"),
    ):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    layers = (Mount(str(tmp_path / "tool"), "/opt/tool"),)
    return ImageSpec(
        dockerfile=str(tmp_path / "image/Dockerfile"), context=str(tmp_path / "image"), layers=layers
    )


PARTS = Parts((Program("/.ours", b"1"),), (1234, 1234))


def _rewrite(name: str, text: str) -> Callable[[ImageSpec, Parts], tuple[ImageSpec, Parts]]:
    def change(spec: ImageSpec, parts: Parts) -> tuple[ImageSpec, Parts]:
        Path(spec.context, name).write_text(text)
        return spec, parts

    return change


def _certificates(spec: ImageSpec, parts: Parts) -> tuple[ImageSpec, Parts]:
    return spec._replace(ca=spec.dockerfile), parts


def _executable(spec: ImageSpec, parts: Parts) -> tuple[ImageSpec, Parts]:
    Path(spec.context, "word").chmod(0o755)
    return spec, parts


CHANGES: dict[str, Callable[[ImageSpec, Parts], tuple[ImageSpec, Parts]]] = {
    "the Dockerfile": _rewrite("Dockerfile", "FROM two"),
    "a file": _rewrite("word", "2"),
    "a file's name": lambda spec, parts: (
        os.rename(f"{spec.context}/word", f"{spec.context}/ward"),
        (spec, parts),
    )[1],
    "a file's mode": _executable,
    "what is left out": _rewrite(".dockerignore", "word\n"),
    "the tool": _rewrite("../tool", "22"),
    "the stage": lambda spec, parts: (spec._replace(target="one"), parts),
    "an argument": lambda spec, parts: (spec._replace(args=(("A", "1"),)), parts),
    "certificates": _certificates,
    "our program": lambda spec, parts: (spec, parts._replace(programs=(Program("/.ours", b"2"),))),
    "who the agent is": lambda spec, parts: (spec, parts._replace(ids=(1235, 1234))),
}


@pytest.mark.parametrize("what", CHANGES)
def test_every_part_makes_another_image(what: str, spec: ImageSpec) -> None:
    before = names(spec, PARTS)
    assert names(spec, PARTS) == before
    assert names(*CHANGES[what](spec, PARTS)) != before


def test_what_is_left_out_makes_no_other_image(spec: ImageSpec) -> None:
    before = names(spec)
    Path(spec.context, "secret").write_text("changed")
    assert names(spec) == before


def test_an_unchanged_context_is_not_read_again(
    spec: ImageSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "_FRESH", -1)
    memory = str(tmp_path / "memory")
    first = context.digest(spec.context, spec.dockerfile, memory)
    monkeypatch.setattr(context, "gather", None)
    assert context.digest(spec.context, spec.dockerfile, memory) == first


def test_a_context_that_was_just_written_is_read_again(
    spec: ImageSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = tmp_path / "memory"
    context.digest(spec.context, spec.dockerfile, str(memory))
    assert not memory.exists()


def test_a_memory_that_was_damaged_is_not_believed(
    spec: ImageSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "_FRESH", -1)
    memory = tmp_path / "memory"
    first = context.digest(spec.context, spec.dockerfile, str(memory))
    for text in ("", "{}", "[]", '{"mark": 1, "digest": "x"}'):
        memory.write_text(text)
        assert context.digest(spec.context, spec.dockerfile, str(memory)) == first


def test_a_context_that_is_not_there_is_said(tmp_path: Path) -> None:
    asked = ImageSpec(dockerfile=str(tmp_path / "x/Dockerfile"), context=str(tmp_path / "x"))
    with pytest.raises(HostError) as raised:
        images.ensure(asked, Access(lambda _: None, lambda: None), lambda _: None)
    assert str(tmp_path / "x") in raised.value.details


@pytest.mark.parametrize(
    ("stated", "who"),
    [
        ("", ("agent", 1000, 1000)), ("root", ("agent", 1000, 1000)), ("toor", ("agent", 1000, 1000)),
        ("0:1234", ("agent", 1000, 1000)), ("00", ("agent", 1000, 1000)), ("nobody-known", ("agent", 1000, 1000)),
        ("games", ("games", 5, 60)), ("games:staff", ("games", 5, 50)), ("games:7", ("games", 5, 7)),
        ("5", ("games", 5, 60)), ("4321:4322", ("agent", 4321, 4322)), ("4321", ("agent", 4321, 4321)),
        ("99999999999", ("agent", 1000, 1000)), ("-1", ("agent", 1000, 1000)),
    ],
)  # fmt: skip
def test_the_agent_is_the_images_own_user_and_never_root(stated: str, who: tuple[str, int, int]) -> None:
    assert layer.user_of(stated, KNOWN) == who


def test_who_is_asked_for_is_taken_whoever_the_image_says() -> None:
    assert layer.user_of("root", KNOWN, (5, 7)) == ("games", 5, 7)
    assert layer.user_of("games", KNOWN, (70000, 70000)) == ("agent", 70000, 70000)


lists = st.builds(Lists, st.text("ab:0159/\n", max_size=60), st.text("ab:0159\n", max_size=40))


@given(lists, st.text("ab:0159", max_size=12))
def test_no_list_of_users_makes_the_agent_root(known: Lists, stated: str) -> None:
    user = layer.user_of(stated, known)
    assert user.uid > 0
    assert user.gid > 0
    rows = [line.split(":") for line in layer.with_user(known, user).passwd.splitlines()]
    assert [row[5] for row in rows if row[2] == str(user.uid)] == [INSIDE_HOME]


def test_a_dockerfile_is_told_of_certificates_after_each_from_and_nowhere_else() -> None:
    text = "# escape=`\n\nARG X=1\nfrom a `\n  # why\n  AS b\nRUN echo \\\nFROM c\nRUN echo `\n  FROM d\n"
    told = sending.trusting(text).splitlines()
    added = [line for line in told if ".bot-bottle-build" in line and line.startswith("COPY")]
    assert len(added) == 2
    assert told[told.index(added[0]) - 1] == "  AS b"
    assert [
        line for line in told if not line.startswith(("COPY .bot", "ARG SSL", "ARG ")) or line == "ARG X=1"
    ] == text.splitlines()


@given(st.lists(st.sampled_from(["FROM a", "RUN x \\", "", "# FROM b", "  y", "ARG A"]), max_size=12))
def test_no_line_of_a_dockerfile_is_lost(lines: list[str]) -> None:
    assert [line for one in sending.instructions("\n".join(lines)) for line in one] == "\n".join(
        lines
    ).splitlines()


@pytest.mark.parametrize("said", ["\033]0;title\007x", "a\rb\033[2Jx", "\x9bx"])
def test_what_a_build_says_is_no_command_to_a_terminal(said: str) -> None:
    assert building.clean(said).isprintable()
    assert building.clean(said).endswith("x")
