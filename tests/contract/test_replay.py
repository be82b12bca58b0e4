"""Replay on the real engine: the archive loaded again is what the loader had made of the log.

The engine is shared, so a stage's rows are deleted and loaded again beside all others;
`tests/e2e/test_archive.py` loads into an empty store.
"""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support.archives import archive_all, archived, archiver_of, correction_record
from tests.support.event_logs import append, read_all
from tests.support.loading import HOUR_US, NOON_US, NewStage, Sent, Stage, load_all
from tollgate.core.clock import SystemClock
from tollgate.core.errors import Conflict, Transient
from tollgate.events.archive_chain import LEDGER, RECORDS, Chain
from tollgate.events.archive_ledger import ArchivedTimes, LedgerArchiver, ledger_files
from tollgate.events.archive_log import ArchiveLog
from tollgate.events.ledger import Frontier
from tollgate.events.load import DAY_US
from tollgate.events.load_progress import LoadLimits
from tollgate.events.record import Group, encode_record
from tollgate.events.replay import Period, ReplayLoader, load_partition, make_plan, require_own
from tollgate.events.replay_proof import prove
from tollgate.platform.clickhouse import DATABASE
from tollgate.platform.event_log import ARCHIVE, LOADER, StoredRecord
from tollgate.platform.objects_folder import FolderObjects
from tollgate.platform.segment_log import SegmentLog

pytest_plugins = ["tests.support.stages"]
WINDOW_US = 2 * DAY_US
KINDS = 7
EVER = Period()
TABLES = ("events", "event_keys", "event_outcomes", "event_corrections", "ledger")


def write_log(stage: Stage) -> list[StoredRecord]:
    """Eight days, with repeats inside and beyond the window, contradictions, and all kinds."""
    for number in range(14):
        stage.clock.us += 14 * HOUR_US
        sent = [
            Sent(id=f"{number}"),
            Sent(id=f"{number}"),
            Sent(id=f"{number % KINDS}", data='{"n":2}'),
            Sent(id=f"d{number // 2}", type=f"type {number % 2}"),
        ]
        lines = [stage.encoded(each, stage.clock.us) for each in sent]
        append(stage.log, encode_record([Group(stage.namespace, stage.clock.us, lines)]))
        if number in (4, 10):
            amended = stage.encoded(Sent(id=f"d{number // 2}", data='{"n":9}'), NOON_US)
            append(
                stage.log,
                correction_record(f"{number}", namespace=stage.namespace),
                correction_record(f"d{number // 2}", amended, stage.namespace),
                b"damaged",
            )
    stage.clock.us += 2 * DAY_US
    return read_all(stage.log)


@pytest.fixture
def new_stage(stages: NewStage) -> NewStage:
    """Makes stages whose logs wait for archivers, too."""

    @contextmanager
    def open_stage() -> Iterator[Stage]:
        with stages() as stage:
            stage.log.close()
            readers = (LOADER, ARCHIVE)
            with closing(SegmentLog(stage.log.path, stage.clock, readers=readers)) as stage.log:
                yield stage

    return open_stage


@pytest.fixture
def objects(tmp_path: Path) -> FolderObjects:
    return FolderObjects(tmp_path / "objects")


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


def test_a_replay_gives_the_same_rows(new_stage: NewStage, objects: FolderObjects) -> None:
    with new_stage() as stage:
        archive(stage, objects)
        before = digests(stage)
        wipe(stage)
        replay(stage, objects)
        assert digests(stage) == before
        # Again, there is nothing to do.
        replay(stage, objects)
        assert digests(stage) == before
        plan = make_plan(objects, EVER, WINDOW_US)
        proof = prove(stage.clickhouse, objects, plan)
        assert proof.differences == []
        ledger = stage.ledger().values()
        assert proof.totals["accepted"] == sum(row[0] for row in ledger) > 0
        assert proof.totals["dead"] == sum(row[4] for row in ledger) > 0
        assert min(proof.totals.values()) > 0
        # An empty target is asked for: others' rows are in this one.
        with new_stage() as other:
            load_all(other.loader(), [other.record(0, NOON_US, Sent(id="a"))])
        with pytest.raises(Conflict, match="replay into an empty one"):
            require_own(stage.clickhouse, plan)


