"""The table endpoint × request × answer. docs/openai-api.md shows it, and test_api_conformance calls each row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from tests.conftest import MAX_FILE_BYTES
from tests.integration.api_world import World, chats, jsonl

LONG_LINE = jsonl([{"prompt": "x" * 11_000_000, "completion": "y"}])


@dataclass(frozen=True)
class Row:
    """One call and what must come back."""

    endpoint: str
    """Method and path, as the docs write them."""
    request: str
    """What is sent, for a reader."""
    status: int
    answer: str
    """The SDK's type, or the error's `code`."""
    param: str | None
    """The error's `param`."""
    call: Callable[[World], Any]

    def __str__(self) -> str:
        return f"{self.endpoint}, {self.request}"

    def markdown(self) -> str:
        """The row in the docs."""
        param = "" if self.param is None else f"`{self.param}`"
        return f"| `{self.endpoint}` | {self.request} | {self.status} | `{self.answer}` | {param} |"


def ok(endpoint: str, request: str, answer: str, call: Callable[[World], Any]) -> Row:
    """A call that is answered with an object or a page of the SDK's type `answer`."""
    return Row(endpoint, request, 200, answer, None, call)


def supervised(**values: Any) -> dict[str, Any]:
    """The arguments of a job with these hyperparameters."""
    return {"method": {"type": "supervised", "supervised": {"hyperparameters": values}}}


def at(name: str, method: str = "supervised") -> str:
    """Where a hyperparameter stands in the body."""
    return f"method.{method}.hyperparameters.{name}"


