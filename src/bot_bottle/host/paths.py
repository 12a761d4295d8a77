"""Where things are kept on the host, by the XDG base directory rules; nothing here creates anything."""

import os


def _xdg(variable: str, default: str) -> str:
    value = os.environ.get(variable, "")
    return value if value.startswith("/") else os.path.join(home(), default)


def home() -> str:
    """The operator's home directory, absolute."""
    return os.path.expanduser("~")


def manifest_root() -> str:
    """`~/.bot-bottle`: bottles, agents, skills."""
    return os.path.join(home(), ".bot-bottle")


def state_root() -> str:
    """What must not be lost: the store, logs, saved changes."""
    return os.path.join(_xdg("XDG_STATE_HOME", ".local/state"), "bot-bottle")


def data_root() -> str:
    """What can be fetched again, but not at once: installed providers."""
    return os.path.join(_xdg("XDG_DATA_HOME", ".local/share"), "bot-bottle")


def cache_root() -> str:
    """What can be made again at once: checked manifests."""
    return os.path.join(_xdg("XDG_CACHE_HOME", ".cache"), "bot-bottle")


def runtime_root() -> str:
    """Sockets and locks of running bottles; below the state root when the session has no runtime directory."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    usable = (
        runtime.startswith("/") and os.access(runtime, os.W_OK) and os.stat(runtime).st_uid == os.geteuid()
    )
    return os.path.join(runtime, "bot-bottle") if usable else os.path.join(state_root(), "run")
