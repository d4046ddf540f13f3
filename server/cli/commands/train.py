"""`tuneloop train`: trains an adapter from a YAML file; a server on the same data directory can serve it at once."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from adapter_format.names import fine_tuned_model_name, new_adapter_id
from server.app.data_dir import make_data_dir
from server.cli.base_model import embedded_base_model
from server.cli.console import err, out
from server.cli.options import with_settings
from server.settings import LoadedSettings, Settings
from serving import EngineLimits, EngineStartError, find_gpu_trouble, inspect_device
from training.config.config import TrainingConfig, read_yaml
from training.preflight.preflight import refuse_contradictions


@with_settings("data_dir", "cache_dir", "organization", "max_lora_rank")
def train(
    loaded: LoadedSettings,
    config: Annotated[Path, typer.Argument(help="YAML file with the training settings; see docs/training.md.")],
    suffix: Annotated[str, typer.Option(help="The {suffix} part of the tuned model's name.")] = "",
    resume: Annotated[
        Path | None, typer.Option(help="Resume this run directory instead of starting a new run.")
    ] = None,
) -> None:
    """Fine-tune a model, with QLoRA by default. Without `base_model`, the embedded demo base is used.

    Example: tuneloop train my-run.yaml --suffix support
    """
    settings, environment = loaded.settings, _see_gpus()
    run_dir = resume or new_run(settings, read_config(config), suffix=suffix)
    err.print(f"Run directory: {run_dir}")
    code = subprocess.run([sys.executable, "-m", "training", str(run_dir)], env=environment).returncode
    if code != 0:
        if code not in (1, 2):
            err.print(f"Stopped. To resume from the last checkpoint: tuneloop train {config} --resume {run_dir}")
        raise typer.Exit(code if code > 0 else 128 - code)
    done = json.loads((run_dir / "config.json").read_text(encoding="utf-8"))
    out.print(f"{done['fine_tuned_model']} saved to {done['output_dir']}.")
    out.print(describe_serving(done))
    out.print(f"For curves, metrics and findings: tuneloop runs show {run_dir.name}")


def _see_gpus() -> dict[str, str] | None:
    """Return the environment with which a run sees the machine's GPUs as we do; None: ours, there are none.

    Raises:
        EngineStartError: torch can't use a GPU. It would only see none, and train on the CPU.
    """
    device = inspect_device()
    for gpu in device.gpus[device.main_gpu :][:1]:
        if trouble := find_gpu_trouble(gpu):
            raise EngineStartError(f"{trouble} To train on the CPU, set CUDA_VISIBLE_DEVICES=''.")
    return {**os.environ, **device.cuda_environment()} if device.gpus else None


def describe_serving(config: dict[str, Any]) -> str:
    """Return a sentence on how to serve the result."""
    if config["serve_as"] == "model":
        return f"It is a full model. Serve it with: tuneloop up --model {config['output_dir']}"
    if config["serve_as"] == "none":
        return "vLLM can't serve it; load it with PEFT."
    return "A tuneloop server with this data directory and base model serves it under that name."


def read_config(path: Path) -> dict[str, Any]:
    """Return the YAML file's content; relative paths in it are resolved against the file's folder.

    Raises:
        ConfigError: the file can't be read or isn't a YAML mapping.
    """
    content = read_yaml(path)
    for name in ("training_file", "validation_file", "mix_file", "from_adapter"):
        if isinstance(content.get(name), str):
            content[name] = str((path.parent / content[name]).resolve())
    base = content.get("base_model")
    if isinstance(base, str) and (path.parent / base).is_dir():
        content["base_model"] = str((path.parent / base).resolve())
    return content


def new_run(settings: Settings, content: dict[str, Any], *, suffix: str) -> Path:
    """Return a new run directory; fills in the output directory and the model's name.

    Raises:
        ConfigError: the configuration is invalid; lists every error.
        BaseModelError: the embedded base is needed and couldn't be built.
    """
    content = {**content, "base_model": content.get("base_model") or str(embedded_base_model(settings.cache_dir))}
    content.setdefault("output_dir", str(_output_dir(settings, content.get("serve_as"))))
    base_name = content.get("base_model_name") or TrainingConfig.default_base_model_name(str(content["base_model"]))
    content.setdefault("fine_tuned_model", fine_tuned_model_name(base_name, settings.organization, suffix))
    config = TrainingConfig.from_dict(content)
    refuse_contradictions(config, EngineLimits(settings.largest_rank, 0, 0, settings.max_model_len))
    return write_run(settings, config)


def _output_dir(settings: Settings, serve_as: Any) -> Path:
    """Return a new folder; only hot-loadable results go to the adapters directory."""
    name = new_adapter_id()
    if serve_as == "model":
        return settings.data_dir / "models" / name.replace("adapter", "model", 1)
    return (settings.data_dir / "unserved" if serve_as == "none" else settings.adapters_dir) / name


def write_run(settings: Settings, config: TrainingConfig) -> Path:
    """Return a new run directory for this configuration."""
    make_data_dir(settings.data_dir)
    settings.adapters_dir.mkdir(exist_ok=True, mode=0o700)
    run_dir = settings.runs_dir / time.strftime(f"run-%Y%m%d-%H%M%S-{secrets.token_hex(2)}")
    run_dir.mkdir(parents=True, mode=0o700)
    (run_dir / "config.json").write_text(json.dumps(config.to_dict(), indent=2), encoding="utf-8")
    return run_dir