FILES = [
    ok("POST /v1/files", "examples in JSONL", "FileObject", lambda w: w.upload()),
    ok("POST /v1/files", "another purpose", "FileObject", lambda w: w.upload(b"x", "a.png", "vision")),
    ok("POST /v1/files", "bytes without a name", "FileObject",
       lambda w: w.client.files.create(file=chats(12), purpose="fine-tune")),
    ok("POST /v1/files", "`expires_after` an hour", "FileObject", lambda w: w.client.files.create(
        file=chats(12), purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": 3600})),
    Row("POST /v1/files", "`expires_after` a second", 400, "invalid_value", "expires_after[seconds]",
        lambda w: w.client.files.create(
            file=chats(12), purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": 1})),
    Row("POST /v1/files", "no file", 400, "missing_required_parameter", "file",
        lambda w: w.form({}, purpose=(None, b"fine-tune"))),
    Row("POST /v1/files", "no purpose", 400, "missing_required_parameter", "purpose",
        lambda w: w.form({}, file=("a.jsonl", chats(12)))),
    Row("POST /v1/files", "purpose `evals`", 400, "invalid_value", "purpose", lambda w: w.upload(purpose="evals")),
    Row("POST /v1/files", "a name that ends in .csv", 400, "invalid_file_format", "file",
        lambda w: w.upload(name="examples.csv")),
    Row("POST /v1/files", "a line that isn't JSON", 400, "invalid_jsonl", None, lambda w: w.upload(b"{}\nhello\n")),
    Row("POST /v1/files", "an array in a line", 400, "invalid_jsonl", None, lambda w: w.upload(b"[1]\n")),
    Row("POST /v1/files", "text that is not UTF-8", 400, "invalid_jsonl", None,
        lambda w: w.upload('{"text": "é"}\n'.encode("latin-1"))),
    Row("POST /v1/files", "a line above 10 MB", 400, "invalid_jsonl", None, lambda w: w.upload(LONG_LINE)),
    Row("POST /v1/files", "an empty file", 400, "invalid_jsonl", None, lambda w: w.upload(b"")),
    Row("POST /v1/files", "a file over `max_file_bytes`", 413, "file_too_large", "file",
        lambda w: w.upload(b"\n" * (MAX_FILE_BYTES + 1))),
    ok("GET /v1/files", "", "SyncCursorPage[FileObject]", lambda w: w.client.files.list()),
    ok("GET /v1/files", "`purpose`, `limit`, `order`", "SyncCursorPage[FileObject]",
       lambda w: w.client.files.list(purpose="fine-tune", limit=1, order="asc")),
    Row("GET /v1/files", "`limit` 0", 400, "integer_below_min_value", "limit", lambda w: w.client.files.list(limit=0)),
    Row("GET /v1/files", "an invalid `order`", 400, "invalid_value", "order",
        lambda w: w.client.files.list(extra_query={"order": "sideways"})),
    Row("GET /v1/files", "`after` an unknown id", 400, "invalid_cursor", "after",
        lambda w: w.client.files.list(after="file-none")),
    ok("GET /v1/files/{file_id}", "", "FileObject", lambda w: w.client.files.retrieve(w.file)),
    Row("GET /v1/files/{file_id}", "an unknown id", 404, "file_not_found", "id",
        lambda w: w.client.files.retrieve("file-none")),
    ok("GET /v1/files/{file_id}/content", "", "HttpxBinaryResponseContent", lambda w: w.client.files.content(w.file)),
    Row("GET /v1/files/{file_id}/content", "an unknown id", 404, "file_not_found", "id",
        lambda w: w.client.files.content("file-none")),
    ok("DELETE /v1/files/{file_id}", "", "FileDeleted", lambda w: w.client.files.delete(w.upload().id)),
    Row("DELETE /v1/files/{file_id}", "an unknown id", 404, "file_not_found", "id",
        lambda w: w.client.files.delete("file-none")),
]  # fmt: skip

UPLOADS = [
    ok("POST /v1/uploads", "", "Upload", lambda w: w.pending()),
    Row("POST /v1/uploads", "`bytes` over `max_upload_bytes`", 400, "file_too_large", "bytes",
        lambda w: w.pending(10**12)),
    Row("POST /v1/uploads", "purpose `evals`", 400, "invalid_value", "purpose", lambda w: w.pending(purpose="evals")),
    Row("POST /v1/uploads", "a name that ends in .csv", 400, "invalid_file_format", "filename",
        lambda w: w.pending(filename="x.csv")),
    ok("POST /v1/uploads/{upload_id}/parts", "", "UploadPart", lambda w: w.part(w.pending().id)),
    Row("POST /v1/uploads/{upload_id}/parts", "an unknown upload", 404, "upload_not_found", "upload_id",
        lambda w: w.part("upload_none")),
    Row("POST /v1/uploads/{upload_id}/parts", "a cancelled upload", 409, "upload_not_pending", "upload_id",
        lambda w: w.part(w.cancelled().id)),
    Row("POST /v1/uploads/{upload_id}/parts", "far more bytes than announced", 400, "too_many_bytes", "data",
        lambda w: overfilled(w)),
    ok("POST /v1/uploads/{upload_id}/complete", "", "Upload", lambda w: w.complete(chats(12))),
    Row("POST /v1/uploads/{upload_id}/complete", "an unknown part", 400, "part_not_found", "part_ids[0]",
        lambda w: w.complete(part_ids=["part_none"])),
    Row("POST /v1/uploads/{upload_id}/complete", "fewer bytes than announced", 400, "wrong_number_of_bytes",
        "part_ids", lambda w: w.complete(size=99)),
    Row("POST /v1/uploads/{upload_id}/complete", "another `md5`", 400, "md5_mismatch", "md5",
        lambda w: w.complete(md5="0" * 32)),
    Row("POST /v1/uploads/{upload_id}/complete", "a line that isn't JSON", 400, "invalid_jsonl", None,
        lambda w: w.complete(b"hello\n")),
    Row("POST /v1/uploads/{upload_id}/complete", "a cancelled upload", 409, "upload_not_pending", "upload_id",
        lambda w: w.client.uploads.complete(w.cancelled().id, part_ids=["part_none"])),
    ok("POST /v1/uploads/{upload_id}/cancel", "", "Upload", lambda w: w.cancelled()),
    Row("POST /v1/uploads/{upload_id}/cancel", "an unknown upload", 404, "upload_not_found", "upload_id",
        lambda w: w.client.uploads.cancel("upload_none")),
]  # fmt: skip

CREATE = "POST /v1/fine_tuning/jobs"
JOBS = [
    ok(CREATE, "model and file", "FineTuningJob", lambda w: w.created()),
    ok(CREATE, "all hyperparameters", "FineTuningJob",
       lambda w: w.created(**supervised(n_epochs=2, batch_size=4, learning_rate_multiplier=0.5))),
    ok(CREATE, "`hyperparameters` in the older place", "FineTuningJob",
       lambda w: w.created(hyperparameters={"n_epochs": 2})),
    ok(CREATE, "`suffix`, `seed`, `metadata`", "FineTuningJob",
       lambda w: w.created(suffix="mine", seed=7, metadata={"team": "a"})),
    ok(CREATE, "method `dpo`", "FineTuningJob",
       lambda w: w.created(method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2}}})),
    ok(CREATE, "method `text`", "FineTuningJob", lambda w: w.created(method={"type": "text"})),
    ok(CREATE, "method `kto`", "FineTuningJob", lambda w: w.created(method={"type": "kto"})),
    ok(CREATE, "continue from a tuned model", "FineTuningJob", lambda w: w.created(model=w.job.fine_tuned_model)),
    ok(CREATE, "continue from a checkpoint", "FineTuningJob", lambda w: w.created(model=w.checkpoint)),
    ok(CREATE, "continue from an alias", "FineTuningJob", lambda w: w.created(model=w.alias)),
    ok(CREATE, "a file that is still being checked", "FineTuningJob",
       lambda w: w.created(training_file=w.upload(chats(100_000)).id)),
    ok(CREATE, "settings in `tuneloop`", "FineTuningJob", lambda w: w.created(extra_body={"tuneloop": {"r": 8}})),
    Row(CREATE, "no model", 400, "missing_required_parameter", "model",
        lambda w: w.client.post("/fine_tuning/jobs", cast_to=object, body={"training_file": w.file})),
    Row(CREATE, "no file", 400, "missing_required_parameter", "training_file",
        lambda w: w.client.post("/fine_tuning/jobs", cast_to=object, body={"model": w.model})),
    Row(CREATE, "an unknown model", 400, "model_not_available", "model", lambda w: w.create(model="gpt-none")),
    Row(CREATE, "an unknown file", 400, "file_not_found", "training_file", lambda w: w.create(training_file="file-x")),
    Row(CREATE, "an unknown validation file", 400, "file_not_found", "validation_file",
        lambda w: w.create(validation_file="file-x")),
    Row(CREATE, "a file for another purpose", 400, "invalid_file_purpose", "training_file",
        lambda w: w.create(training_file=w.picture)),
    Row(CREATE, "`suffix` of 65 characters", 400, "string_above_max_length", "suffix",
        lambda w: w.create(suffix="a" * 65)),
    Row(CREATE, "`suffix` with a slash", 400, "invalid_value", "suffix", lambda w: w.create(suffix="a/b")),
    Row(CREATE, "`seed` -1", 400, "integer_below_min_value", "seed", lambda w: w.create(seed=-1)),
    Row(CREATE, "`n_epochs` 0", 400, "integer_below_min_value", at("n_epochs"),
        lambda w: w.create(**supervised(n_epochs=0))),
    Row(CREATE, "`n_epochs` 51", 400, "integer_above_max_value", at("n_epochs"),
        lambda w: w.create(**supervised(n_epochs=51))),
    Row(CREATE, "`n_epochs` of text", 400, "invalid_type", at("n_epochs"),
        lambda w: w.create(**supervised(n_epochs="many"))),
    Row(CREATE, "`batch_size` 257", 400, "integer_above_max_value", at("batch_size"),
        lambda w: w.create(**supervised(batch_size=257))),
    Row(CREATE, "`learning_rate_multiplier` 0", 400, "decimal_below_min_value", at("learning_rate_multiplier"),
        lambda w: w.create(**supervised(learning_rate_multiplier=0))),
    Row(CREATE, "`beta` 3", 400, "decimal_above_max_value", at("beta", "dpo"),
        lambda w: w.create(method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 3}}})),
    Row(CREATE, "`beta` for `supervised`", 400, "unknown_parameter", at("beta"),
        lambda w: w.create(**supervised(beta=1))),
    Row(CREATE, "method `reinforcement`", 400, "unsupported_value", "method.type",
        lambda w: w.create(method={"type": "reinforcement"})),
    Row(CREATE, "17 pairs of metadata", 400, "object_above_max_properties", "metadata",
        lambda w: w.create(metadata={str(i): "x" for i in range(17)})),
    Row(CREATE, "an unknown parameter", 400, "unknown_parameter", "n_epoch",
        lambda w: w.create(extra_body={"n_epoch": 3})),
    Row(CREATE, "an unknown setting", 400, "invalid_value", "tuneloop.rank",
        lambda w: w.create(extra_body={"tuneloop": {"rank": 8}})),
    Row(CREATE, "a rank that can't be served", 400, "invalid_value", "tuneloop.r",
        lambda w: w.create(extra_body={"tuneloop": {"r": 512}})),
    Row(CREATE, "W&B without its key", 400, "integration_unavailable", "integrations",
        lambda w: w.create(integrations=[{"type": "wandb", "wandb": {"project": "p"}}])),
    ok("GET /v1/fine_tuning/jobs", "", "SyncCursorPage[FineTuningJob]", lambda w: w.client.fine_tuning.jobs.list()),
    ok("GET /v1/fine_tuning/jobs", "`metadata[team]`", "SyncCursorPage[FineTuningJob]",
       lambda w: w.client.fine_tuning.jobs.list(metadata={"team": "a"})),
    Row("GET /v1/fine_tuning/jobs", "`limit` 0", 400, "integer_below_min_value", "limit",
        lambda w: w.client.fine_tuning.jobs.list(limit=0)),
    Row("GET /v1/fine_tuning/jobs", "`after` an unknown id", 400, "invalid_cursor", "after",
        lambda w: w.client.fine_tuning.jobs.list(after="ftjob-none")),
]  # fmt: skip

