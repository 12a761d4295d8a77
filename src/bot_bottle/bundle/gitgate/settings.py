"""How git runs here: with no configuration but ours, no hook but ours, no helper, no transport and nobody to ask. Pure."""

from collections.abc import Iterable, Mapping

PLACE_MIRRORS, PLACE_PUSHES, PLACE_HELD, PLACE_HOOKS = "/mirrors", "/pushes", "/held", "/hooks"
"""Where things are inside the gate's places, for all of its processes."""
WHOLE_IN_MEMORY = "16m"
"""What is larger than this is streamed, and never made a delta."""

BASE: tuple[tuple[str, str], ...] = (
    ("safe.directory", "*"),
    ("safe.bareRepository", "all"),
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("core.askPass", "false"),
    ("core.sshCommand", "false"),
    ("core.gitProxy", "false"),
    ("core.pager", "cat"),
    ("core.editor", "false"),
    ("core.logAllRefUpdates", "false"),
    ("core.protectNTFS", "true"),
    ("core.protectHFS", "true"),
    ("core.bigFileThreshold", WHOLE_IN_MEMORY),
    ("core.alternateRefsCommand", "true"),
    ("credential.helper", ""),
    ("protocol.allow", "never"),
    ("protocol.version", "2"),
    ("submodule.recurse", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("push.recurseSubmodules", "no"),
    ("push.gpgSign", "false"),
    ("push.followTags", "false"),
    ("diff.external", ""),
    ("gc.auto", "0"),
    ("gc.autoDetach", "false"),
    ("maintenance.auto", "false"),
    ("pack.windowMemory", "64m"),
    ("pack.threads", "2"),
    ("transfer.bundleURI", "false"),
    ("fetch.bundleURI", ""),
    ("trace2.normalTarget", "0"),
    ("advice.pushFetchFirst", "false"),
)
SERVING: tuple[tuple[str, str], ...] = (
    ("http.uploadpack", "true"),
    ("http.getanyfile", "false"),
    ("uploadpack.allowFilter", "true"),
    ("uploadpack.advertiseBundleURIs", "false"),
    ("uploadarchive.allowUnreachable", "false"),
)


def receiving(most: int) -> tuple[tuple[str, str], ...]:
    """For `receive-pack`: everything that is pushed stays one pack in the quarantine, of `most` bytes."""
    return (
        ("http.receivepack", "true"),
        ("core.hooksPath", PLACE_HOOKS),
        ("core.fsync", "none"),
        ("receive.unpackLimit", "1"),
        ("receive.maxInputSize", str(most)),
        ("receive.autogc", "false"),
        ("receive.updateServerInfo", "false"),
        ("receive.advertisePushOptions", "false"),
        ("receive.advertiseAtomic", "true"),
        ("receive.denyCurrentBranch", "ignore"),
        ("receive.denyDeleteCurrent", "ignore"),
        ("receive.denyDeletes", "false"),
        ("receive.denyNonFastForwards", "false"),
    )


def environment(
    settings: Iterable[tuple[str, str]] = (), more: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Git's whole environment."""
    found = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/nonexistent",
        "LANG": "C",
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CEILING_DIRECTORIES": "/",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_COMMITTER_NAME": "bot-bottle",
        "GIT_COMMITTER_EMAIL": "bot-bottle@localhost",
        "GIT_AUTHOR_NAME": "bot-bottle",
        "GIT_AUTHOR_EMAIL": "bot-bottle@localhost",
        "GIT_ADVICE": "0",
    }
    given = (*BASE, *settings)
    found["GIT_CONFIG_COUNT"] = str(len(given))
    for number, (name, value) in enumerate(given):
        found[f"GIT_CONFIG_KEY_{number}"], found[f"GIT_CONFIG_VALUE_{number}"] = name, value
    return {**found, **(more or {})}


CONFIG = b"[core]\n\trepositoryformatversion = 0\n\tbare = true\n"
"""All that stands in a repository of ours."""
