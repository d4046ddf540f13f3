"""Display of a run for the user who started it: a bar on a terminal, JSON lines elsewhere."""

from __future__ import annotations

from typing import NoReturn, TextIO

from tqdm import tqdm

from training.record.progress import ProgressEvent


class Display:
    """Displays events on `stream` as they come."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: tqdm[NoReturn] | None = None

    def __call__(self, event: ProgressEvent) -> None:
        """Display `event`; a failure is left to the error message that follows."""
        if not self._stream.isatty():
            print(event.to_json(), file=self._stream, flush=True)
        elif event.type == "step":
            self._advance(event)
        elif event.type != "failed":
            tqdm.write(event.message, file=self._stream)

    def close(self) -> None:
        """Remove the bar from the terminal."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _advance(self, event: ProgressEvent) -> None:
        bar = self._bar = self._bar or self._new_bar(event.total_steps)
        bar.set_postfix_str(f"loss {event.train_loss:.4f}, {_clock(event.remaining_s or 0)} left", refresh=False)
        bar.update((event.step or 0) - bar.n)
        if event.step == event.total_steps:
            self.close()

    def _new_bar(self, total_steps: int | None) -> tqdm[NoReturn]:
        return tqdm(
            desc="training",
            total=total_steps,
            file=self._stream,
            leave=False,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} steps{postfix}",
        )


def _clock(seconds: float) -> str:
    """Format seconds: 1:05 for sixty-five."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
