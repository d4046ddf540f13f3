"""Sampling parameters of a request, by OpenAI's names."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from server.wire.storable_json import find_storage_fault


class Sampling(BaseModel):
    """How answers are to be sampled; what isn't given is the engine's default."""

    model_config = ConfigDict(extra="forbid")

    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)

    @field_validator("stop")
    @classmethod
    def _refuse_unstorable(cls, stop: str | list[str] | None) -> str | list[str] | None:
        if fault := find_storage_fault(stop):
            raise PydanticCustomError("invalid_value", "It {fault}", {"fault": fault})
        return stop

    def sampling(self) -> dict[str, Any]:
        """Return the parameters that were given."""
        return self.model_dump(include=set(Sampling.model_fields), exclude_none=True)
