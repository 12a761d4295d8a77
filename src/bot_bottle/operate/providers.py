"""What front ends do with providers: list them, install what they bring."""

import os
from typing import NamedTuple

from bot_bottle.host import paths
from bot_bottle.providers import registry
from bot_bottle.providers.install import Installed, Report, install, versions
from bot_bottle.providers.packages import TOOLS
from bot_bottle.providers.place import current, locate


class Listed(NamedTuple):
    """A provider as `bot-bottle provider list` shows it; the last four are empty when it brings no tool."""

    name: str
    summary: str
    pinned: str
    installed: tuple[str, ...]
    current: str
    program: str


def list_providers() -> tuple[Listed, ...]:
    """Every provider, and what of it is installed."""
    root = paths.data_root()
    return tuple(_listed(root, name) for name in registry.names())


def _listed(root: str, name: str) -> Listed:
    provider = registry.provider(name)
    if not provider.tool:
        return Listed(name, provider.summary, "", (), "", "")
    program = locate(root, provider.tool)
    used = os.path.basename(os.path.realpath(current(root, provider.tool))) if program else ""
    return Listed(
        name, provider.summary, TOOLS[provider.tool].version, versions(root, provider.tool), used, program
    )


def install_provider(name: str, *, version: str | None, report: Report) -> Installed:
    """Installs the tool of provider `name` for this user; raises what `providers.install.install` raises."""
    return install(paths.data_root(), name, version=version, report=report)