NO_JOB = ("an unknown id", 404, "fine_tune_not_found", "fine_tune_id")
JOB = "/v1/fine_tuning/jobs/{job_id}"
ONE_JOB = [
    ok(f"GET {JOB}", "", "FineTuningJob", lambda w: w.client.fine_tuning.jobs.retrieve(w.job.id)),
    Row(f"GET {JOB}", *NO_JOB, lambda w: w.client.fine_tuning.jobs.retrieve("ftjob-none")),
    ok(f"GET {JOB}/events", "", "SyncCursorPage[FineTuningJobEvent]",
       lambda w: w.client.fine_tuning.jobs.list_events(w.job.id)),
    Row(f"GET {JOB}/events", *NO_JOB, lambda w: w.client.fine_tuning.jobs.list_events("ftjob-none")),
    ok(f"GET {JOB}/checkpoints", "", "SyncCursorPage[FineTuningJobCheckpoint]",
       lambda w: w.client.fine_tuning.jobs.checkpoints.list(w.job.id)),
    Row(f"GET {JOB}/checkpoints", *NO_JOB, lambda w: w.client.fine_tuning.jobs.checkpoints.list("ftjob-none")),
    ok(f"POST {JOB}/cancel", "", "FineTuningJob", lambda w: w.client.fine_tuning.jobs.cancel(w.create().id)),
    Row(f"POST {JOB}/cancel", "a job that has ended", 409, "fine_tuning_job_ended", "fine_tune_id",
        lambda w: w.client.fine_tuning.jobs.cancel(w.job.id)),
    Row(f"POST {JOB}/cancel", *NO_JOB, lambda w: w.client.fine_tuning.jobs.cancel("ftjob-none")),
    ok(f"POST {JOB}/pause", "", "FineTuningJob", lambda w: paused(w)),
    Row(f"POST {JOB}/pause", "a job that has ended", 409, "fine_tuning_job_ended", "fine_tune_id",
        lambda w: w.client.fine_tuning.jobs.pause(w.job.id)),
    Row(f"POST {JOB}/pause", *NO_JOB, lambda w: w.client.fine_tuning.jobs.pause("ftjob-none")),
    ok(f"POST {JOB}/resume", "", "FineTuningJob", lambda w: resumed(w)),
    Row(f"POST {JOB}/resume", "a job that has ended", 409, "fine_tuning_job_ended", "fine_tune_id",
        lambda w: w.client.fine_tuning.jobs.resume(w.job.id)),
    Row(f"POST {JOB}/resume", *NO_JOB, lambda w: w.client.fine_tuning.jobs.resume("ftjob-none")),
]  # fmt: skip