@pytest.mark.parametrize(
    ("at", "after"), [(1, False), (1, True), (2, True), (3, False), (4, True), (11, False)]
)
def test_a_replay_that_was_cut_off_goes_on(
    new_stage: NewStage, objects: FolderObjects, at: int, *, after: bool
) -> None:
    with new_stage() as stage:
        archive(stage, objects)
        before = digests(stage)
        wipe(stage)
        stage.clickhouse.fail_at(at, after=after)
        with pytest.raises(Transient, match="interrupted"):
            replay(stage, objects)
        replay(stage, objects)
        assert digests(stage) == before


def test_a_period_is_decided_as_it_was(new_stage: NewStage, objects: FolderObjects) -> None:
    with new_stage() as stage:
        archive(stage, objects)
        since, until = NOON_US + 5 * DAY_US, NOON_US + 7 * DAY_US
        live = stage.everything()
        period = Period(since_us=since, until_us=until)
        inside = {r.offset for r in archived(objects, stage.log) if period.has(r.appended_us)}
        assert inside
        wipe(stage)
        replay(stage, objects, period)
        again = stage.everything()
        for name in ("stored", "outcomes"):
            assert {p for p in _positions(again[name]) if p[0] in inside} == {
                p for p in _positions(live[name]) if p[0] in inside
            }, name
        # Some of before, for their claims, and nothing of after.
        assert min(stage.ledger()) < min(inside)
        assert max(stage.ledger()) == max(inside)
        plan = make_plan(objects, period, WINDOW_US)
        assert prove(stage.clickhouse, objects, plan).differences == []
        assert min(entry.begin for entry in plan.files[stage.log.generation, 0]) > 0


def _positions(found: object) -> set[tuple[int, int]]:
    assert isinstance(found, set | dict)
    return set(found)


def test_a_total_that_is_off_is_shown(new_stage: NewStage, objects: FolderObjects) -> None:
    with new_stage() as stage:
        archive(stage, objects)
        plan = make_plan(objects, EVER, WINDOW_US)
        assert prove(stage.clickhouse, objects, plan).differences == []
        stage.clickhouse.command(
            f"ALTER TABLE {DATABASE}.ledger DELETE WHERE log_generation ="
            f" {stage.log.generation} AND log_offset = 3 SETTINGS mutations_sync = 2"
        )
        found = prove(stage.clickhouse, objects, plan).differences
        assert {(each.name, each.archived - each.replayed) for each in found} >= {("accepted", 4)}
        assert {each.namespace for each in found} == {stage.namespace}


def test_the_ledger_follows_the_records(new_stage: NewStage, objects: FolderObjects) -> None:
    with new_stage() as stage:
        records = write_log(stage)
        loader = stage.loader(WINDOW_US, dead_letters_max=1000)
        loader.load(records[:1])
        key = (stage.log.generation, 0)
        ((first,),) = stage.clickhouse.query(
            f"SELECT toUnixTimestamp64Micro(stored_at) FROM {DATABASE}.ledger"
            " WHERE log_generation = {generation:UInt32}",
            {"generation": key[0]},
        )
        # Written again by a loader that was thought dead.
        loader.load(records[:1])
        second = SystemClock().now_us()
        archiver = archiver_of(stage.log, objects, stage.clock, events_max=30, slot_us=DAY_US)
        archive_all(archiver)
        archived = archiver.progress.frontier
        assert Chain(objects, RECORDS, *key).look() == archived
        archive_ledger(stage, objects, archived)
        # Loading has not passed the first file yet.
        assert Chain(objects, LEDGER, *key).look() == -1
        for record in records[1:]:
            loader.load([record])
        archive_ledger(stage, objects, archived)
        assert Chain(objects, LEDGER, *key).look() == archived
        files = list(ledger_files(objects, *key))
        offsets = [offset for _, rows in files for offset in rows.numbers("log_offset").tolist()]
        assert sorted(set(offsets)) == [r.offset for r in records if r.offset <= archived]
        # The second time at the latest: the engine may have forgotten the first.
        assert first <= int(files[0][1].numbers("stored_at")[0]) <= second
        days = {rows.numbers("appended_at")[0] // DAY_US for _, rows in files}
        assert len(days) == len(files) > 1
