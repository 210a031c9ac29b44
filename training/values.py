"""Values that live in files: frozen, complete, and within bounds that arithmetic bears."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

LARGEST = 1e12
"""No reward, feature, score or time is larger, so that squares and their sums are finite."""


class Record(BaseModel):
    """A value that is written as JSON and read back; unknown fields and NaN are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
NonNegative = Annotated[float, Field(ge=0, le=LARGEST)]
Positive = Annotated[float, Field(gt=0, le=LARGEST)]
Share = Annotated[float, Field(ge=0, le=1)]
Feature = Annotated[float, Field(ge=-1e30, le=1e30)]
"""What a probe found; features are scaled before they are squared."""
Count = Annotated[int, Field(ge=0, le=2**62)]
Index = Annotated[int, Field(ge=0, lt=2**31)]
