"""The frame of every page: top bar, links, language, theme, API key, notices, and state that survives a refresh.

How to add a page: CONTRIBUTING.md.

Owns what all pages share. Knows nothing of what a page does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import gradio as gr

from ui.frame import style
from ui.frame.captions import Captions, Updates, html, merge_updates
from ui.frame.session import Session
from ui.html import elements
from ui.server_client import Problem, ServerClient, UIError
from ui.words.i18n import Language

FIRST_LANGUAGE: Language = "en"
"""The language of a page before the browser has reported its own."""
QUIET: Mapping[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""For every event: no loading overlay, and no entry in Gradio's public API."""


class Page(Protocol):
    """One page. Its `__init__` takes a `Frame` and is called inside its Blocks."""

    session_class: ClassVar[type[Session]]
    """The class of a tab's state on the server: `Session`, or the page's own subclass."""

    @property
    def outputs(self) -> list[Any]:
        """The components that `open` and `translate` update, without the frame's."""

    async def open(self, session: Any, api_key: str, query: dict[str, str]) -> Updates:
        """Return what a tab shows when it is opened, refreshed, or gets a key, in the session's language.

        Raises:
            UIError: shown by the frame.
        """

    def translate(self, session: Any) -> Updates:
        """Return the whole page in the session's language, otherwise unchanged."""


class TabStorage:
    """A page's state that survives a refresh, in the tab's sessionStorage."""

    def __init__(self, page: str) -> None:
        self._page = page
        self._fields: dict[str, Any] = {}
        self.component = gr.Textbox(visible="hidden", elem_id="tl-kept", show_label=False)
        self.component.change(None, [self.component], js=style.keep_js(page), **QUIET)

    def put(self, value: Mapping[str, Any]) -> Updates:
        """Store `value`, which must be JSON, and replace the stored one."""
        return {self.component: gr.update(value=json.dumps(value))}

    def keep_fields(self, **components: Any) -> None:
        """Store the values of these inputs whenever one changes. Call it once."""
        self._fields = components
        inputs = list(components.values())
        changes = [component.change for component in inputs]
        gr.on(changes, None, inputs, js=style.keep_fields_js(self._page, list(components)), **QUIET)

    def restore_fields(self, session: Session) -> Updates:
        """Return updates with the stored inputs; inputs that were never changed are left out."""
        return {
            component: gr.update(value=session.fields[name])
            for name, component in self._fields.items()
            if name in session.fields
        }


@dataclass(frozen=True)
class Frame:
    """What a page gets from the frame."""

    name: str
    client: ServerClient
    session: Any
    """The `gr.State` with the tab's session, an input of handlers."""
    api_key: Any
    """The component with the tab's key, an input of handlers."""
    language: Language
    """The language at first; `translate` switches it."""
    storage: TabStorage
    notice: Any
    key_group: Any
    address_bar: Any
    example_prompts: Sequence[str] = ()

    @property
    def outputs(self) -> list[Any]:
        """The components that `say` and `problem` update."""
        return [self.notice, self.key_group]

    def say(self, words: str = "") -> Updates:
        """Show HTML at the top of the page; '' clears it."""
        return {self.notice: gr.update(value=words, visible=bool(words))}

    def problem(self, problem: Problem, session: Session) -> Updates:
        """Show what went wrong and what to do, and the key's form if a key is needed."""
        updates = self.say(elements.problem_box(problem, session.language))
        return updates | ({self.key_group: gr.update(visible=True)} if problem.kind == "unauthorized" else {})

    def address(self, query: Mapping[str, str]) -> Updates:
        """Set the query of the page's address in the browser, without loading anything."""
        return {self.address_bar: gr.update(value=json.dumps(query))}


def add_page(blocks: Any, name: str, page_class: Any, client: ServerClient, example_prompts: Sequence[str]) -> None:
    """Add a page with its frame to the current route of `blocks`."""
    _FramedPage(blocks, name, page_class, client, example_prompts)


