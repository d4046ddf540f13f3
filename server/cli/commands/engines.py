"""`tuneloop engines`: asks a running server which engines it has and how they are, and has it restart them."""

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
    typer.Option("--server", help="Address of the server. Default: by the settings host and port, here."),
]
COLOURS = {"ready": "green", "starting": "cyan", "draining": "cyan", "dead": "red", "stopped": "yellow"}


@app.command("list")
@with_settings("host", "port")
def list_(loaded: LoadedSettings, server: SERVER = None) -> None:
    """List the engines with their health and load. An admin's key comes from TUNELOOP_API_KEY.

    Example: tuneloop engines list

    Example: TUNELOOP_API_KEY=sk-tuneloop-… tuneloop engines list --server https://models.example
    """
    _print(_ask(loaded, server, "GET", "", LIST_TIMEOUT_S))


@app.command()
@with_settings("host", "port")
def restart(
    loaded: LoadedSettings,
    engine: Annotated[
        str | None, typer.Argument(help="An id from `tuneloop engines list`. Default: all, in turn.")
    ] = None,
    server: SERVER = None,
    drain_timeout_s: Annotated[float, typer.Option(help="Seconds for the requests in flight to end.")] = 60.0,
    force: Annotated[bool, typer.Option("--force", help="Cut what hasn't ended by then.")] = False,
) -> None:
    """Restart engines one after another, with limits that all adapters fit into. Requests wait, or go to other engines.

    Example: tuneloop engines restart

    Example: tuneloop engines restart engine-0 --drain-timeout-s 300
    """
    err.print("Restarting; this returns when the engines answer again …")
    body = {"drain_timeout_s": drain_timeout_s, "force": force}
    _print(_ask(loaded, server, "POST", f"/{engine}/restart" if engine else "/restart", RESTART_TIMEOUT_S, body))


def _ask(
    loaded: LoadedSettings, server: str | None, method: str, path: str, timeout_s: float, body: Any = None
) -> list[dict[str, Any]]:
    """Return the engines that the server answers with.

    Raises:
        StartError: no server answers, or it refuses.
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
            f"No tuneloop answers on {url} ({type(error).__name__}: {error}). Start it with `tuneloop up`, or say "
            "where it is with --server or --port."
        ) from error
    if answer.is_success and isinstance(content, dict) and "data" in content:
        engines: list[dict[str, Any]] = content["data"]
        return engines
    raise StartError(_refusal(answer.status_code, content))


def _refusal(status: int, content: Any) -> str:
    """Return what a server said that didn't do it."""
    error = content.get("error") if isinstance(content, dict) else None
    said = error.get("message") if isinstance(error, dict) else None
    remedy = " Give an admin's key in TUNELOOP_API_KEY." if status in (401, 403) else ""
    return f"The server refused ({status}): {said or 'it gave no reason.'}{remedy}"


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
            out.print(f"{engine['id']} was down last because: {engine['last_trouble']}", markup=False)
        if engine["wanted_limits"] != engine["limits"]:
            wanted = _limits({"limits": engine["wanted_limits"]})
            out.print(f"{engine['id']} would be {wanted} after `tuneloop engines restart {engine['id']}`.")


def _serves(engine: dict[str, Any]) -> str:
    """Return the base, or where a remote engine is and how many models it lists."""
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
