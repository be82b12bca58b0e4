"""Use case: a consistent copy of the data folder while it is used.

Loading waits while the control plane is copied, the tables are frozen (hard links) and the log is
copied; ingest goes on. So a record acknowledged before is in the tables, or in the log's copy, or
in both, and then its position makes it count once.
"""

import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tollgate import __version__
from tollgate.core.errors import Conflict, Transient
from tollgate.core.ids import new_ulid
from tollgate.events.backup_file import CONTROL, FORMAT, LOG, Manifest, Member, pack
from tollgate.events.control import open_control
from tollgate.events.ledger import read_frontier
from tollgate.platform.clickhouse import DATABASE, ClickHouse
from tollgate.platform.parts import Parts, open_clickhouse, open_log
from tollgate.platform.segment_log import SegmentLog

TABLES = (
    *("events", "event_keys", "event_outcomes", "event_corrections"),
    *("ledger", "ledger_commits"),
)
_PREFIX = "backup_"
_GATE_SECONDS = 60


class BackupTurn:
    """One backup at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


def open_backup_turn(parts: Parts) -> BackupTurn:
    """The turn that backups of this process take."""
    del parts
    return BackupTurn()


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """A copy on disk that nobody changes.

    Attributes:
        members: its files.
        manifest: what it holds, files left out.
        folders: to be removed afterwards.
    """

    members: tuple[Member, ...]
    manifest: Manifest
    folders: tuple[Path, ...]


def backup_pieces(parts: Parts) -> Iterator[bytes]:
    """Pieces of a backup. The first one is empty and comes when the copy is complete.

    The copy goes when the iterator ends, fails or is closed.

    Raises:
        Conflict: another backup runs, or the data are not in the folder of this process.
        Transient: loading could not be paused in time.
    """
    turn = parts.get(open_backup_turn)
    if not turn.lock.acquire(blocking=False):
        raise Conflict("a backup is being made; wait for it to end")
    try:
        _remove_leftovers(parts)
        frozen = _freeze(parts)
        try:
            yield b""
            yield from pack(frozen.members, frozen.manifest, parts.clock.now_us() // 1_000_000)
        finally:
            for folder in frozen.folders:
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        turn.lock.release()


def _embedded(parts: Parts) -> tuple[ClickHouse, SegmentLog, Path]:
    settings = parts.settings
    if settings.clickhouse_url or settings.log_url or settings.database_url:
        raise Conflict("only embedded parts are backed up here; use the tools of your databases")
    clickhouse, log = parts.get(open_clickhouse), parts.get(open_log)
    assert isinstance(log, SegmentLog)
    assert clickhouse.path is not None
    return clickhouse, log, clickhouse.path


def _remove_leftovers(parts: Parts) -> None:
    """What a backup left that a crash ended."""
    _, _, path = _embedded(parts)
    for folder in (path / "shadow", parts.settings.data):
        for left in folder.glob(f"{_PREFIX}*"):
            shutil.rmtree(left, ignore_errors=True)


def _freeze(parts: Parts) -> Frozen:
    clickhouse, log, path = _embedded(parts)
    name = _PREFIX + new_ulid()
    shadow, copies = path / "shadow" / name, parts.settings.data / name
    copies.mkdir()
    try:
        with _loading_paused(parts):
            # Before the tables: a seal names positions, and must find them in there.
            _copy_sqlite(parts.settings.data / CONTROL, copies / CONTROL)
            for table in TABLES:
                clickhouse.command(f"ALTER TABLE {DATABASE}.{table} FREEZE WITH NAME '{name}'")
            frontier = {
                str(partition): read_frontier(clickhouse, log.generation, partition)
                for partition in range(log.partitions)
            }
            log.copy_to(copies / LOG)
        members = [
            Member(name=str(path.relative_to(copies)), path=path)
            for path in (*sorted((copies / LOG).iterdir()), copies / CONTROL)
        ]
        rows = {}
        for table in TABLES:
            files, rows[table] = _frozen_files(clickhouse, table, shadow)
            members += files
        manifest = Manifest(
            format=FORMAT,
            version=__version__,
            schema=_schema(clickhouse),
            generation=log.generation,
            frontier=frontier,
            rows=rows,
            files={},
        )
    except BaseException as problem:
        shutil.rmtree(shadow, ignore_errors=True)
        shutil.rmtree(copies, ignore_errors=True)
        if isinstance(problem, OSError | sqlite3.Error):
            raise Transient(f"the copy could not be made: {problem}") from problem
        raise
    return Frozen(members=tuple(members), manifest=manifest, folders=(shadow, copies))


@contextmanager
def _loading_paused(parts: Parts) -> Iterator[None]:
    gate = parts.get(open_control).gate
    if not gate.acquire(timeout=_GATE_SECONDS):
        raise Transient("loading could not be paused; try again")
    try:
        yield
    finally:
        gate.release()


def _copy_sqlite(source: Path, target: Path) -> None:
    """SQLite's online backup: https://sqlite.org/backup.html."""
    reader, writer = sqlite3.connect(source, timeout=30), sqlite3.connect(target)
    try:
        reader.backup(writer)
    finally:
        reader.close()
        writer.close()


def _frozen_files(clickhouse: ClickHouse, table: str, shadow: Path) -> tuple[list[Member], int]:
    """The frozen files of a table, and how many rows its parts count."""
    ((identity,),) = clickhouse.query(
        "SELECT toString(uuid) FROM system.tables"
        " WHERE database = {database:String} AND name = {table:String}",
        {"database": DATABASE, "table": table},
    )
    folder = shadow / "store" / identity[:3] / identity
    files = [
        Member(name=f"clickhouse/{table}/{path.relative_to(folder)}", path=path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    rows = sum(int(path.read_text()) for path in folder.glob("*/count.txt"))
    return files, rows


def _schema(clickhouse: ClickHouse) -> int:
    ((version,),) = clickhouse.query(f"SELECT max(version) FROM {DATABASE}.schema_migrations")
    return int(version)
