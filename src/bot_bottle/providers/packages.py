"""Which packages each installable tool comes in: names, pinned versions, the hashes that those must have. Data only."""

from types import MappingProxyType
from typing import Final, NamedTuple

from bot_bottle.errors import HostError


class Part(NamedTuple):
    """One package on npm, and the integrity of its pinned version (as npm writes it: `sha512-BASE64`).

    `taken` says what is taken out of its archive and where it goes below the version's folder; a folder, whole, where both
    end with `/`. `version` is the package's own when it follows another count than the tool's; `suffix` stands after the
    tool's.
    """

    package: str
    integrity: str
    taken: tuple[tuple[str, str], ...]
    version: str = ""
    suffix: str = ""


class Tool(NamedTuple):
    """A tool that comes in one or several npm packages, the first of them being the tool's own.

    `program` is what runs, below the version's folder, where that is not named as the tool is; then a link of that name
    leads to it.
    """

    name: str
    version: str
    builds: MappingProxyType[str, tuple[Part, ...]]
    """By machine, as `uname -m` says it."""
    program: str = ""

    def build(self, machine: str) -> tuple[Part, ...]:
        """The packages for `machine`. Raises HostError when there are none."""
        found = self.builds.get(machine)
        if found is None:
            known = ", ".join(sorted(self.builds))
            raise HostError(
                f"{self.name} has no package for {machine} machines", resolution=f"It has for: {known}."
            )
        return found


def _claude(machine: str, integrity: str) -> tuple[Part, ...]:
    return (Part(f"@anthropic-ai/claude-code-linux-{machine}", integrity, (("package/claude", "claude"),)),)


def _codex(machine: str, target: str, integrity: str) -> tuple[Part, ...]:
    """The program looks beside itself for its helper and for its ripgrep; voice and a sandbox of its own stay out."""
    root = f"package/vendor/{target}"
    names = ("bin/codex", "bin/codex-code-mode-host", "codex-path/rg", "codex-package.json")
    taken = tuple((f"{root}/{name}", name) for name in names)
    return (Part("@openai/codex", integrity, taken, suffix=f"-linux-{machine}"),)


def _opencode(machine: str, integrity: str) -> tuple[Part, ...]:
    return (Part(f"opencode-linux-{machine}", integrity, (("package/bin/opencode", "opencode"),)),)


def _gemini(machine: str, node_integrity: str) -> tuple[Part, ...]:
    """A bundle of JavaScript, and a Node of its own: what a bottle's image or host has may be too old, or not there."""
    bundle = "sha512-dbQ9A0qBtFJNi6XBkHvfZ6Azpn6PNgH/P8h2MZ67RLlX8hSAVjup39CRWqdRxZv7YXIuhrFaytr8y0jKnkoxnQ=="
    return (
        Part(
            "@google/gemini-cli",
            bundle,
            (("package/bundle/", "bundle/"), ("package/package.json", "package.json")),
        ),
        Part(f"node-linux-{machine}", node_integrity, (("package/bin/node", "node"),), version="22.23.3"),
    )


TOOLS: Final = MappingProxyType(
    {
        "claude": Tool(
            name="claude",
            version="2.1.330",
            builds=MappingProxyType(
                {
                    "x86_64": _claude(
                        "x64",
                        "sha512-9Gn+V7DtJ8M1nztP9CeDVl9g3RtrepI7rOFTyPRRnZe8D6zebIHKmC7OvBauucuAP0X0k85SDN/LPVZyjsGezQ==",
                    ),
                    "aarch64": _claude(
                        "arm64",
                        "sha512-V4yanAY5EA5UpwwRPtjSfqDbNqAlUJeVn3NYZw2AgmRHjdpSsLtHAzbxRXfkAnbjwTXzE0uedjQxUY02ARPcsA==",
                    ),
                }
            ),
        ),
        "codex": Tool(
            name="codex",
            version="0.169.0",
            program="bin/codex",
            builds=MappingProxyType(
                {
                    "x86_64": _codex(
                        "x64",
                        "x86_64-unknown-linux-musl",
                        "sha512-o05NyAOCDygSPRo1yinzxvkRSdmsZyBD9E7mbpmjRanSfM8lypqWtQgEo4XfNkwhuCR2aFu8mlGOsQGFXVbVww==",
                    ),
                    "aarch64": _codex(
                        "arm64",
                        "aarch64-unknown-linux-musl",
                        "sha512-NZ/DaQUpcQmxmqee7Z9uC1rzw3GhSbooawcaTe1LN5Yk+WlinUKGdTXJgClRT/9ogQEEM9TWxYzvxPfj5G/xFg==",
                    ),
                }
            ),
        ),
        "gemini": Tool(
            name="gemini",
            version="0.61.0",
            program="bundle/gemini.js",
            builds=MappingProxyType(
                {
                    "x86_64": _gemini(
                        "x64",
                        "sha512-qHnz5tFsHoj/WM+uRENVjWONi5hVvmwrgq8A4V76KpuVNAc4+jwK8x4gwbobE9BtHNg/AKR2583eYorLF/c7ng==",
                    ),
                    "aarch64": _gemini(
                        "arm64",
                        "sha512-l3DAHZreylo+p9QXDtsOrjG2JXJqVzYXnAGmIQNOUNARcMppTO2cmewVQP+36tjJnSE+dzpMNtgW+c3oiDvXtA==",
                    ),
                }
            ),
        ),
        "opencode": Tool(
            name="opencode",
            version="1.18.18",
            builds=MappingProxyType(
                {
                    "x86_64": _opencode(
                        "x64",
                        "sha512-WmeUnhljYJ252wywKTiW4bNDzsas2njpjPUEh0jM6HKNI4vFxJtREtzaWViY4AKEAcOkLWT8Ll17ixvcHz3AnA==",
                    ),
                    "aarch64": _opencode(
                        "arm64",
                        "sha512-e8D3g0qJEIzawEg2+ygW3vkZjAYL2ssyAx4GbihjwXwZFvlZZy5zRWWzdz5KLBoHSTl0FB73vNtnNeXONyHpVQ==",
                    ),
                }
            ),
        ),
    }
)
