"""`tuneloop train`: a YAML file in, an adapter out; a server on the same data directory serves it at once."""

from __future__ import annotations

import json
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
from serving import EngineLimits
from training.config.config import TrainingConfig, read_yaml
from training.preflight.preflight import refuse_contradictions


@with_settings("data_dir", "cache_dir", "organization", "max_lora_rank")
def train(
    loaded: LoadedSettings,
    config: Annotated[Path, typer.Argument(help="YAML with TrainingConfig's names; see docs/training.md.")],
    suffix: Annotated[str, typer.Option(help="The {suffix} part of the tuned model's name.")] = "",
    resume: Annotated[
        Path | None, typer.Option(help="Go on with this run directory instead of starting a new one.")
    ] = None,
) -> None:
    """Fine-tune: QLoRA unless the file says otherwise. Without `base_model` in it, the embedded demo base is tuned.

    Example: tuneloop train my-run.yaml --suffix support
    """
    settings = loaded.settings
    run_dir = resume or new_run(settings, read_config(config), suffix=suffix)
    err.print(f"Run directory: {run_dir}")
    code = subprocess.run([sys.executable, "-m", "training", str(run_dir)]).returncode
    if code != 0:
        if code not in (1, 2):
            err.print(f"Stopped. Go on from the last checkpoint with: tuneloop train {config} --resume {run_dir}")
        raise typer.Exit(code if code > 0 else 128 - code)
    done = json.loads((run_dir / "config.json").read_text(encoding="utf-8"))
    out.print(f"{done['fine_tuned_model']} is in {done['output_dir']}.")
    out.print(describe_serving(done))
    out.print(f"Curves, figures and advice: tuneloop runs show {run_dir.name}")


def describe_serving(config: dict[str, Any]) -> str:
    """Return how what the run made is served."""
    if config["serve_as"] == "model":
        return f"It is a model of its own. Serve it with: tuneloop up --model {config['output_dir']}"
    if config["serve_as"] == "none":
        return "vLLM can't serve it; PEFT loads it."
    return "A tuneloop server on this data directory and base serves it under that name from now on."


def read_config(path: Path) -> dict[str, Any]:
    """Return the YAML file's content; relative files and folders in it are taken from the YAML's own folder.

    Raises:
        ConfigError: the file cannot be read or holds no `name: value` lines.
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
    """Return a run directory that says what to train; where the adapter goes and what it is called is filled in.

    Raises:
        ConfigError: every fault of the configuration.
        BaseModelError: the embedded base was wanted and could not be built.
    """
    content = {**content, "base_model": content.get("base_model") or str(embedded_base_model(settings.cache_dir))}
    content.setdefault("output_dir", str(_output_dir(settings, content.get("serve_as"))))
    base_name = content.get("base_model_name") or TrainingConfig.default_base_model_name(str(content["base_model"]))
    content.setdefault("fine_tuned_model", fine_tuned_model_name(base_name, settings.organization, suffix))
    config = TrainingConfig.from_dict(content)
    refuse_contradictions(config, EngineLimits(settings.largest_rank, 0, 0, settings.max_model_len))
    return write_run(settings, config)


def _output_dir(settings: Settings, serve_as: Any) -> Path:
    """Return a new folder; only what can be hot-loaded goes where the server looks for adapters."""
    name = new_adapter_id()
    if serve_as == "model":
        return settings.data_dir / "models" / name.replace("adapter", "model", 1)
    return (settings.data_dir / "unserved" if serve_as == "none" else settings.adapters_dir) / name


def write_run(settings: Settings, config: TrainingConfig) -> Path:
    """Return a fresh run directory for this configuration."""
    make_data_dir(settings.data_dir)
    settings.adapters_dir.mkdir(exist_ok=True, mode=0o700)
    run_dir = settings.runs_dir / time.strftime(f"run-%Y%m%d-%H%M%S-{secrets.token_hex(2)}")
    run_dir.mkdir(parents=True, mode=0o700)
    (run_dir / "config.json").write_text(json.dumps(config.to_dict(), indent=2), encoding="utf-8")
    return run_dir
