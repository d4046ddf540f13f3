"""Gradio's Blocks with two fixes: a handler's steps (`yield`) don't lose or overwrite what a page shows.

Owns how a step reaches the browser. Knows nothing of pages.
"""

from __future__ import annotations

from typing import Any

import gradio as gr


class Blocks(gr.Blocks):  # type: ignore[misc]  # Gradio is not typed
    """Like `gr.Blocks`, for handlers that run concurrently and update different components in each step."""

    def handle_streaming_diffs(
        self,
        block_fn: Any,
        data: list[Any],
        session_hash: str | None,
        run: str | None,
        final: bool,
        simple_format: bool = False,
    ) -> list[Any]:
        """Return what is sent for one step of a run: at first all updates, then the differences from the step before.

        Two things differ from Gradio 6.31:

        - The end of a run (`final`) draws nothing. Gradio would draw the last step again, over later updates of other
          events.
        - If a step updates fewer properties of a component than the one before, the whole update is sent. The browser
          applies differences to the object of the earlier step; if that step hasn't been drawn yet, for example after
          a network delay, "delete the value" would remove a value before anyone has seen it.
        """
        before = list(self.pending_diff_streams.get(session_hash, {}).get(run, []))
        after = list(data)
        sent: list[Any] = super().handle_streaming_diffs(block_fn, data, session_hash, run, final, simple_format)
        if not session_hash or not run or simple_format:  # clients other than browsers need the values themselves
            return sent
        if final:
            return [gr.skip() for _ in sent]
        for place, (old, new) in enumerate(zip(before, after, strict=False)):
            if isinstance(old, dict) and isinstance(new, dict) and old.keys() - new.keys():
                sent[place] = [["replace", [], new]]
        return sent
