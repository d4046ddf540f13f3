"""The models page without a browser: a new upload forgets what the one before came to."""

from __future__ import annotations

import asyncio
from typing import Any

import gradio as gr
import httpx
import pytest

from tests.ui.lone_page import lone_page
from ui.pages.models.page import ModelsPage
from ui.pages.models.state import ModelsSession
from ui.server_client import Problem


def answer(_request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={"data": []})


@pytest.fixture(scope="module")
def page() -> Any:
    return lone_page(ModelsPage, "models", answer)


def do(page: Any, session: ModelsSession, name: str, upload: str) -> None:
    asyncio.run(page._act(session, "", gr.EventData(None, {"do": name, "upload": upload, "detail": "No archive."})))


def test_as_an_upload_begins_the_one_before_is_forgotten(page: Any) -> None:
    session = ModelsSession(import_refusal=Problem("rejected", "No archive."))
    session.say("models.done.deleted", model="old")
    do(page, session, "importing", "1")
    assert (session.import_refusal, session.done) == (None, None)


def test_an_upload_that_is_refused_before_its_beginning_is_heard_of_stays_told(page: Any) -> None:
    session = ModelsSession()
    do(page, session, "refused", "1")
    do(page, session, "importing", "1")
    assert session.import_refusal == Problem("rejected", "No archive.")
