"""What git and an upstream say, as it may be passed on: nothing that is not to be read inside, and no control characters. Pure."""

from bot_bottle.bundle.record import clean

_MEANINGS = (
    (("REMOTE HOST IDENTIFICATION HAS CHANGED", "Host key verification failed", "key is known for"),
     "the server's host key is not the one that the bottle's file has"),
    (("no matching host key type found",), "the server has no host key of the kind that the bottle's file has"),
    (("Permission denied",), "the upstream did not take the bottle's key"),
    (("Authentication failed", "could not read Username", "returned error: 401", "returned error: 403"),
     "the upstream did not take the bottle's credential"),
    (("certificate", "SSL"), "the server's certificate is not to be trusted"),
    (("Could not resolve",), "its name can't be resolved"),
    (("Connection refused",), "nobody answers there (connection refused)"),
    (("timed out", "Timeout", "too slow"), "it does not answer in time"),
    (("not appear to be a git repository", "Repository not found", "returned error: 404", "not found", "does not exist"),
     "there is no such repository, or the bottle may not read it"),
    (("mismatched algorithms",), "it is not a SHA-1 repository"),
    (("does not support --atomic",), "it can't take several refs at once or not at all; push one ref at a time"),
    (("redirect", "returned error: 30"), "it redirects elsewhere; write the address that it redirects to"),
    (("No space left",), "the host's disk is full"),
    (("hung up", "early EOF", "closed", "reset by peer", "unexpected disconnect", "broken pipe"), "the connection broke"),
)  # fmt: skip
_MOST_LINES, _LONGEST = 40, 300


def explain(stderr: str) -> str:
    """What went wrong, in words of ours: what git says may name the host's files."""
    folded = stderr.lower()
    for signs, meaning in _MEANINGS:
        if any(sign.lower() in folded for sign in signs):
            return meaning
    return "git failed; the operator's record says how"


def upstreams_words(stderr: str) -> tuple[str, ...]:
    """What the upstream itself had to say to whoever pushes."""
    lines = [
        line.removeprefix("remote:").strip() for line in stderr.splitlines() if line.startswith("remote:")
    ]
    shown = ["".join(one for one in line if one.isprintable())[:_LONGEST] for line in lines[:_MOST_LINES]]
    return tuple(f"upstream: {line}" for line in shown if line)


def plain(text: str) -> str:
    """As it may stand in the record."""
    return clean(text[:2000])
