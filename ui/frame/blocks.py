"""Gradio's Blocks, with two ways mended in which a handler's steps (`yield`) lose or take back what a page shows.

Owns how a step reaches the browser. Knows nothing of pages.
"""

from __future__ import annotations

from typing import Any

import gradio as gr


class Blocks(gr.Blocks):  # type: ignore[misc]  # Gradio is not typed
    """As `gr.Blocks`, for handlers of which several run at once and which draw other components in each step."""

    def handle_streaming_diffs(
        self,
        block_fn: Any,
        data: list[Any],
        session_hash: str | None,
        run: str | None,
        final: bool,
        simple_format: bool = False,
    ) -> list[Any]:
        """What is sent for one step of a run: for its first the outputs' updates, then how they differ from the last.

        Two things are otherwise than in Gradio 6.31:

        - The end of a run (`final`) draws nothing. Gradio draws the last step again, over what another event has drawn
          since.
        - Where a step names less of a component than the one before, the update is sent whole. The browser applies
          differences to the very object of the earlier step; where that waits its turn yet, as after a hold-up on the
          network, "delete the value" would take away what nobody has seen.
        """
        before = list(self.pending_diff_streams.get(session_hash, {}).get(run, []))
        after = list(data)
        sent: list[Any] = super().handle_streaming_diffs(block_fn, data, session_hash, run, final, simple_format)
        if not session_hash or not run or simple_format:  # what is no browser wants the values themselves
            return sent
        if final:
            return [gr.skip() for _ in sent]
        for place, (old, new) in enumerate(zip(before, after, strict=False)):
            if isinstance(old, dict) and isinstance(new, dict) and old.keys() - new.keys():
                sent[place] = [["replace", [], new]]
        return sent
