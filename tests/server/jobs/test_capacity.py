"""How many trainings a machine of a given size holds."""

from __future__ import annotations

import json

from server.jobs.run.capacity import RunningJob, estimate_bytes, find_wait_reason
from serving import GPU, Device
from tests.server.jobs.conftest import JobPlace
from training.demo.examples import demo_config

GB = 10**9


def test_a_job_waits_for_memory_that_the_running_ones_are_still_to_take(real_place: JobPlace) -> None:
    first, second = (real_place.run(_create(real_place)) for _ in range(2))
    needed = estimate_bytes(first, on_gpu=False)
    assert needed is not None
    assert 0.5 * GB < needed < 4 * GB
    room_for_one = Device("cpu", (), 8 * GB, needed + 1000, 4, frozenset())
    reason = find_wait_reason(second, [RunningJob(first, has_allocated=False)], None, room_for_one)
    assert reason is not None
    assert "memory" in reason
    assert find_wait_reason(second, [RunningJob(first, has_allocated=True)], None, room_for_one) is None
    assert find_wait_reason(second, [], None, Device("cpu", (), GB, 0, 4, frozenset())) is None


def test_what_a_job_takes_depends_on_whether_its_activations_are_computed_twice(real_place: JobPlace) -> None:
    run = real_place.run(_create(real_place))
    once = estimate_bytes(run, on_gpu=True)
    assert once is not None
    assert estimate_bytes(run, on_gpu=True, max_bytes=once) == once
    twice = estimate_bytes(run, on_gpu=True, max_bytes=once - 1)
    assert twice is not None
    assert twice < once
    plan = {"batch_size": run.config["batch_size"], "gradient_checkpointing": True}
    (run.path / "plan.json").write_text(json.dumps({"plan": plan}))
    assert estimate_bytes(run, on_gpu=True, max_bytes=once) == twice


def test_on_a_gpu_its_memory_counts(real_place: JobPlace) -> None:
    first, second = (real_place.run(_create(real_place)) for _ in range(2))
    full = Device("cuda", (GPU("any", 80 * GB, GB),), 64 * GB, 60 * GB, 8, frozenset())
    empty = Device("cuda", (GPU("any", 80 * GB, 60 * GB),), 64 * GB, 60 * GB, 8, frozenset())
    started = [RunningJob(first, has_allocated=True)]
    assert find_wait_reason(second, started, None, full) is not None
    assert find_wait_reason(second, started, None, empty) is None


def test_of_several_gpus_the_one_counts_that_trainings_use(real_place: JobPlace) -> None:
    first, second = (real_place.run(_create(real_place)) for _ in range(2))
    gpus = (GPU("any", 80 * GB, GB), GPU("any", 80 * GB, 70 * GB))
    started = [RunningJob(first, has_allocated=True)]
    assert find_wait_reason(second, started, None, Device("cuda", gpus, 64 * GB, 60 * GB, 8, frozenset())) is not None
    assert find_wait_reason(second, started, None, Device("cuda", gpus[::-1], 64 * GB, 60 * GB, 8, frozenset())) is None


def test_the_setting_overrules_what_the_machine_holds(real_place: JobPlace) -> None:
    first, second = (real_place.run(_create(real_place)) for _ in range(2))
    started = [RunningJob(first, has_allocated=False)]
    tiny = Device("cpu", (), GB, 0, 1, frozenset())
    assert find_wait_reason(second, started, 2, tiny) is None
    assert "max_running_jobs" in (find_wait_reason(second, started, 1, tiny) or "")


def _create(place: JobPlace) -> str:
    config = demo_config(place.base.path, "unused").to_dict()
    mine = ("base_model", "training_file", "output_dir", "fine_tuned_model", "validation_file")
    return place.create(config={name: value for name, value in config.items() if name not in mine})
