"""Behaves as `python -m training RUN_DIR` does, in milliseconds: what it is to do stands in RUN_DIR/fake.json."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from training.record.progress import CHECKPOINTS, RUN_LOCK, EventWriter, ProgressEvent

stopped = False


def on_signal(*_: object) -> None:
    global stopped
    stopped = True


class Run:
    def __init__(self, run_dir: Path, events: EventWriter) -> None:
        self.dir, self.events = run_dir, events
        self.plan: dict[str, Any] = json.loads((run_dir / "fake.json").read_text())
        self.config = json.loads((run_dir / "config.json").read_text())
        self.output_dir = Path(self.config["output_dir"])
        self.template = Path(self.plan["template"])
        self.total = self.plan["steps"]
        kept = sorted((run_dir / CHECKPOINTS).glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
        self.done: list[int] = json.loads((kept[-1] / "state.json").read_text()) if kept else []

    def go(self) -> int:
        self.events.write(ProgressEvent("started", f"fine-tuning on {self.config['training_file']}"))
        time.sleep(self.plan.get("load_s", 0))
        plan = {"n_epochs": 2, "batch_size": 4, "gradient_accumulation_steps": 2, "learning_rate": 2e-4}
        (self.dir / "plan.json").write_text(json.dumps({"plan": plan}))
        self.events.write(ProgressEvent("message", f"loaded from {self.config['base_model']}"))
        for step in range(len(self.done) + 1, self.total + 1):
            if self.plan.get("dies_at") == step:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.plan.get("fails_at") == step:
                return self.fail()
            self.step(step)
            if stopped and not self.plan.get("is_deaf"):
                self.checkpoint(step)
                self.events.write(ProgressEvent("failed", "stopped by SIGTERM", code="interrupted"))
                return 143
            if step % self.plan.get("save_steps", 5) == 0:
                self.checkpoint(step)
        self.finish()
        return 0

    def step(self, step: int) -> None:
        time.sleep(self.plan.get("step_s", 0.005))
        self.done.append(step)
        if step == self.total:
            self.events.write(
                ProgressEvent("validation", step=step, total_steps=self.total, valid_loss=0.5,
                              valid_mean_token_accuracy=0.8)
            )  # fmt: skip
        self.events.write(
            ProgressEvent("step", step=step, total_steps=self.total, train_loss=1 / step,
                          train_mean_token_accuracy=0.7, remaining_s=0.01 * (self.total - step))
        )  # fmt: skip

    def checkpoint(self, step: int) -> None:
        checkpoint = self.dir / CHECKPOINTS / f"checkpoint-{step}"
        partial = checkpoint.with_name(f".partial-{step}")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(self.template, partial)
        (partial / "optimizer.pt").write_bytes(b"not an adapter's file")
        (partial / "state.json").write_text(json.dumps(self.done))
        if not checkpoint.exists():
            partial.rename(checkpoint)
        details = {"path": str(checkpoint)}
        self.events.write(ProgressEvent("checkpoint", step=step, total_steps=self.total, details=details))

    def finish(self) -> None:
        partial = self.output_dir.with_name(f".partial-{self.output_dir.name}")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(self.template, partial)
        metrics = {"trained_tokens": 100 * self.total, "steps_done": self.done}
        manifest = self.plan["manifest"] | {"name": self.config["fine_tuned_model"], "metrics": metrics}
        (partial / "manifest.json").write_text(json.dumps(manifest))
        partial.rename(self.output_dir)
        time.sleep(self.plan.get("silence_s", 0))
        self.events.write(ProgressEvent("finished", step=self.total, total_steps=self.total))
        time.sleep(self.plan.get("closing_s", 0))

    def fail(self) -> int:
        failure = self.plan["failure"]
        message = failure["message"].format(run=self.dir)
        self.events.write(ProgressEvent("failed", message, code=failure["code"], param=failure.get("param")))
        return int(failure.get("exit", 1))


def main() -> int:
    signal.signal(signal.SIGTERM, on_signal)
    run_dir = Path(sys.argv[1])
    with (run_dir / "starts.txt").open("a") as starts:
        starts.write(f"{os.getpid()}\n")
    tracking = {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}
    (run_dir / "tracking.json").write_text(json.dumps(tracking))
    with (run_dir / RUN_LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            (run_dir / "refused.txt").touch()
            return 2
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        with EventWriter(run_dir) as events:
            return Run(run_dir, events).go()


if __name__ == "__main__":
    sys.exit(main())
