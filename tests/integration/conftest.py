"""The official SDK, pointed at the shared tuneloop. Strict: an answer that its types don't know is an error."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.conftest import Tuneloop


@pytest.fixture(scope="session")
def client(tuneloop: Tuneloop) -> Iterator[openai.OpenAI]:
    """An unmodified client whose only change is its base_url."""
    with openai.OpenAI(
        base_url=f"{tuneloop.url}/v1", api_key="unused", max_retries=0, _strict_response_validation=True
    ) as opened:
        yield opened
