"""What a push may not have in it: searched for by the real gitleaks and by ours, wherever in a repository a text can stand."""

import base64
import bz2
import gzip
import io
import lzma
import os
import random
import subprocess
import sys
import sysconfig
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from bot_bottle.bundle.gitgate import checks, gitleaks, objects, unpacking
from bot_bottle.bundle.gitgate.checks import check
from bot_bottle.bundle.gitgate.model import CheckFailed, Finding, GitRules, Update
from bot_bottle.policy.git import NOTHING
from bot_bottle.secret import Secret
from support import gitleaks as real
from support import tokens
from support.repositories import Repository

TOKEN = "ghp_" + "9pX3kqv8TzRnWmYc2dLs5bHf7gJt1aUe4iOo"
OWN = "zk-own/Zx81kQpLm39vTTwq77Yh2"
BRANCH = "refs/heads/bot/x"


@pytest.fixture(autouse=True)
def _program(monkeypatch: pytest.MonkeyPatch) -> None:
    real.on_path(monkeypatch)


@pytest.fixture
def pushed(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "pushed.git")


def look(
    pushed: Repository,
    *,
    known: Sequence[str] = (),
    rules: GitRules | None = None,
    ref: str = BRANCH,
    new: str = "bot/x",
) -> Sequence[Finding]:
    update = Update(ref, NOTHING, pushed.id(new))
    return check(pushed.folder, [update], list(known), rules or GitRules(), {"deploy": Secret(OWN)})


def rules_found(found: Sequence[Finding]) -> set[str]:
    return {one.rule for one in found}


