"""Control planes that are migrated once and copied: migrating takes longer than most tests."""

import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tollgate.platform.sql import migrate


@cache
def migrated_sqlite() -> bytes:
    """The content of a new file of SQLite."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "control.sqlite"
        migrate(f"sqlite:///{path}")
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return path.read_bytes()
