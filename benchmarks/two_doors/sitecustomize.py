"""Lets a vLLM that was told to listen on a Unix socket listen on a TCP port, too: $TWO_DOORS_PORT.

Python imports it by its name where this folder is on PYTHONPATH. So one engine can be asked directly, as a user
without tuneloop would ask it, and through tuneloop.
"""

import os
import socket
import sys
from typing import Any

if "--uds" in sys.argv:
    import uvicorn

    _serve = uvicorn.Server.serve

    async def _serve_both(self: uvicorn.Server, sockets: list[socket.socket] | None = None) -> Any:
        door = socket.create_server(("127.0.0.1", int(os.environ["TWO_DOORS_PORT"])), backlog=2048)
        return await _serve(self, [*(sockets or []), door])

    uvicorn.Server.serve = _serve_both  # type: ignore[method-assign]
