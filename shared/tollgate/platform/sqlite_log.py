"""The embedded event log: one SQLite file, one partition.

WAL with `synchronous=FULL`: a commit returns after fsync, so a stored record survives kill -9 and
power loss (https://sqlite.org/pragma.html#pragma_synchronous). One writer thread makes every
change. A second thread copies the write-ahead log back into the file, so that no commit waits for
that.
"""

import logging
import queue
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tollgate.core.clock import Clock
from tollgate.core.errors import Transient
from tollgate.platform.event_log import Done, StoredRecord

_log = logging.getLogger(__name__)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
  position INTEGER PRIMARY KEY AUTOINCREMENT, appended_us INTEGER NOT NULL, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO facts VALUES ('generation', 1), ('released', -1);
"""
# Another process may have appended since, on a clock that runs ahead of ours.
_INSERT = """
INSERT INTO records (appended_us, value) VALUES (
  max(?, coalesce((SELECT appended_us FROM records ORDER BY position DESC LIMIT 1), 0)), ?)
"""
_PAGE_BYTES = 8192
_CHECKPOINT_BYTES = 32 << 20
_RELEASE_RECORDS_PER_COMMIT = 512
_IDLE_SECONDS = 0.5
_READ_RECORDS = 256
# A checkpoint that waits for a slow reader (a copy, a backup) holds appends up: give up soon.
_CHECKPOINT_BUSY_MS = 20
_BUSY_MS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Submission:
    values: Sequence[bytes]
    done: Done


class SqliteLog:
    """An `EventLog` on a SQLite file. Several processes may append; each has its own instance."""

    def __init__(self, path: Path, clock: Clock) -> None:
        """Opens or creates the file and starts the threads.

        Raises:
            Transient: the file can't be opened or written now.
        """
        self._path = path
        self._clock = clock
        self._jobs: queue.SimpleQueue[_Submission | None] = queue.SimpleQueue()
        self._grown = threading.Condition()
        self._reader = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._release_through = -1
        self._closed = False
        try:
            self._writer = self._connect()
            self._writer.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}COMMIT;")
        except sqlite3.Error as problem:
            raise Transient(f"event log {path}: {problem}") from problem
        facts = dict(self._writer.execute("SELECT name, value FROM facts").fetchall())
        self._generation = int(facts["generation"])
        self._released = int(facts["released"])
        self._end = self._stored_end(self._writer)
        row = self._writer.execute(
            "SELECT coalesce(max(appended_us), 0), coalesce(sum(length(value)), 0) FROM records"
        ).fetchone()
        self._last_appended_us, self._backlog_bytes = int(row[0]), int(row[1])
        (self._data_version,) = self._writer.execute("PRAGMA data_version").fetchone()
        self._checkpoint_wanted = threading.Event()
        self._threads = [
            threading.Thread(target=self._write_loop, name="log-writer", daemon=True),
            threading.Thread(target=self._checkpoint_loop, name="log-checkpoint", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=10, isolation_level=None, check_same_thread=False
        )
        for pragma in (
            f"page_size={_PAGE_BYTES}",
            "auto_vacuum=INCREMENTAL",
            "journal_mode=WAL",
            "synchronous=FULL",
            "wal_autocheckpoint=0",
            "cache_size=-16384",
        ):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    @property
    def generation(self) -> int:
        """Number of the layout."""
        return self._generation

    @property
    def partitions(self) -> int:
        """Always 1: one file, one order."""
        return 1

    @property
    def path(self) -> Path:
        """The database file."""
        return self._path

    def submit(self, partition: int, values: Sequence[bytes], done: Done) -> None:
        """See `EventLog.submit`. Never blocks."""
        assert partition == 0
        if self._closed:
            done(Transient("the event log is closed"))
            return
        self._jobs.put(_Submission(values=values, done=done))

    def read(self, partition: int, after: int, bytes_max: int) -> list[StoredRecord]:
        """See `EventLog.read`. One connection per reading thread."""
        assert partition == 0
        connection: sqlite3.Connection | None = getattr(self._reader, "connection", None)
        records: list[StoredRecord] = []
        total = 0
        try:
            if connection is None:
                connection = self._reader.connection = self._connect()
                self._readers.append(connection)
            rows = connection.execute(
                "SELECT position - 1, appended_us, value FROM records WHERE position > ?"
                " ORDER BY position",
                (after + 1,),
            )
            while chunk := rows.fetchmany(_READ_RECORDS if bytes_max > 1 << 20 else 16):
                for offset, appended_us, value in chunk:
                    total += len(value)
                    if records and total > bytes_max:
                        rows.close()
                        return records
                    records.append(
                        StoredRecord(offset=offset, appended_us=appended_us, value=value)
                    )
        except sqlite3.Error as problem:
            raise Transient(f"event log: {problem}") from problem
        return records

    def wait(
        self, partition: int, after: int, seconds: float
    ) -> bool:  # tidy: allow-float -- a wait
        """See `EventLog.wait`. Writers in other processes are seen when the time is over."""
        assert partition == 0
        with self._grown:
            return self._grown.wait_for(lambda: self._end > after or self._closed, seconds)

    def end(self, partition: int) -> int:
        """See `EventLog.end`. Reads the file: another process may have appended."""
        assert partition == 0
        return max(self._end, self.read_end())

    def read_end(self) -> int:
        """The last offset that the file knows."""
        try:
            with sqlite3.connect(self._path, timeout=10) as connection:
                end = self._stored_end(connection)
            connection.close()
        except sqlite3.Error as problem:
            raise Transient(f"event log: {problem}") from problem
        return end

    @staticmethod
    def _stored_end(connection: sqlite3.Connection) -> int:
        row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name='records'").fetchone()
        return int(row[0]) - 1 if row else -1

    def begin_after(self, partition: int, offset: int) -> None:
        """See `EventLog.begin_after`."""
        assert partition == 0
        try:
            with closing(self._connect()) as connection:
                connection.execute("BEGIN IMMEDIATE")
                if self._stored_end(connection) < offset:
                    connection.execute("DELETE FROM sqlite_sequence WHERE name='records'")
                    connection.execute(
                        "INSERT INTO sqlite_sequence VALUES ('records', ?)", (offset + 1,)
                    )
                connection.execute("COMMIT")
        except sqlite3.Error as problem:
            raise Transient(f"event log: {problem}") from problem
        self._end = max(self._end, offset)

    def released(self, partition: int) -> int:
        """See `EventLog.released`."""
        assert partition == 0
        return self._released

    def release(self, partition: int, through: int) -> None:
        """See `EventLog.release`. Rides on the next commits, or runs when the log is idle."""
        assert partition == 0
        self._release_through = max(self._release_through, through)

    def backlog_bytes(self) -> int:
        """See `EventLog.backlog_bytes`."""
        return self._backlog_bytes

    def refusal(self) -> str:
        """See `EventLog.refusal`. What bounds this log is its size: `backlog_bytes`."""
        return ""

    def copy_to(self, target: Path) -> None:
        """A consistent copy of the file while it is written to (SQLite's online backup)."""
        source = self._connect()
        copy = sqlite3.connect(target)
        try:
            source.backup(copy)
        finally:
            copy.close()
            source.close()

    def close(self) -> None:
        """See `EventLog.close`."""
        if self._closed:
            return
        self._closed = True
        self._jobs.put(None)
        self._checkpoint_wanted.set()
        for thread in self._threads:
            thread.join()
        while not self._jobs.empty():
            late = self._jobs.get()
            if late is not None:
                _answer(late, Transient("the event log is closed"))
        with self._grown:
            self._grown.notify_all()
        for reader in self._readers:
            reader.close()
        self._writer.close()

    def _write_loop(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                self._tend()
                continue
            if job is None:
                return
            self._append(job)

    def _append(self, job: _Submission) -> None:
        outcome: int | Exception
        try:
            outcome = self._commit(job.values)
        except sqlite3.Error as problem:
            self._roll_back()
            _log.warning("event log refused an append", extra={"problem": str(problem)})
            outcome = Transient(f"event log: {problem}", retry_after_seconds=2)
        _answer(job, outcome)

    def _commit(self, values: Sequence[bytes]) -> int:
        writer = self._writer
        appended_us = max(self._clock.now_us(), self._last_appended_us)
        freed, released = 0, self._released
        if len(values) == 1 and self._release_through <= released:
            # A lone statement is its own transaction: one call in place of four, each of which
            # would wait for a turn while the event loop's thread is busy.
            cursor = writer.execute(_INSERT, (appended_us, values[0]))
        else:
            writer.execute("BEGIN IMMEDIATE")
            cursor = writer.execute(_INSERT, (appended_us, values[0]))
            for value in values[1:]:
                cursor = writer.execute(_INSERT, (appended_us, value))
            freed, released = self._forget(writer)
            writer.execute("COMMIT")
        assert cursor.lastrowid is not None
        last = cursor.lastrowid - 1
        self._last_appended_us = appended_us
        self._released = released
        self._backlog_bytes += sum(map(len, values)) - freed
        with self._grown:
            self._end = last
            self._grown.notify_all()
        return last

    def _forget(self, writer: sqlite3.Connection) -> tuple[int, int]:
        """Deletes some released records inside the open transaction: (bytes, released through)."""
        through = self._release_through
        if through <= self._released:
            return 0, self._released
        (first,) = writer.execute("SELECT min(position) FROM records").fetchone()
        if first is not None:
            through = min(through, int(first) - 2 + _RELEASE_RECORDS_PER_COMMIT)
        row = writer.execute(
            "SELECT coalesce(sum(length(value)), 0) FROM records WHERE position <= ?",
            (through + 1,),
        ).fetchone()
        writer.execute("DELETE FROM records WHERE position <= ?", (through + 1,))
        writer.execute("UPDATE facts SET value = ? WHERE name = 'released'", (through,))
        return int(row[0]), through

    def _tend(self) -> None:
        """Idle work: forget what was released, give pages back to the disk, start the log anew."""
        try:
            while self._release_through > self._released and self._jobs.empty():
                self._writer.execute("BEGIN IMMEDIATE")
                freed, released = self._forget(self._writer)
                self._writer.execute("COMMIT")
                self._released = released
                self._backlog_bytes -= freed
            self._recount()
            (free,) = self._writer.execute("PRAGMA freelist_count").fetchone()
            if free and self._jobs.empty():
                # As a script: `execute` steps once, and one step gives one page back.
                self._writer.executescript(f"PRAGMA incremental_vacuum({min(free, 1024)})")
            if self._wal_bytes() > 0 and self._jobs.empty():
                self._writer.execute(f"PRAGMA busy_timeout={_CHECKPOINT_BUSY_MS}")
                self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as problem:
            self._roll_back()
            _log.warning("event log could not be tended", extra={"problem": str(problem)})
        finally:
            self._writer.execute(f"PRAGMA busy_timeout={_BUSY_MS}")

    def _recount(self) -> None:
        """Counts the backlog anew if another connection wrote to the file."""
        (version,) = self._writer.execute("PRAGMA data_version").fetchone()
        if version == self._data_version:
            return
        (backlog,) = self._writer.execute(
            "SELECT coalesce(sum(length(value)), 0) FROM records"
        ).fetchone()
        (released,) = self._writer.execute(
            "SELECT value FROM facts WHERE name = 'released'"
        ).fetchone()
        self._data_version, self._backlog_bytes = int(version), int(backlog)
        self._released = max(self._released, int(released))

    def _roll_back(self) -> None:
        if self._writer.in_transaction:
            try:
                self._writer.execute("ROLLBACK")
            except sqlite3.Error as problem:
                _log.error("event log could not roll back", extra={"problem": str(problem)})

    def _wal_bytes(self) -> int:
        try:
            return self._path.with_name(self._path.name + "-wal").stat().st_size
        except FileNotFoundError:
            return 0

    def _checkpoint_loop(self) -> None:
        while not self._checkpoint_wanted.wait(timeout=_IDLE_SECONDS):
            if self._wal_bytes() < _CHECKPOINT_BYTES:
                continue
            try:
                with closing(self._connect()) as connection:
                    connection.execute(f"PRAGMA busy_timeout={_CHECKPOINT_BUSY_MS}")
                    # PASSIVE never blocks the writer; RESTART then has little left to copy.
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                    connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
            except sqlite3.Error as problem:
                _log.warning("event log checkpoint failed", extra={"problem": str(problem)})


def _answer(job: _Submission, outcome: int | Exception) -> None:
    try:
        job.done(outcome)
    except Exception:  # noqa: BLE001 -- the writer serves others too: a listener that fails must not end it
        _log.exception("whoever waited for an append failed")
