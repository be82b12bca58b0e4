"""Use case: a backup becomes a data folder: `python -m tollgate.events.restore FILE --data FOLDER`.

The folder appears whole or not at all: everything is made beside it and renamed at the end.
"""

import argparse
import fcntl
import os
import shutil
import sys
from pathlib import Path

from tollgate.core.errors import Conflict, InvalidInput, PermanentFault, TollgateError
from tollgate.core.ids import new_ulid
from tollgate.events.backup import TABLES
from tollgate.events.backup_file import CONTROL, Manifest, log_name, refusal, unpack
from tollgate.events.ledger import read_frontier
from tollgate.platform.clickhouse import DATABASE, ClickHouse
from tollgate.platform.clickhouse_schema import migrate_clickhouse, read_migrations

_LOCK = "lock"


def restore(source: Path, target: Path) -> Manifest:
    """Makes a data folder out of a backup.

    Raises:
        Conflict: the folder is in use or not empty.
        InvalidInput: the file is no whole, undamaged backup, or one of another schema.
        PermanentFault: the engine does not hold what was saved.
        OSError: the disk is full, or refuses.
    """
    _require_empty(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".{target.name}.restoring-{new_ulid()}")
    incoming = staging / "incoming"
    incoming.mkdir(parents=True)
    try:
        try:
            with source.open("rb") as stream:
                manifest = unpack(stream, incoming)
        except OSError as problem:
            raise refusal(f"{source}: {problem.strerror or problem}") from None
        _require_same_schema(manifest)
        for name in (log_name(manifest), CONTROL):
            (incoming / name).rename(staging / name)
        _attach(staging / "clickhouse", incoming / "clickhouse", manifest)
        shutil.rmtree(incoming)
        # The engine's files and the renames must be on disk before the folder has its name.
        os.sync()
        (target / _LOCK).unlink(missing_ok=True)
        staging.rename(target)
        os.sync()
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return manifest


def _require_empty(target: Path) -> None:
    lock = target / _LOCK
    if lock.exists():
        with lock.open("r+") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise Conflict(
                    f"{target} is in use by a running Tollgate; give a new folder"
                ) from None
    if target.exists() and (
        not target.is_dir() or any(each.name != _LOCK for each in target.iterdir())
    ):
        raise Conflict(f"{target} is not empty; restore into a new folder")


def _require_same_schema(manifest: Manifest) -> None:
    # Parts are as the migrations up to then left them; later ones would not touch them.
    if manifest.schema != len(read_migrations()):
        raise refusal(
            f"its tables are of Tollgate {manifest.version}, this one has others; restore it "
            "with that version, then upgrade"
        )
    if set(manifest.rows) != set(TABLES):
        raise refusal("its manifest does not count the tables that this Tollgate has")


def _attach(path: Path, incoming: Path, manifest: Manifest) -> None:
    """Creates the tables by the migrations and hands them the saved parts."""
    with ClickHouse(path=path) as clickhouse:
        migrate_clickhouse(clickhouse)
        for table in TABLES:
            # Until the rows are counted: a merge may rightly leave fewer.
            clickhouse.command(f"SYSTEM STOP MERGES {DATABASE}.{table}")
            ((places,),) = clickhouse.query(
                "SELECT data_paths FROM system.tables"
                " WHERE database = {database:String} AND name = {table:String}",
                {"database": DATABASE, "table": table},
            )
            detached = Path(places[0]) / "detached"
            saved = incoming / table
            for part in sorted(saved.iterdir()) if saved.exists() else ():
                part.rename(detached / part.name)
                clickhouse.command(f"ALTER TABLE {DATABASE}.{table} ATTACH PART '{part.name}'")
            ((rows,),) = clickhouse.query(
                "SELECT toInt64(sum(rows)) FROM system.parts WHERE active"
                " AND database = {database:String} AND table = {table:String}",
                {"database": DATABASE, "table": table},
            )
            if rows != manifest.rows[table]:
                raise PermanentFault(
                    f"{table}: {rows} rows were restored, {manifest.rows[table]} were saved"
                )
        for partition, saved_through in manifest.frontier.items():
            loaded = read_frontier(clickhouse, manifest.generation, int(partition))
            if loaded != saved_through:
                raise PermanentFault(
                    f"partition {partition}: the restored ledger ends at offset {loaded}, "
                    f"the saved one at {saved_through}"
                )


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit code."""
    parser = argparse.ArgumentParser(
        "tollgate restore", description="Makes a new data folder out of a backup."
    )
    parser.add_argument("file", type=Path, help="what `tollgate backup` wrote")
    parser.add_argument("--data", type=Path, required=True, help="a new or empty folder")
    given = parser.parse_args(arguments)
    target: Path = given.data.absolute()
    try:
        manifest = restore(given.file, target)
    except TollgateError as problem:
        detail = problem.faults[0].message if isinstance(problem, InvalidInput) else problem.detail
        print(f"tollgate restore: {detail}", file=sys.stderr)  # noqa: T201 -- said to a person
        return 2
    except OSError as problem:
        print(f"tollgate restore: {problem}", file=sys.stderr)  # noqa: T201 -- said to a person
        return 2
    events = f"{manifest.rows['events']:,} rows of events"
    print(f"Restored {events} into {given.data}. Start it: scripts/up --data {given.data}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
