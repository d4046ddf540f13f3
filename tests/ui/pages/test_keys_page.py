"""The keys page without a browser: what a second click does."""

from __future__ import annotations

import asyncio
from typing import Any

import gradio as gr
import httpx

from tests.ui.lone_page import lone_page
from ui.frame.shell import _FramedPage
from ui.pages.keys.page import KeysPage
from ui.pages.keys.state import KeysSession
from ui.server_client import ServerClient
from ui.words.i18n import text

FIRST = {"id": "key_1", "name": "me", "key": "sk-tuneloop-x", "notice": "From now on every request needs a key."}


def test_a_double_click_makes_one_key_and_leaves_it_shown() -> None:
    posts: list[httpx.Request] = []
    session, asked, let = KeysSession(), asyncio.Event(), asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            posts.append(request)
            asked.set()
            await let.wait()
        return httpx.Response(200, json=FIRST if request.method == "POST" else {"data": []})

    page = lone_page(KeysPage, "keys", answer)

    async def click() -> Any:
        return await page._act(session, "", gr.EventData(None, {"do": "create", "name": "me"}))

    async def clicked_thrice() -> None:
        first = asyncio.create_task(click())
        await asked.wait()
        async with asyncio.timeout(20):  # a second one that asks the server waits as the first does
            await click()
        let.set()
        await first
        await click()  # sent before the tab had taken the first key

    asyncio.run(clicked_thrice())
    assert (len(posts), session.fresh, session.trouble) == (1, FIRST, None)


def test_a_chosen_language_is_answered_with_its_choice() -> None:
    """Else a page that opened meanwhile, in the language before, would leave the old one chosen."""
    client = ServerClient("http://server", transport=httpx.MockTransport(lambda _: httpx.Response(200)))
    with gr.Blocks() as blocks:
        framed = _FramedPage(blocks, "keys", KeysPage, client, ())
    updates = framed._switch_language("zh", KeysSession())
    switch = updates[framed._language]
    assert (switch["value"], switch["label"]) == ("zh", text("zh", "header.language"))
