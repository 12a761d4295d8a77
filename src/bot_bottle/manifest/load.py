"""From names to a checked manifest: finds the files, reads them strictly, composes them, lists every problem.

A start goes through `cache.load_cached`; this is what it falls back on.
"""

import difflib
from typing import TypeVar

from pydantic import ValidationError

from bot_bottle.errors import NotFoundError, UsageError
from bot_bottle.manifest.compose import Part, compose
from bot_bottle.manifest.document import AgentDocument, BottleDocument, ManifestDocument, SkillDocument
from bot_bottle.manifest.explain import report_errors
from bot_bottle.manifest.frontmatter import FrontMatter, parse
from bot_bottle.manifest.model import Agent, Bottle
from bot_bottle.manifest.places import Places, known_agents, known_bottles
from bot_bottle.manifest.skills import find_skill
from bot_bottle.manifest.source import Found, Reading, SeenSkill, StrPath, UnreadableError
from bot_bottle.manifest.strict import Strict
from bot_bottle.names import RULE, is_name

FILES_LIMIT = 32
DEFAULT_BOTTLE = "default"
Model = TypeVar("Model", bound=Strict)


def load(
    agent: str,
    *,
    root: StrPath,
    repository: StrPath | None,
    bottle: str | None = None,
    reading: Reading | None = None,
) -> ManifestDocument:
    """The checked manifest of `agent`, in `bottle` when the operator names one.

    Raises NotFoundError when there is no such agent or bottle, ManifestError with every problem of
    all files concerned.
    """
    reading = Reading() if reading is None else reading
    places = Places(root, repository)
    for name in (agent, bottle):
        _check_name(name)
    return load_found(_find_agent(agent, places, reading), places, bottle=bottle, reading=reading)


def load_found(
    found: Found, places: Places, *, bottle: str | None = None, reading: Reading
) -> ManifestDocument:
    """The checked manifest of the agent file `found`, which exists. Raises like `load`."""
    if bottle is not None:
        _demand_bottle(bottle, places, reading)
    agent, front = _check(found, Agent, reading)
    document: AgentDocument | None = None
    if agent is not None and front is not None:
        bottle = bottle or _choose_bottle(agent, front, found, places, reading)
        document = _agent_document(agent, front, found, bottle or DEFAULT_BOTTLE, places, reading)
    composed = None if bottle is None else _compose_bottle(bottle, places, reading)
    reading.raise_problems(f"Agent `{found.name}` can't be started: its files are wrong")
    assert document is not None
    assert composed is not None
    return {"agent": document, "bottle": composed, "sources": [seen.path for seen in reading.files]}


def load_bottle(name: str, *, root: StrPath, reading: Reading | None = None) -> BottleDocument:
    """The checked bottle `name`, composed. Raises like `load`."""
    reading = Reading() if reading is None else reading
    places = Places(root, None)
    _check_name(name)
    _demand_bottle(name, places, reading)
    composed = _compose_bottle(name, places, reading)
    reading.raise_problems(f"Bottle `{name}` is wrong")
    assert composed is not None
    return composed


def _check_name(name: str | None) -> None:
    if name is not None and not is_name(name):
        raise UsageError(f"`{name[:60]}` is not a name", resolution=f"A name has {RULE}.")


def _find_agent(name: str, places: Places, reading: Reading) -> Found:
    for found in places.agents(name):
        if reading.has(found):
            return found
    known = known_agents(places.root, places.repository)
    raise NotFoundError(
        f"There is no agent `{name}`",
        details="looked for " + " and ".join(found.path for found in places.agents(name)),
        resolution=_instead(name, known) or "Run `bot-bottle init` to write a first agent.",
    )


def _demand_bottle(name: str, places: Places, reading: Reading) -> None:
    found = places.bottle(name)
    if not reading.has(found):
        raise NotFoundError(
            f"There is no bottle `{name}`",
            details=f"looked for {found.path}",
            resolution=_instead(name, known_bottles(places.root))
            or "Run `bot-bottle init` to write a first bottle.",
        )


def _instead(name: str, known: list[str]) -> str:
    if not known:
        return ""
    near = difflib.get_close_matches(name, known, n=1)
    meant = f"Did you mean `{near[0]}`? " if near else ""
    return f"{meant}There is: {', '.join(known)}."


def _check(found: Found, model: type[Model], reading: Reading) -> tuple[Model | None, FrontMatter | None]:
    """What a file says, checked by itself; None for what is wrong, which is reported."""
    raw = reading.read(found.path, found.within)
    before = len(reading.problems)

    def report(line: int, what: str) -> None:
        reading.wrong(found.path, line, what)

    front = None if raw is None else parse(raw, report)
    if front is None:
        return None, None
    try:
        checked = model.model_validate(front.data)
    except ValidationError as error:
        report_errors(error, model, front, report)
        return None, front
    return (None if len(reading.problems) > before else checked), front


