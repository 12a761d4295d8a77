"""What an approval for good changes in a bottle's file, before it is approved."""

from bot_bottle.errors import PlanError
from bot_bottle.policy.approval import Shown
from bot_bottle.policy.approval_show import routes_of
from bot_bottle.policy.difference import bare, line_of


def diff(shown: Shown) -> str:
    """It as a unified diff. Raises PlanError when the file can't be changed by program, ManifestError when it would be wrong."""
    import difflib

    from bot_bottle.host import paths
    from bot_bottle.manifest.edit import CantEdit, edit_egress, missing
    from bot_bottle.manifest.load import load_bottle
    from bot_bottle.manifest.source import Reading

    bottle = load_bottle(shown.bottle, root=paths.manifest_root())
    file = bottle["file"]
    lines = [line_of(route) for route in routes_of(shown.proposal, shown.terms)]
    try:
        with open(file, encoding="utf-8", newline="") as stream:
            before = stream.read()
        after = edit_egress(before, routes=missing(before, [bare(line) for line in lines]))
    except (CantEdit, OSError, UnicodeDecodeError) as error:
        raise PlanError(
            f"{file} can't be changed by program: {error}",
            details="\n".join(lines),
            resolution="Approve it for this bottle, and add these lines under `egress: routes:` by hand.",
        ) from error
    load_bottle(shown.bottle, root=paths.manifest_root(), reading=Reading({file: after}))
    old, new = (text.splitlines(keepends=True) for text in (before, after))
    return "".join(difflib.unified_diff(old, new, file, file))
