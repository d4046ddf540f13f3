"""What adapters cost: 8 in one batch ÷ the base alone ÷ an engine without LoRA; and the first token after a load.

    python -m benchmarks.adapters_mixed [--model DIR] [--adapters 8] [--r 16] [--streams 32] [--seconds 3] [--rounds 5]

One server with as many slots as adapters, and beside it the same engine started without LoRA; rounds are interleaved,
each through its own TCP port, the table has medians of each round's ratio. The adapters hold random numbers, so the
parity gate is off: its work is no part of this. Then, on the idle server, the time from a request to its first token
for an adapter that was never asked for (cold: checked and loaded), again (warm), and after the others have taken its
slot (evicted, and back). Only ratios are of use: the rest depends on the machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvloop

from benchmarks.gateway import free_port, wait_for
from benchmarks.own_server import running_server
from benchmarks.random_adapters import random_adapter
from benchmarks.stream_load import Stream, chat_request, load, open_stream
from server.cli.base_model import open_base_model
from server.settings import default_cache_dir
from serving import BaseModel

LORA_FLAGS = {"--enable-lora": 0, "--max-lora-rank": 1, "--max-loras": 1, "--max-cpu-loras": 1, "--uds": 1}
"""Argument of vLLM → how many values follow it."""


def main() -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="base model (default: the embedded one)")
    parser.add_argument("--adapters", type=int, default=8, help="adapters in one batch, and slots of the engine")
    parser.add_argument("--r", type=int, default=16, help="rank of each adapter")
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=3, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    base = open_base_model(options.model, default_cache_dir())
    with tempfile.TemporaryDirectory() as scratch:
        data_dir = Path(scratch) / "data"
        adapters = [
            random_adapter(data_dir / "adapters", base, options.r, seed) for seed in range(3 * options.adapters)
        ]
        slots = str(options.adapters)
        flags = ["--max-adapters", slots, "--max-cpu-adapters", slots]
        with (
            running_server(data_dir, str(base.path), [*flags, "--no-parity-check"]) as url,
            engine_without_lora(data_dir) as plain_port,
        ):
            port = int(url.rsplit(":", 1)[1])
            uvloop.run(speeds(port, plain_port, base, adapters[: options.adapters], options))
            uvloop.run(loads(port, adapters, options.adapters))


@contextmanager
def engine_without_lora(data_dir: Path) -> Iterator[int]:
    """The port of a vLLM with the arguments of the server's own, but for LoRA."""
    record = json.loads((data_dir / "engine" / "engine.json").read_text())
    process = Path("/proc") / str(record["session"])
    command = process.joinpath("cmdline").read_bytes().decode().split("\0")[:-1]
    environment = dict(pair.split("=", 1) for pair in process.joinpath("environ").read_text().split("\0") if pair)
    port = free_port()
    with (data_dir / "plain-engine.log").open("wb") as log:
        started = subprocess.Popen(
            [*without_lora(command), "--host", "127.0.0.1", "--port", str(port)],
            env=environment, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        wait_for(port, 300)
        yield port
    finally:
        started.terminate()
        started.wait(60)


def without_lora(command: Sequence[str]) -> list[str]:
    """The command line less all that is said of LoRA and the socket."""
    left, kept = iter(command), []
    for argument in left:
        if argument in LORA_FLAGS:
            for _ in range(LORA_FLAGS[argument]):
                next(left)
        else:
            kept.append(argument)
    return kept


async def speeds(port: int, plain_port: int, base: BaseModel, adapters: list[str], options: argparse.Namespace) -> None:
    """Measures tokens per second and prints the table."""
    asked = {
        "engine without LoRA": (plain_port, [base.name]),
        "base alone": (port, [base.name]),
        "one adapter": (port, adapters[:1]),
        f"{len(adapters)} adapters mixed": (port, adapters),
        f"base and {len(adapters)} adapters mixed": (port, [base.name, *adapters]),
    }
    for address, models in asked.values():  # warm, and all adapters loaded
        await load(address, models, options.streams, 1)
    names, rounds = list(asked), []
    for turn in range(options.rounds):
        taken = {}
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            taken[name] = (await load(*asked[name], options.streams, options.seconds)).tokens_per_s
        rounds.append(taken)
    print(
        f"| {options.streams} streams, r = {options.r} | tokens/s | ÷ base alone | ÷ without LoRA |\n|---|---|---|---|"
    )
    for name in names:
        speed = statistics.median(taken[name] for taken in rounds)
        to_base = statistics.median(taken[name] / taken["base alone"] for taken in rounds)
        to_plain = statistics.median(taken[name] / taken["engine without LoRA"] for taken in rounds)
        print(f"| {name} | {speed:.0f} | {to_base:.2f} | {to_plain:.2f} |", flush=True)


async def loads(port: int, adapters: list[str], slots: int) -> None:
    """Measures the time to the first token by where the adapter is, and prints the table.

    The first `slots` adapters are loaded; the others were never asked for.
    """
    stream = await open_stream(port)
    cold = [await first_token(stream, name) for name in adapters[slots:]]
    held = adapters[-slots:]
    warm = [await first_token(stream, name) for _ in range(3) for name in held]
    evicted = [name for name in adapters if name not in held]
    back = [await first_token(stream, name) for name in evicted]
    stream.close()
    print("\n| first token | p50 | p95 |\n|---|---|---|")
    for what, seconds in (("cold", cold), ("warm", warm), ("evicted, and back", back)):
        late = statistics.quantiles(seconds, n=20)[-1]
        print(f"| {what} ({len(seconds)}) | {statistics.median(seconds) * 1e3:.0f} ms | {late * 1e3:.0f} ms |")


async def first_token(stream: Stream, model: str) -> float:
    """Seconds from a request for this model to its first event."""
    return (await stream.ask(chat_request(model, 4)))[1]


if __name__ == "__main__":
    main()
