"""Fifty raters vote at once and the server is killed with SIGKILL amid them: is each acknowledged vote there, once?

    python -m benchmarks.rating_storm [--raters 50] [--votes 10000] [--kills 1] [--database-url URL]

A real gateway process over a scripted engine. Each rater comes with an invitation link, asks for the next pair, reads
nothing, votes, and asks again; what gets no answer is sent again until it gets one. A vote whose answer was lost in the
kill then meets 409 `already_rated`, which names the stored vote: acknowledged, too. In the end all votes are read and
held against what the raters were told.
"""

from __future__ import annotations

import argparse
import asyncio
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
from typing import Any

import httpx

from benchmarks.gateway import free_port, wait_for

TUNED = "ft:base:personal:short:aaaaaaaa"
VERDICTS = ("left", "right", "tie", "both_bad")
RETRY_S = 0.2


@dataclass
class Storm:
    """What the raters saw, and what the server had in the end."""

    acknowledged: dict[tuple[str, str], str] = field(default_factory=dict)
    """(rater, comparison) → id of the rating that the server named."""
    seconds: list[float] = field(default_factory=list)
    """From each vote's sending to its 201."""
    counted: Counter[str] = field(default_factory=Counter)
    """What came instead of an answer, by kind, and kills."""
    stored: list[dict[str, Any]] = field(default_factory=list)
    """All ratings, superseded ones as well."""
    campaign: dict[str, Any] = field(default_factory=dict)

    def lost(self) -> set[tuple[str, str]]:
        """Acknowledged votes that aren't there, or not under the id that was told."""
        there = {(vote["rater"], vote["comparison_id"]): vote["id"] for vote in self.stored}
        return {key for key, rating in self.acknowledged.items() if there.get(key) != rating}

    def doubled(self) -> list[tuple[str, str]]:
        """Who has more than one vote on what."""
        on_comparison = Counter((vote["rater"], vote["comparison_id"]) for vote in self.stored)
        on_prompt = Counter((vote["rater"], str(vote["messages"])) for vote in self.stored)
        return [key for key, count in (on_comparison + on_prompt).items() if count > 1]

    def unknown(self) -> int:
        """Votes that are there though no rater was told so."""
        return sum((vote["rater"], vote["comparison_id"]) not in self.acknowledged for vote in self.stored)