class _FramedPage:
    """A page in its frame."""

    def __init__(
        self, blocks: Any, name: str, page_class: Any, client: ServerClient, example_prompts: Sequence[str]
    ) -> None:
        self._name = name
        self._captions = Captions(FIRST_LANGUAGE)
        session = gr.State(page_class.session_class())
        with gr.Column(elem_classes="tl-opening") as self._everything:
            self._lay_out_top()
            with gr.Column(elem_classes=f"tl-page tl-page-{name}", elem_id="tl-content"):
                self._key, self._use_key, key_group = _key_form(self._captions)
                notice = html(visible=False)
                self._opened = gr.Textbox(visible="hidden", show_label=False)
                address_bar = gr.Textbox(visible="hidden", show_label=False)
                self._frame = Frame(
                    name, client, session, self._key, FIRST_LANGUAGE, TabStorage(name), notice, key_group, address_bar,
                    example_prompts,
                )  # fmt: skip
                self._page: Page = page_class(self._frame)
        address_bar.change(None, [address_bar], js=style.ADDRESS_JS, **QUIET)
        self._wire(blocks)

    def _lay_out_top(self) -> None:
        with gr.Row(elem_classes="tl-topbar"):
            self._top = html(elements.top(FIRST_LANGUAGE, self._name), scale=1, min_width=160)
            self._language = self._captions.make(
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

    def _wire(self, blocks: Any) -> None:
        frame = self._frame
        spoken = list(dict.fromkeys([self._top, *self._captions.components, *frame.outputs, *self._page.outputs]))
        opening = [self._language, self._key, self._opened, frame.session]
        opened = list(dict.fromkeys([self._everything, self._key, *spoken, frame.storage.component, frame.address_bar]))
        blocks.load(self._open, opening, opened, js=style.open_js(self._name), **QUIET)
        speak_js = style.language_js(self._name)
        self._language.input(self._switch_language, [self._language, frame.session], spoken, js=speak_js, **QUIET)
        gr.on(
            [self._use_key.click, self._key.submit],
            self._take_key,
            [self._key, frame.session],
            opened,
            js=style.KEY_JS,
            trigger_mode="always_last",  # another key, entered while the server still checks the previous one
            **QUIET,
        )

    async def _open(self, chosen: Language, api_key: str, opened: str, session: Session) -> Updates:
        state = json.loads(opened)
        if not session.is_language_asked:
            session.language = chosen
        session.query = state["query"]
        session.kept, session.fields = state["kept"], state["fields"]
        session.api_key = api_key
        page = await self._open_page(session, api_key)
        shown = {
            self._everything: gr.update(elem_classes=[]),
            self._language: gr.update(value=session.language),
            self._key: gr.update(value=api_key),
        }
        return merge_updates(self._translate_frame(session), shown, page)

    async def _take_key(self, api_key: str, session: Session) -> Updates:
        session.api_key = api_key
        session.fields = {}  # keep what the user has typed since the page was opened
        hidden = {self._frame.key_group: gr.update(visible=False)}
        return merge_updates(hidden, self._frame.say(), await self._open_page(session, api_key))

    def _switch_language(self, chosen: Language, session: Session) -> Updates:
        session.language, session.is_language_asked = chosen, True
        # The page's opening, answered before this, may arrive in the browser after the click and take it back there.
        asked = {self._language: gr.update(value=session.language)}
        return merge_updates(self._translate_frame(session), asked, self._page.translate(session))

    def _translate_frame(self, session: Session) -> Updates:
        top = {self._top: gr.update(value=elements.top(session.language, self._name))}
        return merge_updates(top, self._captions.updates(session.language), self._frame.say())

    async def _open_page(self, session: Session, api_key: str) -> Updates:
        try:
            page = await self._page.open(session, api_key, dict(session.query))
        except UIError as error:
            page = self._frame.problem(error.problem, session)
        return merge_updates(self._page.translate(session), page)


def _key_form(captions: Captions) -> tuple[Any, Any, Any]:
    with gr.Row(visible=False, elem_classes="tl-key") as key_group:
        api_key = captions.make(
            gr.Textbox, {"label": "key.title", "info": "key.info"}, type="password", elem_id="tl-api-key", scale=1
        )
        use_key = captions.make(
            gr.Button, {"value": "key.use"}, variant="primary", size="md", scale=0, min_width=150, elem_id="tl-use-key"
        )
    return api_key, use_key, key_group
