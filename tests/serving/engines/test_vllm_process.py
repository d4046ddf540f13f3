"""The real vLLM: adapters in and out while it runs, and no process of it left, whatever is killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving import (
    AdapterError,
    EngineStartError,
    EngineState,
    EngineUnavailableError,
    ModelNotFoundError,
    VLLMProcess,
    VLLMSettings,
    read_adapter,
)
from serving.machine.leftovers import end_leftovers, session_members
from tests.serving.adapters.adapters_on_disk import lora_tensors, write_adapter
from tests.serving.conftest import LiveEngine

pytestmark = pytest.mark.engine
RESTART_TIMEOUT_S = 120


async def complete(live: LiveEngine, model: str, prompt: str = "What is the capital of France?") -> str:
    """The model's greedy answer in 12 tokens, asked for as the server does it."""
    async with live.registry.lease(model) as lease:
        body = {"model": lease.name, "prompt": prompt, "max_tokens": 12, "temperature": 0, "ignore_eos": True}
        async with lease.engine.request("POST", "/v1/completions", body=json.dumps(body).encode()) as response:
            content = json.loads(await response.read())
            assert response.status == 200, content
            return str(content["choices"][0]["text"])


def add(live: LiveEngine, *, seed: int = 0, scale: float = 0.5, **peft: Any) -> str:
    """The name of a new adapter that changes the answers."""
    tensors = lora_tensors(live.engine.base, r=4, scale=scale, seed=seed)
    return read_adapter(write_adapter(live.adapters_dir, live.engine.base, r=4, tensors=tensors, **peft)).name


