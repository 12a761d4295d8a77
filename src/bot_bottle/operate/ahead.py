"""What a headless start begins before it has read anything, on another processor than its own.

What a bundle imports takes longer than everything between the command and the sandbox; begun first, it costs no time. So
this is imported before the rest of `operate/`, and imports next to nothing itself.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bot_bottle.launch.sidecar import Sidecar


def bundle() -> "Sidecar":
    """A bundle that waits for its plan; `discard` it whatever happens."""
    from bot_bottle.launch.sidecar import Sidecar

    return Sidecar()
