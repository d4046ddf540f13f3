"""Bodies and queries of `/v1/…/ratings`: their fields and the range of each value."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from server.arena.comparisons.holdout import HOLDOUT_FRACTION, Part
from server.arena.ratings.reading import Order, RatingFilter
from serving import Registry

Dimension = Literal["instruction_following", "relevance", "fluency", "helpfulness"]
Score = Annotated[int, Field(ge=1, le=5, strict=True)]
Rater = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=128)]
Side = Literal["left", "right"]
_OF_EACH_SIDE: TypeAdapter[Any] = TypeAdapter(dict[Side, dict[Dimension, Score]])
_OF_THE_PREFERRED: TypeAdapter[Any] = TypeAdapter(dict[Dimension, Score])


def _storable(text: str | None) -> str | None:
    # PostgreSQL can't store U+0000, and no encoding can represent half a surrogate pair.
    if text is not None and ("\0" in text or any("\ud800" <= character <= "\udfff" for character in text)):
        raise ValueError("contains a NUL character or half a surrogate pair; send plain Unicode text")
    return text


class CreateRating(BaseModel):
    """The body of `POST /v1/comparisons/{id}/ratings`."""

    model_config = ConfigDict(extra="forbid")

    verdict: Literal["left", "right", "tie", "both_bad"]
    dimensions: dict[str, Any] = Field(
        default_factory=dict,
        description='1 (poor) to 5 (excellent) each: {"left": {"fluency": 4}, "right": {"fluency": 2}}, or '
        '{"fluency": 4} for the preferred answer (for both if none is preferred). '
        "Dimensions: instruction_following, relevance, fluency and helpfulness.",
    )
    unsafe: Literal["left", "right", "both"] | None = Field(None, description="Which answer is unsafe, if any.")
    comment: str | None = Field(None, max_length=4000)
    rater: Rater | None = Field(None, description="The rater. Default: the API key's id.")
    supersedes: str | None = Field(
        None, max_length=100, description="Id of this rater's earlier rating that this one replaces."
    )

    _storable = field_validator("comment", "rater", "supersedes")(_storable)

    @field_validator("dimensions")
    @classmethod
    def _check_dimensions(cls, given: dict[str, Any]) -> dict[str, Any]:
        by_side = bool(given) and given.keys() <= {"left", "right"}
        try:
            checked: dict[str, Any] = (_OF_EACH_SIDE if by_side else _OF_THE_PREFERRED).validate_python(given)
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            place = ".".join(map(str, fault["loc"])).removesuffix(".[key]")
            raise PydanticCustomError("invalid_value", "{told}", {"told": f"{place}: {fault['msg']}"}) from error
        return checked


class Withdraw(BaseModel):
    """The body of `POST /v1/ratings/{id}/withdraw`."""

    model_config = ConfigDict(extra="forbid")

    rater: Rater | None = Field(None, description="The rater. Default: the API key's id.")

    _storable = field_validator("rater")(_storable)


class Filters(BaseModel):
    """What a list or an export of ratings may be narrowed to."""

    campaign: str | None = Field(None, max_length=100)
    model: str | None = Field(None, max_length=300, description="One of the two compared models.")
    rater: str | None = Field(None, max_length=128)

    _storable = field_validator("campaign", "model", "rater")(_storable)

    def to_filter(self, registry: Registry, **more: Any) -> RatingFilter:
        """Return the filter for ratings; an alias is resolved to its current version."""
        model = None if self.model is None else registry.version_of(self.model)
        return RatingFilter(campaign=self.campaign, rater=self.rater, model=model, **more)


class ListQuery(Filters):
    """The query of `GET /v1/ratings`."""

    model_config = ConfigDict(extra="ignore")

    limit: int = Field(20, ge=1, le=100)
    after: str | None = Field(None, description="The last id of the previous page.")
    order: Order = "desc"
    blind_only: bool = Field(False, description="Only ratings made without seeing the models' names.")
    current_only: bool = Field(True, description="Leave out superseded and withdrawn ratings.")


class ExportQuery(Filters):
    """The query of `GET /v1/ratings/export`."""

    model_config = ConfigDict(extra="ignore")

    format: Literal["openai_dpo", "jsonl", "csv"] = "jsonl"
    blind_only: bool | None = Field(None, description="Default: true for openai_dpo, false for other formats.")
    part: Literal["all", "train", "holdout"] = "all"
    holdout_fraction: float = Field(HOLDOUT_FRACTION, ge=0, lt=1)

    @property
    def selected_part(self) -> Part | None:
        """The requested part; None for both."""
        return None if self.part == "all" else self.part
