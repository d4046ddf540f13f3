"""The way to the engine: what its answers mean, what comes through, and what happens when it breaks off."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import web

from serving import AdapterError, EngineUnavailableError
from serving.engines.vllm.client import VLLMClient, open_session


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


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
HELLO = b"9\r\ndata: 1\n\n\r\n"
END = b"0\r\n\r\n"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]
"""What a scripted engine does with its connection of this number, counted from 1."""


@asynccontextmanager
async def engine(folder: Path, serve: Serve) -> AsyncIterator[VLLMClient]:
    """A client of an engine that does with each connection what the test says."""
    connections = itertools.count(1)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve(reader, writer, next(connections))
        writer.close()

    server = await asyncio.start_unix_server(accept, folder / "s")
    async with server, open_session(folder / "s") as session:
        yield VLLMClient(session)
        server.close()


async def request_read(reader: asyncio.StreamReader) -> bytes:
    """The head of a request, its body read too."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    return head + await reader.readexactly(length)


async def ask(client: VLLMClient) -> bytes:
    """The whole answer to a request."""
    async with client.request("POST", "/v1/completions", body=b"{}") as answer:
        return await answer.read()


def test_an_answer_comes_through_as_it_was_sent(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
        request = await request_read(reader)
        assert request.startswith(b"POST /v1/completions HTTP/1.1\r\n")
        assert request.endswith(b"\r\n\r\n{}")
        writer.write(HEAD + HELLO + HELLO + END)

    async def talk() -> None:
        async with engine(tmp_path, serve) as client, client.request("POST", "/v1/completions", body=b"{}") as answer:
            assert (answer.status, answer.headers["CONTENT-type"]) == (200, "text/event-stream")
            assert "nothing" not in answer.headers
            assert await answer.read() == b"data: 1\n\ndata: 1\n\n"

    asyncio.run(talk())


def test_a_connection_is_kept_for_the_next_request(tmp_path: Path) -> None:
    served = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        with suppress(asyncio.IncompleteReadError):
            while await request_read(reader):
                served.append(number)
                writer.write(HEAD + HELLO + END)

    async def talk() -> None:
        async with engine(tmp_path, serve) as client:
            for _ in range(3):
                assert await ask(client) == b"data: 1\n\n"

    asyncio.run(talk())
    assert served == [1, 1, 1]


def test_a_kept_connection_that_the_engine_closed_costs_no_request(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await request_read(reader)
        writer.write(HEAD + HELLO + END)
        if number == 1:
            await request_read(reader)  # and then it closes, with the second request unanswered

    async def talk() -> None:
        async with engine(tmp_path, serve) as client:
            assert [await ask(client), await ask(client)] == [b"data: 1\n\n"] * 2

    asyncio.run(talk())


@pytest.mark.parametrize(
    ("sent", "before_answer"),
    [
        (b"", True),
        (b"HTTP/1.1 200", True),
        (HEAD, True),
        (HEAD + HELLO, False),
        (HEAD + HELLO + b"ff\r\ndata", False),
        (HEAD + b'1b\r\ndata: {"error":"EngineDead"}\r\n', True),
        (HEAD + HELLO + b'1e\r\ndata: {"error":"EngineDead"}\n\n\r\n' + END, False),
        (HEAD + b'27\r\ndata: 1\n\ndata: {"error":"EngineDead"}\n\n\r\n' + END, False),
        (HEAD + b'21\r\ndata: {"finish_reason":"abort"}\n\n\r\n' + END, True),
        (HEAD + HELLO + b'21\r\ndata: {"finish_reason":"abort"}\n\n\r\n' + END, False),
        (b'HTTP/1.1 500 -\r\nContent-Length: 23\r\n\r\n{"error":"EngineDeadEr"}', True),
    ],
)
def test_an_engine_that_ends_says_whether_it_may_be_asked_again(
    tmp_path: Path, sent: bytes, before_answer: bool
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
        await request_read(reader)
        writer.write(sent)
        await writer.drain()

    async def talk() -> None:
        async with engine(tmp_path, serve) as client:
            with pytest.raises(EngineUnavailableError) as caught:
                await ask(client)
            assert caught.value.before_answer is before_answer

    asyncio.run(talk())


def test_an_engine_that_is_not_there_may_be_asked_again(tmp_path: Path) -> None:
    async def talk() -> None:
        async with open_session(tmp_path / "nothing") as session:
            with pytest.raises(EngineUnavailableError) as caught:
                await ask(VLLMClient(session))
            assert caught.value.before_answer

    asyncio.run(talk())


def test_a_failure_of_the_engine_that_lives_is_passed_on(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
        await request_read(reader)
        writer.write(b"HTTP/1.1 500 -\r\nContent-Length: 5\r\n\r\nfault")

    async def talk() -> None:
        async with engine(tmp_path, serve) as client, client.request("POST", "/v1/completions", body=b"{}") as answer:
            assert (answer.status, await answer.read()) == (500, b"fault")

    asyncio.run(talk())


def test_leaving_early_closes_the_connection_at_once(tmp_path: Path) -> None:
    closed = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
        await request_read(reader)
        writer.write(HEAD + HELLO)
        with suppress(ConnectionError):
            assert await reader.read() == b""
        closed.set()

    async def talk() -> None:
        async with engine(tmp_path, serve) as client:
            async with client.request("POST", "/v1/completions", body=b"{}") as answer:
                assert await anext(answer.chunks()) == b"data: 1\n\n"
            async with asyncio.timeout(5):
                await closed.wait()

    asyncio.run(talk())


def test_a_slow_reader_stops_the_engine_from_sending(tmp_path: Path) -> None:
    part, parts = b"x" * 2**20, 64
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
        nonlocal sent
        await request_read(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(part) * parts))
        for _ in range(parts):
            writer.write(part)
            await writer.drain()
            sent += 1

    async def talk() -> None:
        async with engine(tmp_path, serve) as client, client.request("POST", "/v1/completions", body=b"{}") as answer:
            await asyncio.sleep(0.5)
            assert sent < parts / 4
            assert len(await answer.read()) == len(part) * parts

    asyncio.run(talk())


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\nX-Of: interim\r\n\r\n"
EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        (INTERIM + OK + b"he", b"llo"),
        (INTERIM, OK + b"hello"),
        (INTERIM + EARLY_HINTS, INTERIM, OK + b"hello"),
    ],
)
def test_an_interim_answer_is_not_taken_for_the_answer(tmp_path: Path, sent: tuple[bytes, ...]) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
        await request_read(reader)
        for part in sent:
            writer.write(part)
            await asyncio.sleep(0.05)
        with suppress(asyncio.IncompleteReadError):
            await request_read(reader)
            writer.write(OK + b"other")

    async def talk() -> None:
        async with engine(tmp_path, serve) as client, asyncio.timeout(10):
            async with client.request("POST", "/v1/completions", body=b"{}") as answer:
                assert (answer.status, await answer.read()) == (200, b"hello")
                assert set(answer.headers) == {"content-length"}
            assert await ask(client) == b"other"

    asyncio.run(talk())


def test_a_second_answer_that_nobody_asked_for_reaches_nobody(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await request_read(reader)
        writer.write(OK + b"first" + OK + b"wrong" if number == 1 else OK + b"other")
        await reader.read()

    async def talk() -> None:
        async with engine(tmp_path, serve) as client, asyncio.timeout(10):
            assert await ask(client) == b"first"
            assert await ask(client) == b"other"

    asyncio.run(talk())


def test_a_connection_with_a_request_half_sent_is_not_kept(tmp_path: Path) -> None:
    left = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + (b"early" if number == 1 else b"other"))
        await left.wait()  # and reads no more

    async def talk() -> None:
        async with engine(tmp_path, serve) as client, asyncio.timeout(10):
            async with client.request("POST", "/v1/completions", body=bytes(8 * 2**20)) as answer:
                assert await answer.read() == b"early"
            assert await ask(client) == b"other"
            left.set()

    asyncio.run(talk())


def test_a_path_cannot_smuggle_a_second_request(tmp_path: Path) -> None:
    async def serve(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter, _number: int) -> None:
        raise AssertionError("it was sent")

    async def talk() -> None:
        async with engine(tmp_path, serve) as client:
            for path, headers in (
                ("/a HTTP/1.1\r\n\r\nGET /b", {}),
                ("/a", {"x": "1\r\ny: 2"}),
                ("/a", {"x\r\ny": "2"}),
            ):
                with pytest.raises(ValueError, match="control character"):
                    async with client.request("GET", path, headers=headers):
                        pass

    asyncio.run(talk())
