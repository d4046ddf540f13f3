"""The data directory: readable by its user only, locked by one server, with its database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from adapter_format.disk import hold_lock
from server.settings import Settings
from server.storage.database import Database


class StartError(Exception):
    """The server can't start. The message gives the value, the rule and the remedy."""


def open_database(settings: Settings) -> Database:
    """Open the database and migrate its schema.

    Raises:
        DatabaseError: it can't be opened.
        StartError: the data directory can't be written.
    """
    make_data_dir(settings.data_dir)
    database = Database(settings.resolved_database_url)
    database.migrate()
    return database


def make_data_dir(data_dir: Path) -> None:
    """Create the data directory, readable by this user only.

    Raises:
        StartError: it can't be created or written.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(data_dir, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise StartError(
            f"Can't use the data directory {data_dir}: {error.strerror}. Choose a writable folder with --data-dir."
        ) from error


@contextmanager
def lock_data_dir(data_dir: Path) -> Iterator[None]:
    """Lock the data directory: two servers would conflict over its engine and database.

    Raises:
        StartError: another server has locked it.
    """
    make_data_dir(data_dir)

    def in_use(pid: str) -> StartError:
        return StartError(
            f"The data directory {data_dir} is in use by a running tuneloop (process {pid}). "
            "Stop it, or choose another folder with --data-dir."
        )

    with ExitStack() as held:
        try:
            held.enter_context(hold_lock(data_dir / "server.lock", in_use))
        except OSError as error:
            raise StartError(
                f"Can't lock the data directory {data_dir}: {error.strerror}. Choose another folder with --data-dir."
            ) from error
        yield
