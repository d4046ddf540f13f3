"""The body of `POST /v1/fine_tuning/jobs`: its fields and the range of each value.

https://platform.openai.com/docs/api-reference/fine-tuning/create
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from server.jobs.create.ranges import (
    integer_or_auto_validator,
    integer_validator,
    is_storable,
    number_or_auto_validator,
    text_validator,
    validate_metadata,
)
from server.wire.errors import BadRequest, fault_code

Method = Literal["supervised", "dpo", "text", "kto"]
METHODS: tuple[Method, ...] = ("supervised", "dpo", "text", "kto")
WITH_BETA = ("dpo", "kto")
MAX_MULTIPLIER = 1000.0
"""Largest learning rate multiplier: far more than any model can use, but it catches typing errors."""
MAX_INTEGRATIONS = 5


class _Strict(BaseModel):
    """A typo must not train for hours, so unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Hyperparameters(_Strict):
    """How long and how fast; `auto` is worked out from the examples."""

    batch_size: Annotated[int | Literal["auto"], BeforeValidator(integer_or_auto_validator(1, 256))] = Field(
        "auto", description="Examples per optimizer step, 1 to 256."
    )
    learning_rate_multiplier: Annotated[
        float | Literal["auto"], BeforeValidator(number_or_auto_validator(MAX_MULTIPLIER))
    ] = Field(
        "auto", description="Factor for the base learning rate, above 0. The job shows that rate as base_learning_rate."
    )
    n_epochs: Annotated[int | Literal["auto"], BeforeValidator(integer_or_auto_validator(1, 50))] = Field(
        "auto", description="Passes over the training file, 1 to 50."
    )


class PreferenceHyperparameters(Hyperparameters):
    """Those of `dpo` and `kto`."""

    beta: Annotated[float | Literal["auto"], BeforeValidator(number_or_auto_validator(2.0))] = Field(
        "auto", description="How close the model stays to the reference model, above 0 up to 2; higher is closer."
    )


class _Supervised(_Strict):
    hyperparameters: Hyperparameters | None = None


class _Preference(_Strict):
    hyperparameters: PreferenceHyperparameters | None = None


class MethodChoice(_Strict):
    """`supervised` and `dpo` as OpenAI has them; ours are `text` (plain text) and `kto` (good and bad answers)."""

    type: Method
    supervised: _Supervised | None = None
    dpo: _Preference | None = None
    text: _Supervised | None = None
    kto: _Preference | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported_type(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("type") == "reinforcement":
            raise PydanticCustomError(
                "unsupported_value",
                "reinforcement fine-tuning isn't available here; choose supervised, dpo, text or kto",
            )
        return value

    def hyperparameters(self) -> Hyperparameters | None:
        """Return those of the chosen method."""
        chosen: _Supervised | _Preference | None = getattr(self, self.type)
        return chosen.hyperparameters if chosen else None


class WandB(_Strict):
    """What is reported to Weights & Biases, and where."""

    project: Annotated[str, BeforeValidator(text_validator(128))]
    name: Annotated[str | None, BeforeValidator(text_validator(128, null=True))] = None
    entity: Annotated[str | None, BeforeValidator(text_validator(128, null=True))] = None
    tags: Annotated[list[Annotated[str, BeforeValidator(text_validator(64))]] | None, Field(max_length=50)] = None


class Integration(_Strict):
    """A service that a job reports to."""

    type: Literal["wandb"]
    wandb: WandB


class CreateJob(_Strict):
    """The body of `POST /v1/fine_tuning/jobs`."""

    model: Annotated[str, BeforeValidator(text_validator(300))] = Field(
        description="A base model, or a tuned model (`ft:…`) to continue training."
    )
    training_file: Annotated[str, BeforeValidator(text_validator(300))] = Field(description="Id of a file.")
    validation_file: Annotated[str | None, BeforeValidator(text_validator(300, null=True))] = None
    suffix: Annotated[str | None, BeforeValidator(text_validator(64, null=True))] = Field(
        None, description="Part of the tuned model's name: letters, digits, `.`, `_`, `-` and spaces."
    )
    seed: Annotated[int | None, BeforeValidator(integer_validator(0, 2**31 - 1, null=True))] = None
    method: MethodChoice | None = None
    hyperparameters: Hyperparameters | None = Field(None, description="Deprecated by OpenAI; use `method`.")
    integrations: Annotated[list[Integration] | None, Field(max_length=MAX_INTEGRATIONS)] = None
    metadata: Annotated[dict[str, str] | None, BeforeValidator(validate_metadata)] = None
    tuneloop: dict[str, Any] | None = Field(
        None, description="Trainer settings, named as in docs/training.md; with the SDK, send it in extra_body."
    )

    @property
    def method_type(self) -> Method:
        """The training method."""
        return self.method.type if self.method else "supervised"

    @property
    def hyperparameters_at(self) -> str:
        """Where in the body the hyperparameters are, or would be."""
        if self.hyperparameters is not None and not (self.method and self.method.hyperparameters()):
            return "hyperparameters"
        return f"method.{self.method_type}.hyperparameters"

    def merge_hyperparameters(self) -> dict[str, Any]:
        """Return the hyperparameters by OpenAI's names, each a number or `auto`."""
        model = PreferenceHyperparameters if self.method_type in WITH_BETA else Hyperparameters
        places = (self.hyperparameters, self.method.hyperparameters() if self.method else None)
        given = [place.model_dump(exclude_unset=True) for place in places if place]
        return model(**{name: value for values in given for name, value in values.items()}).model_dump()


def read_request(body: bytes) -> CreateJob:
    """Parse the body.

    Raises:
        BadRequest: it isn't JSON, or breaks rules; the message lists them all, `param` is the first one's.
    """
    try:
        content = json.loads(body, parse_constant=_refuse_constant)
        storable = is_storable(content)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"The request body is not valid JSON: {error}.", code="invalid_json") from error
    if not isinstance(content, dict):
        raise BadRequest('The request body must be a JSON object, like {"model": …}.', code="invalid_json")
    if not storable:
        raise BadRequest(
            "The request body contains a NUL character or half of a surrogate pair. Remove it.",
            code="invalid_json",
        )
    try:
        request = CreateJob.model_validate(content)
    except ValidationError as error:
        raise _build_refusal(error) from error
    _refuse_contradictions(request)
    return request


