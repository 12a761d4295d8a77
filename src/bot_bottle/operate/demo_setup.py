"""What the demo runs in: a home of its own with two agents, their bottles, and the repository with the
bug."""

import os
import secrets
import shutil
import string
import zlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from bot_bottle.host import paths, process

MODEL_HOST = "model.example.org"
"""The scripted model's name inside; the bottle's route says where it really is."""

API_HOST = "api.anthropic.com"
CALENDAR_HOST = "calendar.example.org"
"""Where the task sends the agent, and the policy lets it ask for one page only."""

CALENDAR_PAGE = "/2026.json"

_BOTTLE = """---
egress:
  routes:
    - {{host: {host}, credential: model{upstream}}}
    - {{host: {calendar}, methods: [GET], paths: ["/about"], upstream: "{pages}"}}
  secrets: {{on_match: block}}
  upstream: {{ca: {authority}}}
credentials:
  model: {{from: {{env: ANTHROPIC_API_KEY}}, header: x-api-key}}
git:
  user: {{name: Demo Agent, email: agent@example.org}}
  remotes:
    - {{name: origin, url: {forge}, local: true, push: ["bot/*"], gitleaks: {gitleaks}}}
supervise: true
---
The demo's bottle: the model's API, whose key is put in outside, and one page of a calendar. For more the agent has to ask. What it
pushes to branches bot/* goes through the git gate.
"""

_CLOSED = "---\negress: {routes: []}\n---\nA bottle that reaches nothing.\n"

_FIXER = """---
provider: claude
bottle: demo
base_url: https://{host}
---
You work unattended. Nobody answers questions in this conversation; a person can be asked to allow what is refused.
"""

_CHECKER = """---
provider: command
bottle: closed
command: [python3, -m, unittest]
env: {PYTHONDONTWRITEBYTECODE: "1"}
---
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """Where everything of one demo is; all below `root`."""

    root: Path

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def repository(self) -> Path:
        return self.root / "timesheet"

    @property
    def forge(self) -> Path:
        """The upstream that the agent pushes to."""
        return self.root / "forge.git"

    def environment(self, *, api_key: str) -> dict[str, str]:
        """For the host's programs: nothing of the operator's own state, but their installed providers."""
        kept = {name: os.environ[name] for name in ("PYTHONPATH", "TERM", "TZ") if name in os.environ}
        xdg = {
            name: str(self.root / name.lower())
            for name in ("XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR")
        }
        own = {"HOME": str(self.home), **xdg}
        return {**process.base_environment(), **kept, **own, "ANTHROPIC_API_KEY": api_key}


def lay_out(root: Path, *, pages: str, authority: Path, real: bool) -> Stage:
    """Makes the demo's home and repository below `root`. Raises HostError when git is missing or fails.

    The calendar is at `pages`, with a certificate that `authority` signed; so is the model, unless it is the `real` API.
    """
    stage = Stage(root)
    (root / "xdg_runtime_dir").mkdir(mode=0o700)
    _share_providers(root)
    host = API_HOST if real else MODEL_HOST
    manifest = stage.home / ".bot-bottle"
    files = {
        "bottles/demo.md": _BOTTLE.format(
            host=host,
            upstream="" if real else f', upstream: "{pages}"',
            calendar=CALENDAR_HOST,
            pages=pages,
            authority=authority,
            forge=stage.forge,
            gitleaks="true" if has_gitleaks() else "false",
        ),
        "bottles/closed.md": _CLOSED,
        "agents/fixer.md": _FIXER.format(host=host),
        "agents/checker.md": _CHECKER,
    }
    for name, text in files.items():
        place = manifest / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    _make_repository(stage)
    return stage


def _share_providers(root: Path) -> None:
    """What the operator has installed is used; whatever else is kept as data is the demo's own."""
    own = root / "xdg_data_home" / "bot-bottle"
    own.mkdir(parents=True)
    for name in ("providers", "trust"):
        if (there := Path(paths.data_root()) / name).is_dir():
            (own / name).symlink_to(there)


def has_gitleaks() -> bool:
    """Whether what is pushed can be looked at by gitleaks, too; where it can't, the demo's bottle does without, by name."""
    return shutil.which("gitleaks") is not None


def made_up_token() -> str:
    """A token in the form of GitHub's, checksum included, that nobody issued: what a `.env` file may hold."""
    letters = string.digits + string.ascii_uppercase + string.ascii_lowercase
    body = "".join(secrets.choice(letters) for _ in range(30))
    rest, check = zlib.crc32(body.encode()), ""
    for _ in range(6):
        rest, digit = divmod(rest, 62)
        check = letters[digit] + check
    return f"ghp_{body}{check}"


def package_file(name: str) -> Path:
    """A file or folder of the demo's package data."""
    return Path(str(resources.files("bot_bottle.demo") / name))


def _make_repository(stage: Stage) -> None:
    shutil.copytree(
        package_file("repository"), stage.repository, ignore=shutil.ignore_patterns("__pycache__")
    )
    (stage.repository / ".gitignore").write_text("__pycache__/\n.env\n")
    (stage.repository / ".env").write_text(f"# Made up for this demo\nFORGE_TOKEN={made_up_token()}\n")
    who = {"NAME": "Demo", "EMAIL": "demo@example.org"}
    names = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in who.items()}
    quiet = {"HOME": str(stage.home), "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    env = {**process.base_environment(), **names, **quiet}
    for command in (
        ("init", "-q", "-b", "main"),
        ("add", "-A"),
        ("commit", "-q", "-m", "Bill in quarter hours"),
        ("clone", "-q", "--bare", ".", str(stage.forge)),
        ("remote", "add", "origin", str(stage.forge)),
    ):
        process.run(("git", *command), env=env, cwd=stage.repository).or_raise(
            "The demo's repository could not be made"
        )
