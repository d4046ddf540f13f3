"""An engine that someone else runs, played by a small HTTP server: found, asked, away and back, and its refusals."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from serving import (
    AdapterMisfitError,
    BaseModel,
    EngineStartError,
    EngineState,
    EngineUnavailableError,
    ModelNotFoundError,
    Registry,
    Replica,
    pool_of,
)
from serving.adapters.adapter import read_adapter
from serving.engines.remote import engine as remote
from serving.engines.remote.client import MAX_CONNECTIONS, RemoteAddress
from serving.engines.remote.engine import RemoteEngine
from serving.registry.fleet import Fleet
from serving.registry.pool import Pool
from tests.serving.adapters.adapters_on_disk import write_adapter
from tests.serving.fake_engine import FakeEngine

KEY = "sk-of-the-lab"
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Lab:
    """Someone else's engine: lists models, answers as it is told, and can be taken away and brought back."""

    def __init__(self) -> None:
        self.models = ["lab-model"]
        self.answer: Answer = _hello
        self.listing: Answer = self._list
        self.keys: list[str | None] = []
        self.loads: list[dict[str, Any]] = []
        self.load_status = 200
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def up(self, certificate: ssl.SSLContext | None = None) -> None:
        app = web.Application()
        app.router.add_get("/v1/models", self._listed)
        app.router.add_post("/v1/load_lora_adapter", self._load)
        app.router.add_post("/v1/unload_lora_adapter", self._unload)
        app.router.add_post("/v1/chat/completions", self._ask)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=certificate)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    async def away(self) -> None:
        if self._runner:
            await self._runner.cleanup()

    async def _listed(self, request: web.Request) -> web.StreamResponse:
        return await self.listing(request)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"object": "list", "data": [{"id": name} for name in self.models]})

    async def _ask(self, request: web.Request) -> web.StreamResponse:
        self.keys.append(request.headers.get("authorization"))
        return await self.answer(request)

    async def _load(self, request: web.Request) -> web.Response:
        wanted = await request.json()
        self.loads.append(wanted)
        if self.load_status == 200:
            self.models.append(wanted["lora_name"])
        return web.json_response({"error": {"message": "no room"}}, status=self.load_status)

    async def _unload(self, request: web.Request) -> web.Response:
        self.models.remove((await request.json())["lora_name"])
        return web.Response()


