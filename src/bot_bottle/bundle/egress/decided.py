"""What was decided lately: the same question about the same policy is not worked out again.

An answer depends on nothing but the policy and what stands in the question; of a request's headers those count that some rule
looks at.
"""

from collections.abc import Callable

from bot_bottle.policy.egress import Decision
from bot_bottle.policy.model import EgressPolicy
from bot_bottle.policy.rules import Headers, looked_at
from bot_bottle.typed import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import TypeVar

    Answer = TypeVar("Answer", Decision, bool)

_MOST = 256
_LONGEST = 1024
"""Answers that are kept, and bytes of a question that may be kept with each."""
Question = tuple[object, ...]


class Decided:
    """Of decisions the allowances only: what is refused is worked out each time."""

    def __init__(self) -> None:
        self._policy: EgressPolicy | None = None
        self._found: dict[Question, Any] = {}
        self._looked_at: frozenset[bytes] = frozenset()

    def recall(
        self, policy: EgressPolicy, question: Question, work: "Callable[[EgressPolicy], Answer]"
    ) -> "Answer":
        """What `work` says of `policy`, which depends on `question` alone. Raises what it raises."""
        self._are_about(policy)
        found: Answer | None = self._found.get(question)
        if found is None:
            found = work(policy)
            if (isinstance(found, bool) or found.allowed) and _size(question) <= _LONGEST:
                if len(self._found) >= _MOST:
                    self._found.clear()
                self._found[question] = found
        return found

    def counting(self, policy: EgressPolicy, headers: Headers) -> Headers:
        """Those of `headers` that count, and perhaps others."""
        self._are_about(policy)
        names = self._looked_at
        return [field for field in headers if field[0] in names or b"_" in field[0]] if names else ()

    def _are_about(self, policy: EgressPolicy) -> None:
        if policy is not self._policy:
            self._found.clear()
            self._looked_at = looked_at(policy.routes)
            self._policy = policy


def _size(question: Question) -> int:
    parts = (part if isinstance(part, tuple) else (part,) for part in question)
    return sum(len(item) for part in parts for item in part if isinstance(item, (str, bytes)))
