"""References for adapters that came without one are made by a program of their own, and its faults are told."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from server.versions.parity import ParityProcess
from serving import Adapter, AdapterError, BaseModel, read_adapter
from tests.serving.adapters.adapters_on_disk import write_adapter, write_base

PROMPT = {"token_ids": list(range(61)), "tuned": [-1.0] * 60, "base": [-2.0] * 60}
REFERENCE = {
    "format": 1,
    "base_model_sha256": "a" * 64,
    "dtype": "float32",
    "made_on": "2026-01-02",
    "template_tells_the_date": False,
    "conversations": [],
    "prompts": [PROMPT],
}


@pytest.fixture
def adapter_and_base(tmp_path: Path) -> tuple[Adapter, BaseModel]:
    base = write_base(tmp_path / "tiny-base")
    (tmp_path / "adapters").mkdir()
    return read_adapter(write_adapter(tmp_path / "adapters", base)), base


def program(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", f"import sys, time, os; base, adapter = sys.argv[1:]\n{text}")


def test_reference_is_what_the_program_prints(adapter_and_base: tuple[Adapter, BaseModel]) -> None:
    adapter, base = adapter_and_base
    checks = f"assert (base, adapter) == {(str(base.path), str(adapter.path))!r}"
    prints = f"print('a library says hello'); print({json.dumps(REFERENCE)!r})"
    found = asyncio.run(ParityProcess(program(f"{checks}\n{prints}"))(adapter, base))
    assert found.prompts[0].tuned == (-1.0,) * 60


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('print(\'{"error": "its layers are odd"}\')', "its layers are odd"),
        ("sys.exit('error: not enough memory for 70 billion parameters')", "70 billion parameters.*parity_check"),
        ("os.kill(os.getpid(), 9)", "killed by signal 9.*Free some memory"),
        ("print('nothing')", "no output"),
        ("print('{\"format\": 1}')", "reference can't be used"),
        ("print('[1]')", "ended with 0"),
        ("time.sleep(60)", "took more than 1 s"),
    ],
    ids=["adapter", "memory", "killed", "silent", "half a reference", "no object", "slow"],
)
def test_fault_of_the_program_is_an_adapter_error_in_its_words(
    adapter_and_base: tuple[Adapter, BaseModel], text: str, word: str
) -> None:
    with pytest.raises(AdapterError, match=word):
        asyncio.run(ParityProcess(program(text), timeout_s=1 if "60" in text else 60)(*adapter_and_base))


def test_nothing_is_left_of_the_program_when_its_caller_leaves(
    adapter_and_base: tuple[Adapter, BaseModel], tmp_path: Path
) -> None:
    noted = tmp_path / "pid"
    make = ParityProcess(program(f"open({str(noted)!r}, 'w').write(str(os.getpid())); time.sleep(60)"))

    async def leave() -> int:
        running = asyncio.create_task(make(*adapter_and_base))
        while not (noted.exists() and noted.read_text()):  # noqa: ASYNC110 — another process writes it
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return int(noted.read_text())

    with pytest.raises(ProcessLookupError):
        os.kill(asyncio.run(leave()), 0)


def test_one_base_at_a_time_is_held_in_memory(adapter_and_base: tuple[Adapter, BaseModel], tmp_path: Path) -> None:
    noted = tmp_path / "noted"
    note = f"open({str(noted)!r}, 'a').write"
    prints = f"print({json.dumps(REFERENCE)!r})"
    make = ParityProcess(program(f"{note}('begun '); time.sleep(0.3); {prints}; {note}('done ')"))

    async def both() -> None:
        await asyncio.gather(make(*adapter_and_base), make(*adapter_and_base))

    asyncio.run(both())
    assert noted.read_text().split() == ["begun", "done"] * 2
