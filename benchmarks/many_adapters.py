"""Many adapters over one engine, under traffic, while adapters come and go: who fails, and who gets another's words.

    python -m benchmarks.many_adapters [--adapters 50] [--slots 8] [--streams 32] [--seconds 300] [--model DIR]

Every adapter was taught to answer with its own name, so that each answer shows who gave it. While the streams pick at
random among versions and aliases, aliases are promoted and rolled back, versions deleted, and new ones put in place.
Ends with exit code 1 when a request failed for a model that wasn't deleted, or an answer wasn't its version's.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai

from benchmarks.named_adapters import NAMES, QUESTIONS
from benchmarks.own_server import published, running_server

ALIASES = ("support", "sales", "night-shift", "canary")
CHURN_PAUSE_S = 0.5


@dataclass
class World:
    """What is there now, and what has been seen."""

    url: str
    adapters_dir: Path
    spare: list[Path]
    """Directories of versions that are put in place later."""
    versions: list[str]
    """Names that may be asked for now."""
    deleted: set[str] = field(default_factory=set)
    told: dict[str, set[str]] = field(default_factory=dict)
    """Alias → every version that it has ever stood for."""
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)
    first_token_s: list[float] = field(default_factory=list)


async def converse(world: World, client: openai.AsyncOpenAI, until: float, dice: random.Random) -> None:
    """One client: asks somebody who he is, again and again, and looks at who says what."""
    while time.monotonic() < until:
        asked = dice.choice(ALIASES) if dice.random() < 0.25 else dice.choice(world.versions)
        try:
            await _ask(world, client, asked, dice.choice(QUESTIONS))
        except openai.NotFoundError as error:
            kind = "refused_deleted" if asked in world.deleted else "failed"
            world.counted[kind] += 1
            if kind == "failed":
                world.failed.append(f"{asked}: {error}")
        except openai.OpenAIError as error:
            world.counted["failed"] += 1
            world.failed.append(f"{asked}: {type(error).__name__} {error}")


async def _ask(world: World, client: openai.AsyncOpenAI, asked: str, question: str) -> None:
    text, models, finished = "", set(), False
    started, first = time.monotonic(), 0.0
    async with await client.chat.completions.create(
        model=asked, messages=[{"role": "user", "content": question}], max_tokens=48, temperature=0, stream=True
    ) as stream:
        async for chunk in stream:
            models.add(chunk.model)
            for choice in chunk.choices:
                first = first or time.monotonic()
                text += choice.delta.content or ""
                finished = finished or choice.finish_reason is not None
    world.counted["answered"] += 1
    world.first_token_s.append(first - started)
    _judge(world, asked, question, text, models, finished)


def _judge(world: World, asked: str, question: str, text: str, models: set[str], finished: bool) -> None:
    may_answer = world.told.get(asked, {asked})
    if len(models) != 1 or not models <= may_answer:
        world.wrong.append(f"{asked}: answered as {models}")
    elif not finished:
        world.wrong.append(f"{asked}: the stream ended without a finish_reason: {text!r}")
    elif not says_its_name(text, name_of(next(iter(models)))):
        world.wrong.append(f"{asked}: {next(iter(models))} said {text!r} to {question!r}")


def says_its_name(text: str, name: str) -> bool:
    """Whether the text says this name and no other. Letter by letter it may differ: other rows of a batch change the
    last digits of its numbers."""
    return f"keeper of {name}." in text and not any(other in text for other in NAMES if other not in name)


def name_of(model: str) -> str:
    """The name that the adapter of this model was taught."""
    suffix = model.split(":")[3]
    return next(name for name in NAMES if name.lower().replace(" ", "-") == suffix)


async def churn(world: World, http: httpx.AsyncClient, until: float, dice: random.Random) -> None:
    """Promotes, rolls back, deletes and puts in place, for as long as the streams run."""
    while time.monotonic() < until:
        await asyncio.sleep(CHURN_PAUSE_S)
        move = dice.choices(("promote", "rollback", "delete", "add"), (6, 3, 1, 1))[0]
        await {"promote": promote, "rollback": roll_back, "delete": delete, "add": add}[move](world, http, dice)


async def promote(world: World, http: httpx.AsyncClient, dice: random.Random) -> None:
    """An alias stands for another version from now on."""
    alias, version = dice.choice(ALIASES), dice.choice(world.versions)
    world.told.setdefault(alias, set()).add(version)
    answer = await http.put(f"/v1/aliases/{alias}", json={"model": version})
    answer.raise_for_status()
    world.counted["promoted"] += 1


async def roll_back(world: World, http: httpx.AsyncClient, dice: random.Random) -> None:
    """An alias stands for the version before, where there is one."""
    answer = await http.post(f"/v1/aliases/{dice.choice(ALIASES)}/rollback")
    if answer.status_code == 409:
        world.counted["nothing_to_roll_back_to"] += 1
        return
    answer.raise_for_status()
    world.counted["rolled_back"] += 1


async def delete(world: World, http: httpx.AsyncClient, dice: random.Random) -> None:
    """A version goes for good, unless an alias stands for it."""
    version = dice.choice(world.versions)
    world.versions.remove(version)
    world.deleted.add(version)
    answer = await http.delete(f"/v1/models/{version}")
    if answer.status_code == 409:  # an alias stands for it
        world.deleted.discard(version)
        world.versions.append(version)
        world.counted["kept_for_an_alias"] += 1
        return
    answer.raise_for_status()
    world.counted["deleted"] += 1


async def add(world: World, http: httpx.AsyncClient, dice: random.Random) -> None:
    """One more version is put in place, as a training does it, and asked for once it is listed."""
    if not world.spare:
        return
    path = world.spare.pop()
    path.rename(world.adapters_dir / path.name)
    found: dict[str, Any] = {}
    while found.get("status") != "published":
        await asyncio.sleep(0.2)
        found = (await http.get(f"/v1/adapters/{path.name}")).json()
    world.versions.append(found["model"])
    world.counted["added"] += 1


async def play(world: World, streams: int, seconds: float) -> None:
    """The whole traffic."""
    until = time.monotonic() + seconds
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with (
        openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key="none", max_retries=0, timeout=120) as client,
        httpx.AsyncClient(base_url=world.url, timeout=120, limits=limits) as http,
    ):
        dice = random.Random(1)
        for alias in ALIASES:
            version = dice.choice(world.versions)
            world.told[alias] = {version}
            (await http.put(f"/v1/aliases/{alias}", json={"model": version})).raise_for_status()
        jobs: list[Coroutine[Any, Any, None]] = [
            converse(world, client, until, random.Random(number)) for number in range(streams)
        ]
        await asyncio.gather(*jobs, churn(world, http, until, dice))


def main() -> None:
    """Makes the adapters, starts the server, plays the traffic and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapters", type=int, default=50)
    parser.add_argument("--slots", type=int, default=8, help="adapters that one batch holds")
    parser.add_argument("--cpu-slots", type=int, default=16, help="adapters that the engine keeps in memory")
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--spare", type=int, default=6, help="adapters that are put in place under traffic")
    parser.add_argument("--model", help="base model (default: the embedded one)")
    parser.add_argument("--data-dir", type=Path, help="with adapters made before (default: made now)")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        data_dir = chosen.data_dir or Path(scratch) / "data"
        if not chosen.data_dir:
            make = [sys.executable, "-m", "benchmarks.named_adapters", str(data_dir)]
            model = ["--model", chosen.model] if chosen.model else []
            subprocess.run([*make, "--count", str(chosen.adapters + chosen.spare), *model], check=True)
        world = run(chosen, data_dir)
    report(world, chosen.seconds)
    sys.exit(1 if world.wrong or world.failed else 0)


