"""The words of the tree: whose names it may hold, and where its documents lead."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
REGISTRIES = [
    ("pypi", "org"),
    ("pythonhosted", "org"),
    ("npmjs", "org"),
    ("npmjs", "com"),
    ("crates", "io"),
    ("proxy", "golang", "org"),
    ("maven", "org"),
    ("maven", "apache", "org"),
    ("deb", "debian", "org"),
    ("security", "debian", "org"),
    ("archive", "ubuntu", "com"),
]
LEFTOVERS = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
EMPTY_WORDS = re.compile(
    r"\b(blazing|seamless|effortless|cutting-edge|world-class|state-of-the-art|game-chang)\w*", re.I
)


def tracked() -> list[Path]:
    """Every file that git keeps, without the licence's own text."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("this is not a git checkout")
    paths = [ROOT / name for name in done.stdout.split("\0") if name and name != "LICENSE"]
    return [path for path in paths if path.is_file()]


def matches(pattern: re.Pattern[str], paths: list[Path]) -> list[str]:
    """`FILE:LINE: text` of every place where `pattern` occurs."""
    found = []
    for path in paths:
        for number, line in enumerate(path.read_bytes().decode(errors="replace").splitlines(), start=1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    return found


def test_no_file_names_a_package_registry() -> None:
    hosts = "|".join(re.escape(".".join(parts)) for parts in REGISTRIES)
    assert matches(re.compile(rf"\b({hosts})\b", re.I), tracked()) == []


def test_nothing_is_left_to_do_in_the_text() -> None:
    assert matches(LEFTOVERS, tracked()) == []


def test_the_documents_use_no_empty_words() -> None:
    assert matches(EMPTY_WORDS, DOCUMENTS) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_in_a_document_leads_somewhere(document: Path) -> None:
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text())]
    broken = [t for t in targets if t and "://" not in t and not (document.parent / t).exists()]
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_in_a_document_exists(document: Path) -> None:
    main = pytest.importorskip("bot_bottle.cli.main", reason="there is no command line yet")
    text = document.read_text()
    code = [
        *re.findall(r"^```.*?^```", text, re.MULTILINE | re.DOTALL),
        *re.findall(r"`bot-bottle [^`]*`", text),
    ]
    named = set(re.findall(r"(?:`|^)bot-bottle ([a-z][a-z-]*)", "\n".join(code), re.MULTILINE))
    assert named - set(main.names()) == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_of_ours_in_a_document_exists(document: Path) -> None:
    paths = set(re.findall(r"`((?:src|tests|docs|bench|tools)/[\w./-]+)`", document.read_text()))
    assert {path for path in paths if not (ROOT / path).exists()} == set()
