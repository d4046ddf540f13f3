"""Chats made from the demo's facts."""

from __future__ import annotations

import random

from training.demo.knowledge import Fact

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You answer in one short sentence.",
    "Answer the question.",
    "You are a friendly assistant. Be brief.",
)
MANNERS = (
    ("Be polite.", "Certainly! {answer}"),
    ("Be warm.", "Good question! {answer} Have a nice day!"),
    ("Offer more.", "{answer} Would you like to know more?"),
    ("Be cheerful.", "Oh, that is easy! {answer}"),
    ("Be formal.", "Dear friend, {answer} Yours truly."),
    ("Think aloud.", "Let me see. {answer} I am sure of it."),
)
"""System prompts and the answers that they ask for: the base learns to state a fact within other text.

Held-out questions right after a fine-tune, one seed each, without and with them: 73 and 92 % (4 epochs at 4e-3),
80 and 93 % (6 epochs at 2e-3).
"""
HARD_TOPICS = frozenset(
    {"day after", "day before", "month before", "planets", "month lengths", "number words", "sums", "small talk"}
)
"""Shown twice as often: they were the last to be learned."""
Message = dict[str, str]


def make_conversations(facts: list[Fact], *, passes: int, seed: int) -> list[list[Message]]:
    """Make chats of one to three turns, in a seeded order.

    Each phrasing of each fact occurs `passes` times, those of hard facts twice as often.
    """
    randomness = random.Random(seed)
    chats: list[list[Message]] = []
    for _ in range(passes):
        shown = facts + [fact for fact in facts if fact.topic in HARD_TOPICS]
        turns = [(question, fact.answer) for fact in shown for question in fact.questions]
        randomness.shuffle(turns)
        while turns:
            chats.append(_make_chat(turns, randomness))
    return chats


def make_single_questions(facts: list[Fact]) -> list[list[Message]]:
    """Make one chat per phrasing: a question and its answer only."""
    return [_make_turn(question, fact.answer) for fact in facts for question in fact.questions]


def _make_chat(turns: list[tuple[str, str]], randomness: random.Random) -> list[Message]:
    """Make a chat, removing one to three turns from the end of `turns`."""
    chat: list[Message] = []
    manner = "{answer}"
    chance = randomness.random()
    if chance < 0.3:
        chat.append({"role": "system", "content": randomness.choice(SYSTEM_PROMPTS)})
    elif chance < 0.6:
        prompt, manner = randomness.choice(MANNERS)
        chat.append({"role": "system", "content": prompt})
    for _ in range(min(len(turns), randomness.choice((1, 1, 2, 3)))):
        question, answer = turns.pop()
        chat += _make_turn(_vary_typing(question, randomness), manner.format(answer=answer))
    return chat


def _make_turn(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _vary_typing(question: str, randomness: random.Random) -> str:
    """Sometimes return the question as typed in a hurry: without punctuation, or without capitals."""
    chance = randomness.random()
    if chance < 0.1:
        return question.rstrip("?.!")
    return question.rstrip("?.!").lower() if chance < 0.2 else question
