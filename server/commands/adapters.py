"""`tuneloop adapters`: what lies in the adapters directory. A running server notices every change by itself."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Annotated

import typer

from server.commands.base_model import open_base_model
from server.commands.console import err, out, table_of
from server.commands.options import with_settings
from server.composition import engine_settings, only_server
from server.settings import LoadedSettings
from serving import Adapter, AdapterError, EngineLimits, import_adapter, scan_adapters

app = typer.Typer(no_args_is_help=True, help="List, add and remove adapters.")


@app.command("list")
@with_settings("data_dir")
def list_(loaded: LoadedSettings) -> None:
    """List the adapters in the data directory, oldest first.

    Example: tuneloop adapters list
    """
    adapters, broken = scan_adapters(loaded.settings.adapters_dir)
    if not adapters and not broken:
        out.print(
            "There are no adapters yet. Make one with `tuneloop train CONFIG.yaml`, "
            "or add one with `tuneloop adapters add DIR`."
        )
        return
    table = table_of("id", "model", "base model", "r", "made", "perplexity before → after")
    for adapter in adapters:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(adapter.created_at))
        table.add_row(adapter.id, adapter.name, adapter.base_model, str(adapter.r), made, _perplexity(adapter))
    out.print(table)
    for name, reason in broken.items():
        err.print(f"{name} cannot be served: {reason}")


@app.command()
@with_settings("data_dir", "cache_dir", "model", "organization", "max_lora_rank")
def add(
    loaded: LoadedSettings,
    directory: Annotated[
        Path, typer.Argument(help="A PEFT adapter: adapter_config.json and adapter_model.safetensors.")
    ],
    suffix: Annotated[str, typer.Option(help="The {suffix} part of the new model's name.")] = "imported",
) -> None:
    """Check a PEFT adapter made elsewhere, copy it in, and give it a name.

    Example: tuneloop adapters add ./my-adapter --model Qwen/Qwen2.5-0.5B-Instruct --suffix support
    """
    settings = loaded.settings
    engine = engine_settings(settings)
    limits = EngineLimits(settings.max_lora_rank, engine.max_loras, engine.max_cpu_loras, settings.max_model_len)
    base = open_base_model(settings.model, settings.cache_dir)
    adapter = import_adapter(
        directory, settings.adapters_dir, base, limits, suffix=suffix, organization=settings.organization
    )
    out.print(f"Added {adapter.id}; clients call it {adapter.name}. A running server serves it from now on.")


@app.command()
@with_settings("data_dir")
def remove(
    loaded: LoadedSettings,
    adapter_id: Annotated[str, typer.Argument(help="The adapter's id, from `tuneloop adapters list`.")],
) -> None:
    """Remove an adapter for good, while no server runs; a running one removes it with DELETE /v1/adapters/{id}.

    Example: tuneloop adapters remove adapter-0123456789abcdef
    """
    adapters, _ = scan_adapters(loaded.settings.adapters_dir)
    found = next((adapter for adapter in adapters if adapter_id in (adapter.id, adapter.name)), None)
    if found is None:
        raise AdapterError(f"No adapter has the id {adapter_id!r}. `tuneloop adapters list` shows them.")
    with only_server(loaded.settings.data_dir):  # an engine dies when the files of an adapter that it uses go
        aside = found.path.rename(found.path.with_name(f".removed-{found.id}"))
        shutil.rmtree(aside)
    out.print(f"Removed {found.id} ({found.name}).")


def _perplexity(adapter: Adapter) -> str:
    metrics = adapter.manifest.get("metrics") or {}
    before, after = metrics.get("valid_perplexity_before"), metrics.get("valid_perplexity")
    return f"{before:.2f} → {after:.2f}" if before and after else ""
