"""The pages: a client of the HTTP API like any other, written with Gradio.

    blocks = create_blocks("http://127.0.0.1:8000")          # the pages alone, to launch or to mount
    mount(app, "http://127.0.0.1:8000", example_prompts=[…])  # the pages on `/` of a FastAPI application

Imports nothing of tuneloop's other packages: whatever a page shows or stores goes over HTTP, so it runs beside the
server as well as inside it.
"""

from ui.app import create_blocks, mount

__all__ = ["create_blocks", "mount"]