async def _hello(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    return web.json_response({"model": body["model"], "said": "hello"})


@asynccontextmanager
async def running(
    key: str | None = KEY, base: BaseModel | None = None, poll_s: float = 0.1
) -> AsyncIterator[tuple[Lab, RemoteEngine]]:
    """The lab, and our engine over it, which looks at it often."""
    lab = Lab()
    await lab.up()
    address = RemoteAddress.parse("lab", lab.url, key)
    engine = RemoteEngine(address, base, poll_s=poll_s) if base else RemoteEngine(address, poll_s=poll_s)
    try:
        await engine.start()
        yield lab, engine
    finally:
        await engine.stop()
        await lab.away()


async def ask(engine: RemoteEngine) -> tuple[int, bytes]:
    body = json.dumps({"model": "lab-model"}).encode()
    async with engine.request("POST", "/v1/chat/completions", body=body) as answer:
        return answer.status, await answer.read()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (what is waited for has no event)
            await asyncio.sleep(0.01)


def test_its_models_are_found_and_asked_with_its_key_alone() -> None:
    async def play() -> None:
        async with running() as (lab, engine):
            assert (engine.state, engine.models) == (EngineState.READY, ("lab-model",))
            status, content = await ask(engine)
            assert (status, json.loads(content)["said"]) == (200, "hello")
            assert lab.keys == [f"Bearer {KEY}"]
            assert engine.in_flight == 0

    asyncio.run(play())


def test_a_stream_comes_through_as_it_arrives() -> None:
    async def play() -> None:
        async with running() as (lab, engine):
            more = asyncio.Event()

            async def stream(request: web.Request) -> web.StreamResponse:
                response = web.StreamResponse(headers={"content-type": "text/event-stream"})
                await response.prepare(request)
                await response.write(b"data: 1\n\n")
                await more.wait()
                await response.write(b"data: 2\n\n")
                return response

            lab.answer = stream
            async with engine.request("POST", "/v1/chat/completions", body=b"{}") as answer:
                chunks = answer.chunks()
                assert await anext(chunks) == b"data: 1\n\n"  # while the second isn't even written
                assert engine.in_flight == 1
                more.set()
                assert b"".join([chunk async for chunk in chunks]) == b"data: 2\n\n"

    asyncio.run(play())


def test_whoever_leaves_early_ends_the_work_over_there() -> None:
    async def play() -> None:
        async with running() as (lab, engine):
            ended = asyncio.Event()

            async def endless(request: web.Request) -> web.StreamResponse:
                response = web.StreamResponse()
                await response.prepare(request)
                try:
                    while True:
                        await response.write(b"x")
                        await asyncio.sleep(0.01)
                except (ConnectionError, asyncio.CancelledError):
                    ended.set()
                    raise

            lab.answer = endless
            async with engine.request("POST", "/v1/chat/completions", body=b"{}") as answer:
                assert await anext(answer.chunks())
            async with asyncio.timeout(5):
                await ended.wait()

    asyncio.run(play())


def test_one_that_goes_away_says_when_to_ask_again_and_one_that_is_back_answers() -> None:
    async def play() -> None:
        async with running() as (lab, engine):
            await lab.away()
            with pytest.raises(EngineUnavailableError) as broken:
                await ask(engine)
            assert broken.value.before_answer
            await until(lambda: engine.state is EngineState.DEAD)
            with pytest.raises(EngineUnavailableError, match="lab can't be reached") as away:
                await ask(engine)
            assert away.value.retry_after_s > 0
            assert engine.models == ("lab-model",)  # its name still means it, so that nobody gets a 404
            await lab.up()
            await until(lambda: engine.state is EngineState.READY)
            assert (await ask(engine))[0] == 200
            assert (engine.restarts, engine.last_trouble is not None) == (1, True)

    asyncio.run(play())


def test_a_stream_that_breaks_is_told_as_that() -> None:
    async def play() -> None:
        async with running() as (lab, engine):

            async def cut(request: web.Request) -> web.StreamResponse:
                response = web.StreamResponse()
                await response.prepare(request)
                await response.write(b"data: 1\n\n")
                assert request.transport
                await asyncio.sleep(0.05)
                request.transport.abort()
                return response

            lab.answer = cut
            async with engine.request("POST", "/v1/chat/completions", body=b"{}") as answer:
                with pytest.raises(EngineUnavailableError) as caught:
                    await answer.read()
            assert not caught.value.before_answer

    asyncio.run(play())


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "remote_engine_keys"),
        (403, "remote_engine_keys"),
        (307, "redirect"),
        (429, "limits our requests"),
        (503, "overloaded"),
    ],
)
def test_what_no_client_is_to_blame_for_is_told_without_the_key(status: int, words: str) -> None:
    async def play() -> None:
        async with running() as (lab, engine):

            async def refuse(request: web.Request) -> web.StreamResponse:
                headers = {"retry-after": "7", "location": "http://127.0.0.1:9/elsewhere"}
                return web.Response(text=f"wrong key {KEY}", status=status, headers=headers)

            lab.answer = refuse
            with pytest.raises(EngineUnavailableError, match=words) as caught:
                await ask(engine)
            assert KEY not in str(caught.value)
            assert caught.value.retry_after_s == (7 if status in (429, 503) else 30)

    asyncio.run(play())


def test_what_the_client_is_to_blame_for_is_passed_on() -> None:
    async def play() -> None:
        async with running() as (lab, engine):

            async def refuse(request: web.Request) -> web.StreamResponse:
                return web.json_response({"error": {"message": "max_tokens"}}, status=400)

            lab.answer = refuse
            assert await ask(engine) == (400, b'{"error": {"message": "max_tokens"}}')

    asyncio.run(play())


def test_an_engine_whose_certificate_nobody_vouches_for_is_not_spoken_to(tmp_path: Path) -> None:
    made = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1")
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing: apt-get install openssl")
    subprocess.run([*made, "-keyout", "key.pem", "-out", "cert.pem"], cwd=tmp_path, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")

    async def play() -> None:
        lab = Lab()
        await lab.up(context)
        engine = RemoteEngine(RemoteAddress.parse("lab", lab.url.replace("http:", "https:"), KEY))
        try:
            await engine.start()
            assert engine.state is EngineState.DEAD
            assert "certificate" in str(engine.last_trouble)
        finally:
            await engine.stop()
            await lab.away()

    asyncio.run(play())


@pytest.mark.parametrize("content", [b"<html>", b"[]", b'{"data": 1}', b'{"data": [{}]}', b"x" * (5 * 2**20)])
def test_an_address_that_lists_no_models_is_down_and_says_why(content: bytes) -> None:
    async def play() -> None:
        async with running() as (lab, engine):

            async def other(request: web.Request) -> web.StreamResponse:
                return web.Response(body=content)

            lab.listing = other
            await until(lambda: engine.state is EngineState.DEAD)
            assert "base_url" in str(engine.last_trouble)

    asyncio.run(play())


@pytest.mark.parametrize(
    "url", ["lab:8000", "ftp://lab/v1", "http://", "https://user:secret@lab/v1", "https://lab/v1?key=secret"]
)
def test_an_address_that_is_none_is_refused_without_showing_what_is_secret(url: str) -> None:
    with pytest.raises(EngineStartError) as caught:
        RemoteAddress.parse("lab", url)
    assert "user:secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "chat", "tokenize"),
    [
        ("http://lab:8000", "http://lab:8000/v1/chat", "http://lab:8000/tokenize"),
        ("https://lab/openai/v1/", "https://lab/openai/v1/chat", "https://lab/openai/tokenize"),
        ("https://lab/v1beta/openai", "https://lab/v1beta/openai/chat", "https://lab/v1beta/openai/tokenize"),
    ],
)
def test_an_address_is_what_openais_clients_call_base_url(url: str, chat: str, tokenize: str) -> None:
    address = RemoteAddress.parse("lab", url, KEY)
    assert (address.url_for("/v1/chat"), address.url_for("/tokenize")) == (chat, tokenize)
    assert KEY not in repr(address)


