"""Paths in a repository by which a push gets more done than a change of code: CI, hooks, submodules. Pure."""

import re

from bot_bottle.typed import NamedTuple

CI, HOOKS, SUBMODULES = "path-ci", "path-hooks", "path-submodules"
"""The rules that a finding names."""

_PROTECTED: tuple[tuple[str, str], ...] = (
    # Folders end in a slash and stand for all that is in them, and for a file or link in their place.
    (".github/workflows/", CI),
    (".github/actions/", CI),
    (".gitea/workflows/", CI),
    (".gitea/actions/", CI),
    (".forgejo/workflows/", CI),
    (".forgejo/actions/", CI),
    (".gitlab/ci/", CI),
    (".gitlab-ci/", CI),
    (".circleci/", CI),
    (".buildkite/", CI),
    (".woodpecker/", CI),
    (".azure-pipelines/", CI),
    (".builds/", CI),
    (".semaphore/", CI),
    (".teamcity/", CI),
    (".tekton/", CI),
    (".drone/", CI),
    (".husky/", HOOKS),
    (".githooks/", HOOKS),
    (".git-hooks/", HOOKS),
)
_FILES: tuple[tuple[str, str], ...] = (
    # Names that count in the top folder.
    (r"\.gitlab-ci.*\.ya?ml", CI),
    (r"azure-pipelines.*\.ya?ml", CI),
    (r"bitbucket-pipelines\.ya?ml", CI),
    (r"jenkinsfile.*", CI),
    (r"\.travis\.ya?ml", CI),
    (r"\.?appveyor\.ya?ml", CI),
    (r"\.drone\.(?:ya?ml|star|jsonnet)", CI),
    (r"\.woodpecker\.ya?ml", CI),
    (r"\.cirrus\.(?:ya?ml|star)", CI),
    (r"\.build\.ya?ml", CI),
    (r"buildspec\.ya?ml", CI),
    (r"cloudbuild\.(?:ya?ml|json)", CI),
    (r"codefresh\.ya?ml", CI),
    (r"wercker\.ya?ml", CI),
    (r"\.pre-commit-(?:config|hooks)\.ya?ml", HOOKS),
    (r"\.?lefthook(?:-local)?\.(?:ya?ml|toml|json)", HOOKS),
    (r"\.overcommit\.ya?ml", HOOKS),
)
_TOP = re.compile("|".join(f"(?P<g{number}>{pattern})" for number, (pattern, _) in enumerate(_FILES)))
_IGNORED = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
WORDS = {
    CI: "it decides what the forge's CI runs, with the CI's rights",
    HOOKS: "git or its hooks run it on the machine of whoever has the repository",
    SUBMODULES: "it makes git fetch from elsewhere",
}


class Protected(NamedTuple):
    """Why a path is protected: a rule's name, and what is said of it."""

    rule: str
    what: str


def protected(path: str, mode: str = "100644") -> Protected | None:
    """Why what stands at `path` may only be changed where that is granted; None when everybody may.

    `mode` is git's: a submodule (`160000`) is one by its mode.
    """
    rule = _rule(path, mode)
    return Protected(rule, WORDS[rule]) if rule else None


def _rule(path: str, mode: str) -> str:
    plain = _IGNORED.sub("", path).lower()
    if mode == "160000" or plain.rpartition("/")[2] in (".gitmodules", "gitmod~1"):
        return SUBMODULES
    inside = plain + "/"
    for folder, rule in _PROTECTED:
        if inside.startswith(folder):
            return rule
    found = _TOP.fullmatch(plain)
    return _FILES[int(str(found.lastgroup)[1:])][1] if found else ""
