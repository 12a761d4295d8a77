"""What the page may ask, as typed bodies: strict, and bounded before anything is done with them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from bot_bottle.policy.approval import Terms

BODY_BYTES = 256 * 1024
MOST = 1024
"""Proposals in one decision."""

Id = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_.:-]+$")]
Text = Annotated[str, Field(max_length=32 * 1024)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class On(_Body):
    """Terms; `minutes` counts for scope `time`."""

    scope: Literal["once", "time", "bottle", "manifest"]
    minutes: Annotated[int, Field(ge=1, le=7 * 24 * 60)] = 30

    def terms(self) -> Terms:
        """As the desk takes them."""
        return Terms(self.scope, self.minutes * 60 if self.scope == "time" else 0)


class SignIn(_Body):
    """A link's key."""

    key: Annotated[str, Field(max_length=100)]


class Look(_Body):
    """Show these, on `on` (None: those offered first); `text` has the routes as the operator edited them."""

    ids: Annotated[list[Id], Field(min_length=1, max_length=MOST)]
    on: On | None = None
    text: Text | None = None


class Yes(_Body):
    """One approval: of what was shown with `digest`."""

    id: Id
    digest: Annotated[str, Field(min_length=1, max_length=100)]
    on: On
    text: Text | None = None


class Approve(_Body):
    """Decide all of these at once."""

    approvals: Annotated[list[Yes], Field(min_length=1, max_length=MOST)]


class Reject(_Body):
    """Refuse all of these."""

    ids: Annotated[list[Id], Field(min_length=1, max_length=MOST)]
    reason: Annotated[str, Field(max_length=500)] = ""
    may_ask_again: bool = False


class Withdraw(_Body):
    """End this grant."""

    id: Id


class Nothing(_Body):
    """An empty object."""
