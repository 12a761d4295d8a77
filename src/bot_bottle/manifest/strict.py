"""What every model of a manifest is: strict, frozen, and without a key that it does not know."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Every key known, every type as written. None is a key that is not there."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
