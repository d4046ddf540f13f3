"""How much slower live chat is while fine-tuning jobs run beside it, on one machine and one server.

    python -m benchmarks.chat_beside_training [--model DIR] [--jobs 2] [--seconds 15] [--epochs 12]

Measures chat alone, beside the jobs, and alone again, at 1 and at 4 streams; prints tokens per second, the median time
to the first token, and the ratios beside ÷ alone. Only the ratios are of use: the rest depends on the machine. Ends
with exit code 1 when a job doesn't succeed, or ended before chat was measured.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import tempfile
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import openai
from openai.types.chat import ChatCompletionMessageParam

from benchmarks.own_server import running_server

EXAMPLES = Path("training/demo/examples.jsonl")
STREAMS = (1, 4)
MAX_TOKENS = 128
ENDED = {"succeeded", "failed", "cancelled"}


@dataclass(frozen=True)
class Speed:
    """Chat as its users see it."""

    tokens_per_s: float
    """All streams together."""
    first_token_s: float
    """Median, from the request to the first piece of text."""


Speeds = dict[int, Speed]
"""By number of streams."""


def main() -> None:
    """Runs the three measurements and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="base model (default: the embedded one)")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=15, help="length of each of the six measurements")
    parser.add_argument("--epochs", type=int, default=12, help="passes of each job over the examples, at most 50")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, own_server(Path(scratch), options) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="unused")
        base = next(iter(client.models.list())).id
        asyncio.run(measure(url, base, 1, 3))  # the engine's first requests are slow
        before = measure_all(url, base, options.seconds)
        jobs = start_jobs(client, base, options)
        beside = measure_all(url, base, options.seconds)
        still_running = [client.fine_tuning.jobs.retrieve(job).status for job in jobs]
        ended = wait_for_end(client, jobs)
        after = measure_all(url, base, options.seconds)
    tell(before, beside, after)
    print(f"jobs when the measurement beside them ended: {', '.join(still_running)}; at the end: {', '.join(ended)}")
    if set(ended) != {"succeeded"} or set(still_running) != {"running"}:
        sys.exit("The jobs must run through the whole measurement and then succeed: give more --epochs.")


def start_jobs(client: openai.OpenAI, base: str, options: argparse.Namespace) -> list[str]:
    """The ids of as many jobs as are asked for, once each has told its first step."""
    with EXAMPLES.open("rb") as content:
        file = client.files.create(file=content, purpose="fine-tune")
    client.files.wait_for_processing(file.id, poll_interval=0.3)
    jobs = [
        client.fine_tuning.jobs.create(
            model=base,
            training_file=file.id,
            suffix="beside",
            seed=seed,
            method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": options.epochs}}},
        ).id
        for seed in range(options.jobs)
    ]
    while any(
        client.fine_tuning.jobs.retrieve(job).status not in ENDED and not has_stepped(client, job) for job in jobs
    ):
        time.sleep(0.3)
    return jobs


def has_stepped(client: openai.OpenAI, job: str) -> bool:
    """Whether the job has told a training loss."""
    return any(event.type == "metrics" for event in client.fine_tuning.jobs.list_events(job, limit=20).data)


def wait_for_end(client: openai.OpenAI, jobs: list[str]) -> list[str]:
    """The status that each job ends with."""
    while True:
        states: list[str] = [client.fine_tuning.jobs.retrieve(job).status for job in jobs]
        if set(states) <= ENDED:
            return states
        time.sleep(1)


def own_server(folder: Path, options: argparse.Namespace) -> AbstractContextManager[str]:
    """The URL of a server that may run so many jobs."""
    return running_server(folder / "data", options.model, ["--max-running-jobs", str(options.jobs)])


def measure_all(url: str, model: str, seconds: float) -> Speeds:
    """Chat's speed now, at each number of streams."""
    return {streams: asyncio.run(measure(url, model, streams, seconds)) for streams in STREAMS}


def questions() -> list[list[ChatCompletionMessageParam]]:
    """The examples without their answers."""
    return [json.loads(line)["messages"][:1] for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]


async def measure(url: str, model: str, streams: int, seconds: float) -> Speed:
    """Chat's speed with so many streams at once, each asking again as soon as it is answered."""
    asked_in_turn = itertools.cycle(questions())
    waits: list[float] = []
    tokens = 0
    begin = time.monotonic()
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="unused") as client:

        async def chat() -> None:
            nonlocal tokens
            while time.monotonic() < begin + seconds:
                asked = time.monotonic()
                waited = None
                stream = await client.chat.completions.create(
                    model=model,
                    messages=next(asked_in_turn),
                    max_tokens=MAX_TOKENS,
                    stream=True,
                    stream_options={"include_usage": True},
                    extra_body={"ignore_eos": True},
                )
                async for chunk in stream:
                    if waited is None and chunk.choices and chunk.choices[0].delta.content:
                        waited = time.monotonic() - asked
                    tokens += chunk.usage.completion_tokens if chunk.usage else 0
                waits.append(waited if waited is not None else time.monotonic() - asked)

        await asyncio.gather(*(chat() for _ in range(streams)))
    return Speed(tokens / (time.monotonic() - begin), statistics.median(waits))


def tell(before: Speeds, beside: Speeds, after: Speeds) -> None:
    """Prints the figures, and the ratios against the mean of the two measurements alone."""
    print("| streams | alone, before | beside | alone, after | tokens/s ratio | first token: alone | beside | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for n in STREAMS:
        speed = statistics.mean([before[n].tokens_per_s, after[n].tokens_per_s])
        wait = statistics.mean([before[n].first_token_s, after[n].first_token_s])
        print(
            f"| {n} | {before[n].tokens_per_s:.0f} | {beside[n].tokens_per_s:.0f} | {after[n].tokens_per_s:.0f} "
            f"| {beside[n].tokens_per_s / speed:.2f} | {wait * 1e3:.0f} ms | {beside[n].first_token_s * 1e3:.0f} ms "
            f"| {beside[n].first_token_s / wait:.1f} |"
        )


if __name__ == "__main__":
    main()
