"""`tuneloop adapters`: manages the adapters directory. A running server picks up every change."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from server.app.data_dir import lock_data_dir
from server.cli.base_model import open_base_model
from server.cli.commands import aliases
from server.cli.console import err, make_table, out
from server.cli.options import with_settings
from server.settings import LoadedSettings, Settings
from serving import Adapter, AdapterError, import_adapter, scan_adapters
from serving.adapters.archive.unpack import unpack_adapter
from serving.adapters.names import check_chosen_name
from serving.registry.adapter_directory import delete_adapter

app = typer.Typer(no_args_is_help=True, help="List, add and remove adapters, and manage their aliases.")


app.command()(aliases.promote)
app.command()(aliases.rollback)
app.command("aliases")(aliases.list_aliases)


@app.command("list")
@with_settings("data_dir", "database_url")
def list_(loaded: LoadedSettings) -> None:
    """List the adapters in the data directory with their aliases, oldest first.

    Example: tuneloop adapters list
    """
    adapters, broken = scan_adapters(loaded.settings.adapters_dir)
    if not adapters and not broken:
        out.print(
            "No adapters yet. Train one with `tuneloop train CONFIG.yaml`, or import one with `tuneloop adapters "
            "add DIR`."
        )
        return
    named = aliases.current(loaded.settings)
    table = make_table("id", "model", "aliases", "base model", "r", "created", "perplexity before → after", "parity")
    for adapter in adapters:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(adapter.created_at))
        its = ", ".join(alias for alias, model in named.items() if model == adapter.name)
        row = (adapter.id, adapter.name, its, adapter.base_model, str(adapter.r), made)
        table.add_row(*row, _perplexity(adapter), _parity(adapter))
    out.print(table)
    for name, reason in broken.items():
        err.print(f"{name} can't be served: {reason}")


@app.command()
@with_settings("data_dir", "cache_dir", "model", "organization")
def add(
    loaded: LoadedSettings,
    source: Annotated[
        Path,
        typer.Argument(
            help="Adapter saved with PEFT's save_pretrained, without pickles: a folder, or a .tar.gz or .zip of it."
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="The model's name for clients. Default: ft:… with the suffix.")
    ] = None,
    suffix: Annotated[str, typer.Option(help="The {suffix} part of the new model's name.")] = "imported",
    same_base: Annotated[
        bool,
        typer.Option(
            "--same-base", help="The adapter was trained on this base model, whatever name adapter_config.json gives."
        ),
    ] = False,
) -> None:
    """Import a PEFT adapter that was trained elsewhere: check it, copy it, and give it a name.

    Examples:

      tuneloop adapters add ./my-adapter --model Qwen/Qwen2.5-0.5B-Instruct --suffix support

      tuneloop adapters add my-adapter.tar.gz --name support-bot --same-base
    """
    settings = loaded.settings
    if name is not None:
        check_chosen_name(name)
        _refuse_name_in_use(settings, name)
    base = open_base_model(settings.model, settings.cache_dir)
    with _find_folder(source, settings.max_upload_bytes) as folder:
        adapter = import_adapter(
            folder,
            settings.adapters_dir,
            base,
            name=name,
            suffix=suffix,
            organization=settings.organization,
            same_base=same_base,
        )
    out.print(f"Added {adapter.id} as {adapter.name}. If a server is running, it can use the model now.")


@contextmanager
def _find_folder(source: Path, max_bytes: int) -> Iterator[Path]:
    """Yield the folder with the adapter's files; archives are unpacked to a temporary folder."""
    if not source.is_file():
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="tuneloop-") as folder:
        yield unpack_adapter(source, Path(folder), max_bytes=max_bytes)


def _refuse_name_in_use(settings: Settings, name: str) -> None:
    if name in (*settings.base_model_map, *aliases.current(settings)):
        raise AdapterError(f"The name {name!r} is already used by an alias or the base model. Choose another name.")


@app.command()
@with_settings("data_dir", "database_url")
def remove(
    loaded: LoadedSettings,
    adapter_id: Annotated[str, typer.Argument(help="The adapter's id, from `tuneloop adapters list`.")],
) -> None:
    """Delete an adapter permanently. Stop the server first; with a running server, use DELETE /v1/adapters/{id}.

    Example: tuneloop adapters remove adapter-0123456789abcdef
    """
    adapters, _ = scan_adapters(loaded.settings.adapters_dir)
    found = next((adapter for adapter in adapters if adapter_id in (adapter.id, adapter.name)), None)
    if found is None:
        raise AdapterError(f"No adapter has the id {adapter_id!r}. `tuneloop adapters list` shows them.")
    aliases.refuse_in_use(loaded.settings, found)
    with lock_data_dir(loaded.settings.data_dir):  # an engine crashes when the files of an adapter in use disappear
        delete_adapter(found)
    out.print(f"Removed {found.id} ({found.name}).")


def _perplexity(adapter: Adapter) -> str:
    metrics = adapter.manifest.get("metrics") or {}
    before, after = metrics.get("valid_perplexity_before"), metrics.get("valid_perplexity")
    if not (
        isinstance(before, int | float) and isinstance(after, int | float)
    ):  # an imported manifest may say anything
        return ""
    return f"{before:.2f} → {after:.2f}"


def _parity(adapter: Adapter) -> str:
    parity = adapter.manifest.get("parity")
    if not isinstance(parity, dict):
        return ""
    return "passed" if parity.get("passed") is True else "failed"
