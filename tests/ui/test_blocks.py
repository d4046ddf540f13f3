"""Steps of handlers as they reach a browser, over Gradio's own queue."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import fastapi
import gradio as gr
import httpx
import pytest

from tests.ui.running import running
from ui.frame.blocks import Blocks

NOTHING: dict[str, Any] = {"__type__": "update"}


def steps_app(_url: str) -> fastapi.FastAPI:
    with Blocks() as blocks:
        one, two = gr.Textbox(), gr.Textbox()

        async def several() -> AsyncGenerator[dict[Any, Any]]:
            yield {one: gr.update(value="first", visible=True)}
            yield {two: gr.update(value="second")}
            yield {two: gr.update(value="second and more")}

        blocks.load(several, None, [one, two])
    app: fastapi.FastAPI = gr.mount_gradio_app(fastapi.FastAPI(), blocks, path="/", ssr_mode=False)
    return app


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(steps_app) as address:
        yield address


def run(url: str) -> tuple[list[Any], Any]:
    """What a browser has of each step's outputs when it reads the first one only after the last has come, and the end.

    It applies a step's differences to the very objects of the step before.
    """
    tab = secrets.token_hex(4)
    body = {"data": [], "fn_index": 0, "session_hash": tab, "event_data": None}
    httpx.post(f"{url}/gradio_api/queue/join", json=body).raise_for_status()
    outputs: list[Any] = []
    seen: list[Any] = []
    with httpx.stream("GET", f"{url}/gradio_api/queue/data", params={"session_hash": tab}) as stream:
        for line in stream.iter_lines():
            message = json.loads(line.removeprefix("data: ")) if line else {}
            if message.get("msg") == "process_generating":
                data = message["output"]["data"]
                outputs = [apply(o, d) for o, d in zip(outputs, data, strict=True)] if outputs else data
                seen.append(list(outputs))
            elif message.get("msg") == "process_completed":
                return seen, message["output"]["data"]
    raise AssertionError("The stream ended without a word of the event's end")


def apply(whole: Any, differences: list[Any]) -> Any:
    for action, path, value in differences:
        if not path:
            assert action == "replace"
            whole = value
            continue
        *above, last = path
        place = whole
        for key in above:
            place = place[key]
        if action == "delete":
            del place[last]
        else:
            place[last] = place[last] + value if action == "append" else value
    return whole


def pick_shown(update: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in update.items() if name in ("value", "visible")}


def test_a_step_takes_nothing_of_an_earlier_one_away_that_waits_to_be_drawn(url: str) -> None:
    seen, _ = run(url)
    assert [pick_shown(one) for one, _ in seen] == [{"value": "first", "visible": True}, {}, {}]
    assert [pick_shown(two) for _, two in seen][1:] == [{"value": "second and more"}] * 2  # the newer words are no harm


def test_the_end_draws_nothing(url: str) -> None:
    assert run(url)[1] == [NOTHING, NOTHING]
