"""Replay on the real engine: the archive loaded again is what the loader had made of the log.

The engine is shared, so a stage's rows are deleted and loaded again beside all others;
`tests/e2e/test_archive.py` loads into an empty store.
"""

import pytest

from tests.support.archives import archive_all, archiver_of
from tests.support.loading import NOON_US, NewStage, Sent, load_all
from tests.support.replaying import (
    EVER,
    WINDOW_US,
    archive,
    archive_ledger,
    digests,
    replay,
    wipe,
    write_log,
)
from tollgate.core.clock import SystemClock
from tollgate.core.errors import Conflict
from tollgate.events.archive_chain import LEDGER, RECORDS, Chain
from tollgate.events.archive_ledger import ledger_files
from tollgate.events.load import DAY_US
from tollgate.events.replay import make_plan, require_own
from tollgate.events.replay_proof import prove
from tollgate.platform.clickhouse import DATABASE
from tollgate.platform.objects_folder import FolderObjects

pytest_plugins = ["tests.support.stages", "tests.support.replay_stages"]


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


def test_a_total_that_is_off_is_shown(new_stage: NewStage, objects: FolderObjects) -> None:
    with new_stage() as stage:
        archive(stage, objects)
        plan = make_plan(objects, EVER, WINDOW_US)
        assert prove(stage.clickhouse, objects, plan).differences == []
        stage.clickhouse.command(
            f"ALTER TABLE {DATABASE}.ledger DELETE WHERE log_generation ="
            f" {stage.log.generation} AND log_offset = 1 SETTINGS mutations_sync = 2"
        )
        found = prove(stage.clickhouse, objects, plan).differences
        assert {(each.name, each.archived - each.replayed) for each in found} >= {("accepted", 4)}
        assert {each.namespace for each in found} == {stage.namespace}


def test_the_ledger_follows_the_records(new_stage: NewStage, objects: FolderObjects) -> None:
    with new_stage() as stage:
        records = write_log(stage)
        # Two records in the first file.
        archiver = archiver_of(stage.log, objects, stage.clock, events_max=8, slot_us=7 * DAY_US)
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
