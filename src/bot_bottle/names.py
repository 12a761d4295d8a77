"""Names of bottles, agents and runs: what is allowed, and how a run gets its own.

A *run* is one start of an agent; its id is `AGENT-xxxx` with four characters that are hard to confuse when read aloud.
"""

import os
import re

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_ALPHABET = "23456789abcdefghjkmnpqrstvwxyz23"
"""32 characters, so that a random byte picks one without favour; 2 and 3 stand for 0 and 1, which look like letters."""

RULE = "lower-case letters, digits and inner dashes, 40 characters at most"


def is_name(text: str) -> bool:
    """Whether `text` can name a bottle, an agent, a skill or a credential."""
    return _NAME.fullmatch(text) is not None


def new_run_id(agent: str) -> str:
    """A fresh id for one run of `agent`; about 800,000 possibilities, so the caller checks that it is free."""
    return agent + "-" + "".join(_ALPHABET[byte % 32] for byte in os.urandom(4))


def new_proposal_id() -> str:
    """A fresh id for a proposal; one of 10**12, so that none comes twice."""
    return "p" + "".join(_ALPHABET[byte % 32] for byte in os.urandom(8))


def is_proposal_id(text: str) -> bool:
    """Whether `text` can be a proposal's id."""
    return re.fullmatch("p[2-9a-z]{8}", text) is not None