def run(chosen: argparse.Namespace, data_dir: Path) -> World:
    """The world after the traffic; the server is stopped again."""
    aside = data_dir / "spare"
    aside.mkdir(exist_ok=True)
    for path in sorted((data_dir / "adapters").glob("adapter-*"))[chosen.adapters :]:
        shutil.move(path, aside / path.name)
    flags = ["--max-adapters", str(chosen.slots), "--max-cpu-adapters", str(chosen.cpu_slots)]
    with running_server(data_dir, chosen.model, flags) as url:
        listed = published(url, chosen.adapters)
        world = World(url, data_dir / "adapters", sorted(aside.iterdir()), listed)
        asyncio.run(play(world, chosen.streams, chosen.seconds))
    return world


def report(world: World, seconds: float) -> None:
    """Prints what came of it."""
    for what, count in sorted(world.counted.items()):
        print(f"{what:28} {count}")
    print(f"{'requests per second':28} {world.counted['answered'] / seconds:.1f}")
    if world.first_token_s:
        p50, p95 = statistics.median(world.first_token_s), statistics.quantiles(world.first_token_s, n=20)[-1]
        print(f"{'first token, p50 and p95':28} {p50:.3f} s, {p95:.3f} s")
    print(f"{'wrong answers':28} {len(world.wrong)}")
    for line in [*world.wrong[:20], *world.failed[:20]]:
        print("  " + line)


if __name__ == "__main__":
    main()
