"""Fine-tune and chat with nothing but the official OpenAI SDK: the same script runs here and at OpenAI.

    tuneloop up                                              # in one terminal
    python docs/examples/fine_tune.py                        # in another
    python docs/examples/fine_tune.py --file mine.jsonl --suffix support --prompt "Where is my parcel?" --keep

Uploads the examples, starts a job, tells its events as they come, asks the new model, reads the result file, and
deletes what it made unless told to keep it. Exit code 1: the job did not succeed.
"""

from __future__ import annotations

import argparse
import base64
import csv
import io
import os
import sys
import time
from pathlib import Path
from typing import Literal

from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from openai.types.fine_tuning.job_create_params import Method

SHIPPED = Path(__file__).parents[2] / "training" / "demo"
ENDED = {"succeeded", "failed", "cancelled"}
POLL_S = 0.5
BAR = 30
"""Width of the progress bar, in characters."""


def main() -> None:
    """The whole story, told in order."""
    options = read_options()
    client = OpenAI(
        base_url=options.base_url,
        api_key=os.environ.get("OPENAI_API_KEY", "unused"),
        _strict_response_validation=options.strict,
    )
    training_file = upload(client, options.file)
    validation_file = upload(client, options.validation_file) if options.validation_file else None
    job = client.fine_tuning.jobs.create(
        model=options.model or next(iter(client.models.list())).id,  # tuneloop lists its base first
        training_file=training_file,
        validation_file=validation_file,
        suffix=options.suffix,
        seed=42,
        method=method(options.method, options.n_epochs),
    )
    print(f"Job {job.id} tunes {job.model}.")
    job = follow(client, job.id)
    if job.status != "succeeded" or job.fine_tuned_model is None:
        sys.exit(f"The job has {job.status}: {job.error.message if job.error else 'no error is told'}")
    tell_checkpoints(client, job)
    chat(client, job.fine_tuned_model, options.prompt)
    tell_results(client, job)
    if not options.keep:
        checkpoints = [one.fine_tuned_model_checkpoint for one in client.fine_tuning.jobs.checkpoints.list(job.id)]
        delete(client, [job.fine_tuned_model, *checkpoints], [training_file, validation_file, *job.result_files])


def read_options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    address = os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1")
    parser.add_argument("--base-url", default=address, help="where the API is (default: %(default)s)")
    parser.add_argument("--model", help="what to tune: a base or an ft: name (default: the first that is listed)")
    parser.add_argument("--file", type=Path, default=SHIPPED / "examples.jsonl", help="JSONL to learn from")
    parser.add_argument("--validation-file", type=Path, help="JSONL to measure on")
    parser.add_argument("--method", choices=["supervised", "dpo"], default="supervised")
    parser.add_argument("--n-epochs", type=lambda text: int(text) if text.isdigit() else text, default="auto")
    parser.add_argument("--suffix", default="keeper", help="part of the new model's name")
    parser.add_argument("--prompt", default="What is the capital of France?", help="asked of the new model")
    parser.add_argument("--keep", action="store_true", help="delete neither the files nor the model at the end")
    parser.add_argument("--strict", action="store_true", help="an answer that the SDK's types don't know is an error")
    return parser.parse_args()


def upload(client: OpenAI, path: Path) -> str:
    """The id of the file once it has been checked."""
    with path.open("rb") as content:
        file = client.files.create(file=content, purpose="fine-tune")
    file = client.files.wait_for_processing(file.id, poll_interval=POLL_S)
    print(f"Uploaded {path.name}: {file.id}, {file.bytes:,} bytes, {file.status}.")
    if file.status == "error":
        sys.exit(file.status_details or "The file can't be used.")
    return file.id


def method(name: str, n_epochs: int | Literal["auto"]) -> Method:
    """How to learn; what isn't named is `auto`."""
    if name == "dpo":
        return {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": n_epochs}}}
    return {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": n_epochs}}}


def follow(client: OpenAI, job_id: str) -> FineTuningJob:
    """The job once it has ended; tells its events until then."""
    seen: set[str] = set()
    while True:
        job = client.fine_tuning.jobs.retrieve(job_id)  # before the events: whatever led to its end is among them
        for event in new_events(client, job_id, seen):
            tell(event, job)
        if job.status in ENDED:
            return job
        time.sleep(POLL_S)


def new_events(client: OpenAI, job_id: str, seen: set[str]) -> list[FineTuningJobEvent]:
    """The events that are not in `seen`, oldest first; from then on they are. The API lists the newest first."""
    fresh: list[FineTuningJobEvent] = []
    for event in client.fine_tuning.jobs.list_events(job_id, limit=50):  # goes on page by page
        if event.id in seen:
            break
        fresh.append(event)
    seen.update(event.id for event in fresh)
    return fresh[::-1]


def tell(event: FineTuningJobEvent, job: FineTuningJob) -> None:
    """One line for an event; on a terminal, progress is drawn over and over in one line."""
    at = time.strftime("%H:%M:%S", time.localtime(event.created_at))
    if event.type != "metrics" or not sys.stdout.isatty():
        print(f"{at}  {event.message}", flush=True)
        return
    figures = event.data if isinstance(event.data, dict) else {}
    done = figures.get("step", 0) / (figures.get("total_steps") or 1)
    left = f", about {max(0, job.estimated_finish - int(time.time()))} s left" if job.estimated_finish else ""
    bar = "█" * round(BAR * done) + "░" * (BAR - round(BAR * done))
    print(f"\r\033[K{at}  {bar} {event.message}{left}", end="\n" if done >= 1 else "", flush=True)


def tell_checkpoints(client: OpenAI, job: FineTuningJob) -> None:
    """The models that were saved on the way; each answers under its name."""
    for checkpoint in client.fine_tuning.jobs.checkpoints.list(job.id):
        loss = checkpoint.metrics.full_valid_loss or checkpoint.metrics.train_loss
        print(f"Checkpoint at step {checkpoint.step_number}: {checkpoint.fine_tuned_model_checkpoint}, loss {loss}")


def chat(client: OpenAI, model: str, prompt: str) -> None:
    """The model's answer, as it comes."""
    print(f"\n> {prompt}\n{model}: ", end="")
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": prompt}], temperature=0, max_tokens=200, stream=True
    )
    for chunk in answer:
        print(chunk.choices[0].delta.content or "" if chunk.choices else "", end="", flush=True)
    print("\n")


def tell_results(client: OpenAI, job: FineTuningJob) -> None:
    """What the training came to: the first and the last step of the result file."""
    rows = [row for row in parse_results(client.files.content(job.result_files[0]).read()) if row["train_loss"]]
    print(f"Trained on {job.trained_tokens:,} tokens in {len(rows)} steps; ", end="")
    print(f"training loss {rows[0]['train_loss']} → {rows[-1]['train_loss']}")


def parse_results(content: bytes) -> list[dict[str, str]]:
    """A row for each step. tuneloop's file is plain CSV, OpenAI's is the same in base64."""
    plain = content if content.startswith(b"step,") else base64.b64decode(content)
    return list(csv.DictReader(io.StringIO(plain.decode())))


def delete(client: OpenAI, models: list[str], files: list[str | None]) -> None:
    """Takes away the models, the result first, and the files."""
    for model in models:
        client.models.delete(model)
    for file_id in filter(None, files):
        client.files.delete(file_id)
    print(f"Deleted {models[0]}, its checkpoints and its files.")


if __name__ == "__main__":
    main()
