"""The engine is killed with SIGKILL, again and again, while clients talk: how soon it is back, and what they saw.

    python -m benchmarks.engine_kills [--kills 10] [--streams 8] [--adapters 4] [--model DIR]

Half of the clients stream, half wait for whole answers; each picks among the base and adapters that say their own name.
Prints the engine's own cold start, the time from each kill to the first answer of an adapter, and the ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import openai

from benchmarks.many_adapters import name_of, says_its_name
from benchmarks.named_adapters import QUESTIONS
from benchmarks.own_server import published, running_server

CALM_S = 6.0
"""Between an engine that is back and the next kill."""


@dataclass
class Seen:
    """What the clients saw."""

    counted: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    last_answer: float = 0.0
    """When the last request that was begun after the kill was answered by an adapter."""
    killed_at: float = 0.0


async def converse(
    seen: Seen, client: openai.AsyncOpenAI, models: list[str], streams: bool, dice: random.Random
) -> None:
    """One client, until it is cancelled."""
    while True:
        model, question, began = dice.choice(models), dice.choice(QUESTIONS), time.monotonic()
        kind = "stream" if streams else "whole"
        try:
            text = await _text(client, model, question, streams)
        except openai.APIStatusError as error:
            seen.counted[f"{kind}: {error.status_code} {error.code}"] += 1
            await asyncio.sleep(0.5)
            continue
        except openai.APIConnectionError as error:
            seen.counted[f"{kind}: {type(error).__name__}"] += 1
            await asyncio.sleep(0.5)
            continue
        except httpx.HTTPError as error:  # the SDK lets what breaks within a stream through as it is
            seen.counted[f"{kind}: {type(error).__name__}"] += 1
            continue
        except openai.APIError as error:
            seen.counted[f"{kind}: ended by an error event ({error.code})"] += 1
            continue
        if text is None:
            seen.counted[f"{kind}: ended silently"] += 1
        elif model.startswith("ft:") and not says_its_name(text, name_of(model)):
            seen.wrong.append(f"{model}: {text!r}")
        else:
            seen.counted[f"{kind}: answered"] += 1
            if model.startswith("ft:") and began > seen.killed_at:
                seen.last_answer = time.monotonic()


async def _text(client: openai.AsyncOpenAI, model: str, question: str, streams: bool) -> str | None:
    """The answer; None where a stream ended without saying why."""
    if not streams:
        whole = await client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": question}], max_tokens=48, temperature=0
        )
        return whole.choices[0].message.content
    text, finished = "", False
    async with await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], max_tokens=48, temperature=0, stream=True
    ) as stream:
        async for chunk in stream:
            for choice in chunk.choices:
                text += choice.delta.content or ""
                finished = finished or choice.finish_reason is not None
    return text if finished else None


async def play(url: str, data_dir: Path, chosen: argparse.Namespace) -> tuple[Seen, list[float]]:
    """What the clients saw, and the seconds from each kill to the first answer of an adapter."""
    seen, back_s = Seen(), []
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=180) as client:
        models = [model.id async for model in client.models.list()]
        clients = [
            asyncio.create_task(converse(seen, client, models, number % 2 == 0, random.Random(number)))
            for number in range(chosen.streams)
        ]
        await asyncio.sleep(CALM_S)
        for _ in range(chosen.kills):
            seen.killed_at = time.monotonic()
            os.kill(engine_core(data_dir), signal.SIGKILL)
            while seen.last_answer <= seen.killed_at:  # noqa: ASYNC110 (a benchmark may poll)
                await asyncio.sleep(0.02)
            back_s.append(seen.last_answer - seen.killed_at)
            print(f"back after {back_s[-1]:.1f} s", flush=True)
            await asyncio.sleep(CALM_S)
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
    return seen, back_s


def engine_core(data_dir: Path) -> int:
    """The pid of vLLM's core process: the one of the engine's session that holds the model."""
    record = (data_dir / "engine" / "engine.json").read_text()
    listed = subprocess.run(["ps", "-eo", "pid,sess,args"], capture_output=True, text=True, check=True).stdout
    numbers = set(re.findall(r"\d+", record))
    for line in listed.splitlines()[1:]:
        pid, session, arguments = line.split(None, 2)
        if session in numbers and "EngineCore" in arguments:
            return int(pid)
    raise SystemExit("No EngineCore process was found.")


def main() -> None:
    """Makes adapters, starts the server, kills its engine and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--adapters", type=int, default=4)
    parser.add_argument("--model", help="base model (default: the embedded one)")
    parser.add_argument("--data-dir", type=Path, help="with adapters made before (default: made now)")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        data_dir = chosen.data_dir or Path(scratch) / "data"
        if not chosen.data_dir:
            make = [sys.executable, "-m", "benchmarks.named_adapters", str(data_dir), "--count", str(chosen.adapters)]
            subprocess.run([*make, *(["--model", chosen.model] if chosen.model else [])], check=True)
        with running_server(data_dir, chosen.model) as url:
            cold_s = cold_start_s(url)
            published(url, len(list((data_dir / "adapters").glob("adapter-*"))))
            seen, back_s = asyncio.run(play(url, data_dir, chosen))
    report(seen, back_s, cold_s)
    sys.exit(1 if seen.wrong or any("silently" in what for what in seen.counted) else 0)


def cold_start_s(url: str) -> float:
    """Seconds that the engine's first start took, as it says itself."""
    engine = httpx.get(f"{url}/v1/engines").json()["data"][0]
    return float(engine["start_seconds"])


def report(seen: Seen, back_s: list[float], cold_s: float) -> None:
    """Prints what came of it."""
    for what, count in sorted(seen.counted.items()):
        print(f"{what:60} {count}")
    print(f"{'wrong answers':60} {len(seen.wrong)}")
    print(f"{'own cold start':60} {cold_s:.1f} s")
    median_s, worst_s = statistics.median(back_s), max(back_s)
    print(f"{'kill to first answer of an adapter, median and worst':60} {median_s:.1f} s, {worst_s:.1f} s")
    print(f"{'back ÷ cold start, median and worst':60} {median_s / cold_s:.2f}, {worst_s / cold_s:.2f}")
    for line in seen.wrong[:20]:
        print("  " + line)


if __name__ == "__main__":
    main()
