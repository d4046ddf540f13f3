"""How a run is asked to stop: Ctrl-C or SIGTERM. Owns the signals; knows nothing of what is being stopped."""

from __future__ import annotations

import signal
from types import FrameType


class Stopped(BaseException):
    """The run was asked to stop. Like KeyboardInterrupt no `Exception`, so that nothing on its way swallows it."""

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(f"stopped by {signal.Signals(signum).name}")


class StopRequest:
    """Turns the first signal into a request where someone looks for it (`patient`), else into `Stopped` at once.

    A second signal raises `Stopped` wherever the run is.
    """

    def __init__(self) -> None:
        self.patient = False
        """Whether the first signal may wait for the end of the training step, so that a checkpoint can be written."""
        self.signum: int | None = None
        """The signal that came, if any."""

    def listen(self) -> None:
        """Takes over SIGINT and SIGTERM; only the main thread may call this."""
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._on_signal)

    def raise_if_requested(self) -> None:
        """Raises `Stopped` when a signal came."""
        if self.signum is not None:
            raise Stopped(self.signum)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        is_first, self.signum = self.signum is None, signum
        if not (is_first and self.patient):
            raise Stopped(signum)
