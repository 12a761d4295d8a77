"""Files that do something on the host later, without anyone deciding to run the project: data, with the reason for each.

They are changed like any other file, but shown first, and applied only when a person says so. Patterns are those of
`.gitignore`, compared in lower case.
"""

import posixpath
from functools import cache

from bot_bottle.host import ignore
from bot_bottle.typed import NamedTuple

EDITOR = "an editor acts on it when the folder is opened"
GIT = "git acts on it"
SHELL = "the shell runs it when the folder is entered"
AGENT = "an agent on the host takes its orders or tools from it"
PYTHON = "Python runs it when it starts"
BUILD = "make and the like run what it says"
PACKAGES = "the package manager runs what it says when packages are installed"
CI = "it runs with the rights of the CI"
CONTAINER = "it decides what a container may reach"

RUNS_LATER: tuple[tuple[str, str], ...] = (
    (".git*", GIT),
    ("head", GIT),  # a folder with it may be a repository, which git finds without `.git`, too
    ("*.git/", GIT),
    (".husky/", GIT),
    (".githooks/", GIT),
    (".pre-commit-config.yaml", GIT),
    (".pre-commit-hooks.yaml", GIT),
    ("lefthook.y*ml", GIT),
    (".vscode/", EDITOR),
    ("*.code-workspace", EDITOR),
    (".idea/", EDITOR),
    (".zed/", EDITOR),
    (".fleet/", EDITOR),
    (".nvim*", EDITOR),
    (".vimrc", EDITOR),
    (".exrc", EDITOR),
    (".lvimrc", EDITOR),
    (".dir-locals*.el", EDITOR),
    ("*.sublime-project", EDITOR),
    (".eslintrc.*js", EDITOR),
    ("eslint.config.*", EDITOR),
    (".prettierrc.*js", EDITOR),
    ("prettier.config.*", EDITOR),
    (".devcontainer/", CONTAINER),
    (".devcontainer.json", CONTAINER),
    ("docker-compose*.y*ml", CONTAINER),
    ("compose*.y*ml", CONTAINER),
    (".envrc", SHELL),
    (".env", SHELL),
    (".mise*.toml", SHELL),
    ("mise*.toml", SHELL),
    (".autoenv*", SHELL),
    (".claude/", AGENT),
    ("claude.md", AGENT),
    ("claude.local.md", AGENT),
    ("agents.md", AGENT),
    ("gemini.md", AGENT),
    (".mcp.json", AGENT),
    (".cursor/", AGENT),
    (".cursorrules", AGENT),
    (".codex/", AGENT),
    (".gemini/", AGENT),
    (".opencode/", AGENT),
    ("opencode.json*", AGENT),
    (".bot-bottle/", AGENT),
    (".github/copilot-instructions.md", AGENT),
    ("*.pth", PYTHON),
    ("sitecustomize.py", PYTHON),
    ("usercustomize.py", PYTHON),
    ("pyvenv.cfg", PYTHON),
    ("makefile", BUILD),
    ("gnumakefile", BUILD),
    ("*.mk", BUILD),
    ("justfile", BUILD),
    (".justfile", BUILD),
    ("taskfile.y*ml", BUILD),
    (".cargo/", BUILD),
    (".bazelrc", BUILD),
    ("gradle/wrapper/", BUILD),
    (".mvn/", BUILD),
    ("package.json", PACKAGES),
    (".npmrc", PACKAGES),
    (".yarnrc*", PACKAGES),
    (".yarn/", PACKAGES),
    (".pnpmfile.cjs", PACKAGES),
    ("bunfig.toml", PACKAGES),
    ("setup.py", PACKAGES),
    ("pip.conf", PACKAGES),
    (".github/workflows/", CI),
    (".github/actions/", CI),
    (".gitlab-ci.yml", CI),
    (".circleci/", CI),
    ("jenkinsfile", CI),
    ("azure-pipelines.yml", CI),
)
LEADS_OUT = "a link that leads out of the workspace"


class Flag(NamedTuple):
    """A changed file that a person should look at first."""

    path: str
    reason: str


@cache
def _compiled() -> tuple[tuple[ignore.Rules, str], ...]:
    return tuple(
        (ignore.Rules().inside(0, ignore.parse(line.encode())), reason) for line, reason in RUNS_LATER
    )


def reason(path: str) -> str:
    """Why the file at `path` is flagged; empty when it is not."""
    parts = path.lower().split("/")
    for rules, why in reversed(_compiled()):
        if any(rules.ignores(parts[:end], folder=end < len(parts)) for end in range(1, len(parts) + 1)):
            return why
    return ""


def leads_out(path: str, target: str) -> bool:
    """Whether a link at `path` to `target` leaves the workspace."""
    joined = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return target.startswith("/") or joined == ".." or joined.startswith("../")
