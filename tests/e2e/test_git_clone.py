"""A workspace that the agent's git cloned through the gate, and `bot-bottle fetch`: its branches, as refs, and nothing else."""

import json
import os
import shutil
import stat
from pathlib import Path

import pytest

from support import gitleaks as real
from support.backends import on_every_backend
from support.bottles import write_bottle, write_script
from support.gitservers import git, make_upstream

pytestmark = on_every_backend


@pytest.fixture
def upstream(place):
    if not (found := real.program()):
        pytest.skip(real.missing())
    place.programs.mkdir(exist_ok=True)
    (place.programs / "gitleaks").symlink_to(found)
    return owned(place, make_upstream(place.root / "srv/project.git"))


def owned(place, folder):
    """The place's user's own: git enters no folder of another's."""
    for found in (folder, *folder.rglob("*")):
        os.chown(found, place.uid, place.uid)
    return folder


def write(place, upstream, script, **keys):
    remote = {"name": "origin", "url": str(upstream), "local": True, **keys}
    user = {"name": "Bot", "email": "bot@example.org"}
    write_bottle(place, workspace="clone", git={"user": user, "remotes": [remote]})
    write_script(place, "git", script)


def start(cli):
    done = cli("start", "git", "--headless", "--json", timeout=120)
    assert done.code == 0, (done.stdout, done.stderr)
    return json.loads(done.stdout)["id"]


def refs(repository):
    lines = git(repository, "for-each-ref", "--format=%(refname) %(objectname)", "refs/bottles").splitlines()
    return dict(line.split(" ") for line in lines)


def tree_of(repository: Path) -> dict[str, tuple[int, bytes]]:
    """Everything in the repository but objects and refs."""
    found = {}
    for folder, _, names in os.walk(repository):
        for name in names:
            path = Path(folder, name)
            below = str(path.relative_to(repository))
            if not below.startswith((".git/objects", ".git/refs/bottles")):
                found[below] = (stat.S_IMODE(path.lstat().st_mode), path.read_bytes())
    return found


def test_the_agent_works_in_a_clone_and_its_branches_are_fetched_as_refs(place, cli, repository, upstream):
    (repository / "mine").write_text("the person's\n")
    write(place, upstream, """
        ls; test ! -e mine || exit 9
        git checkout -q -b bot/fix && echo fixed > fix.txt && git add . && git commit -q -m Fix
        git push -q origin bot/fix
        git checkout -q -b other && echo more > more.txt && git add . && git commit -q -m More
    """)  # fmt: skip
    run = start(cli)
    before = tree_of(repository)
    done = cli("fetch", run, "--json")
    assert done.code == 0, done.stderr
    brought = {one["name"]: one["commit"] for one in json.loads(done.stdout)["branches"]}
    assert set(brought) == {"main", "bot/fix", "other"}
    assert brought["bot/fix"] == git(upstream, "rev-parse", "bot/fix")
    assert refs(repository) == {f"refs/bottles/{run}/{name}": commit for name, commit in brought.items()}
    assert git(repository, "show", f"refs/bottles/{run}/other:more.txt") == "more"
    assert tree_of(repository) == before
    assert cli("fetch", run).stdout.count("(as it was)") == 3


def test_what_makes_git_run_something_in_the_clone_runs_nothing_outside(place, cli, repository, upstream):
    """What was published against tools that run git in what an agent wrote: hooks, fsmonitor, filters, commondir, alternates."""
    mark = place.root / "ran"
    write(place, upstream, f"""
        git checkout -q -b bot/fix && echo fixed > fix.txt
        echo '* filter=evil diff=evil' > .gitattributes
        git add . && git commit -q -m Fix
        for each in core.fsmonitor core.hooksPath core.sshCommand core.pager core.editor diff.external \\
            uploadpack.packObjectsHook core.alternateRefsCommand filter.evil.clean filter.evil.smudge filter.evil.process \\
            diff.evil.textconv gpg.program credential.helper core.gitProxy; do git config $each 'touch {mark};'; done
        mkdir -p .git/hooks && for each in post-checkout reference-transaction post-index-change pre-auto-gc update; do
            printf '#!/bin/sh\\ntouch {mark}\\n' > .git/hooks/$each && chmod +x .git/hooks/$each; done
        echo /nonexistent > .git/objects/info/alternates; echo ../.. > .git/commondir
        ln -s /etc .git/refs/heads/outside; ln -s {place.home} .git/refs/heads/home; mkfifo .git/refs/heads/pipe
        printf 'ref: refs/heads/main\\n' > .git/refs/heads/symbolic
        echo "{'1' * 40} refs/heads/../../../hooks/x" >> .git/packed-refs
        echo "{'2' * 40} refs/heads/missing" >> .git/packed-refs
        true
    """)  # fmt: skip
    run = start(cli)
    before = tree_of(repository)
    done = cli("fetch", run, "--json")
    assert done.code == 0, done.stderr
    assert {one["name"] for one in json.loads(done.stdout)["branches"]} == {"main", "bot/fix"}
    assert not mark.exists()
    assert tree_of(repository) == before


