"""What was decided lately of requests: the same question about the same policy is not worked out again.

A decision depends on nothing but the policy and what stands in the question; of the headers those count that some rule looks at.
"""

from bot_bottle.policy.egress import Decision
from bot_bottle.policy.model import EgressPolicy
from bot_bottle.policy.rules import Headers, looked_at

_MOST = 128
_LONGEST = 1024
"""Decisions that are kept, and bytes of a question that may be kept with each."""
Question = tuple[object, ...]


class Decided:
    """Allowances only: what is refused is worked out each time."""

    def __init__(self) -> None:
        self._policy: EgressPolicy | None = None
        self._found: dict[Question, Decision] = {}
        self._looked_at: frozenset[bytes] = frozenset()

    def question(
        self,
        policy: EgressPolicy,
        *,
        host: str,
        port: int,
        protocol: str,
        method: bytes,
        target: bytes,
        headers: Headers,
    ) -> Question:
        """What `get` and `keep` take. From now on it is about `policy`."""
        if policy is not self._policy:
            self._found.clear()
            self._looked_at = looked_at(policy.routes)
            self._policy = policy
        names = self._looked_at
        counting = [field for field in headers if field[0] in names or b"_" in field[0]] if names else ()
        return host, port, protocol, method, target, *counting

    def get(self, question: Question) -> Decision | None:
        return self._found.get(question)

    def keep(self, question: Question, decision: Decision) -> None:
        if not decision.allowed or _size(question) > _LONGEST:
            return
        if len(self._found) >= _MOST:
            self._found.clear()
        self._found[question] = decision


def _size(question: Question) -> int:
    parts = (part if isinstance(part, tuple) else (part,) for part in question)
    return sum(len(item) for part in parts for item in part if isinstance(item, (str, bytes)))
