"""What the calls of the conformance table need: a strict client, files in every state, and jobs to be asked about."""

from __future__ import annotations

import json
import time
from functools import cached_property
from typing import Any

import openai
from openai.types import FileObject, Upload
from openai.types.fine_tuning import FineTuningJob
from openai.types.uploads import UploadPart

from training.demo.examples import EXAMPLES

Chat = dict[str, list[dict[str, str]]]
ENDED = {"succeeded", "failed", "cancelled"}


def chats(n: int, answer: str = "yes") -> bytes:
    """`n` different examples in OpenAI's chat form."""
    turns = ([("user", f"Is {i} a number?"), ("assistant", answer)] for i in range(n))
    return jsonl([{"messages": [{"role": role, "content": text} for role, text in turn]} for turn in turns])


def jsonl(records: list[Any]) -> bytes:
    """One JSON text a line."""
    return "".join(f"{json.dumps(record)}\n" for record in records).encode()


class World:
    """Files and jobs on one server, each made when it is first asked for."""

    def __init__(self, client: openai.OpenAI, model: str) -> None:
        """model: the base that jobs tune."""
        self.client, self.model = client, model

    def upload(
        self, content: bytes = chats(12), name: str = "examples.jsonl", purpose: Any = "fine-tune"
    ) -> FileObject:
        """A new file, as the upload was answered."""
        return self.client.files.create(file=(name, content), purpose=purpose)

    def upload_checked(self, content: bytes) -> str:
        """The id of a new file that has been checked, whatever came of that."""
        return self.client.files.wait_for_processing(self.upload(content).id, poll_interval=0.1).id

    @cached_property
    def file(self) -> str:
        """The id of a file with twelve good examples."""
        return self.upload_checked(chats(12))

    @cached_property
    def picture(self) -> str:
        """The id of a file for another purpose."""
        return self.upload(b"\x89PNG", "picture.png", "vision").id

    @cached_property
    def job(self) -> FineTuningJob:
        """A job that has succeeded, with a checkpoint after its first step."""
        file = self.upload_checked(EXAMPLES.read_bytes())
        settings = {"max_steps": 2, "save_steps": 1}
        return self.ended(self.create(training_file=file, suffix="table", extra_body={"tuneloop": settings}))

    @cached_property
    def checkpoint(self) -> str:
        """The name of a checkpoint of `job`."""
        return self.client.fine_tuning.jobs.checkpoints.list(self.job.id).data[0].fine_tuned_model_checkpoint

    @cached_property
    def alias(self) -> str:
        """An alias of the model that `job` made."""
        self.client.put("/aliases/table", cast_to=object, body={"model": self.job.fine_tuned_model})
        return "table"

    def create(self, **changes: Any) -> FineTuningJob:
        """A new job on the twelve examples."""
        given = {"model": self.model} | ({} if "training_file" in changes else {"training_file": self.file}) | changes
        return self.client.fine_tuning.jobs.create(**given)

    def created(self, **changes: Any) -> FineTuningJob:
        """A new job as its creation was answered; it is cancelled after that, so that no one waits for it."""
        job = self.create(**changes)
        self.client.fine_tuning.jobs.cancel(job.id)
        return job

    def ended(self, job: FineTuningJob) -> FineTuningJob:
        """The job once it has ended."""
        while job.status not in ENDED:
            time.sleep(0.2)
            job = self.client.fine_tuning.jobs.retrieve(job.id)
        return job

    def pending(self, size: int = 12, **changes: Any) -> Upload:
        """A new upload in parts."""
        given: dict[str, Any] = {
            "bytes": size,
            "filename": "x.jsonl",
            "mime_type": "application/jsonl",
            "purpose": "fine-tune",
        }
        return self.client.uploads.create(**(given | changes))

    def cancelled(self) -> Upload:
        """An upload that has been cancelled."""
        return self.client.uploads.cancel(self.pending().id)

    def part(self, upload_id: str, content: bytes = b'{"text":"a"}') -> UploadPart:
        """A new part of an upload."""
        return self.client.uploads.parts.create(upload_id, data=content)

    def complete(self, content: bytes = b'{"text":"a"}', size: int | None = None, **changes: Any) -> Upload:
        """An upload of one part, completed."""
        upload = self.pending(len(content) if size is None else size)
        given = {"part_ids": [self.part(upload.id, content).id]} | changes
        return self.client.uploads.complete(upload.id, **given)

    def form(self, fields: dict[str, Any], **files: Any) -> FileObject:
        """What a form that the SDK would not send is answered with."""
        headers = {"Content-Type": "multipart/form-data"}
        sent = list(files.items())
        return self.client.post("/files", cast_to=FileObject, body=fields, files=sent, options={"headers": headers})

    def webhook(self, **changes: Any) -> Any:
        """A new webhook endpoint, as its creation was answered."""
        given = {"name": "table", "url": "https://example.com/hook", "event_types": ["fine_tuning.job.failed"]}
        return self.client.webhooks.create(**(given | changes))

    def permission(self) -> str:
        """The id of a new permission for `checkpoint`."""
        page = self.client.fine_tuning.checkpoints.permissions.create(self.checkpoint, project_ids=["other"])
        return next(item.id for item in page if item.project_id == "other")
