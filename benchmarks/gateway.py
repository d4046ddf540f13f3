"""What the gateway costs: tuneloop before vLLM ÷ the same vLLM asked directly, beside two thin pass-throughs.

    python -m benchmarks.gateway [--model DIR] [--seconds 3] [--rounds 5] [--pairs 150] [--streams 1 8 32]

One engine, which listens on a TCP port as well as on its Unix socket: "direct" is the TCP port, as a user of vLLM alone
would ask it. Rounds are interleaved, so that what else happens on the machine meets all of them; the table has medians
of each round's ratio. On few cores gateway, engine and load compete for them, so a ratio says what a whole machine
gives with the gateway and without it. Only ratios and differences are of use: the rest depends on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from benchmarks.own_server import running_server
from benchmarks.stream_load import Address, Load, chat_request, load, open_stream

DIRECT = "vLLM directly, TCP"
OURS = "tuneloop"


@dataclass(frozen=True)
class Target:
    """Something that answers chats."""

    address: Address
    pid: int | None
    """The process whose time is taken; None for the engine itself."""


def main() -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="base model (default: the embedded one)")
    parser.add_argument("--seconds", type=float, default=3, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each target at each number of streams")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32], help="streams at once")
    parser.add_argument("--pairs", type=int, default=150, help="requests to each target for the time to first token")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, targets(Path(scratch), options.model) as (model, found):
        uvloop.run(measure(model, found, options))


@contextmanager
def targets(scratch: Path, model: str | None) -> Iterator[tuple[str, Mapping[str, Target]]]:
    """The base's name, and all that is to be compared, by its name."""
    direct_port = free_port()
    os.environ["TWO_DOORS_PORT"] = str(direct_port)
    os.environ["PYTHONPATH"] = str(Path(__file__).parent / "two_doors")
    data_dir = scratch / "data"
    with running_server(data_dir, model) as url:
        del os.environ["PYTHONPATH"]
        uds = Path(json.loads((data_dir / "engine" / "engine.json").read_text())["runtime_dir"]) / "s"
        ours = Target(int(url.rsplit(":", 1)[1]), pid_of("server", "up", str(data_dir)))
        with peer("aiohttp", uds) as aiohttp_peer, peer("httpx", uds) as httpx_peer:
            yield (
                first_model(url),
                {
                    DIRECT: Target(direct_port, None),
                    "vLLM directly, Unix socket": Target(uds, None),
                    OURS: ours,
                    "thin pass-through, aiohttp": aiohttp_peer,
                    "thin pass-through, httpx": httpx_peer,
                },
            )


@contextmanager
def peer(library: str, uds: Path) -> Iterator[Target]:
    """A thin pass-through that runs."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.pass_through", library, str(uds), str(port)])
    try:
        wait_for(port)
        yield Target(port, process.pid)
    finally:
        process.terminate()
        process.wait(20)


async def measure(model: str, found: Mapping[str, Target], options: argparse.Namespace) -> None:
    """Takes all measurements; prints each table when it is there."""
    for target in found.values():  # the first requests of engine and gateways are slow
        await load(target.address, [model], 32, 1)
    print("| target | added time to first token, p50 | p95 |\n|---|---|---|", flush=True)
    for name, (middle_s, late_s) in (await first_tokens(model, found, options.pairs)).items():
        print(f"| {name} | {middle_s * 1e3:+.2f} ms | {late_s * 1e3:+.2f} ms |", flush=True)
    print("\n| streams | target | tokens/s | ÷ direct | CPU seconds for 1,000 tokens |\n|---|---|---|---|---|")
    for streams in options.streams:
        rounds = [await one_round(model, found, streams, options.seconds, turn) for turn in range(options.rounds)]
        for name in found:
            speed = statistics.median(taken[name][0].tokens_per_s for taken in rounds)
            ratio = statistics.median(taken[name][0].tokens_per_s / taken[DIRECT][0].tokens_per_s for taken in rounds)
            tokens = sum(taken[name][0].tokens for taken in rounds)
            cost = sum(taken[name][1] for taken in rounds) / tokens * 1000
            shown = f"{cost:.3f}" if found[name].pid else "–"
            print(f"| {streams} | {name} | {speed:.0f} | {ratio:.3f} | {shown} |", flush=True)


async def one_round(
    model: str, found: Mapping[str, Target], streams: int, seconds: float, turn: int
) -> dict[str, tuple[Load, float]]:
    """Each target's load and CPU seconds; every round begins with another target."""
    names = list(found)
    taken = {}
    for name in names[turn % len(names) :] + names[: turn % len(names)]:
        before_s = cpu_seconds(found[name].pid)
        got = await load(found[name].address, [model], streams, seconds)
        taken[name] = (got, cpu_seconds(found[name].pid) - before_s)
    return taken


async def first_tokens(model: str, found: Mapping[str, Target], pairs: int) -> dict[str, tuple[float, float]]:
    """For each target p50 and p95 of (its time to first token − the direct one's), one after another in random order.

    p50 is the median of the pairs' differences; p95 the difference of the two 95th percentiles.
    """
    waits: dict[str, list[float]] = {name: [] for name in found}
    streams = {name: await open_stream(target.address) for name, target in found.items()}
    request = chat_request(model, 4)
    for _ in range(pairs):
        for name in random.sample(list(found), len(found)):
            if not streams[name].is_open:
                streams[name] = await open_stream(found[name].address)
            waits[name].append((await streams[name].ask(request))[1])
    for stream in streams.values():
        stream.close()
    return {
        name: (
            statistics.median(mine - direct for mine, direct in zip(waits[name], waits[DIRECT], strict=True)),
            late(waits[name]) - late(waits[DIRECT]),
        )
        for name in found
    }


def late(waits: list[float]) -> float:
    """The 95th percentile."""
    return statistics.quantiles(waits, n=20)[-1]


def cpu_seconds(pid: int | None) -> float:
    """Processor time that the threads of the process have used, to the nanosecond."""
    if pid is None:
        return 0.0
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def pid_of(*words: str) -> int:
    """The process whose command line has all these words."""
    for found in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = found.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if all(word in arguments for word in words):
            return int(found.parent.name)
    raise SystemExit(f"no process runs {' '.join(words)}")


def first_model(url: str) -> str:
    """The base's name."""
    with urllib.request.urlopen(f"{url}/v1/models") as answer:
        return str(json.load(answer)["data"][0]["id"])


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_for(port: int, timeout_s: float = 30) -> None:
    """Returns when somebody listens there."""
    for _ in range(round(timeout_s * 10)):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"nobody listens on port {port}")


if __name__ == "__main__":
    main()
