"""The command line, and the one place where everything is put together: the pages are mounted on the server here.

Every subcommand lives in `commands/`; an error that somebody can mend ends as one paragraph and exit code 2, never as a
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
    help="Fine-tune a chat model, serve it behind the OpenAI API, compare, rate, and learn from the ratings.\n\n"
    "New here? `tuneloop demo` shows the whole chain in a few minutes; `tuneloop doctor` says what this machine has.",
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
    """Serve a base model and every adapter made for it: API, pages and metrics on one port.

    Examples:

      tuneloop up

      tuneloop up --model Qwen/Qwen2.5-0.5B-Instruct

      tuneloop up --model ./my-model --port 9000 --max-lora-rank 64

      tuneloop up --model ./my-model --more-models ./other-model --replicas 2
    """
    up.up(loaded.settings, mount_ui)


@app.command("ui")
def ui_(
    server: Annotated[str, typer.Option(help="Address of the running tuneloop.")] = "http://127.0.0.1:8000",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port; 0 takes a free one.")] = 8001,
) -> None:
    """Serve the pages alone, in a process of their own, for a tuneloop that runs elsewhere.

    Example: tuneloop ui --server http://127.0.0.1:8000
    """
    ui.ui(server, host, port, pages_apart)


@app.command("demo")
@with_settings()
def demo_(
    loaded: LoadedSettings, once: Annotated[bool, typer.Option("--once", help="End after the comparison.")] = False
) -> None:
    """The whole chain on the embedded base: build, fine-tune with QLoRA, hot-load, compare, serve.

    Example: tuneloop demo --once
    """
    demo.demo(loaded.settings, mount_ui, once=once)


@app.command("demo-model")
@with_settings("cache_dir")
def demo_model(
    loaded: LoadedSettings, directory: Annotated[Path, typer.Argument(help="Folder to make; its name is the model's.")]
) -> None:
    """Put the embedded base model into a folder.

    Example: tuneloop demo-model ./tuneloop-demo
    """
    demo.copy_base(embedded_base_model(loaded.settings.cache_dir), directory)
    out.print(f"The embedded base model is in {directory}. Serve it with `tuneloop up --model {directory}`.")


@app.command("doctor")
@with_settings("data_dir")
def doctor_(loaded: LoadedSettings) -> None:
    """What is here, what fits, what is missing. Exit code 1 when something is missing.

    Example: tuneloop doctor
    """
    raise typer.Exit(0 if doctor.doctor(loaded) else 1)


@app.command("settings")
@with_settings()
def settings_(loaded: LoadedSettings) -> None:
    """Print each setting's value and where it came from: default, file, environment or flag.

    Example: TUNELOOP_PORT=9000 tuneloop settings
    """
    table = make_table("setting", "value", "from", "what it is")
    for row in describe(loaded.settings):
        table.add_row(*row)
    out.print(table)


def mount_ui(served: FastAPI, url: str) -> FastAPI:
    """Return the app with the pages on `/`, for people in a browser; they talk to `url` over HTTP like any client."""
    from ui.app import mount  # gradio takes seconds to import, and most commands have no pages

    return mount(served, url, example_prompts=demo.EXAMPLE_PROMPTS)


def pages_apart(server: str, allowed_hosts: Sequence[str]) -> FastAPI:
    """Return the pages without a server of their own, for `tuneloop ui`."""
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
