"""One build or one pull by the engine: what it says on the way, and what it means when it fails.

Builds go through the engine's own builder, over the connection that is there anyway; nothing of the host is shared with them but
the context that was sent.
"""

import re
from collections import deque
from collections.abc import Iterable, Mapping
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from bot_bottle.backends.docker import buildkit, failures
from bot_bottle.backends.docker.images import LABEL, Say
from bot_bottle.errors import HostError, ManifestError, NotFoundError

if TYPE_CHECKING:
    from docker import DockerClient

SILENCE = 1800.0
"""Seconds that a step may say nothing."""
_LINES = 25
_STEP = re.compile(r"Step ([0-9]+)/([0-9]+) : (.*)", re.DOTALL)
_CHATTER = re.compile(r" ---> |Removing intermediate container ")
_SYNTAX = re.compile(r"dockerfile parse error (?:on )?line ([0-9]+): (.*)", re.DOTALL | re.IGNORECASE)


class Recipe(NamedTuple):
    """What is built: `archive` is the context as a tar, `dockerfile` its path in there, or on the host in `shown`."""

    archive: IO[bytes]
    dockerfile: str
    tag: str
    shown: str
    target: str = ""
    args: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    network: str | None = None
    text: str = ""
    """The Dockerfile, where a person wrote it."""


class _Step:
    """Where a build is, and what was said since that step began."""

    def __init__(self, added: int) -> None:
        self._added = added
        """Steps that the engine makes of our labels, after the Dockerfile's own."""
        self.number, self.count, self.text = 0, 0, ""
        self.output: deque[str] = deque(maxlen=_LINES)

    def hear(self, text: str) -> bool:
        """Takes in a line or several; whether a new step of the Dockerfile begins."""
        found = _STEP.match(text)
        if found is None:
            lines = (clean(part) for part in text.splitlines())
            self.output.extend(line for line in lines if line.strip() and not _CHATTER.match(line))
            return False
        self.number, self.count, self.text = int(found[1]), int(found[2]), clean(found[3]).strip()
        own = self.number <= self.count - self._added
        self.count = max(self.number, self.count - self._added)
        self.output.clear()
        return own


def clean(text: str) -> str:
    """`text` in one line that no terminal takes for commands."""
    without = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return "".join(mark if mark.isprintable() else " " for mark in without).rstrip()


def build(client: "DockerClient", recipe: Recipe, say: Say) -> str:
    """Builds `recipe`, tells each step as it begins, and answers the image's id.

    Raises ManifestError when the Dockerfile is none, HostError when a step fails or the engine does; nothing of it is left then
    but what the engine remembers of the steps that went well.
    """
    labels = {LABEL: "built", **recipe.labels}
    step = _Step(len(labels))
    try:
        said = client.api.build(
            fileobj=recipe.archive, custom_context=True, dockerfile=recipe.dockerfile, tag=recipe.tag,
            target=recipe.target or None, buildargs=dict(recipe.args), labels=labels,
            network_mode=recipe.network, rm=True, forcerm=True, decode=True, timeout=SILENCE, use_config_proxy=True,
        )  # fmt: skip
        return _follow(said, step, say)
    except failures.kinds() as error:
        raise _failed(recipe, step, error) from error


class BuildFailed(Exception):
    """What the builder said last."""


def _follow(said: Iterable[Mapping[str, Any]], step: _Step, say: Say) -> str:
    made, wrong = "", ""
    for one in said:  # to its end: what was not read keeps its connection open
        wrong = str(one.get("error") or wrong)
        if "stream" in one and step.hear(str(one["stream"])):
            say(f"Building the image: step {step.number} of {step.count}, {step.text[:70]}")
        made = str((one.get("aux") or {}).get("ID") or made)
    if wrong or not made:
        raise BuildFailed(wrong or "The engine ended the build without saying why")
    return made


def _failed(recipe: Recipe, step: _Step, error: BaseException) -> Exception:
    """The error by kind."""
    said = failures.said(error)
    if wanted := _beyond(recipe, said):
        return ManifestError(
            "The Dockerfile needs BuildKit, which this engine's builder is not",
            details=f"{buildkit.told(wanted, recipe.shown)}\n{clean(said)}", resolution=buildkit.BUILD_IT_YOURSELF,
        )  # fmt: skip
    if syntax := _SYNTAX.search(said):
        return ManifestError(
            "The Dockerfile is wrong", details=f"{recipe.shown}:{syntax[1]}: {clean(syntax[2])}"
        )
    if failures.known(error):
        return failures.explain(error, "The image could not be built")
    where = f"step {step.number} of {step.count} failed" if step.number else "it did not begin"
    lines = [f"{recipe.shown}", *([step.text] if step.text else []), *step.output, clean(said)]
    return HostError(
        f"The image could not be built: {where}", details="\n".join(lines), resolution=_advice(said, step)
    )


def _beyond(recipe: Recipe, said: str) -> list[buildkit.Need]:
    """What the builder did not understand because it is BuildKit's; a mistake of another kind is none of it."""
    wanted = buildkit.needs(recipe.text)
    if syntax := _SYNTAX.search(said):
        return [need for need in wanted if need.first <= int(syntax[1]) <= need.last]
    words = ("requires buildkit", "failed to parse platform")
    return wanted if any(word in said.lower() for word in words) else []


_ADVICE = (
    (("x509", "certificate"), "Behind a proxy that opens TLS, name its certificates as image.ca in the bottle's file."),
    (("buildkit", "--mount", "heredoc"), f"This Dockerfile needs BuildKit. {buildkit.BUILD_IT_YOURSELF}"),
    (("not found: manifest", "pull access denied", "no such host"), "Check the image's name after FROM, and docker login."),
)  # fmt: skip


def _advice(said: str, step: _Step) -> str:
    everything = "\n".join([said, *step.output]).lower()
    return next((advice for words, advice in _ADVICE if any(word in everything for word in words)), "")


def pull(client: "DockerClient", reference: str, say: Say) -> None:
    """Has the engine fetch `reference`. Raises NotFoundError when there is no such image, HostError otherwise."""
    from docker.utils import parse_repository_tag

    name, tag = parse_repository_tag(reference)
    say(f"Fetching the image {reference}")
    try:
        wrong = ""
        for one in client.api.pull(name, tag=tag or "latest", stream=True, decode=True):
            wrong = str(one.get("error") or wrong)
            if detail := one.get("progressDetail"):
                done, total = (int(detail.get(key) or 0) >> 20 for key in ("current", "total"))
                say(f"Fetching the image {reference}: {one.get('id', '')} {done} of {total} MiB")
        if wrong:
            raise BuildFailed(wrong)
    except failures.kinds() as error:
        if failures.known(error):
            raise failures.explain(error, f"The image {reference} could not be fetched") from error
        words = clean(failures.said(error))
        missing = any(one in words.lower() for one in ("not found", "denied", "unknown", "does not exist"))
        kind = NotFoundError if missing else HostError
        raise kind(
            f"The image {reference} could not be fetched", details=words,
            resolution="Check its name, and docker login; an image that was built here needs no registry.",
        ) from error  # fmt: skip
