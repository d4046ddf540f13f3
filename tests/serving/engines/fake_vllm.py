"""`python fake_vllm.py SOCKET FOLDER`: speaks as vLLM does, in a second, and fails as FOLDER's files tell it to.

A child stands for the engine core: it does the work, the parent talks. Files: `refuse_start` (its text is the last
words), `sleep_fails`, `wake_fails`, `slow` (seconds that a completion takes), `busy` (the core computes and computes),
`length` (the context length that it lists its model with).
What it was asked is written to `asked`, a line each; `starts` holds a line a start: its arguments.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[2])


def core(requests: int, answers: int) -> None:
    """Answers each line with a line, unless somebody stops this process."""
    with os.fdopen(requests) as lines:
        for line in lines:
            while (FOLDER / "busy").exists():
                pass
            os.write(answers, line.encode())


class Server:
    def __init__(self, requests: int, answers: int, child: int) -> None:
        self.requests, self.child = requests, child
        self.done = 0
        self.is_dead = False
        self.waiting: dict[int, asyncio.Event] = {}
        self.number = 0
        asyncio.get_running_loop().add_reader(answers, self.answered, answers)

    def answered(self, answers: int) -> None:
        lines = os.read(answers, 65536).split()
        for line in lines:
            self.done += 1
            self.waiting.pop(int(line)).set()
        if not lines:  # the core is gone: as vLLM does, all are told, and the health check fails
            self.is_dead = True
            asyncio.get_running_loop().remove_reader(answers)
            for event in self.waiting.values():
                event.set()

    async def work(self) -> None:
        if self.is_dead:
            return
        self.number += 1
        event = self.waiting[self.number] = asyncio.Event()
        os.write(self.requests, f"{self.number}\n".encode())
        await event.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, path, _ = head.split(None, 2)
        lengths = [int(line.split(":")[1]) for line in head.lower().splitlines() if line.startswith("content-length")]
        body = json.loads(await reader.readexactly(lengths[0]) or b"{}") if lengths and lengths[0] else {}
        status, content = await self.answer(method, path, body)
        writer.write(b"HTTP/1.1 %d OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % (status, len(content)))
        writer.write(content)
        await writer.drain()
        writer.close()

    async def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        if path == "/v1/models":
            length = (FOLDER / "length").read_text() if (FOLDER / "length").exists() else "128"
            return 200, b'{"data": [{"id": "base", "max_model_len": %s}]}' % length.encode()
        if path not in ("/health", "/metrics"):
            with (FOLDER / "asked").open("a") as asked:
                asked.write(f"{path} {json.dumps(body)}\n")
        if path == "/metrics":
            return 200, f'vllm:generation_tokens_total{{engine="0"}} {self.done}.0\n'.encode()
        if path == "/v1/completions":
            if (FOLDER / "slow").exists():
                await asyncio.sleep(float((FOLDER / "slow").read_text()))
            await self.work()
        if self.is_dead:
            return (503, b"") if path == "/health" else (500, b"EngineDeadError: EngineCore encountered an issue.")
        if (path.startswith("/sleep") and (FOLDER / "sleep_fails").exists()) or (
            path == "/wake_up" and (FOLDER / "wake_fails").exists()
        ):
            return 500, b"no"
        return 200, b'{"data": []}'


async def main() -> None:
    with (FOLDER / "starts").open("a") as starts:
        starts.write(" ".join(sys.argv[3:]) + "\n")
    if (FOLDER / "refuse_start").exists():
        sys.exit(f"RuntimeError: {(FOLDER / 'refuse_start').read_text()}")
    to_core, from_us = os.pipe()
    to_us, from_core = os.pipe()
    child = os.fork()
    if not child:
        os.close(from_us)
        core(to_core, from_core)
        os._exit(0)
    os.close(from_core)
    server = Server(from_us, to_us, child)
    listening = await asyncio.start_unix_server(server.serve, sys.argv[1])
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: sys.exit(0))
    (FOLDER / "core").write_text(str(child))
    async with listening:
        await listening.serve_forever()


if __name__ == "__main__":
    time.sleep(0.1)
    asyncio.run(main())
