"""`tuneloop engines`: shows the engines of a running server and restarts them."""

from __future__ import annotations

import os
import time
from typing import Annotated, Any

import httpx
import typer
from rich.text import Text

from server.app.data_dir import StartError
from server.cli.console import err, make_table, out
from server.cli.options import with_settings
from server.settings import LoadedSettings

app = typer.Typer(no_args_is_help=True, help="Show and restart the engines of a running server.")
LIST_TIMEOUT_S = 15.0
RESTART_TIMEOUT_S = 3600.0
"""A large model takes minutes to load, and there may be several engines."""
SERVER = Annotated[
    str | None,
    typer.Option("--server", help="URL of the server. Default: this machine, at the configured host and port."),
]
COLOURS = {"ready": "green", "starting": "cyan", "draining": "cyan", "dead": "red", "stopped": "yellow"}


@app.command("list")
@with_settings("host", "port")
def list_(loaded: LoadedSettings, server: SERVER = None) -> None:
    """List the engines with their state and load. Reads an admin key from TUNELOOP_API_KEY.

    Example: tuneloop engines list

    Example: TUNELOOP_API_KEY=sk-tuneloop-… tuneloop engines list --server https://models.example
    """
    _print(_ask(loaded, server, "GET", "", LIST_TIMEOUT_S))


@app.command()
@with_settings("host", "port")
def restart(
    loaded: LoadedSettings,
    engine: Annotated[
        str | None, typer.Argument(help="Id from `tuneloop engines list`. Default: all engines, one after another.")
    ] = None,
    server: SERVER = None,
    drain_timeout_s: Annotated[float, typer.Option(help="Seconds to wait for requests in flight.")] = 60.0,
    force: Annotated[bool, typer.Option("--force", help="Then cancel requests that are still in flight.")] = False,
) -> None:
    """Restart engines one after another, with limits that fit all adapters. Requests wait or go to other engines.

    Example: tuneloop engines restart

    Example: tuneloop engines restart engine-0 --drain-timeout-s 300
    """
    err.print("Restarting; this returns when the engines are ready again…")
    body = {"drain_timeout_s": drain_timeout_s, "force": force}
    _print(_ask(loaded, server, "POST", f"/{engine}/restart" if engine else "/restart", RESTART_TIMEOUT_S, body))


def _ask(
    loaded: LoadedSettings, server: str | None, method: str, path: str, timeout_s: float, body: Any = None
) -> list[dict[str, Any]]:
    """Return the engines from the server's response.

    Raises:
        StartError: the server can't be reached or rejects the request.
    """
    settings = loaded.settings
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 (asked, not bound)
    url = (server or f"http://{f'[{host}]' if ':' in host else host}:{settings.port}").rstrip("/").removesuffix("/v1")
    key = os.environ.get("TUNELOOP_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    timeout = httpx.Timeout(timeout_s, connect=5.0)
    try:
        answer = httpx.request(method, f"{url}/v1/engines{path}", json=body, headers=headers, timeout=timeout)
        content = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise StartError(
            f"Can't reach tuneloop at {url} ({type(error).__name__}: {error}). Start it with `tuneloop up`, or set "
            "its address with --server or --port."
        ) from error
    if answer.is_success and isinstance(content, dict) and "data" in content:
        engines: list[dict[str, Any]] = content["data"]
        return engines
    raise StartError(_refusal(answer.status_code, content))


def _refusal(status: int, content: Any) -> str:
    """Return the error message for a rejected request."""
    error = content.get("error") if isinstance(content, dict) else None
    said = error.get("message") if isinstance(error, dict) else None
    remedy = " Set TUNELOOP_API_KEY to an admin key." if status in (401, 403) else ""
    return f"The server rejected the request ({status}): {said or 'no reason given.'}{remedy}"


def _print(engines: list[dict[str, Any]]) -> None:
    table = make_table(
        "engine", "serves", "state", "in flight", "adapters", "rank / batch / memory", "restarts", "up for"
    )
    for engine in engines:
        state = Text(engine["state"], style=COLOURS.get(engine["state"], ""))
        figures = (str(engine["in_flight"]), str(len(engine["adapters_loaded"])), _limits(engine))
        row = (*figures, str(engine["restarts"]), _age(engine["started_at"]))
        table.add_row(Text(engine["id"]), Text(_serves(engine)), state, *map(Text, row))
    out.print(table)
    for engine in engines:
        if engine["last_trouble"]:
            out.print(f"{engine['id']}, last failure: {engine['last_trouble']}", markup=False)
        if engine["wanted_limits"] != engine["limits"]:
            wanted = _limits({"limits": engine["wanted_limits"]})
            out.print(f"{engine['id']} will change to {wanted} with `tuneloop engines restart {engine['id']}`.")


def _serves(engine: dict[str, Any]) -> str:
    """Return the base model, or a remote engine's URL and number of models."""
    if engine["kind"] != "remote":
        return str(engine["base_model"])
    share = f"{engine['base_model']} on " if engine["base_model"] else f"{len(engine['models'])} models of "
    return f"{share}{engine['url']}"


def _limits(engine: dict[str, Any]) -> str:
    limits = engine["limits"]
    return f"{limits['max_lora_rank']} / {limits['max_loras']} / {limits['max_cpu_loras']}" if limits else ""


def _age(started_at: int | None) -> str:
    if started_at is None:
        return ""
    minutes = max(0.0, time.time() - started_at) / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
