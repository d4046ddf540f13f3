"""Division of the machine between the engine and trainings: GPUs or cores, and memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from serving.errors import EngineStartError
from serving.machine.device import Device, core_groups

Policy = Literal["split", "sleep", "stop", "separate"]


@dataclass(frozen=True)
class Division:
    """Which devices belong to whom, by number; empty: all."""

    policy: Policy = "split"
    """What the engine does while a job trains: split, sleep, stop or separate."""
    engine: tuple[int, ...] = ()
    """The engine's."""
    training: tuple[int, ...] = ()
    """The trainings'."""
    on_cpu: bool = True
    """Whether these are cores, not GPUs."""
    training_environment: Mapping[str, str] = field(default_factory=dict)
    """The environment variables with which a training sees its own GPUs."""
    training_bytes: int | None = None
    """GPU memory that a training has; None: on a CPU, where it is what is free, or if it wasn't worked out."""

    @property
    def training_cores(self) -> tuple[int, ...]:
        """The cores that a training's processes may use; empty for all."""
        return self.training if self.on_cpu else ()


def divide(
    policy: Policy,
    device: Device,
    *,
    on_cpu: bool,
    engine_devices: Sequence[int] = (),
    training_devices: Sequence[int] = (),
    groups: Sequence[tuple[int, ...]] | None = None,
) -> Division:
    """Divide the devices under this policy; those that aren't named are halved.

    on_cpu: whether the engine runs on the CPU. groups: the cores, or GPUs, those that must stay together in one tuple;
    by default those of this machine.
    Raises: EngineStartError when this machine can't do that.
    """
    if policy == "sleep" and on_cpu:
        raise EngineStartError(
            "accelerator_policy is sleep, but vLLM can't sleep on a CPU. Use split, stop or separate."
        )
    if policy != "separate":
        if engine_devices or training_devices:
            raise EngineStartError(
                f"engine_devices and training_devices require accelerator_policy separate, but it is {policy}. Set "
                "it to separate, or leave the devices unset."
            )
        return Division(policy, on_cpu=on_cpu, training_environment={} if on_cpu else device.cuda_environment())
    if groups is None:
        groups = core_groups() if on_cpu else tuple((number,) for number in range(len(device.gpus)))
    division = _split_devices(groups, tuple(engine_devices), tuple(training_devices), on_cpu)
    environment = {} if on_cpu else device.cuda_environment(division.training)
    return replace(division, training_environment=environment)


def _split_devices(
    groups: Sequence[tuple[int, ...]], engine: tuple[int, ...], training: tuple[int, ...], on_cpu: bool
) -> Division:
    word = "cores" if on_cpu else "GPUs"
    every = {number for group in groups for number in group}
    if absent := sorted({*engine, *training} - every):
        raise EngineStartError(
            f"engine_devices and training_devices list {absent[0]}, but the available {word} are "
            f"{', '.join(map(str, sorted(every)))}. Use only those."
        )
    if both := sorted({*engine} & {*training}):
        raise EngineStartError(
            f"{both[0]} is in both engine_devices and training_devices. Leave it out of one of them."
        )
    free = [group for group in groups if not {*group} & {*engine, *training}]
    half = len(free) // 2 if not engine and not training else len(free) if training else 0
    engine = engine or _flatten(free[:half])
    training = training or _flatten(free[half:])
    if not engine or not training:
        raise EngineStartError(
            f"accelerator_policy is separate, but there aren't enough {word} for both: {len(every)} available. Use "
            "split or stop."
        )
    return Division("separate", engine, training, on_cpu)


def _flatten(groups: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(sorted(number for group in groups for number in group))
