"""Jobs on GPUs that aren't here, for bases without their weights: what is taken, what is refused, by what it says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from server.jobs.run.queue import Runner
from tests.gpu.bases import write_base
from tests.gpu.cards import A100_40, H100, L40S, RTX_3060, RTX_4090, T4, Card, write_nvidia_smi
from tests.server.conftest import Gateway, StartGateway
from tests.server.inspection.test_preflight import asleep, use_files_of
from tests.server.jobs.test_fine_tuning_api import add_file, config_of, create, hyper

BIG = ("Qwen2.5-7B-Instruct", "Qwen3-8B", "Llama-3.1-8B-Instruct")
TAKEN: dict[Card, tuple[str, ...]] = {
    T4: ("Qwen2.5-0.5B-Instruct", "Qwen2.5-1.5B-Instruct", "Qwen2.5-7B-Instruct"),
    RTX_3060: ("Qwen2.5-0.5B-Instruct", "Qwen2.5-1.5B-Instruct", "Qwen2.5-3B-Instruct"),
    RTX_4090: ("Qwen2.5-3B-Instruct", *BIG, "Qwen2.5-14B-Instruct"),
    A100_40: (*BIG, "Qwen2.5-32B-Instruct"),
    L40S: (*BIG, "Qwen2.5-32B-Instruct"),
    H100: (*BIG, "Qwen2.5-14B-Instruct", "Qwen2.5-32B-Instruct"),
}
REFUSED = {T4: "Qwen2.5-14B-Instruct", RTX_3060: "Qwen2.5-14B-Instruct", RTX_4090: "Qwen2.5-32B-Instruct"}


def on_card(start: StartGateway, monkeypatch: pytest.MonkeyPatch, place: Path, card: Card) -> Gateway:
    """A gateway on a machine with this card, whose jobs stay queued."""
    monkeypatch.setenv("PATH", f"{write_nvidia_smi(place / 'bin', card)}:{os.environ['PATH']}")
    monkeypatch.setattr(Runner, "start", asleep)
    return start()


def ask(gateway: Gateway, base: Path, **body: Any) -> tuple[int, dict[str, Any]]:
    """(status, job or error) of a job on this base."""
    use_files_of(gateway, base)
    response = create(gateway, training_file=add_file(gateway), **body)
    return response.status_code, response.json() if response.is_success else gateway.error(response)


@pytest.mark.parametrize("card", TAKEN, ids=lambda card: card.name)
def test_a_job_with_no_settings_is_taken_wherever_it_can_be_made_to_fit(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, card: Card
) -> None:
    gateway = on_card(start_gateway, monkeypatch, tmp_path, card)
    for name in TAKEN[card]:
        status, job = ask(gateway, write_base(tmp_path, name))
        assert status == 200, (name, job)
        assert config_of(gateway, job["id"])["gradient_checkpointing"] == "auto"
    if card in REFUSED:
        status, error = ask(gateway, write_base(tmp_path, REFUSED[card]))
        assert (status, error["code"]) == (400, "invalid_value")
        assert "activations recomputed" in error["message"]
        assert "`gradient_checkpointing` to true" not in error["message"]


def test_what_is_asked_for_is_judged_as_it_was_asked(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gateway = on_card(start_gateway, monkeypatch, tmp_path, RTX_4090)
    base = write_base(tmp_path, "Qwen2.5-7B-Instruct")
    status, error = ask(gateway, base, tuneloop={"gradient_checkpointing": False})
    assert (status, error["param"]) == (400, "tuneloop.gradient_checkpointing")
    assert "Set `gradient_checkpointing` to true (then " in error["message"]
    for asked in (True, "auto"):
        status, job = ask(gateway, base, tuneloop={"gradient_checkpointing": asked})
        assert status == 200
        assert config_of(gateway, job["id"])["gradient_checkpointing"] == asked
    status, error = ask(gateway, base, tuneloop={"gradient_checkpointing": "yes"})
    assert (status, error["param"]) == (400, "tuneloop.gradient_checkpointing")
    assert "'auto'" in error["message"]
    # Sixteen rows a step are cut into passes that fit with activations recomputed.
    status, job = ask(gateway, base, **hyper("supervised", batch_size=16))
    assert status == 200
    config = config_of(gateway, job["id"])
    assert config["batch_size"] * config["gradient_accumulation_steps"] == 16
    assert config["batch_size"] > 1
