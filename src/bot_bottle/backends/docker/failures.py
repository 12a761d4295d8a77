"""What goes wrong with an engine, by kind: gone, too slow, full, busy; in the words of `errors.py`."""

from bot_bottle.errors import BotBottleError, HostError, NotFoundError

_FULL = ("no space left on device", "disk quota exceeded", "not enough space")


def kinds() -> tuple[type[Exception], ...]:
    """The exceptions that a call of the engine ends in, when it fails."""
    from docker.errors import DockerException
    from requests.exceptions import RequestException
    from urllib3.exceptions import HTTPError

    from bot_bottle.backends.docker.building import BuildFailed

    return DockerException, RequestException, HTTPError, OSError, BuildFailed


def said(error: BaseException) -> str:
    """The engine's own words."""
    return str(getattr(error, "explanation", None) or error)


def known(error: BaseException) -> bool:
    """Whether it is the engine that failed, and not what was asked of it."""
    return _kind(error) != ""


def _kind(error: BaseException) -> str:
    from docker.errors import APIError, ImageNotFound
    from requests.exceptions import ReadTimeout, RequestException
    from urllib3.exceptions import HTTPError, ReadTimeoutError

    words = said(error).lower()
    if any(one in words for one in _FULL):
        return "full"
    if isinstance(error, ImageNotFound):
        return "image"
    if isinstance(error, ReadTimeout | ReadTimeoutError | TimeoutError) or "read timed out" in words:
        return "slow"
    if isinstance(error, RequestException | HTTPError | OSError) and not isinstance(error, APIError):
        return "gone"
    return ""


def explain(error: BaseException, brief: str) -> BotBottleError:
    """`error` as one of ours; `brief` says what did not come to be."""
    details = said(error)[-2000:]
    kind = _kind(error)
    if kind == "full":
        return HostError(
            f"{brief}: the engine's disk is full", details=details,
            resolution="Make room where the engine keeps its data: docker system df tells what takes it.",
        )  # fmt: skip
    if kind == "image":
        return NotFoundError(
            f"{brief}: the image is gone",
            details=details,
            resolution="Start it again: it is built or fetched anew.",
        )
    if kind == "slow":
        return HostError(
            f"{brief}: the engine does not answer",
            details=details,
            resolution="See what keeps it: docker info, or its log.",
        )
    if kind == "gone":
        return HostError(
            f"{brief}: the engine went away",
            details=details,
            resolution="Start it, and try again: bot-bottle doctor.",
        )
    return HostError(brief, details=details)
