"""Sends a run's events to TensorBoard, always, and to Weights & Biases, on request.

with Tracking(run_dir, config) as tracking:
    tracking(event)
"""

from __future__ import annotations

import netrc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from torch.utils.tensorboard.writer import SummaryWriter

from training.config.config import ConfigError, TrainingConfig
from training.record.progress import ProgressEvent

TENSORBOARD_DIR = "tensorboard"
WANDB_DIR = "wandb"
INIT_TIMEOUT_S = 30.0
"""Seconds for Weights & Biases to answer before a run is refused; its own 90 are a long wait."""
MEASURED = ("mean_token_accuracy", "loss")
STEP_VALUES = ("learning_rate", "grad_norm", "epoch", "tokens_per_second", "reward_margin", "reward_accuracy")
VALIDATION_VALUES = ("reward_margin", "reward_accuracy")


class Tracking:
    """Writes RUN_DIR/tensorboard, and reports to `config.wandb_project` if set.

    Args:
        tell: shows one line to the user who started the run.

    Raises:
        ConfigError: (on entering) Weights & Biases is configured and can't be used; better known before the training.
    """

    def __init__(self, run_dir: Path, config: TrainingConfig, tell: Callable[[str], None] | None = None) -> None:
        self._run_dir, self._config = run_dir, config
        self._tell = tell or (lambda text: print(text, file=sys.stderr))
        self._writer: SummaryWriter | None = None
        self._resumed = any((run_dir / TENSORBOARD_DIR).glob("events.out.tfevents.*"))
        self._wandb: Any = None

    def __enter__(self) -> Tracking:
        if self._config.wandb_project:
            self._wandb = _open_wandb(self._run_dir, self._config)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._wandb is not None:
            self._send_to_wandb(lambda: self._wandb.finish(exit_code=0 if kind is None else 1))

    def __call__(self, event: ProgressEvent) -> None:
        """Write the figures in `event`; events without figures or without a step are skipped."""
        if event.step is None or (self._resumed and event.step == 0):
            return  # a resumed run measures the untrained adapter again, which adds nothing
        values = _collect_values(event)
        if values:
            writer = self._open_writer(event.step)
            for tag, value in values.items():
                writer.add_scalar(tag, value, event.step, walltime=event.created_at)
            if self._wandb is not None:
                self._send_to_wandb(lambda: self._wandb.log({**values, "optimizer_step": event.step}))
        elif event.type == "health":
            self._open_writer(event.step).add_text(f"health/{event.code}", event.message, event.step)

    def _open_writer(self, step: int) -> SummaryWriter:
        """Open the writer; a resumed run repeats steps, so an earlier file's values from this step on are purged."""
        if self._writer is None:
            folder = str(self._run_dir / TENSORBOARD_DIR)
            purge = step if self._resumed else None
            self._writer = SummaryWriter(folder, purge_step=purge, flush_secs=10)
        return self._writer

    def _send_to_wandb(self, send: Callable[[], Any]) -> None:
        try:
            send()
        except Exception as error:  # noqa: BLE001 — whatever the service does, it's reported and the run goes on
            self._wandb = None
            self._tell(
                f"Reporting to Weights & Biases failed and is off for the rest of this run; training continues: {error}"
            )


def _collect_values(event: ProgressEvent) -> dict[str, float]:
    """Return tag -> figure, `train/…` or `valid/…`."""
    if event.type == "step":
        found = {f"train/{name}": getattr(event, f"train_{name}") for name in MEASURED}
        found |= {f"train/{name}": getattr(event, name) for name in STEP_VALUES}
    elif event.type == "validation":
        found = {f"valid/{name}": getattr(event, f"valid_{name}") for name in MEASURED}
        found |= {f"valid/{name}": getattr(event, name) for name in VALIDATION_VALUES}
    else:
        return {}
    return {tag: value for tag, value in found.items() if value is not None}


def _open_wandb(run_dir: Path, config: TrainingConfig) -> Any:
    """Open a Weights & Biases run, the same one after a resume; it gets figures and settings only."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    try:
        import wandb
    except ImportError as error:
        raise _wandb_error(
            "needs the package wandb, which isn't installed. Run: pip install 'tuneloop[wandb]'."
        ) from error
    online = config.wandb_mode == "online"
    if online and not _has_key(wandb.setup().settings.base_url):
        raise _wandb_error(
            f"is {config.wandb_project!r}, but there is no key for Weights & Biases. Run `wandb login`, or set "
            "`wandb_mode` to offline and upload later with `wandb sync`."
        )
    # Neither code, git remotes, console output nor the machine's load are sent: nobody asked for that.
    private = wandb.Settings(
        console="off", disable_code=True, disable_git=True, save_code=False, x_disable_stats=True, x_disable_meta=True,
        x_disable_machine_info=True, silent=True, init_timeout=INIT_TIMEOUT_S,
    )  # fmt: skip
    try:
        run = wandb.init(
            project=config.wandb_project, name=os.environ.get("WANDB_NAME") or run_dir.name, id=run_dir.name,
            resume="allow" if online else None, mode=config.wandb_mode, dir=str(run_dir), config=config.to_dict(),
            settings=private,
        )  # fmt: skip
        run.define_metric("*", step_metric="optimizer_step")
    except (wandb.Error, OSError, ValueError) as error:
        raise _wandb_error(
            f"is {config.wandb_project!r}, but Weights & Biases rejected it or can't be reached: {error}. Set "
            "`wandb_mode` to offline to train without it."
        ) from error
    return run


def _has_key(base_url: str) -> bool:
    """Return whether a key is where the library looks for it: the environment, or ~/.netrc, used by `wandb login`."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        return netrc.netrc(path).authenticators(urlsplit(base_url).hostname or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _wandb_error(text: str) -> ConfigError:
    return ConfigError([f"`wandb_project` {text}"], param="wandb_project")
