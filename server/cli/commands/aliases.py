"""`tuneloop adapters promote`, `rollback` and `aliases`: free names for models, written to the database.

A server that runs beside notices within about a second. Knows no engine: what is promoted here is loaded by the first
request, where PUT /v1/aliases has it loaded before.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from sqlalchemy import select
from sqlalchemy.orm import Session

from server.aliases import changes as aliases
from server.app.data_dir import open_database
from server.cli.console import make_table, out
from server.cli.options import with_settings
from server.settings import LoadedSettings, Settings
from server.storage.tables import AliasChangeRow, AliasRow
from server.wire.errors import APIError
from serving import Adapter, AdapterError, BaseModel, scan_adapters
from serving.adapters.names import taken_names
from training.demo.examples import NAME as DEMO_BASE

FLAGS = ("data_dir", "database_url", "model")
T = TypeVar("T")


@with_settings(*FLAGS)
def promote(
    loaded: LoadedSettings,
    alias: Annotated[str, typer.Argument(help="The free name, such as support.")],
    target: Annotated[
        str, typer.Argument(metavar="MODEL", help="What it shall stand for: a model's name, or an adapter's id.")
    ],
) -> None:
    """Point an alias to a model; a new alias is made. A running server goes by it within a second or two.

    Example: tuneloop adapters promote support ft:tuneloop-demo:personal:keeper:1a2b3c4d
    """
    settings = loaded.settings
    model = _resolve_target(settings, target)

    def change(session: Session) -> AliasRow:
        known = session.get(AliasRow, alias)
        if known is None or known.model is None:
            _refuse_taken(settings, alias)
        return aliases.promote(session, alias, model, None)

    with _translate_errors():
        aliases.check_name(alias)
        in_database(settings, change)
    out.print(f"{alias} stands for {model}.")


@with_settings(*FLAGS)
def rollback(
    loaded: LoadedSettings,
    alias: Annotated[str, typer.Argument(help="The alias, from `tuneloop adapters aliases`.")],
    to: Annotated[str | None, typer.Option(help="One that it stood for. Unset: the one before.")] = None,
) -> None:
    """Point an alias back to the model that it stood for before.

    Example: tuneloop adapters rollback support
    """
    settings = loaded.settings
    there = _find_available(settings)

    def change(session: Session) -> tuple[AliasRow, list[str]]:
        row = aliases.get(session, alias)
        target, gone = (to, []) if to else aliases.find_rollback_target(row.trail, there.__contains__)
        if target is None:
            raise aliases.no_previous_model_error(alias, gone)
        if not aliases.has_stood_for(session, alias, target):
            raise AdapterError(f"{alias} never stood for {target!r}. `tuneloop adapters aliases` shows what it did.")
        if target != row.model:
            row = aliases.roll_back(session, alias, _resolve_target(settings, target), None, expected_trail=row.trail)
        return row, gone

    with _translate_errors():
        row, gone = in_database(settings, change)
    for model in gone:
        out.print(f"{model} is gone, and was passed over.")
    out.print(f"{alias} stands for {row.model}.")


@with_settings("data_dir", "database_url")
def list_aliases(loaded: LoadedSettings) -> None:
    """List the aliases and every change of them, newest first.

    Example: tuneloop adapters aliases
    """
    rows, changes = in_database(loaded.settings, lambda session: (aliases.read_aliases(session), _changes(session)))
    if not changes:
        out.print("There are no aliases yet. Make one with `tuneloop adapters promote ALIAS MODEL`.")
        return
    table = make_table("alias", "model", "since")
    for row in rows:
        table.add_row(row.name, row.model, _date(row.updated_at))
    out.print(table)
    history = make_table("when", "alias", "what", "from", "to", "by")
    for change in changes:
        history.add_row(
            _date(change.created_at),
            change.alias,
            change.action,
            change.from_model or "",
            change.to_model or "",
            change.created_by or "",
        )
    out.print(history)


def current(settings: Settings) -> dict[str, str]:
    """Alias → what it stands for."""
    return in_database(settings, lambda session: {row.name: str(row.model) for row in aliases.read_aliases(session)})


def in_database(settings: Settings, work: Callable[[Session], T]) -> T:
    """Return the result of `work`, done in one transaction of the data directory's database."""
    with contextlib.closing(open_database(settings)) as database, database.session() as session:
        return work(session)


def refuse_in_use(settings: Settings, adapter: Adapter) -> None:
    """Raise AdapterError when an alias stands for the adapter."""
    for alias, model in current(settings).items():
        if model == adapter.name:
            raise AdapterError(
                f"{adapter.name} is what the alias {alias!r} stands for, so it is kept. First point the alias to "
                f"another model: `tuneloop adapters promote {alias} MODEL`, or `tuneloop adapters rollback {alias}`."
            )


@contextlib.contextmanager
def _translate_errors() -> Iterator[None]:
    """What the server would answer with ends the command as its one paragraph."""
    try:
        yield
    except APIError as error:
        raise AdapterError(error.message) from error


def _resolve_target(settings: Settings, model: str) -> str:
    """Return the model by the name that answers. Raises: AdapterError."""
    adapters, broken = scan_adapters(settings.adapters_dir)
    found = next((adapter for adapter in adapters if model in (adapter.id, adapter.name)), None)
    if found is None and model not in _base_names(settings, adapters):
        raise AdapterError(
            f"No model here is called {model[:200]!r}{': ' + broken[model] if model in broken else ''}. "
            "`tuneloop adapters list` shows them. What a remote engine serves is promoted through the server: "
            "PUT /v1/aliases/ALIAS."
        )
    parity = (found.manifest.get("parity") if found else None) or {}
    if parity.get("passed") is False:
        raise AdapterError(
            f"{model} isn't published: it failed the parity gate ({'; '.join(map(str, parity.get('reasons') or []))}). "
            "Promote another version."
        )
    return found.name if found else model


def _find_available(settings: Settings) -> frozenset[str]:
    """Return the models that an alias could stand for, as far as this data directory tells."""
    adapters, _ = scan_adapters(settings.adapters_dir)
    return frozenset(adapter.name for adapter in adapters) | _base_names(settings, adapters)


def _base_names(settings: Settings, adapters: Sequence[Adapter]) -> frozenset[str]:
    """Return the base models that are set, and those that the adapters were made for, which were served here."""
    set_here = [settings.model or DEMO_BASE, *settings.more_models]
    named = {Path(model).resolve().name if Path(model).is_dir() else model for model in set_here}
    return frozenset(named.union(settings.base_model_map, (adapter.base_model for adapter in adapters)))


def _refuse_taken(settings: Settings, alias: str) -> None:
    """Raise AdapterError where the name of a new alias is a model's, or was."""
    settings.adapters_dir.mkdir(parents=True, exist_ok=True)
    bases = _base_names(settings, scan_adapters(settings.adapters_dir)[0])
    some_base = BaseModel(next(iter(bases)), settings.adapters_dir, "", {})  # of a base, its name alone counts here
    if alias in bases | taken_names(settings.adapters_dir, some_base):
        raise AdapterError(f"The name {alias!r} is a model's, or was until that was removed. Choose another.")


def _changes(session: Session) -> Sequence[AliasChangeRow]:
    return session.scalars(select(AliasChangeRow).order_by(AliasChangeRow.number.desc())).all()


def _date(unix_s: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix_s))