def _refuse_constant(constant: str) -> float:
    raise ValueError(f"{constant} isn't a JSON number")


def _build_refusal(error: ValidationError) -> BadRequest:
    """Return an error with a sentence for each fault, and the param and code of the first.

    A value of the wrong type is one fault, whatever is inside it.
    """
    faults = [(_locate(fault), fault_code(fault["type"]), fault) for fault in error.errors(include_url=False)]
    sentences = [f"{place}: {_describe(fault)}." for place, _, fault in faults]
    place, code, _ = faults[0]
    return BadRequest(" ".join(sentences)[:2000], param=place, code=code)


def _locate(fault: Any) -> str:
    path = ".".join(str(part) for part in fault["loc"])
    return f"{path}.type" if fault["type"] == "unsupported_value" else path


def _describe(fault: Any) -> str:
    if fault["type"] == "missing":
        return "this parameter is required"
    if fault["type"] == "extra_forbidden":
        return "there is no such parameter; check the spelling, or leave it out"
    if fault["type"] == "too_long":
        limits = fault["ctx"]
        return f"it has {limits['actual_length']} items, but at most {limits['max_length']} are allowed"
    if fault["type"] == "literal_error":
        return f"it is {str(fault['input'])[:100]!r}, but must be {fault['ctx']['expected']}"
    return str(fault["msg"]).removesuffix(".")


def _refuse_contradictions(request: CreateJob) -> None:
    """Raise BadRequest for fields that contradict each other."""
    method = request.method
    if method is None:
        return
    for other in METHODS:
        if other != method.type and getattr(method, other) is not None:
            raise BadRequest(
                f"method.type is {method.type!r}, so method.{other} has no effect. Leave it out, or change the type.",
                param=f"method.{other}",
                code="invalid_value",
            )
    new, old = method.hyperparameters(), request.hyperparameters
    if new is None or old is None:
        return
    for name, value in old.model_dump(exclude_unset=True).items():
        if name in new.model_fields_set and getattr(new, name) != value:
            raise BadRequest(
                f"hyperparameters.{name} is {value!r}, and method.{method.type}.hyperparameters.{name} is "
                f"{getattr(new, name)!r}. Set only one of them, preferably the one in method.",
                param=f"hyperparameters.{name}",
                code="invalid_value",
            )
