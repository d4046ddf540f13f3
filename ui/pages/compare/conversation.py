"""A conversation with several models, each with its own answers: the state of the Compare page.

Immutable values: an event gives a new state. Owns which messages each model gets, what survives a refresh, and how a
stored comparison is read. Knows nothing of HTTP, Gradio or languages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from ui.pages.compare.panes import SIDES, Pane
from ui.server_client import Problem, problem_of_error

Message = dict[str, Any]


@dataclass(frozen=True)
class ConversationTurn:
    """One prompt and every model's answer to it."""

    prompt: str
    panes: tuple[Pane, ...]
    """In the order of the models."""
    comparison_id: str | None = None
    """Set once the server has stored all answers; then the comparison can be shared."""
    problem: Problem | None = None
    """Why the server didn't store the finished answers."""
    running: bool = False
    """Whether the turn is still in progress; after the last answer, the server stores the comparison."""

    @property
    def done(self) -> bool:
        """Whether every answer is finished."""
        return all(pane.phase == "done" for pane in self.panes)

    def apply(self, event: Mapping[str, Any], now_s: float) -> ConversationTurn:
        """Return the state after one server event; unknown types, as from a newer server, change nothing."""
        match event.get("type"):
            case "comparison.delta":
                return self._with_pane(event, self._pane(event).add(event["delta"], now_s))
            case "comparison.side_done":
                return self._with_pane(event, self._pane(event).finish(event))
            case "comparison.side_failed":
                return self._with_pane(event, self._pane(event).fail(problem_of_error(event["error"])))
            case "comparison.failed":
                return replace(self, problem=problem_of_error(event["error"]))
            case "comparison.completed":
                return replace(self, comparison_id=event["comparison"]["id"])
        return self

    def end(self, problem: Problem) -> ConversationTurn:
        """Return the state after the stream ended: answers that were still running fail with this problem."""
        panes = tuple(pane.fail(problem) if pane.running else pane for pane in self.panes)
        return replace(self, panes=panes, running=False)

    def stop(self) -> ConversationTurn:
        """Return the state after the user stopped it."""
        return replace(self, panes=tuple(pane.stop() for pane in self.panes), running=False)

    def _pane(self, event: Mapping[str, Any]) -> Pane:
        return self.panes[SIDES.index(event["side"])]

    def _with_pane(self, event: Mapping[str, Any], pane: Pane) -> ConversationTurn:
        place = SIDES.index(event["side"])
        return replace(self, panes=(*self.panes[:place], pane, *self.panes[place + 1 :]))


@dataclass(frozen=True)
class Conversation:
    """A sequence of turns; empty at first."""

    models: tuple[str, ...] = ()
    system: str = ""
    turns: tuple[ConversationTurn, ...] = ()
    nameless: bool = False
    """Read from a blind comparison without a rating: the models are unknown, so it can't be continued."""

    @property
    def running(self) -> bool:
        """Whether the last turn is in progress."""
        return bool(self.turns) and self.turns[-1].running

    def ask(self, prompt: str, models: Sequence[str], system: str, now_s: float) -> Conversation:
        """Return the state after sending a prompt. Other models start a new conversation."""
        earlier = self.turns if tuple(models) == self.models else ()
        panes = tuple(Pane("waiting", asked_model=model, asked_s=now_s) for model in models)
        return Conversation(tuple(models), system, (*earlier, ConversationTurn(prompt, panes, running=True)))

    def until(self, turns: int) -> Conversation:
        """Return the conversation with only its first `turns` turns."""
        return replace(self, turns=self.turns[:turns])

    def histories(self) -> list[list[Message]]:
        """Return the messages for each model: the system prompt, its own answers, the last prompt.

        Prompts that a model didn't answer are left out of its history, because many chat templates refuse two user
        messages in a row.
        """
        return [self._history(place) for place in range(len(self.models))]

    def with_last(self, turn: ConversationTurn) -> Conversation:
        """Return the conversation with `turn` as its last turn."""
        return replace(self, turns=(*self.turns[:-1], turn))

    def stop(self) -> Conversation:
        """Return the state after the user stopped it."""
        return self.with_last(self.turns[-1].stop()) if self.turns else self

    def _history(self, place: int) -> list[Message]:
        messages = [_message("system", self.system)] if self.system.strip() else []
        for turn in self.turns[:-1]:
            if content := turn.panes[place].content:
                messages += [_message("user", turn.prompt), _message("assistant", content)]
        return [*messages, _message("user", self.turns[-1].prompt)]

    def to_json(self) -> dict[str, Any]:
        """Return the state to restore after a refresh, as JSON."""
        turns = [
            {
                "prompt": turn.prompt,
                "comparison_id": turn.comparison_id,
                "panes": [pane.to_json() for pane in turn.panes],
            }
            for turn in self.turns
        ]
        return {"models": list(self.models), "system": self.system, "turns": turns}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Conversation:
        """Return the stored conversation; an empty one if it can't be read, for example after an update of tuneloop."""
        try:
            turns = tuple(
                ConversationTurn(turn["prompt"], tuple(map(Pane.from_json, turn["panes"])), turn["comparison_id"])
                for turn in kept["turns"]
            )
            conversation = cls(tuple(kept["models"]), kept["system"], turns)
        except (KeyError, TypeError, ValueError):
            return cls()
        fits = all(len(turn.panes) == len(conversation.models) for turn in turns)
        return conversation if fits else cls()

    @classmethod
    def of_comparison(cls, comparison: Mapping[str, Any]) -> Conversation:
        """Return a stored comparison's conversation: earlier turns from its messages, the last with all answers."""
        sides = [comparison[side] for side in SIDES if comparison.get(side)]
        histories = comparison.get("histories") or [comparison["messages"]] * len(sides)
        nameless = any(side.get("model") is None for side in sides)
        models = tuple(side.get("model") or "" for side in sides)
        asked = [None if nameless else model for model in models]
        turns = _turns_of(histories, asked)
        last = tuple(
            replace(Pane(asked_model=model, content=side["content"]).finish(side), model=model)
            for model, side in zip(asked, sides, strict=True)
        )
        system = next((str(m["content"]) for m in histories[0] if m["role"] == "system"), "")
        prompt = _words(histories[0][-1])
        return cls(models, system, (*turns, ConversationTurn(prompt, last, comparison["id"])), nameless)


def _turns_of(histories: Sequence[Sequence[Message]], models: Sequence[str | None]) -> list[ConversationTurn]:
    answered = [_answers(history) for history in histories]
    longest = max(answered, key=len)
    turns = []
    for prompt, _ in longest:
        panes = []
        for model, answers in zip(models, answered, strict=True):
            mine = answers.pop(0)[1] if answers is not longest and answers and answers[0][0] == prompt else ""
            panes.append(Pane("done" if mine else "empty", mine, model, model))
        turns.append((prompt, panes))
    own = answered.index(longest)
    for (_, panes), (_, content) in zip(turns, longest, strict=True):
        panes[own] = Pane("done", content, models[own], models[own])
    return [ConversationTurn(prompt, tuple(panes)) for prompt, panes in turns]


def _answers(history: Sequence[Message]) -> list[tuple[str, str]]:
    spoken = [message for message in history if message["role"] in ("user", "assistant")]
    return [
        (_words(asked), _words(answer))
        for asked, answer in pairwise(spoken)
        if (asked["role"], answer["role"]) == ("user", "assistant")
    ]


def _words(message: Message) -> str:
    """Return a message's text; for content in parts, only the text parts."""
    content = message["content"]
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content or "")


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