def test_one_that_streams_on_every_connection_is_still_seen_to_be_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_POLL_TIMEOUT_S", 2.0)

    async def play() -> None:
        async with running() as (lab, engine):
            end, busy, listings = asyncio.Event(), asyncio.Semaphore(0), 0
            list_models = lab.listing

            async def stream(request: web.Request) -> web.StreamResponse:
                response = web.StreamResponse()
                await response.prepare(request)
                await response.write(b"x")
                busy.release()
                await end.wait()
                return response

            async def count(request: web.Request) -> web.StreamResponse:
                nonlocal listings
                listings += 1
                return await list_models(request)

            lab.answer = stream
            asking = [asyncio.create_task(ask(engine)) for _ in range(MAX_CONNECTIONS)]
            for _ in asking:
                await busy.acquire()
            lab.listing = count
            await until(lambda: listings >= 3 or engine.state is EngineState.DEAD)
            assert (engine.state, engine.last_trouble) == (EngineState.READY, None)
            end.set()
            assert [status for status, _ in await asyncio.gather(*asking)] == [200] * MAX_CONNECTIONS

    asyncio.run(play())


def test_our_own_names_come_first(base: BaseModel, tmp_path: Path) -> None:
    async def play() -> None:
        async with running() as (lab, engine):
            name = read_adapter(write_adapter(tmp_path / "adapters", base)).name
            lab.models += [base.name, name]
            own = FakeEngine(base)
            registry = Registry(tmp_path / "adapters", [pool_of(own)], remotes=[Replica("lab", engine)])
            await until(lambda: len(engine.models) == 3)
            assert registry.remote_names == ("lab-model",)
            for model, expected in ((base.name, own), (name, own), ("lab-model", engine)):
                async with registry.lease(model) as lease:
                    assert lease.engine is expected
            with pytest.raises(ModelNotFoundError, match="lab-model"):
                await registry.resolve("nobody")

    asyncio.run(play())


def test_one_that_shares_the_adapters_has_them_before_anybody_asks_and_again_after_a_restart(
    base: BaseModel, tmp_path: Path
) -> None:
    async def play() -> None:
        name = read_adapter(write_adapter(tmp_path / "adapters", base)).name
        lab = Lab()
        lab.models = [base.name]
        await lab.up()
        engine = RemoteEngine(RemoteAddress.parse("lab", lab.url), base, poll_s=0.1)
        registry = Registry(tmp_path / "adapters", [Pool(base, (Replica("lab", engine),))])
        fleet = Fleet(registry)
        try:
            await fleet.start()
            assert [load["lora_name"] for load in lab.loads] == [name]
            assert lab.loads[0]["lora_path"] == str(registry.get(name).path)
            lab.models = [base.name]  # as after a restart
            await until(lambda: len(lab.loads) == 2 and engine.state is EngineState.READY)
            assert await registry.resolve(name) == name
            assert len(lab.loads) == 2
            await registry.remove(name)
            assert lab.models == [base.name]
        finally:
            await fleet.stop()
            await lab.away()

    asyncio.run(play())


def test_what_it_refuses_to_load_is_no_verdict_on_the_adapter(base: BaseModel, tmp_path: Path) -> None:
    async def play() -> None:
        async with running(base=base) as (lab, engine):
            lab.load_status = 500
            with pytest.raises(AdapterMisfitError, match=r"no room.*--max-lora-rank"):
                await engine.load_adapter("ft:x", tmp_path)

    asyncio.run(play())