def main() -> None:
    """Lets the storm loose and prints what is left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raters", type=int, default=50)
    parser.add_argument("--votes", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=1)
    parser.add_argument("--database-url", help="a PostgreSQL database that is empty (default: SQLite)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        began = time.monotonic()
        storm = asyncio.run(
            blow(
                Path(scratch) / "data", raters=options.raters, votes=options.votes, kills=options.kills,
                database_url=options.database_url,
            )
        )  # fmt: skip
        took = time.monotonic() - began
    late = statistics.quantiles(storm.seconds, n=100)
    print(f"{options.raters} raters, {options.votes} votes, {options.kills} kills, {took:.0f} s in all")
    print(f"acknowledged {len(storm.acknowledged)}, stored {len(storm.stored)}, counted {storm.campaign['votes']}")
    print(f"lost {len(storm.lost())}, doubled {len(storm.doubled())}, stored untold {storm.unknown()}")
    print(f"a vote: p50 {late[49] * 1e3:.0f} ms, p95 {late[94] * 1e3:.0f} ms, p99 {late[98] * 1e3:.0f} ms")
    print(", ".join(f"{what}: {count}" for what, count in sorted(storm.counted.items())))
    if storm.lost() or storm.doubled() or storm.unknown() or len(storm.stored) != options.votes:
        raise SystemExit("The books don't balance.")


async def blow(data_dir: Path, *, raters: int, votes: int, kills: int, database_url: str | None = None) -> Storm:
    """The storm, over: every rater has cast an equal share of the votes, and the server is stopped again."""
    port, storm = free_port(), Storm()
    arguments = [str(port), str(data_dir), *([database_url] if database_url else [])]
    process = _start(arguments, port)
    limits = httpx.Limits(max_connections=raters, max_keepalive_connections=raters)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/v1", timeout=30, limits=limits) as http:
            campaign = await _campaign(http, prompts=votes // raters + 50, raters=raters)
            tokens = [await _invitation(http, campaign, f"rater-{number}") for number in range(raters)]
            tasks = [asyncio.create_task(rate(http, storm, campaign, token, votes // raters)) for token in tokens]
            for kill in range(1, kills + 1):
                while len(storm.acknowledged) < votes * kill / (kills + 1) and not any(map(_failed, tasks)):
                    await asyncio.wait(tasks, timeout=0.01)
                process.send_signal(signal.SIGKILL)
                await asyncio.to_thread(process.wait)
                storm.counted["kills"] += 1
                process = await asyncio.to_thread(_start, arguments, port)
            await asyncio.gather(*tasks)
            storm.stored = await _all_ratings(http)
            storm.campaign = (await http.get(f"/campaigns/{campaign}")).json()
    finally:
        process.kill()
        process.wait()
    return storm


async def rate(http: httpx.AsyncClient, storm: Storm, campaign: str, token: str, votes: int) -> None:
    """One rater, until the votes are cast."""
    dice, headers = random.Random(token), {"Authorization": f"Bearer {token}"}
    for _ in range(votes):
        assigned = await _insist(http, storm, f"/campaigns/{campaign}/assignments", {}, headers)
        if assigned.status_code != 200:
            raise SystemExit(f"No pair was assigned: {assigned.text}")
        comparison = assigned.json()["comparison"]["id"]
        body, sent = {"verdict": dice.choice(VERDICTS)}, time.monotonic()
        answer = await _insist(http, storm, f"/comparisons/{comparison}/ratings", body, headers)
        if answer.status_code == 201:
            rating = answer.json()
            storm.seconds.append(time.monotonic() - sent)
            storm.acknowledged[rating["rater"], comparison] = rating["id"]
        elif answer.json()["error"]["code"] == "already_rated":
            said = answer.json()["error"]["message"]
            found = re.search(r"The rater '(.+)' has already rated \S+ as (rating[-_]\w+)", said)
            if found is None:
                raise SystemExit(f"The stored vote isn't named: {said}")
            storm.acknowledged[found[1], comparison] = found[2]
            storm.counted["already_rated"] += 1
        else:
            raise SystemExit(f"A vote was refused: {answer.text}")


async def _insist(
    http: httpx.AsyncClient, storm: Storm, path: str, body: dict[str, Any], headers: dict[str, str]
) -> httpx.Response:
    """The answer, asked for until there is one."""
    while True:
        try:
            answer = await http.post(path, json=body, headers=headers)
        except httpx.TransportError as error:
            storm.counted[type(error).__name__] += 1
        else:
            if answer.status_code < 500:
                return answer
            storm.counted[f"status {answer.status_code}"] += 1
        await asyncio.sleep(RETRY_S)


def _failed(task: asyncio.Task[None]) -> bool:
    return task.done() and task.exception() is not None


async def _campaign(http: httpx.AsyncClient, *, prompts: int, raters: int) -> str:
    """Id of a campaign whose answers are there."""
    body = {
        "name": "storm",
        "models": ["base", TUNED],
        "prompts": [f"Question {number}?" for number in range(prompts)],
        "raters_per_item": raters,
    }
    made = await http.post("/campaigns", json=body)
    if made.status_code != 201:
        raise SystemExit(f"No campaign was made: {made.text}")
    campaign = made.json()
    while campaign["status"] == "generating":
        await asyncio.sleep(0.1)
        campaign = (await http.get(f"/campaigns/{campaign['id']}")).json()
    return str(campaign["id"])


async def _invitation(http: httpx.AsyncClient, campaign: str, rater: str) -> str:
    made = await http.post(f"/campaigns/{campaign}/invitations", json={"rater": rater})
    return str(made.json()["token"])


async def _all_ratings(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    ratings: list[dict[str, Any]] = []
    query: dict[str, str | int] = {"limit": 100, "order": "asc", "current_only": "false"}
    while True:
        page = (await http.get("/ratings", params=query)).json()
        ratings += page["data"]
        if not page["has_more"]:
            return ratings
        query["after"] = page["last_id"]


def _start(arguments: list[str], port: int) -> subprocess.Popen[bytes]:
    """A gateway that listens."""
    process = subprocess.Popen([sys.executable, "-m", "tests.server.scripted_gateway", *arguments])
    wait_for(port, 60)
    return process


if __name__ == "__main__":
    main()
