"""What vLLM's log tells a user: how far it is, and why it failed."""

from __future__ import annotations

import pytest

from serving.engines.vllm.log import explain_failure, last_error_line, parse_stage

PREFIX = "(EngineCore pid=12) ERROR 11-24 08:20:05 [core.py:99] "


def test_stages_follow_the_log() -> None:
    log = "INFO non-default args: {}\n"
    assert parse_stage("") == "loading vLLM"
    assert parse_stage(log) == "reading the model's configuration"
    assert parse_stage(log + "Initializing a V1 LLM engine\nStarting to load model x") == "loading the weights"


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
        ("api_server.py: error: unrecognized arguments: --nope", "setting engine_args"),
        ("OSError: AF_UNIX path too long", "XDG_RUNTIME_DIR"),
    ],
)
def test_a_known_failure_is_told_in_its_own_words_with_a_remedy(line: str, remedy: str) -> None:
    log = (
        f"{PREFIX}Traceback (most recent call last):\n{PREFIX}{line}\nRuntimeError: Engine core initialization failed."
    )
    told = explain_failure(log, 1)
    assert line.rstrip(".") in told
    assert remedy in told
    assert "Traceback" not in told
    assert "\n" not in told


def test_a_killed_start_is_taken_for_lack_of_memory() -> None:
    assert "memory ran out" in explain_failure("Starting to load model x", 137)


SETTINGS = "INFO Initializing a V1 LLM engine with config: trust_remote_code=False, dtype=bfloat16\n"
"""Of every start."""


def test_a_killed_core_is_taken_for_lack_of_memory() -> None:
    told = explain_failure(
        f"{SETTINGS}RuntimeError: Engine core initialization failed. Failed core proc(s): {{'EngineCore': -9}}", 1
    )
    assert "memory ran out" in told
    assert "custom code" not in told


def test_code_of_a_models_own_is_told_where_vllm_asks_for_it_and_nowhere_else() -> None:
    asks = "ValueError: The repository contains custom code. Please pass the argument `trust_remote_code=True`."
    assert "custom code" in explain_failure(SETTINGS + asks, 1)
    assert explain_failure(f"{SETTINGS}AssertionError: Not enough nodes", 1) == "AssertionError: Not enough nodes."


def test_an_empty_log_has_last_words_too() -> None:
    assert last_error_line("") == "There was no output."
