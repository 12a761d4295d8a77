"""A proposal's routes as a person edits them: as they stand under `egress: routes:` of a bottle's file, and back."""

from collections.abc import Sequence

from bot_bottle.errors import ManifestError
from bot_bottle.policy.difference import line_of
from bot_bottle.policy.model import Route

_HEAD = "---\negress:\n  routes:\n"
_HEAD_LINES = _HEAD.count("\n")
LONGEST = 64 * 1024


def text_of(routes: Sequence[Route]) -> str:
    """The routes, one a line."""
    return "".join(f"{line_of(each)}\n" for each in routes)


def routes_of(text: str) -> tuple[Route, ...]:
    """The routes that `text` says. Raises ManifestError, whose details have one `LINE: what` a line."""
    from pydantic import ValidationError

    from bot_bottle.manifest.compose import route_document
    from bot_bottle.manifest.explain import report_errors
    from bot_bottle.manifest.frontmatter import parse
    from bot_bottle.manifest.model import Bottle
    from bot_bottle.plan.resolve import route

    problems: list[tuple[int, str]] = []

    def report(line: int, what: str) -> None:
        problems.append((max(1, line - _HEAD_LINES), what))

    if len(text) > LONGEST:
        report(0, f"it is longer than {LONGEST // 1024} KiB")
        raise _error(problems)
    lines = text.replace("\r\n", "\n").split("\n")
    if not any(line.strip() and not line.lstrip().startswith("#") for line in lines):
        raise _error([(1, "there is no route; to allow nothing, reject it")])
    if any(line.rstrip() == "---" for line in lines):
        report(0, "`---` can't stand here")
        raise _error(problems)
    indented = "".join(f"    {line}\n" if line.strip() else "\n" for line in lines)
    front = parse(f"{_HEAD}{indented}---\n".encode("utf-8", "surrogatepass"), report)
    if front is None or problems:
        raise _error(problems or [(1, "it can't be read")])
    if front.data != {"egress": front.data.get("egress")} or not isinstance(front.data["egress"], dict):
        raise _error([(1, "it must be a list of routes")])
    if set(front.data["egress"]) != {"routes"}:
        raise _error([(1, "it must be a list of routes, and nothing else")])
    try:
        stated = Bottle.model_validate(front.data).egress
    except ValidationError as error:
        report_errors(error, Bottle, front, report)
        raise _error(problems) from error
    return tuple(route(route_document(each)) for each in (stated.routes if stated else ()))


def _error(problems: list[tuple[int, str]]) -> ManifestError:
    lines = [f"{line}: {what.removeprefix('egress.routes')}" for line, what in sorted(set(problems))[:20]]
    return ManifestError(
        "These are no routes",
        details="\n".join(lines),
        resolution="Correct them, or leave them as they were.",
    )
