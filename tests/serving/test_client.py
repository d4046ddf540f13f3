"""What the engine's answers mean: whose fault it is that an adapter can't be loaded."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from serving import AdapterError, EngineUnavailableError
from serving.client import VLLMClient, open_session


@pytest.mark.parametrize(
    ("status", "words", "expected"),
    [
        (500, "Call to add_lora method failed: CUDA out of memory. Tried to allocate 20 MiB.", EngineUnavailableError),
        (500, "torch.OutOfMemoryError", EngineUnavailableError),
        (500, "RuntimeError: CUDA error: an illegal memory access was encountered", EngineUnavailableError),
        (500, "EngineCore encountered an issue. See stack trace.", EngineUnavailableError),
        (503, "busy", EngineUnavailableError),
        (500, "LoRA rank 64 is greater than max_lora_rank 16.", AdapterError),
        (400, "The lora adapter is malformed.", AdapterError),
        (404, "No adapter found for ft:x", AdapterError),
    ],
)
def test_an_engine_in_trouble_is_not_taken_for_a_faulty_adapter(
    tmp_path: Path, status: int, words: str, expected: type[Exception]
) -> None:
    with pytest.raises(expected):
        asyncio.run(_load(tmp_path, status, words))


async def _load(folder: Path, status: int, words: str) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.json_response({"error": {"message": words, "code": status}}, status=status)

    app = web.Application()
    app.router.add_post("/v1/load_lora_adapter", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(folder / "s")).start()
    try:
        async with open_session(folder / "s") as session:
            await VLLMClient(session).load_adapter("ft:x", folder)
    finally:
        await runner.cleanup()
