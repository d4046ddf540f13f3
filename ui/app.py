"""Assembles the pages, one route each, and mounts them on a FastAPI application.

Owns the list of pages and how they are mounted. Knows nothing of what a page does, nor of its frame.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import fastapi
import gradio as gr

from ui.frame import style
from ui.frame.blocks import Blocks
from ui.frame.shell import add_page
from ui.pages.campaigns.page import CampaignsPage
from ui.pages.compare.page import ComparePage
from ui.pages.data.page import DataPage
from ui.pages.keys.page import KeysPage
from ui.pages.leaderboard.page import LeaderboardPage
from ui.pages.models.page import ModelsPage
from ui.pages.rate.page import RatePage
from ui.pages.train.page import TrainPage
from ui.server_client import ServerClient

# Each page's name is also its path; the first page is at the root.
PAGES: Mapping[str, Any] = {
    "compare": ComparePage,
    "rate": RatePage,
    "campaigns": CampaignsPage,
    "leaderboard": LeaderboardPage,
    "data": DataPage,
    "train": TrainPage,
    "models": ModelsPage,
    "keys": KeysPage,
}


def create_blocks(server_url: str, *, example_prompts: Sequence[str] = ()) -> gr.Blocks:
    """Return the pages, as clients of the API at `server_url` (scheme, host and port, without `/v1`).

    Theme and CSS belong to the mount in Gradio 6: use `mount`, or pass `ui.frame.style`'s to `launch` yourself.
    """
    client = ServerClient(server_url)
    first, *others = PAGES
    with Blocks(title="tuneloop", analytics_enabled=False) as blocks:
        add_page(blocks, first, PAGES[first], client, example_prompts)
    for name in others:
        with blocks.route(name, f"/{name}", show_in_navbar=False):
            add_page(blocks, name, PAGES[name], client, example_prompts)
    # Handlers wait for the network, not for the CPU; the server itself limits how much runs at once.
    blocks.queue(default_concurrency_limit=None)
    return blocks


def mount(
    app: fastapi.FastAPI, server_url: str, *, example_prompts: Sequence[str] = (), path: str = "/"
) -> fastapi.FastAPI:
    """Mount the pages on `path` of `app` and return it. Call it last: on `/` it handles every path without a route."""
    with warnings.catch_warnings():
        # Gradio warns that it disables for several pages what is disabled here anyway.
        warnings.filterwarnings("ignore", message="SSR mode is not supported")
        gr.mount_gradio_app(
            app,
            create_blocks(server_url, example_prompts=example_prompts),
            path=path,
            theme=style.theme(),
            css_paths=style.STYLESHEETS,
            head=style.HEAD,
            footer_links=[],
            run_history=False,  # it would keep prompts and keys in the browser
            ssr_mode=False,  # it would start a Node process
            enable_monitoring=False,
            mcp_server=False,
            pwa=False,
            max_file_size=1,  # files go to the API, which asks for the key; one byte, because 0 means no limit
            show_error=False,
        )
    return app