def wait_until(holds: Callable[[], bool], timeout_s: float) -> float:
    """Seconds until it held."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < timeout_s, f"not so after {timeout_s} s"
        time.sleep(0.02)
    return time.monotonic() - started


def test_start_tells_its_stages_in_order(live: LiveEngine) -> None:
    told = list(dict.fromkeys(live.stages))
    assert told[0] == "loading vLLM"
    assert "loading the weights" in told or "allocating the KV cache" in told
    assert told[-1] == "opening the engine's API"
    assert live.run(live.engine.is_healthy())


def test_a_prompt_of_a_few_tokens_is_answered_by_an_engine_that_has_read_no_longer_one(live: LiveEngine) -> None:
    """On a processor with AMX that was its end: it must come before all that ask more."""
    assert live.run(complete(live, live.engine.base.name, "Once"))
    assert live.engine.restarts == 0


def test_the_socket_is_ours_alone(live: LiveEngine) -> None:
    listening = Path("/proc/net/unix").read_text()
    sockets = [Path(match) for match in re.findall(r"(/\S*tuneloop-\S+/s)$", listening, re.MULTILINE)]
    modes = set()
    for socket in sockets:
        with contextlib.suppress(FileNotFoundError):  # another test's engine that has just ended
            modes.add(stat.S_IMODE(socket.parent.stat().st_mode))
    assert modes == {0o700}


def test_an_adapter_changes_the_answer_and_leaves_the_base_alone(live: LiveEngine) -> None:
    before = live.run(complete(live, live.engine.base.name))
    name = add(live)
    assert live.run(complete(live, name)) != before
    assert live.run(complete(live, live.engine.base.name)) == before


def test_a_hundred_callers_cause_one_load_in_the_engine(live: LiveEngine) -> None:
    name = add(live, seed=1)

    async def ask() -> list[str]:
        return await asyncio.gather(*(complete(live, name) for _ in range(100)))

    assert len(set(live.run(ask()))) == 1
    assert live.log_path.read_text().count(f"Loaded new LoRA adapter: name '{name}'") == 1


def test_more_adapters_than_memory_holds_are_all_served(live: LiveEngine) -> None:
    names = [add(live, seed=seed) for seed in range(10, 16)]
    first = [live.run(complete(live, name)) for name in names]
    assert len(set(first)) > 1
    assert [live.run(complete(live, name)) for name in names] == first


def test_a_removed_adapter_is_gone_and_the_others_go_on(live: LiveEngine) -> None:
    kept, removed = add(live, seed=2), add(live, seed=3)
    before = live.run(complete(live, kept))
    live.run(complete(live, removed))
    path = live.registry.get(removed).path

    async def remove_while_in_use() -> str:
        answer = asyncio.create_task(complete(live, removed))
        await asyncio.sleep(0.01)
        await live.registry.remove(removed)
        return await answer

    assert live.run(remove_while_in_use())
    assert not path.exists()
    with pytest.raises(ModelNotFoundError):
        live.run(complete(live, removed))
    for other in [add(live, seed=seed) for seed in range(20, 26)]:  # pushes the removed one out of the engine's memory
        live.run(complete(live, other))
    assert live.run(complete(live, kept)) == before
    assert live.engine.generation == 1


def test_a_poisoned_adapter_never_reaches_the_engine(live: LiveEngine) -> None:
    before = live.run(complete(live, live.engine.base.name))
    tensors = lora_tensors(live.engine.base, r=4)
    next(iter(tensors.values()))[0, 0] = np.nan
    name = read_adapter(write_adapter(live.adapters_dir, live.engine.base, r=4, tensors=tensors)).name
    with pytest.raises(AdapterError, match="infinite or NaN"):
        live.run(complete(live, name))
    assert live.run(complete(live, live.engine.base.name)) == before
    assert name not in live.log_path.read_text()


def test_what_only_the_engine_refuses_is_told_as_the_adapters_fault(live: LiveEngine, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(AdapterError, match="The engine couldn't load ft:x"):
        live.run(live.engine.load_adapter("ft:x", tmp_path))
    with pytest.raises(AdapterError, match="The engine couldn't load ft:y"):
        live.run(live.engine.load_adapter("ft:y", tmp_path / "absent"))


def test_json_answers_hold_no_runs_of_whitespace(live: LiveEngine) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    body = {
        "model": live.engine.base.name,
        "messages": [{"role": "user", "content": "Say yes."}],
        "max_tokens": 40,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    }

    async def ask() -> dict[str, Any]:
        async with live.engine.request("POST", "/v1/chat/completions", body=json.dumps(body).encode()) as response:
            return dict(json.loads(await response.read()))

    answer = live.run(ask())["choices"][0]["message"]["content"]
    assert type(json.loads(answer)["a"]) is bool
    assert not re.search(r"\s\s", answer)


def test_a_caller_who_leaves_stops_the_generation(live: LiveEngine) -> None:
    body = {"model": live.engine.base.name, "prompt": "Once", "max_tokens": 480, "ignore_eos": True, "stream": True}

    async def running() -> float:
        async with live.engine.request("GET", "/metrics") as response:
            text = (await response.read()).decode()
        return sum(float(n) for n in re.findall(r"^vllm:num_requests_running\{[^}]*\} (\S+)", text, re.MULTILINE))

    async def finished(reason: str) -> float:
        async with live.engine.request("GET", "/metrics") as response:
            text = (await response.read()).decode()
        pattern = rf'^vllm:request_success_total\{{[^}}]*finished_reason="{reason}"[^}}]*\}} (\S+)'
        return sum(float(n) for n in re.findall(pattern, text, re.MULTILINE))

    async def leave_early() -> None:
        completed = await finished("length")
        for _ in range(10):
            async with live.engine.request("POST", "/v1/completions", body=json.dumps(body).encode()) as response:
                async for chunk in response.chunks():
                    assert chunk.startswith(b"data: ")
                    break
        async with asyncio.timeout(20):
            while await running():  # noqa: ASYNC110 (what is waited for happens in vLLM)
                await asyncio.sleep(0.05)
        # On a busy processor vLLM may hold a stream back until the answer is whole; that one can't be stopped any more.
        assert await finished("length") - completed < 10

    live.run(leave_early())


def test_a_second_engine_in_the_same_directory_is_refused(live: LiveEngine) -> None:
    second = VLLMProcess(live.engine.base, VLLMSettings(live.log_path.parent / "engine", live.log_path))
    with pytest.raises(EngineStartError, match="a directory can only have one server"):
        live.run(second.start())
    assert live.run(live.engine.is_healthy())


def test_a_start_that_cannot_succeed_says_why_and_leaves_nothing(live: LiveEngine, tmp_path: Path) -> None:
    settings = VLLMSettings(tmp_path / "engine", tmp_path / "log", extra_args=("--no-such-argument",))
    engine = VLLMProcess(live.engine.base, settings)
    with pytest.raises(EngineStartError, match=r"unrecognized arguments.*setting engine_args"):
        live.run(engine.start())
    assert engine.state is EngineState.STOPPED
    assert not (tmp_path / "engine" / "engine.json").exists()


def test_a_start_that_takes_too_long_is_given_up(live: LiveEngine, tmp_path: Path) -> None:
    engine = VLLMProcess(live.engine.base, VLLMSettings(tmp_path / "engine", tmp_path / "log", start_timeout_s=1))
    with pytest.raises(EngineStartError, match="wasn't ready after 1 s; it was still loading vLLM"):
        live.run(engine.start())
    assert engine.session is None


def test_a_start_that_is_cancelled_leaves_nothing(live: LiveEngine, tmp_path: Path) -> None:
    engine = VLLMProcess(live.engine.base, VLLMSettings(tmp_path / "engine", tmp_path / "log"))

    async def cancel_soon() -> int:
        start = asyncio.create_task(engine.start())
        await until(lambda: engine.session is not None, 10)
        session = engine.session
        assert session
        start.cancel()
        await asyncio.wait({start})
        assert start.cancelled()
        return session

    assert session_members(live.run(cancel_soon())) == []


# From here on the shared engine is killed, and starts again. What comes after that: test_gate_on_the_engine.


async def kill_and_watch(live: LiveEngine, victim: int) -> float:
    """Seconds from `kill -9 victim` until nothing of that engine was left."""
    session = live.engine.session
    assert session
    started = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    await until(lambda: not session_members(session), 30)
    return time.monotonic() - started


async def until(holds: Callable[[], bool], timeout_s: float) -> None:
    """Returns when it holds; the loop goes on meanwhile."""
    async with asyncio.timeout(timeout_s):
        while not holds():  # noqa: ASYNC110 (what is waited for happens in the kernel, which sets no event of ours)
            await asyncio.sleep(0.02)


def is_up_again(live: LiveEngine, generation: int) -> bool:
    return live.engine.state is EngineState.READY and live.engine.generation > generation


def test_a_killed_keeper_takes_the_engine_with_it_and_adapters_come_back_when_asked_for(live: LiveEngine) -> None:
    """The keeper alone: whoever else of the engine is killed, and what callers see of it, is in test_engine_faults."""
    name = add(live, seed=4)
    before = live.run(complete(live, name))
    session = live.engine.session
    assert session

    async def kill() -> float:
        gone_after_s = await kill_and_watch(live, parent_of(session))
        await until(lambda: live.engine.state is not EngineState.READY, 5)
        with contextlib.suppress(EngineUnavailableError):  # a slow machine may need longer than a request waits
            assert await complete(live, live.engine.base.name)
        await until(lambda: is_up_again(live, 1), RESTART_TIMEOUT_S)
        assert live.engine.restarts == 1
        return gone_after_s

    assert live.run(kill()) < 5
    assert live.run(complete(live, name)) == before


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


OWNER = """
import asyncio, sys
from pathlib import Path
from serving import VLLMProcess, VLLMSettings, resolve_base_model

