"""Assembles the pages: header, language, theme, one page so far; and puts them onto a FastAPI application.

Owns what all pages share. Knows nothing of what a page does; another page is one more object with `open`, `speak` and
`outputs` beside `ComparePage`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fastapi
import gradio as gr

from ui import render, style
from ui.captions import Captions, Updates, html, merged
from ui.client import ServerClient
from ui.compare import ComparePage
from ui.i18n import Language
from ui.session import Session

FIRST_LANGUAGE: Language = "en"
"""What stands in the page before the browser has told its language."""


def create_blocks(server_url: str, *, example_prompts: Sequence[str] = ()) -> gr.Blocks:
    """The pages, speaking to the API at `server_url` (scheme, host and port, without `/v1`).

    Theme and CSS belong to the mount in Gradio 6: use `mount`, or pass `ui.style`'s to `launch` yourself.
    """
    client = ServerClient(server_url)
    captions = Captions(FIRST_LANGUAGE)
    with gr.Blocks(title="tuneloop", analytics_enabled=False) as blocks:
        session = gr.State(Session())
        with gr.Column(elem_classes="tl-opening") as everything:
            brand, language = _header(captions)
            page = ComparePage(client, session, FIRST_LANGUAGE, example_prompts)
        _wire_language(blocks, page, session, captions, (everything, brand, language))
    # Handlers wait for the network, not for the processor; the server itself limits how much runs at once.
    blocks.queue(default_concurrency_limit=None)
    return blocks


def mount(
    app: fastapi.FastAPI, server_url: str, *, example_prompts: Sequence[str] = (), path: str = "/"
) -> fastapi.FastAPI:
    """`app` with the pages on `path`. Call it after all other routes are in: on `/` it takes every path left over."""
    gr.mount_gradio_app(
        app,
        create_blocks(server_url, example_prompts=example_prompts),
        path=path,
        theme=style.theme(),
        css_paths=[style.STYLESHEET],
        head=style.HEAD,
        footer_links=[],
        run_history=False,  # it would keep prompts and keys in the browser
        ssr_mode=False,  # it would start a Node process
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        max_file_size=1,  # no page takes files; one byte, because 0 means no limit
        show_error=False,
    )
    return app


def _header(captions: Captions) -> tuple[Any, Any]:
    with gr.Row(elem_classes="tl-topbar"):
        brand = html(render.header(FIRST_LANGUAGE), scale=1, min_width=160)
        language = captions.make(
            gr.Radio,
            {"label": "header.language"},
            choices=[("English", "en"), ("中文", "zh")],
            value=FIRST_LANGUAGE,
            show_label=False,
            container=False,
            scale=0,
            min_width=150,
            elem_id="tl-language",
            elem_classes="tl-language",
        )
        theme = gr.Button("◐", elem_classes="tl-icon", elem_id="tl-theme", size="md", scale=0)
    theme.click(None, js=style.THEME_JS, api_visibility="private")
    return brand, language


def _wire_language(
    blocks: Any, page: ComparePage, session: Any, captions: Captions, shared: tuple[Any, Any, Any]
) -> None:
    everything, brand, language = shared

    def speak(chosen: Language, tab: Session) -> Updates:
        tab.language = chosen
        return merged({brand: gr.update(value=render.header(chosen))}, captions.updates(chosen), page.speak(tab))

    async def open_tab(chosen: Language, api_key: str, tab: Session) -> Updates:
        shown = {everything: gr.update(elem_classes=[]), language: gr.update(value=chosen)}
        return merged(speak(chosen, tab), shown, await page.open(tab, api_key))

    spoken = [brand, *captions.components, *page.outputs]
    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    opening = [language, page.api_key, session]
    blocks.load(open_tab, opening, [everything, *spoken], js=style.OPEN_JS, **quiet)
    language.input(speak, [language, session], spoken, js=style.LANGUAGE_JS, **quiet)
