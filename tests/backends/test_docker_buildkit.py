"""A Dockerfile that needs BuildKit is refused by its instruction; one that asks for a secret never reaches the engine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.backends.docker import buildkit, images
from bot_bottle.backends.docker.engine import Engine
from bot_bottle.errors import ManifestError
from support import engine as engines
from support.engine import BASE
from support.images import nonce, written

BEYOND = [
    ("RUN --mount=type=cache,target=/x true", "RUN --mount=type=cache,target=/x"),
    ("RUN <<EOF\necho hi\nEOF", "RUN <<EOF"),
    ("RUN <<-'EOF'\n\techo hi\n\tEOF", "RUN <<-'EOF'"),
    ("COPY <<EOF /x\nhi\nEOF", "COPY <<EOF"),
    ("COPY <<EOF /x\nRUN a\nEOF", "COPY <<EOF"),
    ("COPY --link Dockerfile /", "COPY --link"),
    ("COPY --chmod=755 Dockerfile /", "COPY --chmod=755"),
    ("RUN --network=none true", "RUN --network=none"),
    ("RUN \\\n  # why\n  --mount=type=tmpfs,target=/x \\\n  true", "RUN --mount=type=tmpfs,target=/x"),
    ("FROM --platform=$BUILDPLATFORM scratch", "FROM --platform=$BUILDPLATFORM"),
]
SECRET = [
    "RUN --mount=type=secret,id=token cat /run/secrets/token",
    "run --mount=id=token,type=secret true",
    'RUN --mount="type=secret,id=token" true',
    "RUN --mount=type=cache,target=/x --mount=type=ssh true",
    "RUN --mount=type=$KIND,id=token true",
    "RUN \\\n --mount=type=secret,id=token \\\n true",
    "ONBUILD RUN --mount=type=secret,id=token true",
]


@pytest.mark.parametrize(("instruction", "what"), BEYOND)
def test_what_only_buildkit_understands_is_found_with_its_lines(instruction: str, what: str) -> None:
    (found,) = buildkit.needs(f"FROM scratch\n{instruction}\nRUN true\n")
    assert found == buildkit.Need(2, 2 + instruction.count("\n"), what)


@pytest.mark.parametrize("instruction", SECRET)
def test_a_secret_is_refused_however_it_is_asked_for(instruction: str) -> None:
    with pytest.raises(ManifestError, match="secret") as raised:
        buildkit.refuse_secrets(f"FROM scratch\n{instruction}\n", "/a/Dockerfile")
    assert "/a/Dockerfile:2: RUN --mount=" in raised.value.details


@pytest.mark.parametrize(
    "text",
    [
        "# syntax=docker/dockerfile:1\nFROM scratch\nRUN echo --mount=type=secret\n",
        "FROM scratch\n# RUN --mount=type=secret true\n",
        "FROM scratch\nRUN cat <<<word\n",
        "FROM --platform=linux/amd64 scratch\nCOPY --from=x --chown=1 a b\n",
        "FROM scratch\nCOPY <<EOF /x\nRUN --mount=type=secret true\nEOF\n",
        "# escape=`\nFROM scratch\nCOPY a c:\\\nRUN true\n",
    ],
)
def test_what_only_looks_like_a_secret_is_none(text: str) -> None:
    buildkit.refuse_secrets(text, "/a/Dockerfile")


@given(st.text(alphabet="FROMRUNCOPY <-'\"\\\n\t#=EOF$", max_size=200))
def test_any_text_is_read_to_its_end_and_every_line_is_one_of_its_own(text: str) -> None:
    for need in buildkit.needs(text):
        assert 1 <= need.first <= need.last <= len(text.splitlines())


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    made = engines.engine()
    monkeypatch.setattr(images, "BUILT", f"bot-bottle-test/built-{nonce()}")
    try:
        yield made
    finally:
        images.forget(made)
        made.client.close()


def refused(engine: Engine, root: Path, instructions: str) -> ManifestError:
    spec = written(root / "image", f"FROM {BASE}\n{instructions}\n")
    with pytest.raises(ManifestError) as raised:
        images.ensure(spec, images.access(engine), lambda _: None, images.NO_PARTS)
    return raised.value


@pytest.mark.docker
@pytest.mark.parametrize(("instruction", "what"), BEYOND)
def test_the_engines_refusal_names_the_instruction_and_what_to_do(
    engine: Engine, tmp_path: Path, instruction: str, what: str
) -> None:
    error = refused(engine, tmp_path, instruction)
    assert "BuildKit" in str(error)
    assert f"Dockerfile:2: {what}\n" in error.details
    assert "docker buildx build" in error.resolution


@pytest.mark.docker
def test_a_mistake_beside_it_is_told_as_a_mistake(engine: Engine, tmp_path: Path) -> None:
    error = refused(engine, tmp_path, "COPY --chmod=755 Dockerfile /\nRUNN true")
    assert "The Dockerfile is wrong" in str(error)
    assert "Dockerfile:3:" in error.details


@pytest.mark.docker
def test_a_dockerfile_that_asks_for_a_secret_does_not_reach_the_engine(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(engine.client.api, "build", lambda **words: asked.append(words))
    error = refused(engine, tmp_path, "RUN --mount=type=secret,id=token true")
    assert "Dockerfile:2: RUN --mount=type=secret,id=token" in error.details
    assert asked == []
