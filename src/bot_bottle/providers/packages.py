"""Which package each installable tool comes in: name, pinned version, and the hash that version must have.
Data only."""

from types import MappingProxyType
from typing import Final, NamedTuple

from bot_bottle.errors import HostError


class Build(NamedTuple):
    """One platform's package on npm, and the integrity of its pinned version (as npm writes it:
    `sha512-BASE64`)."""

    package: str
    integrity: str


class Tool(NamedTuple):
    """A tool that is one native program in one npm package. `member` is the program's path in the package's
    archive."""

    name: str
    version: str
    member: str
    builds: MappingProxyType[str, Build]
    """By machine, as `uname -m` says it."""

    def build(self, machine: str) -> Build:
        """The package for `machine`. Raises HostError when there is none."""
        found = self.builds.get(machine)
        if found is None:
            known = ", ".join(sorted(self.builds))
            raise HostError(
                f"{self.name} has no package for {machine} machines", resolution=f"It has for: {known}."
            )
        return found


_CLAUDE_X64 = Build(
    "@anthropic-ai/claude-code-linux-x64",
    "sha512-9Gn+V7DtJ8M1nztP9CeDVl9g3RtrepI7rOFTyPRRnZe8D6zebIHKmC7OvBauucuAP0X0k85SDN/LPVZyjsGezQ==",
)
_CLAUDE_ARM64 = Build(
    "@anthropic-ai/claude-code-linux-arm64",
    "sha512-V4yanAY5EA5UpwwRPtjSfqDbNqAlUJeVn3NYZw2AgmRHjdpSsLtHAzbxRXfkAnbjwTXzE0uedjQxUY02ARPcsA==",
)

TOOLS: Final = MappingProxyType({
    "claude": Tool(
        name="claude",
        version="2.1.330",
        member="package/claude",
        builds=MappingProxyType({"x86_64": _CLAUDE_X64, "aarch64": _CLAUDE_ARM64}),
    ),
})  # fmt: skip
