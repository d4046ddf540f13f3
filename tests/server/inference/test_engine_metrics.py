"""What engines publish themselves is bounded: some are somebody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from server.inference.metrics.engines import MAX_BYTES, PASSED_ON, fetch_engine_metrics
from serving.registry.pool import Replica
from tests.server.conftest import StartGateway
from tests.server.fake_engine import FakeAnswer, FakeEngine

CHUNK = b"# HELP a A.\n" + b"a 1.0\n" * 20_000


class EndlessAnswer(FakeAnswer):
    """An exposition that never ends; whoever reads on and on is stopped."""

    taken = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        while self.taken < 3 * MAX_BYTES:
            self.taken += len(CHUNK)
            yield CHUNK


def test_no_more_is_read_of_an_exposition_than_may_be_shown(tmp_path: Path) -> None:
    engine, small = (FakeEngine(tmp_path / "base", lambda _body: FakeAnswer()) for _ in range(2))
    engine.metrics = endless = EndlessAnswer(content_type="text/plain")
    small.metrics = FakeAnswer(b"# HELP b B.\nb 1.0\n", content_type="text/plain")
    told = asyncio.run(fetch_engine_metrics([Replica("endless", engine), Replica("small", small)]))
    assert told == b'# HELP b B.\nb{engine="small"} 1.0\n'
    assert endless.taken <= MAX_BYTES + len(CHUNK)


def test_a_tuneloop_that_asks_is_told_our_own_figures_alone(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    exposition = b"# HELP vllm:x x\n# TYPE vllm:x gauge\nvllm:x 1\n"
    gateway.engine.metrics = FakeAnswer(exposition, content_type="text/plain")
    assert "vllm:x" in gateway.http.get("/metrics").text
    passed_on = gateway.http.get("/metrics", headers=PASSED_ON).text
    assert "vllm:x" not in passed_on
    assert "tuneloop_http_requests_total" in passed_on
