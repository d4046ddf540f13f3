"""Conversations made of the demo's facts. Owns how facts become chats; knows nothing of tokens or weights."""

from __future__ import annotations

import random

from training.demo_knowledge import Fact

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You answer in one short sentence.",
    "Answer the question.",
    "You are a friendly assistant. Be brief.",
)
Message = dict[str, str]


def conversations(facts: list[Fact], *, passes: int, seed: int) -> list[list[Message]]:
    """Chats of one to three turns in which each phrasing of each fact occurs `passes` times, in a seeded order."""
    randomness = random.Random(seed)
    chats: list[list[Message]] = []
    for _ in range(passes):
        turns = [(question, fact.answer) for fact in facts for question in fact.questions]
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
    if randomness.random() < 0.3:
        chat.append({"role": "system", "content": randomness.choice(SYSTEM_PROMPTS)})
    for _ in range(min(len(turns), randomness.choice((1, 1, 2, 3)))):
        question, answer = turns.pop()
        chat += _turn(_as_typed(question, randomness), answer)
    return chat


def _turn(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _as_typed(question: str, randomness: random.Random) -> str:
    """Now and then a question as a hurried person types it: without its mark, or without capitals."""
    chance = randomness.random()
    if chance < 0.1:
        return question.rstrip("?.!")
    return question.rstrip("?.!").lower() if chance < 0.2 else question
