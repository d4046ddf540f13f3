"""Creates a training file and a holdout file from ratings, and the `dpo` job on them.

The job is created as if a client had posted it. It keeps a record of its origin: docs/ratings.md, "The loop".
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from server.arena.comparisons.holdout import HOLDOUT_FRACTION
from server.arena.preferences.pairs import PreferencePairs
from server.arena.ratings.reading import RatingFilter, list_ratings
from server.files.contents import IncomingFile
from server.files.rules import FINE_TUNE
from server.files.store import FileStore
from server.jobs.create.creator import JobCreator, RequestOrigin
from server.storage.database import Database
from server.storage.tables import JobRow
from server.wire.errors import BadRequest, NotFound
from training.data.check import MIN_EXAMPLES

PAGE = 50
"""Ratings in memory at once with all their texts, which may have hundreds of kilobytes each."""
KEPT_WITHOUT_JOB_S = 3600
"""Expiry of files whose job was never created because the server was killed. The job's transaction removes it."""

DEFAULT_SUFFIX = "votes"
"""Without a suffix, the model's name would say nothing about its origin."""


class CreateFromRatings(BaseModel):
    """The body of `POST /v1/ratings/fine_tuning_jobs`."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, Field(min_length=1, max_length=300)] = Field(
        description="The model to train: a tuned model (`ft:…`), an alias of one, or a base model."
    )
    campaign: Annotated[str, Field(max_length=100)] | None = Field(None, description="Only this campaign's ratings.")
    blind_only: bool = Field(True, description="Only ratings made without seeing the models' names.")
    holdout_fraction: float = Field(
        HOLDOUT_FRACTION, ge=0, lt=1, description="Fraction of the prompts to hold out for evaluation."
    )
    suffix: str | None = Field(None, description=f"Part of the new model's name. Default: `{DEFAULT_SUFFIX}`.")
    seed: int | None = None
    hyperparameters: dict[str, Any] | None = Field(
        None, description="n_epochs, batch_size, beta and so on, as for a job."
    )
    tuneloop: dict[str, Any] | None = None

    def build_job(self, training_file: str, metadata: dict[str, str]) -> dict[str, Any]:
        """Return the corresponding body of `POST /v1/fine_tuning/jobs`."""
        method: dict[str, Any] = {"type": "dpo"}
        if self.hyperparameters is not None:
            method["dpo"] = {"hyperparameters": self.hyperparameters}
        given = self.model_dump(include={"model", "suffix", "seed", "tuneloop"}, exclude_none=True)
        return (
            {"suffix": DEFAULT_SUFFIX}
            | given
            | {"training_file": training_file, "method": method, "metadata": metadata}
        )


@dataclass(frozen=True)
class _TrainingData:
    """The content of the files, and its origin."""

    train: bytes
    holdout: bytes
    origin: dict[str, Any]
    """`tuneloop.ratings` of the job, without the id of the holdout file."""


async def create_job(
    database: Database,
    files: FileStore,
    jobs: JobCreator,
    body: CreateFromRatings,
    origin: RequestOrigin,
    *,
    original_body: bytes,
) -> JobRow:
    """Return the job that this request creates, or has already created. original_body: as the client sent it.

    Raises:
        BadRequest: there are too few usable ratings, or the job's settings break a rule.
        Conflict: its Idempotency-Key was used for another request.
    """
    repeated = await jobs.find_repeated(original_body, origin)
    if repeated is not None:
        return repeated
    content = await run_in_threadpool(_build_training_data, database, body)
    ids = await run_in_threadpool(_publish, database, files, content, origin.caller.key_id)
    ratings = content.origin | {"holdout_file": ids[1]}
    metadata = {"ratings_sha256": ratings["ratings_sha256"]} | ({"holdout_file": ids[1]} if ids[1] else {})
    job = json.dumps(body.build_job(str(ids[0]), metadata)).encode()
    try:
        row = await jobs.create(job, origin, original_body=original_body, ratings=ratings)
    except BaseException:
        await _delete_files(files, ids)
        raise
    if row.training_file != ids[0]:  # the request was sent twice, and the other one was faster
        await _delete_files(files, ids)
    return row


def iterate_pages(
    database: Database, rating_filter: RatingFilter, *, among: RatingFilter | None = None
) -> Iterator[list[dict[str, Any]]]:
    """Yield all ratings that match, oldest first, `PAGE` at a time. among: see `list_ratings`. Blocks."""
    after, has_more = None, True
    while has_more:
        with database.session() as session:
            page, has_more = list_ratings(session, rating_filter, limit=PAGE, after=after, order="asc", among=among)
        after = page[-1]["id"] if page else None
        yield page


def read_preference_pairs(database: Database, rating_filter: RatingFilter, *, blind_only: bool) -> PreferencePairs:
    """Return the preference pairs of the current ratings that match. Blocks."""
    pairs, current = PreferencePairs(blind_only), replace(rating_filter, current_only=True)
    for page in iterate_pages(database, current, among=replace(current, blind_only=blind_only)):
        pairs.add(page)
    return pairs


def _build_training_data(database: Database, body: CreateFromRatings) -> _TrainingData:
    pairs = read_preference_pairs(database, RatingFilter(campaign=body.campaign), blind_only=body.blind_only)
    train, left_out = pairs.lines("train", body.holdout_fraction)
    holdout, _ = pairs.lines("holdout", body.holdout_fraction)
    if len(train) < MIN_EXAMPLES:
        raise _too_few_pairs_error(pairs, len(train), len(holdout), left_out)
    training_file = "".join(train).encode()
    origin = {
        "votes": sum(pairs.votes.values()),
        "raters": len(pairs.raters),
        "pairs": len(train),
        "holdout_pairs": len(holdout),
        "left_out": dict(left_out),
        "campaign": body.campaign,
        "ratings_sha256": hashlib.sha256(training_file).hexdigest(),
    }
    return _TrainingData(training_file, "".join(holdout).encode(), origin)


def _too_few_pairs_error(ratings: PreferencePairs, pairs: int, held_out: int, left_out: dict[str, int]) -> BadRequest:
    reasons = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in left_out.items() if count)
    return BadRequest(
        f"The {ratings.seen} rating(s) give {pairs} training pair(s), but {MIN_EXAMPLES} are required. Pairs held "
        f"out for evaluation: {held_out}. Ratings left out: {reasons or 'none'}. Rate more prompts with a clear "
        "winner, or lower holdout_fraction.",
        code="too_few_pairs",
    )


def _publish(
    database: Database, files: FileStore, content: _TrainingData, key_id: str | None
) -> tuple[str, str | None]:
    """Store both files or none; return their ids, None for the holdout file if nothing is held out. Blocks."""
    name = f"ratings-{time.strftime('%Y-%m-%d', time.gmtime())}"
    with ExitStack() as stack:
        parts = [(name, content.train), (f"{name}-holdout", content.holdout)]
        written = [(name, stack.enter_context(_write_incoming(files, text))) for name, text in parts if text]
        with database.session() as session:
            rows = [
                files.publish(
                    session,
                    incoming,
                    filename=f"{name}.jsonl",
                    purpose=FINE_TUNE,
                    created_by=key_id,
                    expires_after_s=KEPT_WITHOUT_JOB_S,
                )
                for name, incoming in written
            ]
            for row in rows:
                row.status = "processed"  # its lines are our own, and the job checks them again
    return rows[0].id, rows[1].id if len(rows) > 1 else None


def _write_incoming(files: FileStore, text: bytes) -> IncomingFile:
    incoming = files.contents.create_incoming()
    try:
        incoming.write(text)
        incoming.sync()
    except BaseException:
        incoming.__exit__()
        raise
    return incoming


async def _delete_files(files: FileStore, file_ids: Sequence[str | None]) -> None:
    for file_id in filter(None, file_ids):
        try:
            await files.delete(file_id)
        except NotFound:
            continue