CHECKPOINT = "/v1/fine_tuning/checkpoints/{model}/permissions"
PERMISSIONS = [
    ok(f"POST {CHECKPOINT}", "", "SyncPage[PermissionCreateResponse]",
       lambda w: w.client.fine_tuning.checkpoints.permissions.create(w.checkpoint, project_ids=["lab"])),
    Row(f"POST {CHECKPOINT}", "an unknown checkpoint", 404, "checkpoint_not_found", "fine_tuned_model_checkpoint",
        lambda w: w.client.fine_tuning.checkpoints.permissions.create("ft:none", project_ids=["lab"])),
    ok(f"GET {CHECKPOINT}", "by `list`", "SyncConversationCursorPage[PermissionListResponse]",
       lambda w: w.client.fine_tuning.checkpoints.permissions.list(w.checkpoint)),
    ok(f"GET {CHECKPOINT}", "by `retrieve`", "PermissionRetrieveResponse",
       lambda w: w.client.fine_tuning.checkpoints.permissions.retrieve(w.checkpoint)),
    ok(f"DELETE {CHECKPOINT}/{{permission_id}}", "", "PermissionDeleteResponse",
       lambda w: w.client.fine_tuning.checkpoints.permissions.delete(
           w.permission(), fine_tuned_model_checkpoint=w.checkpoint)),
    Row(f"DELETE {CHECKPOINT}/{{permission_id}}", "an unknown id", 404, "permission_not_found", "permission_id",
        lambda w: w.client.fine_tuning.checkpoints.permissions.delete(
            "cp_none", fine_tuned_model_checkpoint=w.checkpoint)),
]  # fmt: skip

