"""What in a Dockerfile only BuildKit understands, by line, so that a refusal names it.

Engines differ: Docker's classic builder refuses all of it, each in words of its own (a here-document is an unknown instruction to
it), Podman's builds some. So what is found here explains a failure. Secret mounts alone are refused before the engine is asked:
nobody hands a secret to it, and a builder may then mount nothing, and say nothing.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from bot_bottle.errors import ManifestError

BUILD_IT_YOURSELF = (
    "Build it with docker buildx build --load, and name the image as image in the bottle's file."
)
_DIRECTIVE = re.compile(r"#\s*([a-z]+)\s*=\s*(\S+)\s*$", re.IGNORECASE)
_ONBUILD = re.compile(r"\s*ONBUILD\s+", re.IGNORECASE)
_INSTRUCTION = re.compile(r"\s*([a-z]+)((?:\s+--[a-z][^\s]*)*)(.*)", re.IGNORECASE | re.DOTALL)
_FLAGS = {
    "RUN": ("mount", "network", "security", "device"),
    "COPY": ("link", "chmod", "parents", "exclude"),
    "ADD": ("link", "chmod", "checksum", "keep-git-dir", "exclude", "unpack"),
}
_HEREDOC = re.compile(r"(?<!<)[0-9]*<<(-?)([\"']?)([A-Za-z_][A-Za-z0-9_.]*)\2")
_SECRET = re.compile(r"--mount=(?:\S*,)?[\"']?type=[\"']?(?:secret|ssh|\$)", re.IGNORECASE)
_PLATFORM = re.compile(r"--platform=\S*\$\{?(?:BUILD|TARGET)", re.IGNORECASE)


class Need(NamedTuple):
    """One instruction that needs BuildKit: its lines, and the part of it that does."""

    first: int
    last: int
    what: str


def needs(text: str) -> list[Need]:
    """All of them in the Dockerfile `text`."""
    found = []
    for first, last, instruction in _instructions(text):
        name, flags, rest = _parts(instruction)
        words = [word for word in flags if _only_there(name, word)]
        if name in ("RUN", "COPY", "ADD") and (here := _HEREDOC.search(rest)):
            words.append(here[0])
        found += [Need(first, last, f"{name} {word}") for word in words]
    return found


def refuse_secrets(text: str, shown: str) -> None:
    """Raises ManifestError when the Dockerfile `text` asks for a secret while it is built."""
    wanted = [need for need in needs(text) if _SECRET.search(need.what)]
    if wanted:
        raise ManifestError(
            "The Dockerfile asks for a secret while it is built, which builds here never get",
            details=told(wanted, shown), resolution=BUILD_IT_YOURSELF,
        )  # fmt: skip


def told(wanted: list[Need], shown: str) -> str:
    """One a line."""
    return "\n".join(f"{shown}:{need.first}: {need.what}" for need in wanted)


def _only_there(name: str, flag: str) -> bool:
    if name == "FROM":
        return bool(_PLATFORM.match(flag))
    return flag.removeprefix("--").partition("=")[0].lower() in _FLAGS.get(name, ())


def _parts(instruction: str) -> tuple[str, list[str], str]:
    """Its name, its flags and what is after them."""
    found = _INSTRUCTION.match(_ONBUILD.sub("", instruction, count=1))
    return (found[1].upper(), found[2].split(), found[3]) if found else ("", [], "")


def _instructions(text: str) -> Iterator[tuple[int, int, str]]:
    """Each with its first and last line, continued lines joined and the bodies of here-documents passed over."""
    lines = text.removeprefix("\ufeff").splitlines()
    escape = _escape(lines)
    at = 0
    while at < len(lines):
        first, parts = at, list[str]()
        while at < len(lines):
            line = lines[at].rstrip()
            at += 1
            if line.lstrip().startswith("#") or (parts and not line.strip()):
                continue  # between the lines of one instruction too
            parts.append(line.removesuffix(escape))
            if not line.endswith(escape):
                break
        joined = " ".join(parts)
        name, _, rest = _parts(joined)
        if name in ("RUN", "COPY", "ADD"):
            for here in _HEREDOC.finditer(rest):
                at = _end(lines, at, here[3], tabs=bool(here[1]))
        if joined.strip():
            yield first + 1, at, joined


def _escape(lines: list[str]) -> str:
    """The mark that continues a line: directives stand before everything else."""
    for line in lines:
        found = _DIRECTIVE.match(line.strip())
        if not found:
            break
        if found[1].lower() == "escape" and found[2] in ("`", "\\"):
            return found[2]
    return "\\"


def _end(lines: list[str], at: int, word: str, *, tabs: bool) -> int:
    """The line after the here-document's end; `at` itself when it has none, so that nothing is passed over."""
    for number in range(at, len(lines)):
        if (lines[number].lstrip("\t") if tabs else lines[number]) == word:
            return number + 1
    return at
