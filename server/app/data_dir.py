"""The data directory: readable by its user only, locked by one server, with its database."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.settings import Settings
from server.storage.database import Database


class StartError(Exception):
    """The server cannot start. The message gives the value, the rule and the remedy."""


def open_database(settings: Settings) -> Database:
    """Open the database and migrate its schema.

    Raises:
        DatabaseError: it cannot be opened.
        StartError: the data directory cannot be written.
    """
    make_data_dir(settings.data_dir)
    database = Database(settings.resolved_database_url)
    database.migrate()
    return database


def make_data_dir(data_dir: Path) -> None:
    """Create the data directory, readable by this user only.

    Raises:
        StartError: it cannot be made or written.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(data_dir, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise StartError(
            f"The data directory {data_dir} cannot be used: {error.strerror}. "
            "Give a folder that you can write with --data-dir."
        ) from error


@contextmanager
def lock_data_dir(data_dir: Path) -> Iterator[None]:
    """Lock the data directory: two servers would conflict over its engine and database.

    Raises:
        StartError: another server has locked it.
    """
    make_data_dir(data_dir)
    with (data_dir / "server.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise StartError(
                f"The data directory {data_dir} is in use by a running tuneloop "
                f"(process {lock.read().strip() or 'unknown'}). "
                "Stop that one, or give this one a folder of its own with --data-dir."
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