ELSEWHERE = {
    "a worktree": """
        mv .git data && mkdir -p data/worktrees/mine && cp data/HEAD data/worktrees/mine/HEAD
        echo ../.. > data/worktrees/mine/commondir && echo "gitdir: $PWD/data/worktrees/mine" > .git
        settings=data/config
    """,
    "core.worktree and an included file": """
        printf '[core]\\n\\tworktree = /etc\\n[include]\\n\\tpath = ../settings\\n' >> .git/config
        settings=settings
    """,
    "a nested and a bare repository": """
        git init -q nested && git init -q --bare bare && git --git-dir=bare config core.worktree ..
        cp bare/config nested/.git/config; settings=bare/config
    """,
}
"""Where the repository of the clone says to be, and which file has the settings then."""


@pytest.mark.parametrize("what", ELSEWHERE)
def test_a_repository_that_says_to_be_elsewhere_runs_nothing_outside(place, cli, repository, upstream, what):
    mark = place.root / "ran"
    write(place, upstream, f"""
        git checkout -q -b bot/fix && echo fixed > fix.txt && git add . && git commit -q -m Fix
        {ELSEWHERE[what]}
        printf '[core]\\n\\tfsmonitor = touch {mark};\\n\\thooksPath = .\\n' >> $settings
        printf '#!/bin/sh\\ntouch {mark}\\n' > post-checkout && chmod +x post-checkout
        cp post-checkout reference-transaction
    """)  # fmt: skip
    run = start(cli)
    before = tree_of(repository)
    done = cli("fetch", run, "--json")
    assert not mark.exists()
    assert tree_of(repository) == before
    brought = {one["name"] for one in json.loads(done.stdout)["branches"]} if done.code == 0 else set()
    assert brought <= {"main", "bot/fix"}
    assert set(refs(repository)) == {f"refs/bottles/{run}/{name}" for name in brought}
    assert brought or done.stderr


def test_the_person_s_own_hooks_and_settings_have_no_say_in_a_fetch(place, cli, repository, upstream):
    mark = place.root / "ran"
    hook = repository / ".git/hooks/reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {mark}\n")
    hook.chmod(0o755)
    write(place, upstream, "git checkout -q -b bot/fix")
    run = start(cli)
    assert cli("fetch", run).code == 0
    assert not mark.exists()


def test_objects_that_are_not_as_git_wants_them_are_not_brought(place, cli, repository, upstream):
    """A submodule that runs a command, one whose path ends in a carriage return (CVE-2025-48384), a tree with `.git` in it."""
    write(place, upstream, r"""
        printf '[submodule "x"]\n\tpath = x\r\n\turl = -u/nowhere\n\tupdate = !true\n' > .gitmodules
        git add .gitmodules && git commit -q -m Submodule
        blob=$(echo hi | git hash-object -w --stdin)
        tree=$(printf "100644 .git\0$(echo $blob | sed 's/../\\x&/g')" | git hash-object -w -t tree --literally --stdin)
        git update-ref refs/heads/bad $(git commit-tree $tree -m bad)
    """)  # fmt: skip
    run = start(cli)
    done = cli("fetch", run)
    assert done.code != 0
    assert "not as git wants them" in done.stderr or "is broken" in done.stderr
    assert refs(repository) == {}


def test_an_object_store_that_leads_out_of_the_clone_shows_nothing_of_the_host(
    place, cli, repository, upstream
):
    secret = place.root / "secret"
    secret.mkdir()
    git(secret, "init", "-q")
    git(secret, "commit", "-q", "--allow-empty", "-m", "the person's own")
    commit = git(owned(place, secret), "rev-parse", "HEAD")
    write(place, upstream, f"""
        mv .git/objects .git/old && ln -s {secret}/.git/objects .git/objects
        echo {commit} > .git/refs/heads/stolen
    """)  # fmt: skip
    run = start(cli)
    done = cli("fetch", run, "--json")
    assert commit not in str(refs(repository))
    assert commit not in done.stdout


def test_what_can_t_be_cloned_ends_the_run_and_says_why(place, cli, repository, upstream):
    empty = place.root / "srv/empty"
    empty.mkdir()
    write(place, owned(place, empty), "echo never")
    done = cli("start", "git", "--headless", timeout=120)
    assert done.code != 0
    assert "never" not in done.stdout


def test_fetch_needs_a_clone_and_a_repository(place, cli, repository, upstream):
    write_bottle(place)
    write_script(place, "git", "true")
    copied = start(cli)
    done = cli("fetch", copied)
    assert done.code == 64
    assert "has no clone" in done.stderr
    write(place, upstream, "true")
    run = start(cli)
    shutil.rmtree(repository / ".git")
    assert "no git repository" in cli("fetch", run).stderr
    assert "bot-bottle fetch" in cli("diff", run).stderr


def test_a_clone_without_a_remote_is_refused_when_planning(place, cli, repository):
    write_bottle(place, workspace="clone")
    write_script(place, "git", "true")
    done = cli("start", "git", "--headless")
    assert done.code != 0
    assert "a clone needs a remote" in done.stderr
