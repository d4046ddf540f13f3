"""Reports on a stored file: statistics and faults, its examples as the base sees them, and a cleaned copy.

This module decides which files and settings are allowed; paths come from a file's id or a base's name, never from a
client. The inspection itself is done by `training.inspection`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from server.files.contents import remove
from server.files.rules import FINE_TUNE
from server.files.store import FileStore, file_object, get_file
from server.inspection.processes import Inspections
from server.jobs.create import inputs
from server.jobs.create.configuration import SET_BY_SERVER
from server.storage.database import Database
from server.storage.tables import FileRow
from server.wire.errors import BadRequest
from serving import BaseModel as Base
from serving import Registry

NOT_CONFIGURABLE = SET_BY_SERVER.keys() - {"method", "seed"} | {"mix_file"}
"""Settings that a report can't be requested with."""
DEFAULT_FAULTS, MOST_FAULTS = 1000, 10_000
MOST_EXAMPLES = 50
"""Most examples on one page, as each is tokenized."""


class ReportQuestion(BaseModel):
    """The body of `POST /v1/files/{id}/report`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_model: str | None = Field(
        default=None,
        max_length=300,
        description="A model from `GET /v1/models`; lengths are then in its base model's tokens.",
    )
    config: dict[str, Any] = Field(
        default_factory=dict, description="Training settings to check against, named as in docs/training.md."
    )
    limit: int = Field(
        default=DEFAULT_FAULTS, ge=1, le=MOST_FAULTS, description="Maximum number of errors and of duplicates to list."
    )


class CleaningSettings(BaseModel):
    """What cleaning does, by the names of `tuneloop data prepare`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    normalize_unicode: bool = True
    normalize_whitespace: bool = True
    min_answer_words: int = Field(default=1, ge=0, le=2**31)
    min_answer_chars: int = Field(default=1, ge=0, le=2**31)
    min_chars: int = Field(default=0, ge=0, le=2**31)
    max_chars: int | None = Field(default=None, ge=0, le=2**31)
    exact_duplicates: bool = True
    near_duplicates: float | None = Field(
        default=0.8, description="Similarity from 0.3 to 1; null keeps near-duplicates."
    )
    languages: list[str] = Field(default_factory=list, max_length=100)
    personal_data: Literal["flag", "mask", "drop", "ignore"] = "flag"


