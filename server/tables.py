"""The tables, in SQLAlchemy 2. Their history is in `migrations/`.

Times are Unix seconds (UTC), as on the wire. Ids carry their kind as a prefix as OpenAI's do: `file-`, `ftjob-`.
What is listed page by page has a `number`, which grows with each row: ids are random and times are shared.
"""

from __future__ import annotations

import re
import secrets
import time
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, MetaData, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}

BIG = BigInteger().with_variant(Integer, "sqlite")
"""64 bits; SQLite's INTEGER has them, and counts up by itself only under that name."""
_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
DEFAULT_PROJECT = "default"
"""Where keys, files and jobs belong that name no project, and all of a server without keys."""


def new_id(prefix: str) -> str:
    """A fresh random id (96 bits): `cmp_1f0c…`; a prefix that ends in a hyphen, such as `file-`, is taken as it is."""
    separator = "" if prefix.endswith("-") else "_"
    return f"{prefix}{separator}{secrets.token_hex(12)}"


def is_id(text: str) -> bool:
    """Whether `text` can be the id of a row; of anything else a database needn't be asked, which may choke on it."""
    return _ID.fullmatch(text) is not None


def now_s() -> int:
    """The time, in Unix seconds."""
    return int(time.time())


class Base(DeclarativeBase):
    """What all tables share."""

    metadata = MetaData(naming_convention=NAMING)
    _json = JSON(none_as_null=True)
    type_annotation_map = {dict[str, Any]: _json, list[Any]: _json}  # noqa: RUF012 (SQLAlchemy reads it as a class attribute)


