"""A manifest root and a repository on disk, written by a test as it needs them."""

from pathlib import Path
from textwrap import dedent

import pytest

from bot_bottle.errors import BotBottleError
from bot_bottle.manifest.document import BottleDocument, ManifestDocument


class Home:
    """`root` stands for ~/.bot-bottle, `repository` for the repository the operator is in."""

    def __init__(self, base: Path) -> None:
        self.root = base / "home" / ".bot-bottle"
        self.repository = base / "repository"
        self.cache = base / "cache"
        for kind in ("bottles", "agents", "skills"):
            (self.root / kind).mkdir(parents=True)
        (self.repository / ".bot-bottle" / "agents").mkdir(parents=True)

    def _write(self, path: Path, front: str, body: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"---\n{dedent(front).strip()}\n---\n{body}")
        return path

    def bottle(self, name: str, front: str = "{}") -> Path:
        return self._write(self.root / "bottles" / f"{name}.md", front, "")

    def agent(self, name: str, front: str = "{}", body: str = "Do it.\n") -> Path:
        return self._write(self.root / "agents" / f"{name}.md", front, body)

    def repository_agent(self, name: str, front: str = "{}", body: str = "Do it.\n") -> Path:
        return self._write(self.repository / ".bot-bottle" / "agents" / f"{name}.md", front, body)

    def skill(self, name: str, *, in_repository: bool = False) -> Path:
        top = self.repository / ".bot-bottle" if in_repository else self.root
        folder = top / "skills" / name
        folder.mkdir(parents=True)
        (folder / "SKILL.md").write_text("---\nname: x\n---\n")
        return folder

    def load(self, agent: str, bottle: str | None = None) -> ManifestDocument:
        from bot_bottle.manifest.load import load

        return load(agent, root=self.root, repository=self.repository, bottle=bottle)

    def load_cached(self, agent: str, bottle: str | None = None) -> ManifestDocument:
        from bot_bottle.manifest.cache import load_cached

        return load_cached(
            agent, root=self.root, repository=self.repository, bottle=bottle, cache_root=self.cache
        )

    def composed(self, name: str) -> BottleDocument:
        from bot_bottle.manifest.load import load_bottle

        return load_bottle(name, root=self.root)

    def refusal(self, name: str) -> str:
        """What is said of the wrong bottle `name`, without the folders."""
        with pytest.raises(BotBottleError) as caught:
            self.composed(name)
        return str(caught.value).replace(f"{self.root}/bottles/", "")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)