def zipped(text: str, name: str = "docs/a.txt", method: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        archive.writestr(name, f"first line\n{text}\n" + "more of the same\n" * 20)
    return made.getvalue()


# Gitleaks' own samples, everywhere

Plant = Callable[[Repository, Mapping[str, tuple[str, str]]], None]


def _numbered(samples: Mapping[str, tuple[str, str]], ending: str = "") -> dict[str, str]:
    """Each sample at a path of its own, which ends as its rule wants it."""
    return {
        f"n/{number}/{path or 'f.txt'}{ending}": text for number, (path, text) in enumerate(samples.values())
    }


def _in_files(repository: Repository, samples: Mapping[str, tuple[str, str]]) -> None:
    repository.commit("bot/x", _numbered(samples))


def _in_an_old_commit(repository: Repository, samples: Mapping[str, tuple[str, str]]) -> None:
    files = _numbered(samples)
    repository.commit("bot/x", files)
    repository.commit("bot/x", dict.fromkeys(files))
    repository.commit("bot/x", {"README": "nothing to see\n"})


def _in_a_merge(repository: Repository, samples: Mapping[str, tuple[str, str]]) -> None:
    start = repository.commit("bot/x", {"README": "hi\n"})
    side = repository.commit("side", {"side": "hi\n"}, on=start)
    repository.commit("bot/x", {"main": "hi\n"})
    repository.commit("bot/x", _numbered(samples), merges=[side])


def _in_renamed_files(repository: Repository, samples: Mapping[str, tuple[str, str]]) -> None:
    files = _numbered(samples)
    repository.commit("bot/x", files)
    moved: dict[str, str | None] = {f"moved/{path}": text for path, text in files.items()}
    repository.commit("bot/x", {**moved, **dict.fromkeys(files)})


def _in_binaries(repository: Repository, samples: Mapping[str, tuple[str, str]]) -> None:
    made = {
        path: b"\x7fELF\x02\x01\x01\0\0\0\xff\xfe\n" + text.encode() + b"\n\0\xff\xd8" + bytes(600)
        for path, text in _numbered(samples).items()
    }
    repository.commit("bot/x", made)


def _in_zips(repository: Repository, samples: Mapping[str, tuple[str, str]]) -> None:
    files = _numbered(samples)
    repository.commit("bot/x", {f"{path}.zip": zipped(text, path) for path, text in files.items()})


def _in_base64(repository: Repository, samples: Mapping[str, tuple[str, str]]) -> None:
    files = _numbered(samples)
    repository.commit("bot/x", {path: base64.b64encode(f"{text}\n".encode()) for path, text in files.items()})


def _in_commit_messages(repository: Repository, samples: Mapping[str, tuple[str, str]]) -> None:
    for _, text in samples.values():
        repository.commit("bot/x", {"README": text[:1]}, f"Mend it\n\n{text}\n")


def _in_authors_names(repository: Repository, samples: Mapping[str, tuple[str, str]]) -> None:
    for _, text in samples.values():
        repository.commit("bot/x", {"README": text[:1]}, author=f"{text} <bot@example.org>")


def _in_tag_messages(repository: Repository, samples: Mapping[str, tuple[str, str]]) -> None:
    mark = repository.commit("bot/x", {"README": "hi\n"})
    for number, (_, text) in enumerate(samples.values()):
        repository.tag(f"v{number}", mark, f"Version {number}\n\n{text}\n")


ANY_PLACE: tuple[Plant, ...] = (_in_files, _in_an_old_commit, _in_a_merge, _in_renamed_files, _in_zips)
NO_PATH: tuple[Plant, ...] = (_in_commit_messages, _in_authors_names, _in_tag_messages)
PLACES = (*ANY_PLACE, _in_binaries, _in_base64, *NO_PATH)


@pytest.mark.parametrize("plant", PLACES, ids=lambda plant: plant.__name__[1:])
def test_every_rule_of_gitleaks_finds_its_sample_wherever_it_stands(
    plant: Plant, pushed: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "MOST", 100_000)
    samples = real.samples("\n<>\0" if plant is _in_authors_names else "")
    assert len(samples) > 190
    if plant in NO_PATH:
        samples = {rule: one for rule, one in samples.items() if not one[0]}
    plant(pushed, samples)
    pushed.write()
    names = ["bot/x"]
    if plant is _in_tag_messages:
        names = [f"refs/tags/v{number}" for number in range(len(samples))]
    updates = [Update(name, NOTHING, pushed.id(name)) for name in names]

    found = check(pushed.folder, updates, [], GitRules(), {})

    missed = set(samples) - rules_found(found)
    if plant in (_in_base64, _in_authors_names):
        missed.discard(
            "generic-api-key"
        )  # gitleaks names its sample there by the narrower rule alone: clojars-api-token
        assert "clojars-api-token" in rules_found(found)
    assert not missed
    for one in found:
        assert one.fingerprint
        assert one.line > 0 or one.rule in ("unreadable", "pkcs12-file")


# What is no secret


def _clean_history(repository: Repository, commits: int) -> None:
    """The standard library, file by file and then larger edits of it: public code, with nothing planted."""
    library = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(
        path
        for path in library.rglob("*.py")
        if "site-packages" not in path.parts and "dist-packages" not in path.parts
    )
    files = [path for path in files if 0 < path.stat().st_size < 30_000 and "test" not in path.parts][
        : commits // 2
    ]
    assert files
    for number in range(commits):
        path = files[number % len(files)]
        text = path.read_bytes()
        part = text if number >= len(files) else text[: len(text) // 2]
        first = text.split(b'"""')[1].strip().split(b"\n")[0] if text.count(b'"""') > 1 else b"Change it"
        name = str(path.relative_to(library))
        repository.commit("bot/x", {name: part + b"# %d\n" % number}, first + b"\n\nSee #%d.\n" % number)
    repository.write()


@pytest.mark.slow
def test_a_thousand_clean_commits_pass_without_a_false_alarm(pushed: Repository) -> None:
    _clean_history(pushed, 1000)
    assert pushed.git("rev-list", "--count", "bot/x") == "1000"
    found = look(pushed)
    # Gitleaks itself takes `vsbase = r"Software\Microsoft\VisualStudio..."`, as it stands in some versions, for a key.
    assert [one for one in found if not one.path.endswith("msvccompiler.py")] == []


def test_what_the_upstream_has_is_not_looked_at(pushed: Repository) -> None:
    pushed.commit("main", {"old.txt": f"token = {TOKEN}\n"}, f"The token is {TOKEN}")
    start = pushed.commit("main", {"old.txt": None})
    pushed.commit("bot/x", {"new.txt": "hi\n"}, on=start)
    pushed.write()
    assert look(pushed, known=[pushed.id("main")]) == []
    assert "github-pat" in rules_found(look(pushed))


def test_a_file_that_the_upstream_has_may_be_moved(pushed: Repository) -> None:
    start = pushed.commit("main", {"old.txt": f"token = {TOKEN}\n"})
    pushed.commit("bot/x", {"old.txt": None, "new.txt": f"token = {TOKEN}\n"}, on=start)
    pushed.write()
    assert look(pushed, known=[pushed.id("main")]) == []


# What an agent does so that nobody looks


@pytest.mark.parametrize(
    "files",
    [
        {"a.py": f'token = "{TOKEN}"  # gitleaks:allow\n'},
        {"a.py": f'token = "{TOKEN}"\n', ".gitleaks.toml": "[allowlist]\npaths = ['''.*''']\nregexes = ['''.*''']\n"},
        {"a.py": f'token = "{TOKEN}"\n', ".gitleaksignore": "a.py:github-pat:1\n"},
        {"package-lock.json": f'{{"token": "{TOKEN}"}}\n'},
        {"vendor/github.com/x/y.go": f'var token = "{TOKEN}"\n'},
        {"node_modules/a/index.js": f'token = "{TOKEN}"\n'},
        {"logo.png": f'token = "{TOKEN}"\n'},
        {"@octokit/auth-token/README.md": f'token = "{TOKEN}"\n'},
        {"a.bin": b"\x7fELF" + bytes(60) + f'\n"{TOKEN}"\n'.encode()},
        {"a.bin": bytes(256) + b"ustar" + f'\n"{TOKEN}"\n'.encode()},
        {"a.bin": bytes(257) + b"ustar" + f'\n"{TOKEN}"\n'.encode()},
        {"a.bin": f'"{TOKEN}"\n'.encode() + bytes(32700) + b"CD001" * 20},
        {"a.txt": b"x" * (gitleaks.PIECE - 10) + f' "{TOKEN}" '.encode() + b"y" * 9000},
        {"a.txt": b"x" * (2 * gitleaks.PIECE - gitleaks.OVERLAP - 30) + f' "{TOKEN}" '.encode() + b"y" * 900},
        {"a.txt": b"x" * ((1 << 20) - 20) + f' "{TOKEN}" '.encode() + b"y" * 900},
        {"a.txt": b"x\n" * 300_000 + f' "{TOKEN}" '.encode()},
        {"a.gz": gzip.compress(f'"{TOKEN}"\n'.encode() * 9)},
        {"a.bz2": bz2.compress(f'"{TOKEN}"\n'.encode() * 9)},
        {"a.xz": lzma.compress(f'"{TOKEN}"\n'.encode() * 9)},
        {"a.png": b"\x89PNG\r\n\x1a\n" + bytes(30) + zlib.compress(f'"{TOKEN}"\n'.encode() * 9)},
        {"a.jar": b"#!/bin/sh\nexit\n" + zipped(TOKEN)},
        {"a.zip": zipped(TOKEN, method=zipfile.ZIP_STORED)},
        {"a.zip": zipped(TOKEN, method=zipfile.ZIP_BZIP2)},
        {"a.zip": zipped("x") + zipped(TOKEN)[:-60]},
        {"a.tar.gz": gzip.compress(gzip.compress(f'"{TOKEN}"\n'.encode() * 9))},
        {TOKEN: "hi\n"},
        {f"docs/{TOKEN}/readme": "hi\n"},
    ],
    ids=lambda files: next(iter(files))[:20],
)  # fmt: skip
def test_nothing_in_a_repository_tells_the_check_to_look_away(
    files: Mapping[str, bytes | str], pushed: Repository
) -> None:
    pushed.commit("bot/x", files)
    pushed.write()
    found = look(pushed)
    assert rules_found(found) & {"github-pat", "github"}
    assert TOKEN not in repr(found)


def test_a_link_s_target_is_looked_at(pushed: Repository) -> None:
    pushed.commit("bot/x", {"link": TOKEN}, modes={"link": "120000"})
    pushed.write()
    assert "github-pat" in rules_found(look(pushed))


def test_a_ref_s_name_is_looked_at_and_not_told(pushed: Repository) -> None:
    pushed.commit("bot/x", {"README": "hi\n"})
    pushed.write()
    found = look(pushed, ref=f"refs/heads/bot/{TOKEN}")
    assert "github-pat" in rules_found(found)
    assert TOKEN not in repr(found)


# The bottle's own secrets

ENCODINGS: Mapping[str, bytes] = {
    "plain": OWN.encode(),
    "base64": base64.b64encode(f"see {OWN} there".encode()),
    "base64url": base64.urlsafe_b64encode(b"??>>" + OWN.encode()),
    "base32": base64.b32encode(OWN.encode()),
    "hex": OWN.encode().hex().encode(),
    "reversed": OWN.encode()[::-1],
    "percent": "".join(f"%{byte:02x}" for byte in OWN.encode()).encode(),
    "split": " ".join(OWN).encode(),
    "escaped": "".join(f"\\u{byte:04x}" for byte in OWN.encode()).encode(),
    "gzip": gzip.compress(OWN.encode() * 9),
    "base64 twice": base64.b64encode(base64.b64encode(OWN.encode())),
    "zip": zipped(OWN),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_bottle_s_own_secret_is_found_in_every_encoding_and_named_with_its_line(
    encoding: str, pushed: Repository
) -> None:
    around = b"a line\n" * 700
    pushed.commit("bot/x", {"notes.txt": around + ENCODINGS[encoding] + b"\n" + around})
    pushed.write()
    found = [one for one in look(pushed) if one.rule == "own-secret"]
    assert found
    assert "deploy" in found[0].what
    assert found[0].fingerprint == ""
    assert OWN not in repr(found)
    if encoding not in ("gzip", "zip"):
        assert abs(found[0].line - 701) <= 1


@pytest.mark.parametrize("place", ["message", "author", "tag", "path"])
def test_the_bottle_s_own_secret_is_found_outside_files_as_well(place: str, pushed: Repository) -> None:
    mark = pushed.commit(
        "bot/x",
        {OWN if place == "path" else "README": "hi\n"},
        f"Use {OWN}" if place == "message" else "Use it",
        author=f"{OWN} <x@example.org>" if place == "author" else "X <x@example.org>",
    )
    pushed.tag("v1", mark, OWN if place == "tag" else "one")
    pushed.write()
    found = look(pushed, new="refs/tags/v1")
    assert "own-secret" in rules_found(found)
    assert OWN not in repr(found)


# False positives


def test_what_a_person_called_false_passes_and_nothing_else(pushed: Repository) -> None:
    other = TOKEN[:-1] + "q"
    pushed.commit("bot/x", {"a.txt": f"token = {TOKEN}\n", "b.txt": f"the token = {TOKEN}\n", "c.txt": other})
    pushed.write()
    before = look(pushed)
    [stable] = {one.fingerprint for one in before if one.path == "a.txt" and one.rule == "github-pat"}
    after = look(pushed, rules=GitRules(allowed=(stable,)))
    assert {one.path for one in before if one.rule == "github-pat"} == {"a.txt", "b.txt", "c.txt"}
    assert {one.path for one in after if one.rule == "github-pat"} == {"b.txt", "c.txt"}
    pushed.commit("bot/x", {"a.txt": f"# moved down\n\ntoken = {TOKEN}\n"})
    pushed.write()
    assert "a.txt" not in {one.path for one in look(pushed, rules=GitRules(allowed=(stable,)))}


def test_no_person_can_call_the_bottle_s_own_secret_false(pushed: Repository) -> None:
    pushed.commit("bot/x", {"a.txt": OWN})
    pushed.write()
    allowed = ("", *(one.fingerprint for one in look(pushed)))
    assert "own-secret" in rules_found(look(pushed, rules=GitRules(allowed=allowed)))


# Paths, sizes, authors

PROTECTED = {
    "path-ci": (
        ".github/workflows/x.yml", ".GitHub/Workflows/x.yml", ".github/workflows", ".github/actions/a/action.yml",
        ".gitea/workflows/x.yaml", ".forgejo/workflows/x.yaml", ".gitlab-ci.yml", ".gitlab-ci-more.yaml", ".gitlab/ci/x.yml",
        "Jenkinsfile", "Jenkinsfile.release", ".circleci/config.yml", "azure-pipelines.yml", "bitbucket-pipelines.yml",
        ".travis.yml", "appveyor.yml", ".drone.yml", ".woodpecker.yml", ".woodpecker/a.yml", ".buildkite/pipeline.yml",
        ".build.yml", ".builds/a.yml", ".cirrus.yml", ".tekton/a.yaml",
    ),
    "path-hooks": (".githooks/pre-commit", ".husky/pre-push", ".pre-commit-config.yaml", "lefthook.yml"),
    "path-submodules": (".gitmodules", "sub/.gitmodules", ".GITMODULES"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "path"), [(rule, path) for rule, paths in PROTECTED.items() for path in paths]
)
def test_a_protected_path_is_refused_unless_it_is_granted(rule: str, path: str, pushed: Repository) -> None:
    start = pushed.commit("main", {"README": "hi\n"})
    pushed.commit("bot/x", {path: "hi\n"}, on=start)
    pushed.write()
    known = [pushed.id("main")]
    assert [(one.rule, one.path) for one in look(pushed, known=known)] == [(rule, path)]
    assert look(pushed, known=known, rules=GitRules(paths=(path,))) == []


def test_removing_a_workflow_is_a_change_of_it(pushed: Repository) -> None:
    start = pushed.commit("main", {".github/workflows/x.yml": "on: push\n"})
    pushed.commit("bot/x", {".github/workflows/x.yml": None}, on=start)
    pushed.write()
    assert rules_found(look(pushed, known=[pushed.id("main")])) == {"path-ci"}


def test_a_workflow_that_comes_and_goes_is_seen(pushed: Repository) -> None:
    start = pushed.commit("main", {"README": "hi\n"})
    pushed.commit("bot/x", {".github/workflows/x.yml": "on: push\n"}, on=start)
    pushed.commit("bot/x", {".github/workflows/x.yml": None})
    pushed.write()
    assert "path-ci" in rules_found(look(pushed, known=[pushed.id("main")]))


def test_a_known_file_under_a_protected_name_is_seen_though_no_file_is_new(pushed: Repository) -> None:
    start = pushed.commit("main", {"docs/example.yml": "on: push\n"})
    pushed.commit("bot/x", {".github/workflows/x.yml": "on: push\n"}, on=start)
    pushed.write()
    assert rules_found(look(pushed, known=[pushed.id("main")])) == {"path-ci"}


def test_merging_the_upstream_s_own_workflows_is_no_change_of_them(pushed: Repository) -> None:
    start = pushed.commit("main", {"README": "hi\n"})
    pushed.commit("bot/x", {"a": "hi\n"}, on=start)
    theirs = pushed.commit("main", {".github/workflows/x.yml": "on: push\n"}, on=start)
    workflow = {".github/workflows/x.yml": "on: push\n"}
    pushed.commit("bot/x", workflow, merges=[theirs])
    pushed.write()
    assert look(pushed, known=[pushed.id("main")]) == []


def test_a_merge_that_changes_a_workflow_by_itself_is_refused(pushed: Repository) -> None:
    start = pushed.commit("main", {"README": "hi\n"})
    pushed.commit("bot/x", {"a": "hi\n"}, on=start)
    theirs = pushed.commit("main", {".github/workflows/x.yml": "on: push\n"}, on=start)
    pushed.commit("bot/x", {".github/workflows/x.yml": "on: evil\n"}, merges=[theirs])
    pushed.write()
    assert rules_found(look(pushed, known=[pushed.id("main")])) == {"path-ci"}


def test_a_submodule_is_one_without_gitmodules_too(pushed: Repository) -> None:
    pushed.commit("bot/x", {"sub": "1" * 40}, modes={"sub": "160000"})
    pushed.write()
    assert rules_found(look(pushed)) == {"path-submodules"}
    assert look(pushed, rules=GitRules(paths=("sub",))) == []


def test_a_file_that_is_too_large_is_refused_unread(pushed: Repository) -> None:
    pushed.commit("bot/x", {"big": b"x" * 5000, "small": b"y" * 100})
    pushed.write()
    assert [(one.rule, one.path) for one in look(pushed, rules=GitRules(max_file=4000))] == [
        ("file-size", "big")
    ]
    assert "push-size" in rules_found(look(pushed, rules=GitRules(max_push=4000)))


def test_more_commits_than_allowed_are_refused(pushed: Repository) -> None:
    for number in range(4):
        pushed.commit("bot/x", {"README": str(number)})
    pushed.write()
    assert rules_found(look(pushed, rules=GitRules(max_commits=3))) == {"too-many-commits"}


def test_authors_and_committers_must_be_those_that_are_allowed(pushed: Repository) -> None:
    pushed.commit("bot/x", {"README": "1"}, author="A Bot <bot@example.org>")
    pushed.write()
    rules = GitRules(authors=("A Bot <bot@example.org>",))
    assert look(pushed, rules=rules) == []
    pushed.commit("bot/x", {"README": "2"}, author=f"{OWN} <boss@example.org>")
    pushed.write()
    found = look(pushed, rules=rules)
    assert {"author", "own-secret"} <= rules_found(found)
    assert OWN not in repr(found)


# Hostile objects


def _tree(repository: Repository, entries: Sequence[tuple[str, str, str, str]]) -> str:
    text = "".join(f"{mode} {kind} {name}\t{path}\n" for mode, kind, name, path in entries)
    return repository.git("mktree", stdin=text.encode())


def _commit_of(repository: Repository, tree: str) -> None:
    name = repository.git("commit-tree", tree, "-m", "hi")
    repository.git("update-ref", BRANCH, name)


def _bomb(repository: Repository, *, deep: int) -> None:
    """A commit with ten to the power of `deep` paths and one, in a few trees."""
    blob = repository.git("hash-object", "-w", "--stdin", stdin=b"hi\n")
    tree = _tree(repository, [("100644", "blob", blob, f"f{one}") for one in range(10)])
    for _ in range(deep):
        tree = _tree(repository, [("040000", "tree", tree, f"d{one}") for one in range(10)])
    _commit_of(repository, tree)


def test_a_tree_with_more_paths_than_memory_could_hold_is_given_up_soon(
    pushed: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "MEMORY", 64 << 20)
    _bomb(pushed, deep=12)
    with pytest.raises(CheckFailed, match="diff-tree could not read"):
        look(pushed)


def test_a_tree_with_more_paths_than_are_looked_at_is_refused(
    pushed: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "CHANGES", 2_000)
    _bomb(pushed, deep=3)
    with pytest.raises(CheckFailed, match="more than 2000 paths"):
        look(pushed)


def test_a_tree_that_is_deeper_than_any_path_is_refused(pushed: Repository) -> None:
    blob = pushed.git("hash-object", "-w", "--stdin", stdin=b"hi\n")
    tree = _tree(pushed, [("100644", "blob", blob, "f")])
    for _ in range(60):
        tree = _tree(pushed, [("040000", "tree", tree, "d" * 2000)])
    _commit_of(pushed, tree)
    with pytest.raises(CheckFailed):
        look(pushed)


def test_what_unpacks_to_more_than_is_looked_at_is_refused(
    pushed: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "MEMBER", 1 << 20)
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = bomb.compress(bytes(20 << 20)) + bomb.flush()
    pushed.commit("bot/x", {"bomb.gz": packed})
    pushed.write()
    assert "unreadable" in rules_found(look(pushed))


def test_an_archive_that_cannot_be_looked_into_is_refused_until_a_person_says_so(pushed: Repository) -> None:
    encrypted = bytearray(zipped("hi"))
    encrypted[6] |= 1
    pushed.commit(
        "bot/x",
        {
            "a.zip": bytes(encrypted),
            "b.7z": b"7z\xbc\xaf\x27\x1c" + bytes(40),
            "c.zst": b"\x28\xb5\x2f\xfd" + bytes(9),
        },
    )
    pushed.write()
    found = look(pushed)
    assert {(one.rule, one.path.partition("!")[0]) for one in found} == {
        ("unreadable", "a.zip"), ("unreadable", "b.7z"), ("unreadable", "c.zst")
    }  # fmt: skip
    assert look(pushed, rules=GitRules(allowed=tuple(one.fingerprint for one in found))) == []


@pytest.mark.parametrize("kind", ["blob", "tree", "a tag of a blob"])
def test_a_ref_that_names_no_commit_is_refused(kind: str, pushed: Repository) -> None:
    name = pushed.git("hash-object", "-w", "--stdin", stdin=TOKEN.encode())
    if kind == "tree":
        name = _tree(pushed, [("100644", "blob", name, "f")])
    if kind == "a tag of a blob":
        text = f"object {name}\ntype blob\ntag v1\ntagger A <a@example.org> 1 +0000\n\nhi\n"
        name = pushed.git("hash-object", "-w", "-t", "tag", "--stdin", stdin=text.encode())
    assert rules_found(check(pushed.folder, [Update(BRANCH, NOTHING, name)], [], GitRules(), {})) == {
        "not-a-commit"
    }


def test_an_object_that_is_missing_fails_the_check(pushed: Repository) -> None:
    pushed.commit("bot/x", {"a.txt": "hi\n"})
    pushed.write()
    name = pushed.id("bot/x:a.txt")
    packs = list((pushed.folder / "objects/pack").glob("*"))
    listed = pushed.git("rev-list", "--objects", "bot/x").split("\n")
    kept = "".join(line.split(" ")[0] + "\n" for line in listed if not line.startswith(name))
    made = subprocess.run(
        ["git", "pack-objects", "--stdout"],
        cwd=pushed.folder,
        input=kept.encode(),
        capture_output=True,
        check=True,
    )
    for pack in packs:
        pack.unlink()
    pushed.git("unpack-objects", "-q", stdin=made.stdout)
    loose = pushed.folder / "objects" / name[:2] / name[2:]
    loose.unlink(missing_ok=True)
    with pytest.raises(CheckFailed):
        look(pushed)


def test_a_check_that_takes_too_long_fails(pushed: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "SECONDS", 0.0)
    pushed.commit("bot/x", {"a.txt": "hi\n"})
    pushed.write()
    with pytest.raises(CheckFailed, match="too long"):
        look(pushed)


# Gitleaks itself


def test_without_gitleaks_nothing_is_pushed_unless_the_bottle_says_so(
    pushed: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    pushed.commit("bot/x", {"a.txt": "hi\n"})
    pushed.write()
    with pytest.raises(CheckFailed, match="gitleaks is not installed"):
        look(pushed)
    assert look(pushed, rules=GitRules(gitleaks=False)) == []


@pytest.mark.parametrize(
    "said", ["exit 0", "echo '[]'; exit 2", "echo '[]'", "echo '{'", "kill -9 $$", "echo null"]
)
def test_a_gitleaks_that_breaks_off_fails_the_check(
    said: str, pushed: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "gitleaks"
    program.write_text(f"#!/bin/sh\n{said}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    pushed.commit("bot/x", {"a.txt": "hi\n"})
    pushed.write()
    with pytest.raises(CheckFailed):
        look(pushed)


def test_a_gitleaks_that_does_not_wait_for_what_it_shall_look_at_looks_at_it_nevertheless(
    pushed: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "gitleaks"
    waits_for_nothing = 'case "$*" in *"$HOME/none") ;; *) exit 3 ;; esac; rm -f "$HOME/none"'
    program.write_text(f'#!/bin/sh\n{waits_for_nothing}\nexec {gitleaks.find()} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    pushed.commit("bot/x", {"a.txt": f"token = {TOKEN}\n"})
    pushed.write()
    assert "github-pat" in rules_found(look(pushed))


def test_the_check_leaves_nothing_behind(
    pushed: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    pushed.commit("bot/x", {"a.txt": TOKEN})
    pushed.write()
    before = sorted(os.listdir(pushed.folder))
    assert look(pushed)
    assert os.listdir(place) == []
    assert sorted(os.listdir(pushed.folder)) == before


_ALONE = """
import resource, sys
from pathlib import Path
from bot_bottle.bundle.gitgate import checks, objects
from bot_bottle.bundle.gitgate.model import GitRules, Update
from bot_bottle.policy.git import NOTHING
from bot_bottle.policy.secrets.scanner import Scanner
Scanner().scan(b"%41 AKIA")
has = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (has + (40 << 20), resource.RLIM_INFINITY))
objects.MEMORY = 40 << 20
rules = GitRules(gitleaks=False, max_file=1 << 30)
for one in checks.check(Path(sys.argv[1]), [Update("refs/heads/bot/x", NOTHING, sys.argv[2])], [], rules, {}):
    print(one.rule, one.path, one.line)
"""


def test_a_large_file_is_searched_to_its_end_in_less_memory_than_it_has(pushed: Repository) -> None:
    lines, token = 2_500_000, tokens.crc_token("ghp", random.Random(7))
    pushed.commit("bot/x", {"large.txt": b"nothing of interest here\n" * lines + f"{token}\n".encode()})
    pushed.write()
    pushed.git("repack", "-adq")  # what is in no pack is read as a stream in any case
    before = sorted(os.listdir(pushed.folder))
    done = subprocess.run(
        [sys.executable, "-c", _ALONE, str(pushed.folder), pushed.id("bot/x")],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), "MALLOC_ARENA_MAX": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == [f"github large.txt {lines + 1}"], done.stderr
    assert sorted(os.listdir(pushed.folder)) == before


def test_gitleaks_says_that_it_is_new_enough() -> None:
    assert gitleaks.version(gitleaks.find())[1]


def test_a_push_of_many_small_files_is_looked_at_in_batches(
    pushed: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gitleaks, "_BATCH_FILES", 7)
    files = {f"f{number}": f"line\ntoken = {TOKEN[:-2]}{number:02d}\n" for number in range(30)}
    pushed.commit("bot/x", files)
    pushed.write()
    found = [one for one in look(pushed) if one.rule == "github-pat"]
    assert {(one.path, one.line) for one in found} == {(f"f{number}", 2) for number in range(30)}