class APIKeyRow(Base):
    """One API key. The key itself is shown once and never stored: `sha256` is its hash (keys have 256 random bits)."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    prefix: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[int]
    revoked_at: Mapped[int | None]
    project: Mapped[str] = mapped_column(default=DEFAULT_PROJECT)
    """Whose key it is: checkpoints answer to the project that made them, and to those that it lets in."""
    is_admin: Mapped[bool] = mapped_column(default=False)
    """Whether it may grant permissions and set up webhooks."""


class ComparisonRow(Base):
    """Two to four models' answers, as this server generated them."""

    __tablename__ = "comparisons"
    __table_args__ = (Index(None, "created_at", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[int]
    created_by: Mapped[str | None]
    blind: Mapped[bool]
    messages: Mapped[list[Any]]
    """What all of them were asked; empty where `histories` says what each was."""
    sampling: Mapped[dict[str, Any]]
    left: Mapped[dict[str, Any]]
    right: Mapped[dict[str, Any]]
    others: Mapped[dict[str, Any] | None]
    """`third` and `fourth` of a comparison of more than two; None for a pair."""
    histories: Mapped[list[Any] | None]
    """Each side's own messages, in the order of the sides, of conversations that went apart."""
    campaign_id: Mapped[str | None]
    assigned_to: Mapped[str | None]
    """The rater whom a campaign gave it to."""


class RatingRow(Base):
    """One rater's verdict on one comparison. Rows are added and never changed: a later one supersedes an earlier.

    Beside the vote stands what the statistics need of its comparison, so that they read narrow rows of one table.
    """

    __tablename__ = "ratings"
    __table_args__ = (
        UniqueConstraint("comparison_id", "rater", "supersedes"),
        Index(None, "created_at"),
        Index(None, "supersedes"),
        Index(None, "rater", "pair_sha"),
        Index(None, "campaign"),
    )

    number: Mapped[int] = mapped_column(BIG, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    comparison_id: Mapped[str] = mapped_column(ForeignKey("comparisons.id"))
    created_at: Mapped[int]
    rater: Mapped[str]
    cast_by: Mapped[str | None]
    """Id of the key or of the invitation that the vote came with, which alone may change it; None where nobody needed
    one."""
    verdict: Mapped[str]
    """`left`, `right`, `tie` or `both_bad`; `withdrawn` where the rater took back the vote that this one supersedes."""
    dimensions: Mapped[dict[str, Any]]
    unsafe: Mapped[str | None]
    comment: Mapped[str | None]
    supersedes: Mapped[str] = mapped_column(default="")
    """Id of the same rater's vote whose place it takes; empty for the first. Two can't take the same place."""
    names_seen: Mapped[bool] = mapped_column(default=False)
    """Whether the rater had been shown the models' names by then."""
    blind: Mapped[bool] = mapped_column(default=False)
    """Whether the comparison is blind."""
    campaign: Mapped[str | None]
    left_model: Mapped[str] = mapped_column(default="")
    right_model: Mapped[str] = mapped_column(default="")
    prompt_sha: Mapped[str] = mapped_column(default="")
    """Tells prompts apart; see `rating_facts.py`, as for the next three."""
    pair_sha: Mapped[str] = mapped_column(default="")
    fault: Mapped[str | None]
    style: Mapped[list[Any] | None]
    comparison: Mapped[ComparisonRow] = relationship(lazy="joined")


class FileRow(Base):
    """One file; its content lies in the data directory under its id. https://platform.openai.com/docs/api-reference/files"""

    __tablename__ = "files"

    number: Mapped[int] = mapped_column(BIG, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    filename: Mapped[str]
    purpose: Mapped[str] = mapped_column(index=True)
    bytes: Mapped[int] = mapped_column(BIG)
    sha256: Mapped[str]
    status: Mapped[str]
    """`uploaded`, `processed` or `error`; `deleted` for one that has expired or was deleted. Of that only its place in
    the lists is left, for whoever has read it on a page and asks for the next; `expires_at` is in the past."""
    status_details: Mapped[str | None]
    created_at: Mapped[int]
    expires_at: Mapped[int | None]
    created_by: Mapped[str | None]
    """Id of the key; None on a keyless server."""


class UploadRow(Base):
    """One upload in parts. https://platform.openai.com/docs/api-reference/uploads"""

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(primary_key=True)
    filename: Mapped[str]
    purpose: Mapped[str]
    bytes: Mapped[int] = mapped_column(BIG)
    mime_type: Mapped[str]
    status: Mapped[str]
    """`pending`, `completed`, `cancelled` or `expired`."""
    created_at: Mapped[int]
    expires_at: Mapped[int]
    file_expires_after_s: Mapped[int | None]
    file_id: Mapped[str | None]
    created_by: Mapped[str | None]


class UploadPartRow(Base):
    """One part of an upload; its bytes lie beside the files."""

    __tablename__ = "upload_parts"

    id: Mapped[str] = mapped_column(primary_key=True)
    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id"), index=True)
    bytes: Mapped[int] = mapped_column(BIG)
    created_at: Mapped[int]


class JobRow(Base):
    """One fine-tuning job. https://platform.openai.com/docs/api-reference/fine-tuning/object"""

    __tablename__ = "fine_tuning_jobs"
    __table_args__ = (UniqueConstraint("created_by", "idempotency_key"), Index(None, "status", "number"))

    number: Mapped[int] = mapped_column(BIG, primary_key=True)
    """The order of the queue, too: first come, first served."""
    id: Mapped[str] = mapped_column(unique=True)
    status: Mapped[str]
    """`validating_files`, `queued`, `running`, `paused`, `succeeded`, `failed` or `cancelled`."""
    pause_requested: Mapped[bool] = mapped_column(default=False)
    """Whether the running process has been, or is to be, told to make way."""
    created_at: Mapped[int]
    started_at: Mapped[int | None]
    """When its process was first started."""
    finished_at: Mapped[int | None]
    created_by: Mapped[str | None]
    project: Mapped[str]
    model: Mapped[str]
    """What is tuned: the base's name, or the tuned model it goes on from."""
    training_file: Mapped[str]
    validation_file: Mapped[str | None]
    suffix: Mapped[str]
    seed: Mapped[int]
    method: Mapped[str]
    """`supervised`, `dpo`, `text` or `kto`."""
    hyperparameters: Mapped[dict[str, Any]]
    """By OpenAI's names, as asked for; `auto` gives way to numbers once the run has worked them out."""
    base_learning_rate: Mapped[float]
    """What `learning_rate_multiplier` multiplies."""
    settings: Mapped[dict[str, Any]]
    """What came in `tuneloop`: names of `TrainingConfig`."""
    integrations: Mapped[list[Any] | None]
    metadata_: Mapped[dict[str, Any] | None] = mapped_column("metadata")
    wanted_model: Mapped[str]
    """The name that the tuned model will have."""
    adapter_id: Mapped[str]
    """The name of the folder that the run will make."""
    fine_tuned_model: Mapped[str | None]
    trained_tokens: Mapped[int | None] = mapped_column(BIG)
    result_files: Mapped[list[Any]]
    error: Mapped[dict[str, Any] | None]
    estimated_finish: Mapped[int | None]
    first_token_s: Mapped[float | None]
    """Seconds from the end of the training to the tuned model's first token."""
    attempts: Mapped[int] = mapped_column(default=0)
    """Times in a row that its process died without a word."""
    events_offset: Mapped[int] = mapped_column(BIG, default=0)
    """Bytes of the run's events.jsonl that are in the events table."""
    request_sha256: Mapped[str]
    """Of the body that created it, to know a repeated request by."""
    idempotency_key: Mapped[str | None]
    ratings: Mapped[dict[str, Any] | None]
    """The votes that its training file was made from; None for a file that was uploaded."""


class JobEventRow(Base):
    """One thing that a job told. https://platform.openai.com/docs/api-reference/fine-tuning/event-object"""

    __tablename__ = "fine_tuning_events"
    __table_args__ = (Index(None, "job_id", "number"),)

    number: Mapped[int] = mapped_column(BIG, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    job_id: Mapped[str]
    created_at: Mapped[int]
    level: Mapped[str]
    """`info`, `warn` or `error`."""
    type: Mapped[str]
    """`message` or `metrics`."""
    message: Mapped[str]
    data: Mapped[dict[str, Any] | None]


class JobCheckpointRow(Base):
    """One checkpoint that is served under a name of its own.

    https://platform.openai.com/docs/api-reference/fine-tuning/checkpoint-object
    """

    __tablename__ = "fine_tuning_checkpoints"
    __table_args__ = (UniqueConstraint("job_id", "step_number"),)

    number: Mapped[int] = mapped_column(BIG, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    job_id: Mapped[str]
    created_at: Mapped[int]
    step_number: Mapped[int]
    model: Mapped[str] = mapped_column(index=True)
    """`ft:…:ckpt-step-N`"""
    adapter_id: Mapped[str]
    metrics: Mapped[dict[str, Any]]


class CheckpointPermissionRow(Base):
    """One project that may use a checkpoint of another project's job.

    https://platform.openai.com/docs/api-reference/fine-tuning/list-permissions
    """

    __tablename__ = "checkpoint_permissions"
    __table_args__ = (UniqueConstraint("checkpoint", "project_id"),)

    number: Mapped[int] = mapped_column(BIG, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    checkpoint: Mapped[str]
    project_id: Mapped[str]
    created_at: Mapped[int]


class WebhookEndpointRow(Base):
    """Where events are sent to. https://platform.openai.com/docs/guides/webhooks

    The secrets sign what is sent, so they are kept as they are; no answer shows them again and no log has them.
    """

    __tablename__ = "webhook_endpoints"

    number: Mapped[int] = mapped_column(BIG, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    url: Mapped[str]
    event_types: Mapped[list[Any]]
    secret: Mapped[str]
    old_secret: Mapped[str | None]
    old_secret_until: Mapped[int | None]
    created_at: Mapped[int]
    updated_at: Mapped[int]


class WebhookDeliveryRow(Base):
    """One event on its way to one endpoint. It is written in the transaction of what it tells of."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (Index(None, "status", "next_attempt_at"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    endpoint_id: Mapped[str]
    event_id: Mapped[str]
    event_type: Mapped[str]
    payload: Mapped[str]
    """The JSON text, byte for byte what is signed and sent."""
    status: Mapped[str]
    """`pending`, `delivered` or `given_up`."""
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[int]
    created_at: Mapped[int]
    finished_at: Mapped[int | None]
    last_result: Mapped[str | None]
    """The last answer's status, or why there was none."""


class AliasRow(Base):
    """One alias, a free name for a model. It stays when the alias is deleted: the next of its name goes on in its
    history, and two who make it at once meet in this row."""

    __tablename__ = "aliases"

    name: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str | None]
    """What answers to the name: a version, or a base's or remote model's name. None where the alias is deleted."""
    trail: Mapped[list[Any]]
    """The way back: what it was promoted to, what it stands for now last. A rollback takes from the end."""
    created_at: Mapped[int]
    updated_at: Mapped[int]


class AliasChangeRow(Base):
    """One change of an alias. Rows are added and never changed."""

    __tablename__ = "alias_changes"
    __table_args__ = (Index(None, "alias", "number"),)

    number: Mapped[int] = mapped_column(BIG, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    alias: Mapped[str]
    action: Mapped[str]
    """`promote`, `rollback` or `delete`."""
    from_model: Mapped[str | None]
    to_model: Mapped[str | None]
    created_at: Mapped[int]
    created_by: Mapped[str | None]
    """Id of the key; None on a keyless server and from the command line."""


class CampaignRow(Base):
    """A fixed set of prompts, answered by a few models and judged pair by pair by several raters."""

    __tablename__ = "campaigns"

    number: Mapped[int] = mapped_column(BIG, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    status: Mapped[str] = mapped_column(index=True)
    """`generating`, `open`, `closed` or `failed`."""
    error: Mapped[dict[str, Any] | None]
    """What the answers wait for, or why there are none: OpenAI's `message`, `type`, `param` and `code`."""
    models: Mapped[list[Any]]
    """Versions; an alias means something else one day."""
    prompts: Mapped[int]
    raters_per_item: Mapped[int]
    sampling: Mapped[dict[str, Any]]
    dimensions: Mapped[bool]
    """Whether raters are asked for scores beside the verdict."""
    created_at: Mapped[int]
    closed_at: Mapped[int | None]
    created_by: Mapped[str | None]
    project: Mapped[str]
    """Whose rights count while the answers are generated."""


class CampaignPromptRow(Base):
    """One prompt of a campaign."""

    __tablename__ = "campaign_prompts"

    campaign_id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    """Counted from 0."""
    messages: Mapped[list[Any]]
    answered: Mapped[int] = mapped_column(default=0)
    """Models that are through with it. Its change makes those wait that end with the same prompt at once."""


class CampaignAnswerRow(Base):
    """One model's answer to one prompt: the list of what is to be generated, too."""

    __tablename__ = "campaign_answers"
    __table_args__ = (
        UniqueConstraint("campaign_id", "position", "model"),
        Index(None, "status", "number"),
        Index(None, "campaign_id", "status", "finished_at"),
    )

    number: Mapped[int] = mapped_column(BIG, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    campaign_id: Mapped[str]
    position: Mapped[int]
    model: Mapped[str]
    status: Mapped[str]
    """`pending`, `done` or `failed`."""
    attempts: Mapped[int] = mapped_column(default=0)
    """Failures so far of a kind that may pass."""
    answer: Mapped[dict[str, Any] | None]
    """As a comparison keeps a side."""
    error: Mapped[dict[str, Any] | None]
    finished_at: Mapped[int | None]


class CampaignItemRow(Base):
    """One prompt with two models' answers: what raters judge."""

    __tablename__ = "campaign_items"
    __table_args__ = (
        UniqueConstraint("campaign_id", "position", "model_a", "model_b"),
        Index(None, "campaign_id", "answers", "places_taken", "shuffle"),
    )

    number: Mapped[int] = mapped_column(BIG, primary_key=True)
    campaign_id: Mapped[str]
    position: Mapped[int]
    model_a: Mapped[str]
    model_b: Mapped[str]
    answers: Mapped[int] = mapped_column(default=0)
    """Answers that are there; with both it can be judged. Below zero once one of them failed: it is left out."""
    places_taken: Mapped[int] = mapped_column(default=0)
    """Raters who have judged it or have it before them."""
    shuffle: Mapped[int]
    """A random number; items come to raters in its order."""


class CampaignRaterRow(Base):
    """One rater in one campaign. Two requests of the same rater wait for each other at this row."""

    __tablename__ = "campaign_raters"

    campaign_id: Mapped[str] = mapped_column(primary_key=True)
    rater: Mapped[str] = mapped_column(primary_key=True)
    asked_at: Mapped[int]


class CampaignAssignmentRow(Base):
    """One item before one rater, as a comparison of its own."""

    __tablename__ = "campaign_assignments"
    __table_args__ = (
        UniqueConstraint("item", "rater"),
        Index(None, "campaign_id", "status", "assigned_at"),
        Index(None, "campaign_id", "rater", "status"),
    )

    comparison_id: Mapped[str] = mapped_column(primary_key=True)
    campaign_id: Mapped[str]
    item: Mapped[int] = mapped_column(BIG)
    rater: Mapped[str]
    status: Mapped[str]
    """`open`; `rated`; `lapsed` when it was left lying, so that its place is free; `withdrawn`, as its vote was."""
    assigned_at: Mapped[int]


class CampaignInvitationRow(Base):
    """One rater's way into one campaign. The token is shown once and never stored: `sha256` is its hash."""

    __tablename__ = "campaign_invitations"

    number: Mapped[int] = mapped_column(BIG, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    campaign_id: Mapped[str] = mapped_column(index=True)
    rater: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[int]
    expires_at: Mapped[int]
    revoked_at: Mapped[int | None]
    created_by: Mapped[str | None]