async def own(model, directory):
    engine = VLLMProcess(resolve_base_model(model), VLLMSettings(directory / "engine", directory / "log"))
    await engine.start()
    (directory / "session").write_text(str(engine.session))
    await asyncio.sleep(600)

asyncio.run(own(sys.argv[1], Path(sys.argv[2])))
"""


def test_a_server_killed_with_its_keeper_leaves_nothing_after_the_next_start(demo_model: Path, tmp_path: Path) -> None:
    """At the same moment. Where the server alone is killed: test_engine_faults."""
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(demo_model), str(tmp_path)])
    report, record = tmp_path / "session", tmp_path / "engine" / "engine.json"
    wait_until(lambda: report.exists() and bool(report.read_text()), 240)
    session = int(report.read_text())
    assert len(session_members(session)) >= 2

    keeper = parent_of(session)
    os.kill(owner.pid, signal.SIGSTOP)
    os.kill(keeper, signal.SIGKILL)
    os.kill(owner.pid, signal.SIGKILL)
    wait_until(lambda: session not in session_members(session), 5)
    runtime_dir = Path(json.loads(record.read_text())["runtime_dir"])
    assert runtime_dir.is_dir()
    assert end_leftovers(record) >= 1  # EngineCore lives on; only the next start can end it
    assert session_members(session) == []
    assert not runtime_dir.exists()
    owner.wait(5)
