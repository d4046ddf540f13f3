"""The command line, and the one module that wires everything together: the pages are mounted on the server here.

Every subcommand lives in `commands/`; an error that the user can fix ends as one paragraph and exit code 2, never as a
traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from fastapi import FastAPI

from adapter_format.names import InvalidNameError
from evaluation import EndpointError, QuestionsError
from server.app.data_dir import StartError
from server.app.settings_shown import describe
from server.cli.base_model import embedded_base_model
from server.cli.commands import adapters, data, demo, doctor, engines, evaluate, export, keys, runs, train, ui, up
from server.cli.console import err, make_table, out
from server.cli.options import with_settings
from server.settings import LoadedSettings, SettingsError
from server.storage.database import DatabaseError
from serving import EngineStartError, ServingError
from training.config.config import ConfigError
from training.data.formats.read import DataError

USERS_MISTAKES = (
    SettingsError,
    StartError,
    DatabaseError,
    ServingError,
    InvalidNameError,
    ConfigError,
    DataError,
    EndpointError,
    QuestionsError,
    demo.DemoFailed,
)

app = typer.Typer(
    name="tuneloop",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Fine-tune a chat model, serve it with an OpenAI-compatible API, compare and rate answers, and train on "
    "the ratings.\n\nNew to tuneloop? `tuneloop demo` runs the whole workflow in a few minutes; `tuneloop "
    "doctor` checks this machine.",
)
app.add_typer(keys.app, name="keys")
app.add_typer(adapters.app, name="adapters")
app.add_typer(engines.app, name="engines")
app.add_typer(data.app, name="data")
app.add_typer(runs.app, name="runs")
app.add_typer(export.app, name="export")
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)


@app.command("up")
@with_settings()
def up_(loaded: LoadedSettings) -> None:
    """Serve a base model and all its adapters: API, web pages and metrics on one port.

    Examples:

      tuneloop up

      tuneloop up --model Qwen/Qwen2.5-0.5B-Instruct

      tuneloop up --model ./my-model --port 9000 --max-lora-rank 64

      tuneloop up --model ./my-model --more-models ./other-model --replicas 2
    """
    up.up(loaded.settings, mount_ui)


@app.command("ui")
def ui_(
    server: Annotated[str, typer.Option(help="URL of the running tuneloop server.")] = "http://127.0.0.1:8000",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port; 0 picks a free one.")] = 8001,
) -> None:
    """Serve only the web pages, for a tuneloop server that runs elsewhere.

    Example: tuneloop ui --server http://127.0.0.1:8000
    """
    ui.ui(server, host, port, pages_apart)


@app.command("demo")
@with_settings()
def demo_(
    loaded: LoadedSettings, once: Annotated[bool, typer.Option("--once", help="Exit after the comparison.")] = False
) -> None:
    """Run the whole workflow on the embedded base model: build, fine-tune with QLoRA, hot-load, compare, serve.

    Example: tuneloop demo --once
    """
    demo.demo(loaded.settings, mount_ui, once=once)


@app.command("demo-model")
@with_settings("cache_dir")
def demo_model(
    loaded: LoadedSettings,
    directory: Annotated[Path, typer.Argument(help="Folder to create; its name becomes the model's name.")],
) -> None:
    """Copy the embedded base model to a folder.

    Example: tuneloop demo-model ./tuneloop-demo
    """
    demo.copy_base(embedded_base_model(loaded.settings.cache_dir), directory)
    out.print(f"The embedded base model is in {directory}. Serve it with `tuneloop up --model {directory}`.")


@app.command("doctor")
@with_settings("data_dir")
def doctor_(loaded: LoadedSettings) -> None:
    """Check what this machine has, what fits on it, and what is missing. Exits with code 1 if something is missing.

    Example: tuneloop doctor
    """
    raise typer.Exit(0 if doctor.doctor(loaded) else 1)


@app.command("settings")
@with_settings()
def settings_(loaded: LoadedSettings) -> None:
    """Print each setting with its value and source: default, file, environment or flag.

    Example: TUNELOOP_PORT=9000 tuneloop settings
    """
    table = make_table("setting", "value", "source", "description")
    for row in describe(loaded.settings):
        table.add_row(*row)
    out.print(table)


def mount_ui(served: FastAPI, url: str) -> FastAPI:
    """Return the app with the pages mounted on `/`; they call `url` over HTTP like any client."""
    from ui.app import mount  # gradio takes seconds to import, and most commands have no pages

    return mount(served, url, example_prompts=demo.EXAMPLE_PROMPTS)


def pages_apart(server: str, allowed_hosts: Sequence[str]) -> FastAPI:
    """Return the pages as an app for `tuneloop ui`."""
    from ui.apart import create_apart_app

    return create_apart_app(server, allowed_hosts=allowed_hosts, example_prompts=demo.EXAMPLE_PROMPTS)


def main() -> None:
    """Run the command line."""
    try:
        app()
    except USERS_MISTAKES as error:
        err.print(f"tuneloop: {error}", markup=False)
        sys.exit(1 if isinstance(error, EngineStartError) else 2)
    except KeyboardInterrupt:
        err.print("Stopped.")
        sys.exit(130)
