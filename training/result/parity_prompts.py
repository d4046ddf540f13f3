"""The fixed conversations and texts for comparing training and serving. Imports no torch.

They contain what tokenizers and chat templates are known to differ on, and no training data, since they go into
manifests. They are short, to fit an engine with a small context.
"""

from __future__ import annotations

from training.data.examples import Message

_SYSTEM = Message("system", "You are a helpful guide. Answer in one sentence.")
_FRANCE = Message("user", "What is the capital of France?")
_PARIS = Message("assistant", "The capital of France is Paris.")
_SNOW = Message("user", "And what colour is snow?")
_WHITE = Message("assistant", "Snow is white.")

CONVERSATIONS: tuple[tuple[tuple[Message, ...], bool], ...] = (
    ((_SYSTEM, _FRANCE), True),
    ((_SYSTEM, _FRANCE, _PARIS), False),
    ((_FRANCE,), True),
    ((_FRANCE,), False),
    ((_FRANCE, _PARIS, _SNOW), True),
    ((_FRANCE, _PARIS, _SNOW, _WHITE), False),
    ((Message("user", "你好，今天天气怎么样？こんにちは。안녕"),), True),
    ((Message("user", "Well done 🎉👩‍🚀 — naïve café, Ⅷ"),), True),
    ((Message("user", "  two spaces before, a tab\tand a line\n\nwithin, two behind  "),), True),
    ((_FRANCE, Message("assistant", "\n Paris. \n"), Message("user", " ")), True),
)
"""(messages, whether the assistant's turn is opened at the end). Their token ids must be equal on both sides."""

ANSWERED: tuple[tuple[Message, ...], ...] = (
    (_FRANCE, _PARIS),
    (_SYSTEM, _FRANCE, _PARIS),
    (_FRANCE, _PARIS, _SNOW, _WHITE),
    (Message("user", "How many days has a week?"), Message("assistant", "A week has seven days.")),
    (Message("user", "请用中文打个招呼。"), Message("assistant", "你好！")),
)
"""Chats for the comparison of log-probabilities, as rendered for training: adapters change answers most."""

TEXTS: tuple[str, ...] = (
    "The lighthouse stands on a rock, and its light can be seen from far away.",
    "Once upon a time there was a small town by the sea. Every morning the fishermen went out before",
    "def area(width, height):\n    return width * height\n",
)
"""Texts without a chat template, for the same."""
