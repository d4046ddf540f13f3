"""Makes the training file of the votes, the file of the prompts held out, and the `dpo` job on them.

The job is made as if a client had posted it. What it came from stays with it: docs/ratings.md, "The loop".
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
from server.arena.preferences.pairs import PreferenceVotes
from server.arena.ratings.reading import Wanted, list_ratings
from server.files.check import MIN_EXAMPLES
from server.files.contents import IncomingFile
from server.files.rules import FINE_TUNE
from server.files.store import FileStore
from server.jobs.create.creator import JobCreator, RequestOrigin
from server.storage.database import Database
from server.storage.tables import JobRow
from server.wire.errors import BadRequest, NotFound

PAGE = 50
"""Votes that are in memory at once with all their texts: a text may have hundreds of kilobytes."""
KEPT_WITHOUT_A_JOB_S = 3600
"""When files expire whose job was never made, as the server was killed just then. The job's transaction keeps them."""

DEFAULT_SUFFIX = "votes"
"""A model's name without any says nothing of what it is."""


class CreateFromRatings(BaseModel):
    """The body of `POST /v1/ratings/fine_tuning_jobs`."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, Field(min_length=1, max_length=300)] = Field(
        description="What is trained: a tuned model (`ft:…`), an alias of one, or the base."
    )
    campaign: Annotated[str, Field(max_length=100)] | None = Field(None, description="Only this campaign's votes.")
    blind_only: bool = Field(True, description="Only votes whose rater had not seen the names.")
    holdout_fraction: float = Field(HOLDOUT_FRACTION, ge=0, lt=1, description="Share of the prompts to measure by.")
    suffix: str | None = Field(None, description=f"Part of the new model's name; by default `{DEFAULT_SUFFIX}`.")
    seed: int | None = None
    hyperparameters: dict[str, Any] | None = Field(None, description="n_epochs, batch_size, beta, …, as for a job.")
    tuneloop: dict[str, Any] | None = None

    def job(self, training_file: str, metadata: dict[str, str]) -> dict[str, Any]:
        """The body of `POST /v1/fine_tuning/jobs` that this comes to."""
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
class _Content:
    """What the votes come to."""

    train: bytes
    holdout: bytes
    origin: dict[str, Any]
    """`tuneloop.ratings` of the job, but for the id of the holdout's file."""


async def create_job(
    database: Database,
    files: FileStore,
    jobs: JobCreator,
    body: CreateFromRatings,
    origin: RequestOrigin,
    *,
    original_body: bytes,
) -> JobRow:
    """The job that this request makes, or has made already. original_body: the request's body, as it came.

    Raises:
        BadRequest: too few votes can train, or the job's settings break a rule.
        Conflict: its Idempotency-Key was used for another request.
    """
    repeated = await jobs.find_repeated(original_body, origin)
    if repeated is not None:
        return repeated
    content = await run_in_threadpool(_content, database, body)
    ids = await run_in_threadpool(_publish, database, files, content, origin.caller.key_id)
    ratings = content.origin | {"holdout_file": ids[1]}
    metadata = {"ratings_sha256": ratings["ratings_sha256"]} | ({"holdout_file": ids[1]} if ids[1] else {})
    job = json.dumps(body.job(str(ids[0]), metadata)).encode()
    try:
        row = await jobs.create(job, origin, original_body=original_body, ratings=ratings)
    except BaseException:
        await _forget(files, ids)
        raise
    if row.training_file != ids[0]:  # the same request had been sent twice, and the other was faster
        await _forget(files, ids)
    return row


def pages(database: Database, wanted: Wanted, *, among: Wanted | None = None) -> Iterator[list[dict[str, Any]]]:
    """All votes that are wanted, oldest first, `PAGE` at a time. among: see `list_ratings`. Blocks."""
    after, has_more = None, True
    while has_more:
        with database.session() as session:
            page, has_more = list_ratings(session, wanted, limit=PAGE, after=after, order="asc", among=among)
        after = page[-1]["id"] if page else None
        yield page


def preference_votes(database: Database, wanted: Wanted, *, blind_only: bool) -> PreferenceVotes:
    """The votes that are wanted and stand, by what they prefer. Blocks."""
    votes, standing = PreferenceVotes(blind_only), replace(wanted, current_only=True)
    for page in pages(database, standing, among=replace(standing, blind_only=blind_only)):
        votes.add(page)
    return votes


def _content(database: Database, body: CreateFromRatings) -> _Content:
    votes = preference_votes(database, Wanted(campaign=body.campaign), blind_only=body.blind_only)
    train, left_out = votes.lines("train", body.holdout_fraction)
    holdout, _ = votes.lines("holdout", body.holdout_fraction)
    if len(train) < MIN_EXAMPLES:
        raise _too_few(votes, len(train), len(holdout), left_out)
    training_file = "".join(train).encode()
    origin = {
        "votes": sum(votes.votes.values()),
        "raters": len(votes.raters),
        "pairs": len(train),
        "holdout_pairs": len(holdout),
        "left_out": dict(left_out),
        "campaign": body.campaign,
        "ratings_sha256": hashlib.sha256(training_file).hexdigest(),
    }
    return _Content(training_file, "".join(holdout).encode(), origin)


def _too_few(votes: PreferenceVotes, pairs: int, held_out: int, left_out: dict[str, int]) -> BadRequest:
    reasons = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in left_out.items() if count)
    return BadRequest(
        f"The {votes.seen} vote(s) make {pairs} training pair(s), and {MIN_EXAMPLES} are wanted. Pairs held out to "
        f"measure by: {held_out}. Votes left out: {reasons or 'none'}. Rate more prompts with a clear winner, or lower "
        "holdout_fraction.",
        code="too_few_pairs",
    )


def _publish(database: Database, files: FileStore, content: _Content, key_id: str | None) -> tuple[str, str | None]:
    """The ids of the training file and of the holdout's, None where nothing is held out. Both or none. Blocks."""
    name = f"ratings-{time.strftime('%Y-%m-%d', time.gmtime())}"
    with ExitStack() as stack:
        parts = [(name, content.train), (f"{name}-holdout", content.holdout)]
        written = [(name, stack.enter_context(_written(files, text))) for name, text in parts if text]
        with database.session() as session:
            rows = [
                files.publish(
                    session,
                    incoming,
                    filename=f"{name}.jsonl",
                    purpose=FINE_TUNE,
                    created_by=key_id,
                    expires_after_s=KEPT_WITHOUT_A_JOB_S,
                )
                for name, incoming in written
            ]
            for row in rows:
                row.status = "processed"  # we wrote its lines, and the job looks through them once more
    return rows[0].id, rows[1].id if len(rows) > 1 else None


def _written(files: FileStore, text: bytes) -> IncomingFile:
    incoming = files.contents.create_incoming()
    try:
        incoming.write(text)
        incoming.sync()
    except BaseException:
        incoming.__exit__()
        raise
    return incoming


async def _forget(files: FileStore, file_ids: Sequence[str | None]) -> None:
    for file_id in filter(None, file_ids):
        try:
            await files.delete(file_id)
        except NotFound:
            continue
