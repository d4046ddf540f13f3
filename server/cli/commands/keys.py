"""`tuneloop keys`: creates, lists and revokes API keys."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from server.access import keys as auth
from server.app.data_dir import open_database
from server.cli.console import err, make_table, out
from server.cli.options import with_settings
from server.settings import LoadedSettings
from server.storage.tables import DEFAULT_PROJECT

app = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys.")

DATABASE_FLAGS = ("data_dir", "database_url")


@app.command()
@with_settings(*DATABASE_FLAGS)
def create(
    loaded: LoadedSettings,
    name: Annotated[str, typer.Option(help="Who or what will use the key.")] = "default",
    project: Annotated[str, typer.Option(help="The key's project: letters, digits, - and _.")] = DEFAULT_PROJECT,
    admin: Annotated[
        bool | None,
        typer.Option(
            "--admin/--no-admin",
            help="Whether it is an admin key, which can manage webhooks and share checkpoints. Default: only the "
            "first key is.",
        ),
    ] = None,
) -> None:
    """Create a key and show it once. As soon as one key exists, every request needs a key.

    Examples:

      tuneloop keys create --name laptop

      tuneloop keys create --name ci --project search
    """
    if not auth.PROJECT.fullmatch(project):
        err.print(
            f"The project {project[:100]!r} must be 1 to 64 letters, digits, hyphens or underscores, starting with "
            "a letter or digit. Try `--project search`."
        )
        raise typer.Exit(2)
    database = open_database(loaded.settings)
    with database.session() as session:
        key, secret = auth.create_key(session, name, project=project, is_admin=admin)
    kind = "Admin key" if key.is_admin else "Key"
    err.print(f"{kind} {key.id} for {key.name!r}, project {project}. Copy it now; it won't be shown again:")
    out.print(secret)


@app.command("list")
@with_settings(*DATABASE_FLAGS)
def list_(loaded: LoadedSettings) -> None:
    """List the keys: id, name, project, first characters and dates, never the full keys.

    Example: tuneloop keys list
    """
    database = open_database(loaded.settings)
    with database.session() as session:
        keys = auth.list_keys(session)
    if not keys:
        out.print("No API keys yet: anyone on this machine can use the server. Create one with `tuneloop keys create`.")
        return
    table = make_table("id", "name", "project", "admin", "key", "created", "revoked")
    for key in keys:
        table.add_row(
            key.id,
            key.name,
            key.project,
            "admin" if key.is_admin else "",
            f"{key.prefix}…",
            _date(key.created_at),
            _date(key.revoked_at),
        )
    out.print(table)


@app.command()
@with_settings(*DATABASE_FLAGS)
def revoke(
    loaded: LoadedSettings, key_id: Annotated[str, typer.Argument(help="The key's id, from `tuneloop keys list`.")]
) -> None:
    """Revoke a key. A running server rejects it within a second or two.

    Example: tuneloop keys revoke key_0123456789abcdef01234567
    """
    database = open_database(loaded.settings)
    with database.session() as session:
        found = auth.revoke_key(session, key_id)
    if not found:
        err.print(f"No key has the id {key_id!r}. `tuneloop keys list` shows them.")
        raise typer.Exit(2)
    out.print(f"Revoked {key_id}.")


def _date(unix_s: int | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix_s)) if unix_s else ""