HOOK = "/v1/webhook_endpoints/{webhook_endpoint_id}"
NO_HOOK = ("an unknown id", 404, "webhook_endpoint_not_found", "webhook_endpoint_id")
WEBHOOKS = [
    ok("POST /v1/webhook_endpoints", "", "WebhookEndpointWithSecret", lambda w: w.webhook()),
    Row("POST /v1/webhook_endpoints", "an unknown event type", 400, "invalid_event_type", "event_types",
        lambda w: w.webhook(event_types=["batch.completed"])),
    Row("POST /v1/webhook_endpoints", "an invalid URL", 400, "invalid_url", "url",
        lambda w: w.webhook(url="ftp://example.com")),
    ok("GET /v1/webhook_endpoints", "", "SyncCursorPage[WebhookEndpoint]", lambda w: w.client.webhooks.list()),
    ok(f"GET {HOOK}", "", "WebhookEndpoint", lambda w: w.client.webhooks.retrieve(w.webhook().id)),
    Row(f"GET {HOOK}", *NO_HOOK, lambda w: w.client.webhooks.retrieve("we_none")),
    ok(f"POST {HOOK}", "", "WebhookEndpoint",
       lambda w: w.client.webhooks.update(w.webhook().id, name="new", url="https://example.com/new",
                                          event_types=["fine_tuning.job.succeeded"])),
    Row(f"POST {HOOK}", *NO_HOOK, lambda w: w.client.webhooks.update(
        "we_none", name="new", url="https://example.com/new", event_types=["fine_tuning.job.succeeded"])),
    ok(f"DELETE {HOOK}", "", "DeletedWebhookEndpoint", lambda w: w.client.webhooks.delete(w.webhook().id)),
    Row(f"DELETE {HOOK}", *NO_HOOK, lambda w: w.client.webhooks.delete("we_none")),
    ok(f"POST {HOOK}/rotate_secret", "", "WebhookEndpointWithSecret",
       lambda w: w.client.webhooks.rotate_secret(w.webhook().id)),
    Row(f"POST {HOOK}/rotate_secret", *NO_HOOK, lambda w: w.client.webhooks.rotate_secret("we_none")),
    ok(f"POST {HOOK}/test", "", "WebhookEndpointTestResult", lambda w: tried(w)),
    Row(f"POST {HOOK}/test", *NO_HOOK,
        lambda w: w.client.webhooks.test("we_none", event_type="fine_tuning.job.failed")),
    ok("GET /v1/webhook_event_types", "", "WebhookEventTypeList", lambda w: w.client.webhooks.event_types.list()),
]  # fmt: skip

