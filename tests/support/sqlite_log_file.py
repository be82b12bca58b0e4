"""The event log's file as Tollgate kept it before its segments: for folders that come from then."""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

_SCHEMA = """
CREATE TABLE records (
  position INTEGER PRIMARY KEY AUTOINCREMENT, appended_us INTEGER NOT NULL, value BLOB NOT NULL);
CREATE TABLE facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO facts VALUES ('generation', 1), ('released', -1);
"""


def make_sqlite_log(
    path: Path, records: Iterable[tuple[int, int, bytes]], *, released: int = -1, end: int = -1
) -> None:
    """Makes the file.

    Args:
        path: where.
        records: offset, append time and value of each.
        released: up to which offset records were given back.
        end: the last offset ever used, if it is beyond the records.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(_SCHEMA)
        connection.executemany(
            "INSERT INTO records VALUES (?, ?, ?)", [(at + 1, us, v) for at, us, v in records]
        )
        connection.execute("UPDATE facts SET value = ? WHERE name = 'released'", (released,))
        if end >= 0:
            connection.execute("DELETE FROM sqlite_sequence WHERE name = 'records'")
            connection.execute("INSERT INTO sqlite_sequence VALUES ('records', ?)", (end + 1,))
