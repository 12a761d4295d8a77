"""What is ignored is exactly what git ignores, whatever the patterns; and hostile ones cost little."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot_bottle.host.ignore import Rules, parse


def ignored(text: str, path: str, *, folder: bool = False) -> bool:
    return Rules().inside(0, parse(text.encode())).ignores(path.split("/"), folder=folder)


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*.pyc", "a/b/x.pyc", True),
        ("*.pyc", "x.pyc.txt", False),
        ("/build", "build", True),
        ("/build", "a/build", False),
        ("a/b", "x/a/b", False),
        ("**/b", "x/a/b", True),
        ("a/**", "a", False),
        ("a/**", "a/b/c", True),
        ("a/**/d", "a/d", True),
        ("a/**/d", "a/b/c/d", True),
        ("# comment", "# comment", False),
        ("\\#x", "#x", True),
        ("x  ", "x", True),
        ("x\\ ", "x ", True),
        ("*.log\n!keep.log", "keep.log", False),
        ("[a-c]x", "bx", True),
        ("[!a-c]x", "bx", False),
        ("[]]", "]", True),
        ("[", "[", False),
        ("x\\", "x", False),
        ("foo**bar", "fooxbar", True),
        ("d/", "d", False),
        ("[^/]", "[", True),
        ("a/***/d", "a/b/c/d", True),
        ("a[/]d", "a/d", False),
    ],
)
def test_a_pattern_means_what_git_means_by_it(pattern, path, expected):
    assert ignored(pattern, path) is expected


def test_a_folder_pattern_fits_folders():
    assert ignored("d/", "a/d", folder=True)


def test_deeper_files_go_before_higher_ones():
    rules = Rules().inside(0, parse(b"*.log\n")).inside(1, parse(b"!*.log\n/x\n"))
    assert not rules.ignores(["a", "b.log"], folder=False)
    assert rules.ignores(["a", "x"], folder=False)
    assert not rules.ignores(["a", "b", "x"], folder=False)


def test_a_pattern_made_to_explode_does_not():
    assert not ignored("*a" * 60 + "b", "a" * 250)
    assert not ignored("**/a/" * 30 + "b", "a/" * 90 + "c")


ALPHABET = "ab*?/[]!^-\\.#: "
PATTERNS = st.lists(st.text(ALPHABET, max_size=9), min_size=1, max_size=4)
PATHS = st.lists(st.text("ab-]!.[ \\", min_size=1, max_size=4), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    return folder


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(patterns=PATTERNS, path=PATHS)
def test_any_pattern_ignores_what_git_ignores(repository, patterns, path):
    path = [part for part in path if part not in (".", "..")] or ["a"]
    text = "\n".join(patterns) + "\n"
    (repository / ".gitignore").write_text(text)
    asked = "/".join(path)
    done = subprocess.run(
        ["git", "-c", "core.ignoreCase=false", "check-ignore", "-q", "--no-index", "--stdin", "-z"],
        input=asked.encode() + b"\0",
        cwd=repository,
        capture_output=True,
    )
    assert done.returncode in (0, 1), done.stderr
    rules = Rules().inside(0, parse(text.encode()))
    # Git looks at the parents first; here whoever walks the tree does.
    ours = any(rules.ignores(path[:end], folder=end < len(path)) for end in range(1, len(path) + 1))
    assert ours is (done.returncode == 0), (text, asked)
