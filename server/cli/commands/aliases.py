"""`tuneloop adapters promote`, `rollback` and `aliases`: manage aliases in the database.

A running server notices within about a second. The first request then loads the model; PUT /v1/aliases loads it before
the alias changes.
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
    alias: Annotated[str, typer.Argument(help="The alias, such as support.")],
    target: Annotated[str, typer.Argument(metavar="MODEL", help="The target model: its name, or an adapter's id.")],
) -> None:
    """Point an alias to a model; creates the alias if needed. A running server follows within a second or two.

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
    out.print(f"{alias} now points to {model}.")


@with_settings(*FLAGS)
def rollback(
    loaded: LoadedSettings,
    alias: Annotated[str, typer.Argument(help="The alias, from `tuneloop adapters aliases`.")],
    to: Annotated[str | None, typer.Option(help="An earlier model of this alias. Default: the previous one.")] = None,
) -> None:
    """Point an alias back to an earlier model.

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
            raise AdapterError(f"{alias} never pointed to {target!r}. `tuneloop adapters aliases` shows its history.")
        if target != row.model:
            row = aliases.roll_back(session, alias, _resolve_target(settings, target), None, expected_trail=row.trail)
        return row, gone

    with _translate_errors():
        row, gone = in_database(settings, change)
    for model in gone:
        out.print(f"{model} no longer exists and was skipped.")
    out.print(f"{alias} now points to {row.model}.")


@with_settings("data_dir", "database_url")
def list_aliases(loaded: LoadedSettings) -> None:
    """List the aliases and their history, newest change first.

    Example: tuneloop adapters aliases
    """
    rows, changes = in_database(loaded.settings, lambda session: (aliases.read_aliases(session), _changes(session)))
    if not changes:
        out.print("No aliases yet. Create one with `tuneloop adapters promote ALIAS MODEL`.")
        return
    table = make_table("alias", "model", "since")
    for row in rows:
        table.add_row(row.name, row.model, _date(row.updated_at))
    out.print(table)
    history = make_table("when", "alias", "action", "from", "to", "by")
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
    """Return each alias with the model it points to."""
    return in_database(settings, lambda session: {row.name: str(row.model) for row in aliases.read_aliases(session)})


def in_database(settings: Settings, work: Callable[[Session], T]) -> T:
    """Run `work` in one transaction of the data directory's database and return its result."""
    with contextlib.closing(open_database(settings)) as database, database.session() as session:
        return work(session)


def refuse_in_use(settings: Settings, adapter: Adapter) -> None:
    """Raise AdapterError when an alias points to the adapter."""
    for alias, model in current(settings).items():
        if model == adapter.name:
            raise AdapterError(
                f"{adapter.name} can't be removed, since the alias {alias!r} points to it. Point the alias to another "
                f"model first: `tuneloop adapters promote {alias} MODEL`, or `tuneloop adapters rollback {alias}`."
            )


@contextlib.contextmanager
def _translate_errors() -> Iterator[None]:
    """Raise an API error's message as AdapterError, which ends the command."""
    try:
        yield
    except APIError as error:
        raise AdapterError(error.message) from error


def _resolve_target(settings: Settings, model: str) -> str:
    """Return the name under which the model is served. Raises: AdapterError."""
    adapters, broken = scan_adapters(settings.adapters_dir)
    found = next((adapter for adapter in adapters if model in (adapter.id, adapter.name)), None)
    if found is None and model not in _base_names(settings, adapters):
        raise AdapterError(
            f"There is no model {model[:200]!r} here{': ' + broken[model] if model in broken else ''}. `tuneloop "
            "adapters list` shows the models. For a remote engine's model, use the server: PUT /v1/aliases/ALIAS."
        )
    parity = (found.manifest.get("parity") if found else None) or {}
    if parity.get("passed") is False:
        raise AdapterError(
            f"{model} isn't published: it failed the parity gate ({'; '.join(map(str, parity.get('reasons') or []))}). "
            "Promote another version."
        )
    return found.name if found else model


def _find_available(settings: Settings) -> frozenset[str]:
    """Return the models that an alias could point to, as far as this data directory shows."""
    adapters, _ = scan_adapters(settings.adapters_dir)
    return frozenset(adapter.name for adapter in adapters) | _base_names(settings, adapters)


def _base_names(settings: Settings, adapters: Sequence[Adapter]) -> frozenset[str]:
    """Return the configured base models and those that the adapters were trained on."""
    set_here = [settings.model or DEMO_BASE, *settings.more_models]
    named = {Path(model).resolve().name if Path(model).is_dir() else model for model in set_here}
    return frozenset(named.union(settings.base_model_map, (adapter.base_model for adapter in adapters)))


def _refuse_taken(settings: Settings, alias: str) -> None:
    """Raise AdapterError if a model has, or had, the name of a new alias."""
    settings.adapters_dir.mkdir(parents=True, exist_ok=True)
    bases = _base_names(settings, scan_adapters(settings.adapters_dir)[0])
    some_base = BaseModel(next(iter(bases)), settings.adapters_dir, "", {})  # only the name matters here
    if alias in bases | taken_names(settings.adapters_dir, some_base):
        raise AdapterError(f"The name {alias!r} belongs to a model, possibly a removed one. Choose another name.")


def _changes(session: Session) -> Sequence[AliasChangeRow]:
    return session.scalars(select(AliasChangeRow).order_by(AliasChangeRow.number.desc())).all()


def _date(unix_s: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix_s))