MODELS = [
    ok("GET /v1/models", "", "SyncPage[Model]", lambda w: w.client.models.list()),
    ok("GET /v1/models/{model}", "", "Model", lambda w: w.client.models.retrieve(w.job.fine_tuned_model or "")),
    ok("GET /v1/models/{model}", "an alias", "Model", lambda w: w.client.models.retrieve(w.alias)),
    Row("GET /v1/models/{model}", "an unknown model", 404, "model_not_found", "model",
        lambda w: w.client.models.retrieve("ft:none")),
    Row("DELETE /v1/models/{model}", "an unknown model", 404, "model_not_found", "model",
        lambda w: w.client.models.delete("ft:none")),
    Row("DELETE /v1/models/{model}", "an alias", 400, "model_is_an_alias", "model",
        lambda w: w.client.models.delete(w.alias)),
    Row("DELETE /v1/models/{model}", "a model that an alias points to", 409, "model_in_use", "model",
        lambda w: w.client.models.delete(w.client.models.retrieve(w.alias).to_dict()["parent"])),
]  # fmt: skip


def overfilled(w: World) -> Any:
    """The last part of too many. The first ones may be more than announced: a lost answer has a part sent again."""
    upload = w.pending(1)
    part = b"x" * (33 * 2**20)
    w.part(upload.id, part)
    return w.part(upload.id, part)


def tried(w: World) -> Any:
    """The answer when an event is sent to an endpoint on this machine as a trial."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        Thread(target=receiver.serve_forever, daemon=True).start()
        hook = w.webhook(url=f"http://127.0.0.1:{receiver.server_port}/")
        answer = w.client.webhooks.test(hook.id, event_type="fine_tuning.job.failed")
        receiver.shutdown()
    return answer


class Receiver(BaseHTTPRequestHandler):
    """Takes every event."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def paused(w: World) -> Any:
    """A job as pausing it was answered; it is cancelled after that."""
    job = w.client.fine_tuning.jobs.pause(w.create().id)
    w.client.fine_tuning.jobs.cancel(job.id)
    return job


def resumed(w: World) -> Any:
    """A paused job as resuming it was answered; it is cancelled after that."""
    job = w.client.fine_tuning.jobs.resume(w.client.fine_tuning.jobs.pause(w.create().id).id)
    w.client.fine_tuning.jobs.cancel(job.id)
    return job


ROWS = [*FILES, *UPLOADS, *JOBS, *ONE_JOB, *PERMISSIONS, *WEBHOOKS, *MODELS]


def markdown() -> str:
    """The table as it stands in docs/openai-api.md."""
    head = ["| endpoint | request | status | SDK type, or `code` | `param` |", "|---|---|---|---|---|"]
    return "\n".join([*head, *(row.markdown() for row in ROWS)]) + "\n"