def _choose_bottle(
    agent: Agent, front: FrontMatter, found: Found, places: Places, reading: Reading
) -> str | None:
    """The bottle that an agent's file asks for; None (reported) when it may not, or there is none."""
    line = front.line(("bottle",))
    if found.from_repository and agent.bottle != DEFAULT_BOTTLE:
        what = f"bottle: a repository can't choose the bottle; to agree, pass `--bottle {agent.bottle}`"
        reading.wrong(found.path, line, what)
        return None
    if "bottle" in agent.model_fields_set:
        target = places.bottle(agent.bottle)
        if not reading.has(target):
            instead = _instead(agent.bottle, known_bottles(places.root)) or "Run `bot-bottle init`."
            reading.wrong(
                found.path, line, f"bottle: there is no bottle `{agent.bottle}` ({target.path}). {instead}"
            )
            return None
    else:
        _demand_bottle(agent.bottle, places, reading)
    return agent.bottle


def _compose_bottle(name: str, places: Places, reading: Reading) -> BottleDocument | None:
    """Bottle `name`, which exists, with everything it extends; None when something was wrong and reported."""
    before = len(reading.problems)
    parts: dict[str, Part | None] = {}
    _gather(name, [], parts, places, reading)
    right = [part for part in parts.values() if part is not None]
    if len(reading.problems) > before or len(right) < len(parts):
        return None
    composed = compose(name, right, reading)
    return None if len(reading.problems) > before else composed


def _gather(
    name: str, chain: list[str], parts: dict[str, Part | None], places: Places, reading: Reading
) -> None:
    """Adds bottle `name` to `parts` after everything it extends, each file once; None for a wrong one."""
    found = places.bottle(name)
    bottle, front = _check(found, Bottle, reading)
    if front is None:
        parts[name] = None
        return
    here = [*chain, name]
    for index, parent in enumerate(_parents(bottle, front)):
        shown = " → ".join([*here, parent])
        problem = ""
        if parent in here:
            problem = f"goes round in a circle: {shown}; take one of them away"
        elif len(here) >= FILES_LIMIT:
            problem = f"is more than {FILES_LIMIT} bottles deep: … → {parent}"
        elif not reading.has(places.bottle(parent)):
            instead = _instead(parent, known_bottles(places.root))
            problem = f"there is no bottle `{parent}` ({shown}). {instead}"
        elif parent not in parts:
            _gather(parent, here, parts, places, reading)
        if problem:
            reading.wrong(found.path, front.line(("extends", index)), f"extends: {problem}")
    parts[name] = None if bottle is None else Part(found.path, bottle, front)


def _parents(bottle: Bottle | None, front: FrontMatter) -> list[str]:
    """What a file extends; also if it is wrong elsewhere, so that its parents' problems are listed too."""
    if bottle is not None:
        return bottle.extends
    stated = front.data.get("extends", [])
    names = [stated] if isinstance(stated, str) else stated if isinstance(stated, list) else []
    return [name for name in names if isinstance(name, str) and is_name(name)]


def _agent_document(
    agent: Agent, front: FrontMatter, found: Found, bottle: str, places: Places, reading: Reading
) -> AgentDocument:
    """An agent with its skills found; a skill that is not there or not usable is reported."""
    return {
        "name": found.name,
        "file": found.path,
        "from_repository": found.from_repository,
        "provider": agent.provider,
        "bottle": bottle,
        "command": agent.command or [],
        "model": agent.model,
        "base_url": agent.base_url,
        "skills": _skills(agent, front, found, places, reading),
        "env": dict(agent.env),
        "prompt": front.body,
    }


def _skills(
    agent: Agent, front: FrontMatter, found: Found, places: Places, reading: Reading
) -> list[SkillDocument]:
    searched = places.skills(from_repository=found.from_repository)
    skills: list[SkillDocument] = []
    for index, name in enumerate(agent.skills):
        line = front.line(("skills", index))
        try:
            folder = find_skill(name, searched)
        except UnreadableError as error:
            reading.wrong(found.path, line, f"skills: {error}")
            continue
        if folder is None:
            where = " and ".join(place for place, _ in searched)
            reading.wrong(
                found.path, line, f"skills: there is no skill `{name}` in {where}; add the folder there"
            )
        elif folder not in [skill["folder"] for skill in skills]:
            skills.append({"name": name, "folder": folder})
            reading.skills.append(SeenSkill(name, searched, folder))
    return skills