class CleaningQuestion(BaseModel):
    """The body of `POST /v1/files/{id}/clean`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    settings: CleaningSettings = CleaningSettings()


@dataclass(frozen=True)
class FileReports:
    """Inspects stored files in child processes."""

    database: Database
    files: FileStore
    inspections: Inspections
    registry: Registry

    async def report(self, file_id: str, question: ReportQuestion) -> dict[str, Any]:
        """Return the `file.report`.

        Raises:
            APIError: the file, the base or a setting can't be used, or the inspection failed.
        """
        row = await self._get_training_file(file_id)
        base = self._find_base(question.base_model)
        _refuse_server_settings(question.config)
        found = await self._inspect(row, base, "report", config=question.config, limit=question.limit)
        return {
            "object": "file.report",
            "file_id": row.id,
            "base_model": base.name if base else None,
            "method": found["method"],
            "max_length": found["max_length"],
            **_convert_figures(found["figures"]),
            "faults_found": found["faults_found"],
            "faults": found["faults"],
        }

    async def examples(
        self, file_id: str, base_model: str | None, config: Mapping[str, Any], offset: int, limit: int
    ) -> dict[str, Any]:
        """Return a page of the file's examples, split into trained text and context.

        Raises:
            APIError: as `report`.
        """
        row = await self._get_training_file(file_id)
        base = self._find_base(base_model)
        found = await self._inspect(row, base, "examples", config=config, offset=offset, limit=limit)
        return {"object": "list", "base_model": base.name if base else None, "offset": offset, **found}

    async def clean(self, file_id: str, settings: CleaningSettings, key_id: str | None) -> dict[str, Any]:
        """Return the `file.cleaning`: a report, and the new file with the remaining rows.

        Raises:
            APIError: the file or a setting can't be used, or no row remains.
        """
        row = await self._get_training_file(file_id)
        with await run_in_threadpool(self.files.contents.create_incoming) as incoming:
            # Files in the incoming folder: if the server is killed, the next start removes them.
            kept, dropped, report = (
                incoming.path.with_name(f"{incoming.path.name}.{name}") for name in ("kept", "gone", "told")
            )
            try:
                paths = {"kept": str(kept), "dropped": str(dropped), "report": str(report)}
                found = await self._inspect(row, None, "clean", settings=settings.model_dump(), **paths)
                if not found["kept"]:
                    raise _nothing_kept_error(row, found)
                new = await run_in_threadpool(self._publish, kept, row, key_id)
            finally:
                unfinished = incoming.path.parent.glob(f".{incoming.path.name}.*")
                await run_in_threadpool(remove, [kept, dropped, report, *unfinished])
        self.files.wake()
        return {"object": "file.cleaning", "source_file_id": row.id, "report": found, "file": new}

    def _find_base(self, model: str | None) -> Base | None:
        """Return the base of `model`, a base or a tuned model; None if no model is given.

        Raises:
            BadRequest: the model doesn't exist, or its files aren't on this machine.
        """
        if model is None:
            return None
        try:
            return inputs.find_pool(self.registry, model, inputs.find_start_adapter(self.registry, model)).base
        except BadRequest as error:
            raise BadRequest(
                f"The model {model[:200]!r} doesn't exist, or its files aren't on this machine. GET /v1/models "
                "lists the models; leave out base_model for lengths in characters.",
                param="base_model",
                code="model_not_available",
            ) from error

    async def _get_training_file(self, file_id: str) -> FileRow:
        row = await self.database.run(lambda session: get_file(session, file_id))
        if row.purpose != FINE_TUNE:
            raise BadRequest(
                f"{row.id} has the purpose {row.purpose!r}, but only files with the purpose {FINE_TUNE!r} can be "
                "inspected. Upload it again with that purpose.",
                param="file_id",
                code="invalid_file_purpose",
            )
        return row

    async def _inspect(self, row: FileRow, base: Base | None, kind: str, **question: Any) -> Any:
        """Return the process's answer; its errors have names instead of paths."""
        path = self.files.path(row.id)
        folder = None if base is None else str(base.path)
        try:
            found = await self.inspections.inspect(kind, file=str(path), base_model=folder, **question)
        except BadRequest as error:
            await self.database.run(lambda session: get_file(session, row.id))  # deleted meanwhile: a 404
            text = error.message.replace(str(path), row.id)
            if base is not None:
                text = text.replace(str(base.path), base.name)
            raise BadRequest(text, param=_find_param(error.param, kind), code=error.code) from error
        return found

    def _publish(self, kept: Path, row: FileRow, key_id: str | None) -> dict[str, Any]:
        """Store the kept rows as a new file and return its object. Blocks."""
        stem = PurePosixPath(row.filename).stem[:200]
        with self.files.prepare(kept) as incoming, self.database.session() as session:
            new = self.files.publish(
                session, incoming, filename=f"{stem}.cleaned.jsonl", purpose=FINE_TUNE, created_by=key_id
            )
        return file_object(new)


def _find_param(name: str | None, kind: str) -> str | None:
    if name in (None, "base_model", "file"):
        return name
    return f"settings.{name}" if kind == "clean" else f"config.{name}"


def _convert_figures(figures: Mapping[str, Any] | None) -> dict[str, Any]:
    if figures is None:
        return {"examples": 0, "lengths": None, "tokens": None}
    # The report has [line, earlier line]; in the API each number has a name.
    duplicates = [{"line": line, "first_line": first} for line, first in figures["duplicates"]]
    return dict(figures) | {"duplicates": duplicates}


def _refuse_server_settings(config: Mapping[str, Any]) -> None:
    for name in config:
        if name in NOT_CONFIGURABLE:
            raise BadRequest(
                f"config.{name} isn't accepted here. "
                + ("Set base_model, beside config, instead." if name == "base_model" else "Leave it out."),
                param=f"config.{name}",
                code="invalid_value",
            )


def _nothing_kept_error(row: FileRow, found: Mapping[str, Any]) -> BadRequest:
    why = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in found["dropped"].items())
    return BadRequest(
        f"Cleaning drops all {found['read']} rows of {row.id} ({why}). Relax the settings, or fix the file.",
        param="settings",
        code="nothing_kept",
    )
