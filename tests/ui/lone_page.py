"""One page without a browser and without a server: the handlers in Blocks of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr
import httpx

from ui.frame.shell import Frame, TabStorage
from ui.server_client import ServerClient


def lone_page(page_class: Any, name: str, answer: Callable[[httpx.Request], Any]) -> Any:
    """The page over a server that answers as `answer` does."""
    client = ServerClient("http://server", transport=httpx.MockTransport(answer))
    with gr.Blocks():
        key, notice, key_group, address_bar = (gr.Textbox() for _ in range(4))
        session = gr.State(page_class.session_class())
        return page_class(Frame(name, client, session, key, "en", TabStorage(name), notice, key_group, address_bar))
