"""What a headless start begins before it has read anything, on another processor than its own.

What a bundle imports takes longer than everything between the command and the sandbox; begun first, it costs no time. So
this is imported before the rest of `operate/`, and imports only what keeper and bundle both need: what is there before the
fork is not imported twice.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bot_bottle.launch.sidecar import Sidecar


def bundle() -> "Sidecar":
    """A bundle that waits for its plan; `discard` it whatever happens."""
    import ctypes  # noqa: F401
    import signal  # noqa: F401

    from bot_bottle.bundle import model  # noqa: F401
    from bot_bottle.launch.sidecar import Sidecar

    return Sidecar()
