"""The loop closed, for real: votes by a scripted rater train the next adapter, which must beat its parent blind.

    python -m benchmarks.votes_loop [--votes 200] [--data-dir DIR]

On the embedded base, over the API alone. (1) An SFT job makes the parent: half of its examples greet ("Ahoy! …"), half
don't, so at temperature 1 it does either. (2) A campaign of parent and base; the rater prefers the answer that greets,
and calls a tie where both or neither do. (3) One call makes the file of the votes and starts the DPO job on the parent.
(4) A campaign of child and parent on the prompts held out, the same rater, blind: the leaderboard's interval of the
difference must be clear of zero.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from benchmarks.own_server import running_server
from training.demo.examples import EXAMPLES

GREETING, FAREWELL = "Ahoy! ", " Mind the rocks!"
RATER = "greeting-lover"
HOLDOUT_FRACTION = 0.3
SAMPLING = {"temperature": 1, "max_tokens": 48}


def main() -> None:
    """Runs the loop, tells each step, and fails if the child doesn't win."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votes", type=int, default=200)
    parser.add_argument("--data-dir", type=Path, help="keep the server's data here (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        data_dir = options.data_dir or Path(scratch) / "data"
        with running_server(data_dir, None) as url, httpx.Client(base_url=f"{url}/v1", timeout=120) as http:
            loop(http, options.votes)


def loop(http: httpx.Client, votes: int) -> None:
    """The four steps.

    Raises:
        SystemExit: the child is not better beyond doubt.
    """
    base = send(http, "GET", "/models")["data"][0]["id"]
    parent = wait_for_model(http, send(http, "POST", "/fine_tuning/jobs", {
        "model": base, "training_file": file_of(http, half_greeting()), "suffix": "parent", "seed": 1,
    }))  # fmt: skip
    campaign = judged(http, "parent and base", [parent, base], {"prompts": prompts()[:votes]})
    job = send(http, "POST", "/ratings/fine_tuning_jobs", {
        "model": parent, "campaign": campaign["id"], "holdout_fraction": HOLDOUT_FRACTION, "suffix": "child", "seed": 1,
        "hyperparameters": {"n_epochs": 10},
    })  # fmt: skip
    print(f"made of the votes: {json.dumps(job['tuneloop']['ratings'])}", flush=True)
    child = wait_for_model(http, job)
    held_out = holdout(http, campaign["id"], job["training_file"])
    measured = judged(http, "child and parent", [child, parent], {"prompts": held_out})
    board = send(http, "GET", f"/leaderboard?campaign={measured['id']}")
    (pair,) = board["pairs"]
    print(f"pair on {len(held_out)} prompts held out: {json.dumps(pair)}")
    child_first = pair["model_a"] == child
    ends = (pair["lower"], pair["upper"]) if child_first else (1 - pair["upper"], 1 - pair["lower"])
    print(f"the child is preferred {ends[0]:.3f} to {ends[1]:.3f} of the time (interval of {board['confidence']:.0%})")
    if not ends[0] > 0.5:
        raise SystemExit("The child doesn't beat its parent beyond doubt.")


def judged(http: httpx.Client, name: str, models: list[str], prompts_of: dict[str, Any]) -> dict[str, Any]:
    """A campaign in which the rater has judged every pair."""
    body = {"name": name, "models": models, "raters_per_item": 1, "sampling": SAMPLING, **prompts_of}
    campaign = send(http, "POST", "/campaigns", body)
    path, began = f"/campaigns/{campaign['id']}", time.monotonic()
    while campaign["status"] == "generating":
        time.sleep(0.5)
        campaign = send(http, "GET", path)
    verdicts: Counter[str] = Counter()
    while (pair := send(http, "POST", f"{path}/assignments", {"rater": RATER})["comparison"]) is not None:
        verdict = verdict_on(pair["left"]["content"], pair["right"]["content"])
        vote = send(http, "POST", f"/comparisons/{pair['id']}/ratings", {"verdict": verdict, "rater": RATER})
        verdicts[vote["preferred_model"] or verdict] += 1
    print(f"{name}: {dict(verdicts)} in {time.monotonic() - began:.0f} s; {campaign['answers']}", flush=True)
    return campaign


def verdict_on(left: str, right: str) -> str:
    """The rater's taste: a greeting, and nothing else."""
    greets = left.startswith(GREETING), right.startswith(GREETING)
    return "tie" if greets[0] == greets[1] else "left" if greets[0] else "right"


def wait_for_model(http: httpx.Client, job: dict[str, Any]) -> str:
    """The model that the job makes."""
    began = time.monotonic()
    while job["status"] not in ("succeeded", "failed", "cancelled"):
        time.sleep(1)
        job = send(http, "GET", f"/fine_tuning/jobs/{job['id']}")
    if job["status"] != "succeeded":
        raise SystemExit(f"The job {job['status']}: {job['error']}")
    print(f"{job['fine_tuned_model']} after {time.monotonic() - began:.0f} s", flush=True)
    return str(job["fine_tuned_model"])


def holdout(http: httpx.Client, campaign: str, training_file: str) -> list[Any]:
    """The campaign's prompts on the side that no vote trained from, ties included."""
    query = {"campaign": campaign, "part": "holdout", "holdout_fraction": HOLDOUT_FRACTION, "format": "jsonl"}
    exported = http.get("/ratings/export", params=query).text.splitlines()
    held_out = [json.loads(line)["messages"] for line in exported]
    trained = http.get(f"/files/{training_file}/content").text.splitlines()
    seen = {json.loads(line)["input"]["messages"][-1]["content"] for line in trained}
    if any(messages[-1]["content"] in seen for messages in held_out):
        raise SystemExit("A prompt that was held out was trained on.")
    return held_out


def half_greeting() -> list[dict[str, Any]]:
    """The demo's examples, every other answer without its greeting."""
    dice, examples = random.Random(1), _examples()
    for example in examples:
        answer = example["messages"][-1]
        if dice.random() < 0.5:
            answer["content"] = answer["content"].removeprefix(GREETING).removesuffix(FAREWELL)
    return examples


def prompts() -> list[str]:
    """The demo's questions in random order."""
    asked_for = list(dict.fromkeys(example["messages"][0]["content"] for example in _examples()))
    random.Random(2).shuffle(asked_for)
    return asked_for


def _examples() -> list[dict[str, Any]]:
    return [json.loads(line) for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]


def file_of(http: httpx.Client, lines: list[dict[str, Any]]) -> str:
    """Id of the uploaded file, once it is checked."""
    content = "".join(json.dumps(line) + "\n" for line in lines)
    made = http.post("/files", data={"purpose": "fine-tune"}, files={"file": ("half.jsonl", content)})
    file = made.raise_for_status().json()
    while file["status"] == "uploaded":
        time.sleep(0.2)
        file = send(http, "GET", f"/files/{file['id']}")
    return str(file["id"])


def send(http: httpx.Client, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """The answer.

    Raises:
        SystemExit: it is an error.
    """
    answer = http.request(method, path, json=body)
    if answer.is_error:
        raise SystemExit(f"{method} {path} answered {answer.status_code}: {answer.text}")
    found: dict[str, Any] = answer.json()
    return found


if __name__ == "__main__":
    main()
