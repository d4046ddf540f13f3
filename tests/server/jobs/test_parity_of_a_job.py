"""A job's end tells what the parity gate found, and a job whose adapter is served otherwise than trained fails."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from serving import Adapter, ParityError, Registry
from serving.engines.engine import AdapterHost
from serving.parity.gate import record
from serving.parity.result import Difference, ParityResult
from tests.server.jobs.conftest import JobPlace


@dataclass
class SettledGate:
    """A gate whose verdict stands before it looks."""

    reasons: tuple[str, ...] = ()

    async def check(self, adapter: Adapter, engine: AdapterHost) -> None:
        apart = Difference(0.004, 0.03)
        record(
            adapter.path,
            ParityResult(
                passed=not self.reasons,
                reasons=self.reasons,
                token_ids_equal=True,
                tuned=apart,
                base=apart,
                effect=Difference(1.0, 2.0),
                share=1.0,
                bound=0.1,
                engine_dtype="bfloat16",
                reference_dtype="float32",
                checked_at=1_764_000_000,
            ),
        )
        if self.reasons:
            raise ParityError(f"{adapter.name} failed the parity gate and isn't published: {' '.join(self.reasons)}")

    async def run_canary(self, engine: AdapterHost, adapters: Sequence[Adapter]) -> dict[str, str]:
        return {}


def serve_with(place: JobPlace, gate: SettledGate, monkeypatch: pytest.MonkeyPatch) -> None:
    def gated(*arguments: Any, **named: Any) -> Registry:
        return Registry(*arguments, **{**named, "gate": gate})

    monkeypatch.setattr("server.app.build.Registry", gated)
    place.serve()


def test_what_the_gate_found_is_told_before_the_first_token(place: JobPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    serve_with(place, SettledGate(), monkeypatch)
    job_id = place.create()
    assert place.wait(job_id).status == "succeeded"
    told = [
        event
        for event in place.events(job_id)
        if event.message.startswith(("Parity check passed", "The model returned"))
    ]
    assert [event.level for event in told] == ["info", "info"]
    assert "0.004 nats" in told[0].message
    assert told[0].data is not None
    assert told[0].data["passed"] is True
    assert told[0].data["tuned"] == {"mean": 0.004, "max": 0.03}
    assert "served" not in told[0].data


def test_job_fails_when_the_gate_refuses_its_adapter_which_is_kept_with_the_evidence(
    place: JobPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "The chat template beside the base model isn't the one that it was trained with: put that back."
    serve_with(place, SettledGate((reason,)), monkeypatch)
    job_id = place.create()
    job = place.wait(job_id)
    assert job.error is not None
    assert (job.status, job.error["code"]) == ("failed", "parity_failed")
    assert reason in job.error["message"]
    assert "is kept as" in job.error["message"]
    (told,) = [event for event in place.events(job_id) if (event.data or {}).get("passed") is False]
    assert told.level == "error"
    assert told.data is not None
    assert told.data["reasons"] == [reason]
    place.until(lambda: not (place.settings.adapters_dir / job.adapter_id).exists())
    kept = json.loads((place.data_dir / "unserved" / job.adapter_id / "manifest.json").read_text())
    assert kept["parity"]["reasons"] == [reason]
    assert job.wanted_model not in place.served()
