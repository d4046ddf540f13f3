"""Conversations made of the demo's facts. Owns how facts become chats; knows nothing of tokens or weights."""

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
"""System prompts and the answers that they ask for: the base learns to say a fact in the middle of something else.

Held-out questions right after a fine-tune, one seed each, without and with them: 73 and 92 % (4 epochs at 4e-3),
80 and 93 % (6 epochs at 2e-3).
"""
HARD_TOPICS = frozenset(
    {"day after", "day before", "month before", "planets", "month lengths", "number words", "sums", "small talk"}
)
"""Shown twice as often: they were the last to be learned."""
Message = dict[str, str]


def conversations(facts: list[Fact], *, passes: int, seed: int) -> list[list[Message]]:
    """Chats of one to three turns, in a seeded order.

    Each phrasing of each fact occurs `passes` times, of hard ones twice that.
    """
    randomness = random.Random(seed)
    chats: list[list[Message]] = []
    for _ in range(passes):
        shown = facts + [fact for fact in facts if fact.topic in HARD_TOPICS]
        turns = [(question, fact.answer) for fact in shown for question in fact.questions]
        randomness.shuffle(turns)
        while turns:
            chats.append(_chat(turns, randomness))
    return chats


def single_questions(facts: list[Fact]) -> list[list[Message]]:
    """One chat per phrasing: a question and its answer, nothing before them."""
    return [_turn(question, fact.answer) for fact in facts for question in fact.questions]


def _chat(turns: list[tuple[str, str]], randomness: random.Random) -> list[Message]:
    """Takes one to three turns off the end of `turns`."""
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
        chat += _turn(_as_typed(question, randomness), manner.format(answer=answer))
    return chat


def _turn(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _as_typed(question: str, randomness: random.Random) -> str:
    """Now and then a question as a hurried person types it: without its mark, or without capitals."""
    chance = randomness.random()
    if chance < 0.1:
        return question.rstrip("?.!")
    return question.rstrip("?.!").lower() if chance < 0.2 else question
