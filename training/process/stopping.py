"""Requests to stop a run: Ctrl-C or SIGTERM."""

from __future__ import annotations

import signal
from types import FrameType


class Stopped(BaseException):
    """The run was asked to stop. Like KeyboardInterrupt not an `Exception`, so that no handler swallows it."""

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(f"stopped by {signal.Signals(signum).name}")


class StopRequest:
    """Turns the first signal into a request if the run polls for it (`patient`), else raises `Stopped` at once.

    A second signal always raises `Stopped`.
    """

    def __init__(self) -> None:
        self.patient = False
        """Whether the first signal may wait for the end of the training step, so that a checkpoint can be written."""
        self.signum: int | None = None
        """The signal received, if any."""

    def listen(self) -> None:
        """Handle SIGINT and SIGTERM from now on; only the main thread may call this."""
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._on_signal)

    def raise_if_requested(self) -> None:
        """Raise `Stopped` if a signal was received."""
        if self.signum is not None:
            raise Stopped(self.signum)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        is_first, self.signum = self.signum is None, signum
        if not (is_first and self.patient):
            raise Stopped(signum)
