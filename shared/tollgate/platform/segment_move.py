"""What a data folder of before held in `log.sqlite` becomes a folder of segments, once.

The folder is made beside its place and renamed at the end; then the old file is removed. Whatever
is interrupted begins again, and nothing stands in both.
"""

import itertools
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from tollgate.core.errors import PermanentFault, Transient
from tollgate.platform.disk import Disk, sync_folder
from tollgate.platform.segment_state import new_state, read_state, write_state
from tollgate.platform.segment_store import SegmentStore, Sizes

_RECORDS_PER_WRITE = 256


def move_sqlite_log(old: Path, folder: Path) -> bool:
    """Moves the records that are not released, under their offsets. Whether there was a file.

    Raises:
        Transient: a file can't be read or written now.
        PermanentFault: there is a log of segments already that was not made from this file.
    """
    if not old.exists():
        return False
    try:
        with closing(sqlite3.connect(old, timeout=10)) as source:
            end = _end(source)
            if folder.exists():
                state = read_state(folder)
                if state is None or state.moved_through != end:
                    raise PermanentFault(
                        f"{old} and {folder} are both there, and the one was not made from the"
                        " other: an older Tollgate ran on this folder since. Move one of them away"
                    )
            else:
                _make(source, folder, end)
        # The write-ahead log first: beside an older main file it would mean something else.
        for name in (f"{old.name}-wal", f"{old.name}-shm", old.name):
            old.with_name(name).unlink(missing_ok=True)
        sync_folder(old.parent)
    except (OSError, sqlite3.Error) as problem:
        raise Transient(f"moving {old} into {folder}: {problem}") from problem
    return True


def _end(source: sqlite3.Connection) -> int:
    row = source.execute("SELECT seq FROM sqlite_sequence WHERE name = 'records'").fetchone()
    return int(row[0]) - 1 if row else -1


def _make(source: sqlite3.Connection, folder: Path, end: int) -> None:
    facts = dict(source.execute("SELECT name, value FROM facts").fetchall())
    made = folder.with_name(folder.name + ".moving")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    disk = Disk()
    state = new_state(
        generation=int(facts["generation"]), released=int(facts["released"]), moved_through=end
    )
    write_state(made, state, disk)
    with closing(SegmentStore(made, disk, Sizes())) as store:
        rows = source.execute(
            "SELECT position - 1, appended_us, value FROM records WHERE position - 1 > ?"
            " ORDER BY position",
            (state.released,),
        )
        while chunk := rows.fetchmany(_RECORDS_PER_WRITE):
            # Where the SQLite log was made anew, it skipped offsets.
            for _, row in itertools.groupby(enumerate(chunk), lambda each: each[1][0] - each[0]):
                records = [record for _, record in row]
                store.begin_after(records[0][0] - 1)
                store.append([value for _, _, value in records], [us for _, us, _ in records])
        store.begin_after(end)
    made.rename(folder)
    sync_folder(folder.parent)
