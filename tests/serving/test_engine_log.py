"""What vLLM's log tells a user: how far it is, and why it failed."""

from __future__ import annotations

import pytest

from serving.engine_log import failure_of, last_words, stage_of

PREFIX = "(EngineCore pid=12) ERROR 11-24 08:20:05 [core.py:99] "


def test_stages_follow_the_log() -> None:
    log = "INFO non-default args: {}\n"
    assert stage_of("") == "loading vLLM"
    assert stage_of(log) == "reading the model's configuration"
    assert stage_of(log + "Initializing a V1 LLM engine\nStarting to load model x") == "loading the weights"


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory.", "ran out of memory"),
        ("ValueError: No available memory for the cache blocks.", "lower max_model_len, or raise"),
        (
            "ValueError: User-specified max_model_len (9) is greater than the derived max_model_len",
            "lower max_model_len",
        ),
        ("ValueError: Model architectures ['X'] are not supported for now.", "choose another base model"),
        ("api_server.py: error: unrecognized arguments: --nope", "extra engine arguments"),
        ("OSError: AF_UNIX path too long", "XDG_RUNTIME_DIR"),
    ],
)
def test_a_known_failure_is_told_in_its_own_words_with_a_remedy(line: str, remedy: str) -> None:
    log = (
        f"{PREFIX}Traceback (most recent call last):\n{PREFIX}{line}\nRuntimeError: Engine core initialization failed."
    )
    told = failure_of(log, 1)
    assert line.rstrip(".") in told
    assert remedy in told
    assert "Traceback" not in told
    assert "\n" not in told


def test_a_killed_start_is_taken_for_lack_of_memory() -> None:
    assert "memory ran out" in failure_of("Starting to load model x", 137)


def test_an_empty_log_has_last_words_too() -> None:
    assert last_words("") == "It said nothing."
