"""A log of all kinds of records, loaded and archived; its rows deleted, and loaded again."""

import threading
from contextlib import closing

from tests.support.archives import archive_all, archiver_of, correction_record
from tests.support.event_logs import append, read_all
from tests.support.loading import HOUR_US, NOON_US, Sent, Stage
from tollgate.events.archive_ledger import ArchivedTimes, LedgerArchiver
from tollgate.events.archive_log import ArchiveLog
from tollgate.events.ledger import Frontier
from tollgate.events.load import DAY_US
from tollgate.events.load_progress import LoadLimits
from tollgate.events.record import Group, encode_record
from tollgate.events.replay import Period, ReplayLoader, load_partition, make_plan
from tollgate.platform.clickhouse import DATABASE
from tollgate.platform.event_log import StoredRecord
from tollgate.platform.objects_folder import FolderObjects

WINDOW_US = 2 * DAY_US
KINDS = 3
EVER = Period()
TABLES = ("events", "event_keys", "event_outcomes", "event_corrections", "ledger")


def write_log(stage: Stage) -> list[StoredRecord]:
    """Eight days, with repeats inside and beyond the window, contradictions, and all kinds."""
    for number in range(8):
        stage.clock.us += 23 * HOUR_US
        sent = [
            Sent(id=f"{number}"),
            Sent(id=f"{number}"),
            Sent(id=f"{number % KINDS}", data='{"n":2}'),
            Sent(id=f"d{number // 2}", type=f"type {number % 2}"),
        ]
        lines = [stage.encoded(each, stage.clock.us) for each in sent]
        append(stage.log, encode_record([Group(stage.namespace, stage.clock.us, lines)]))
        if number in (2, 6):
            amended = stage.encoded(Sent(id=f"d{number // 2}", data='{"n":9}'), NOON_US)
            append(
                stage.log,
                correction_record(f"{number}", namespace=stage.namespace),
                correction_record(f"d{number // 2}", amended, stage.namespace),
                b"damaged",
            )
    stage.clock.us += 2 * DAY_US
    return read_all(stage.log)


def archive(stage: Stage, objects: FolderObjects) -> None:
    """Loads the log and archives it, records and ledger."""
    write_log(stage)
    loader, never = stage.loader(WINDOW_US, dead_letters_max=1000), threading.Event()
    while records := loader.gather(never):
        loader.load(records)
    archiver = archiver_of(stage.log, objects, stage.clock, events_max=30, slot_us=DAY_US)
    archive_all(archiver)
    archive_ledger(stage, objects, archiver.progress.frontier)


def archive_ledger(stage: Stage, objects: FolderObjects, archived: int) -> None:
    place = (stage.log.generation, 0)
    ledger = LedgerArchiver(objects, stage.clickhouse, place, stage.clock)
    while ledger.step(archived) is not None:
        pass


def digests(stage: Stage) -> dict[str, tuple[int, int]]:
    """Of every table: rows and the sum of their hashes; of times of loading only the ledger's."""
    found = {}
    for table in TABLES:
        columns = [
            row[0]
            for row in stage.clickhouse.query(
                "SELECT name FROM system.columns WHERE database = {database:String}"
                " AND table = {table:String}",
                {"database": DATABASE, "table": table},
            )
            if table == "ledger" or row[0] != "stored_at"
        ]
        ((count, total),) = stage.clickhouse.query(
            f"SELECT count(), sum(cityHash64({', '.join(columns)})) FROM {DATABASE}.{table} FINAL"
            " WHERE log_generation = {generation:UInt32}",
            {"generation": stage.log.generation},
        )
        assert count > 0, table
        found[table] = (count, total)
    return found


def wipe(stage: Stage) -> None:
    for table in TABLES:
        stage.clickhouse.command(
            f"ALTER TABLE {DATABASE}.{table} DELETE WHERE log_generation ="
            f" {stage.log.generation} SETTINGS mutations_sync = 2"
        )


def replay(stage: Stage, objects: FolderObjects, period: Period = EVER) -> int:
    """Loads the archive; gives how many events were said to be loaded."""
    plan = make_plan(objects, period, WINDOW_US)
    ((key, files),) = plan.files.items()
    assert key == (stage.log.generation, 0)
    loaded: list[int] = []
    with closing(ArchiveLog(objects, key[0], {0: files}, period.until_us)) as log:
        loader = ReplayLoader(
            log=log,
            partition=0,
            clickhouse=stage.clickhouse,
            frontier=Frontier(stage.clickhouse),
            limits=LoadLimits(events_max=10, wait_ms=0, window_us=WINDOW_US, dead_letters_max=1000),
            clock=stage.clock,
        )
        loader.times = ArchivedTimes(objects, *key)
        load_partition(loader, log, 0, loaded.append)
    return sum(loaded)
