"""A real HTTP server for webhooks to be sent to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[int], int]
"""The status to answer the n-th request with; 0 hangs until the receiver is closed."""


class Receiver:
    """A real HTTP server that keeps what it is sent and answers as the test wants."""

    def __init__(self, answer: Answer = lambda _n: 200, port: int = 0) -> None:
        self.received: list[tuple[dict[str, str], bytes]] = []
        self._arrived, self._closing = threading.Condition(), threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = receiver._take({name.lower(): value for name, value in self.headers.items()}, body, answer)
                if status == 0:
                    receiver._closing.wait()
                    return
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", f"http://127.0.0.1:{receiver.port}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_GET(self) -> None:
                receiver.received.append(({"path": self.path}, b""))
                self.send_error(404)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def _take(self, headers: dict[str, str], body: bytes, answer: Answer) -> int:
        with self._arrived:
            self.received.append((headers, body))
            self._arrived.notify_all()
            return answer(len(self.received))

    def wait_for(self, count: int) -> list[tuple[dict[str, str], bytes]]:
        """What came, once there are at least `count`."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.received) >= count, 20), self.received
            return list(self.received)

    def close(self) -> None:
        """Hangs up on whoever still waits."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
