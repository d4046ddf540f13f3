"""An engine that does what a test tells it, for faults that the real one shows only by chance. Speaks like vLLM."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from serving import BaseModel, EngineLimits, EngineState, EngineUnavailableError, OnProgress

Script = Callable[[dict[str, Any]], "FakeAnswer"]


TINY = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
"""config.json of a model that trains in no time, had it weights."""


class FakeAnswer:
    """Status and chunks of one answer; an exception among the chunks is raised in its place."""

    def __init__(self, *chunks: bytes | Exception, status: int = 200, content_type: str = "application/json") -> None:
        self.status = status
        self.headers = {"content-type": content_type}
        self._chunks = chunks

    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk


def streamed(model: str, *words: str, finish_reason: str | None = "stop", end: Exception | None = None) -> FakeAnswer:
    """A chat stream of `words`; cut by `end` where one is given."""
    chunks: list[bytes | Exception] = [_chunk(model, {"content": word}) for word in words]
    if end is not None:
        chunks.append(end)
    else:
        chunks += [_chunk(model, {}, finish_reason), b"data: [DONE]\n\n"]
    return FakeAnswer(*chunks, content_type="text/event-stream; charset=utf-8")


def _chunk(model: str, delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    body = {"model": model, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


class FakeEngine:
    """Answers every request by `script`, which gets the request's JSON body."""

    def __init__(self, base_dir: Path, script: Script) -> None:
        """base_dir: a model's folder; where there is none, it becomes the config.json of a tiny one."""
        base_dir.mkdir(exist_ok=True)
        config = base_dir / "config.json"
        if not config.exists():
            config.write_text(json.dumps(TINY))
        self.base = BaseModel(base_dir.name, base_dir, "0" * 64, json.loads(config.read_text()))
        self.limits = EngineLimits(16, 4, 8, 512)
        self.state = EngineState.READY
        self.generation = 1
        self.script = script
        self.requests: list[dict[str, Any]] = []
        self.closed = 0
        self.metrics = FakeAnswer(status=404)
        """What it answers to GET /metrics."""

    async def start(self, on_progress: OnProgress | None = None) -> None: ...

    async def stop(self) -> None: ...

    async def is_healthy(self) -> bool:
        return self.state is EngineState.READY

    async def load_adapter(self, name: str, path: Path) -> None: ...

    async def unload_adapter(self, name: str) -> None: ...

    @asynccontextmanager
    async def request(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[FakeAnswer]:
        if self.state is not EngineState.READY:
            raise EngineUnavailableError("The engine is starting again.", retry_after_s=3)
        if path == "/metrics":
            yield self.metrics
            return
        content = json.loads(body or b"{}")
        self.requests.append(content)
        try:
            yield self.script(content)
        finally:
            self.closed += 1
