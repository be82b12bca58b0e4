"""Seals: what an hour's figures are made of, what came later, and what does not balance."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.loading import NewStage
from tests.support.sealing import LATENESS, SealHouse, Use, hour_at, open_house
from tollgate.core.clock import us_from_datetime
from tollgate.core.errors import Conflict, InvalidInput
from tollgate.events.balance import read_frontiers
from tollgate.events.imbalance import EVERYBODY, Counts
from tollgate.events.in_flight import InFlight, read_in_flight
from tollgate.events.position import Token
from tollgate.events.record import Group, encode_record
from tollgate.events.recount import read_slices, recount
from tollgate.events.seal import BEGINNING
from tollgate.events.seal_run import open_recount_store, open_seal_store, open_sealer
from tollgate.events.seal_schedule import open_seal_progress, recount_and_seal, seal_metrics
from tollgate.platform.clickhouse import DATABASE
from tollgate.platform.event_log import OneLayout, StoredRecord
from tollgate.platform.parts import Parts, open_clickhouse
from tollgate.platform.settings import Settings

pytest_plugins = ["tests.support.stages"]


@pytest.fixture
def house(stages: NewStage, tmp_path: Path) -> Iterator[SealHouse]:
    with open_house(stages, tmp_path) as opened:
        yield opened


def test_the_first_seal_takes_all_hours_that_are_over(house: SealHouse) -> None:
    house.send(Use(id="old", n=1, hour=-4800), Use(id="now", n=2, hour=0), Use(id="next", hour=2))
    house.pass_hours(2)
    run = house.seal()
    assert (run.problem, dict(run.blocked)) == ("", {})
    (seal,) = run.sealed[house.namespace]
    assert (seal.start, seal.end, seal.revision) == (BEGINNING, hour_at(1), 1)
    assert house.store.list(house.namespace) == (seal,)
    assert house.store.state(house.namespace).sealed_through == hour_at(1)
    assert house.seal().sealed == {}


def test_an_hour_waits_for_its_lateness_and_a_clock_set_back_changes_nothing(
    house: SealHouse,
) -> None:
    house.send(Use(id="a"))
    house.stage.clock.us += 2 * 3_600_000_000 - 1
    assert house.seal().through == hour_at(0)
    house.stage.clock.us += 1
    house.seal()
    state = house.store.state(house.namespace)
    assert state.sealed_through == hour_at(1)
    house.pass_hours(-30)
    assert house.seal().sealed == {}
    assert house.store.state(house.namespace) == state


def test_what_comes_later_is_a_revision_and_the_seal_stays(house: SealHouse) -> None:
    house.send(Use(id="a", n=1), Use(id="b", n=10))
    house.pass_hours(2)
    house.seal()
    house.send(Use(id="c", n=100), Use(id="a", n=1))
    house.correct("b", reason="twice")
    # Nothing moves within the hour: what came is pending.
    assert house.seal().sealed == {}
    assert house.store.list(house.namespace, revised=True) == ()
    house.pass_hours(1)
    revision, seal = house.seal().sealed[house.namespace]
    assert (revision.start, revision.end, revision.revision) == (hour_at(0), hour_at(1), 2)
    assert (revision.late_events, revision.late_corrections) == (1, 1)
    assert (seal.start, seal.end, seal.revision) == (hour_at(1), hour_at(2), 1)
    first = house.store.find(house.namespace, hour_at(0), 1)
    assert first is not None
    assert revision.previous == first.vector
    assert house.value(first.vector, hour=0) == 11
    assert house.value(revision.vector, hour=0) == house.value(hour=0) == 101
    assert house.store.find(house.namespace, hour_at(0)) == revision


def test_an_amendment_changes_both_its_hours(house: SealHouse) -> None:
    house.send(Use(id="a", n=1, hour=-3), Use(id="b", n=10))
    house.pass_hours(2)
    house.seal()
    house.correct("a", Use(id="a", n=5, hour=0))
    house.correct("b", Use(id="b", n=20, hour=0))
    house.pass_hours(1)
    before, after, _ = house.seal().sealed[house.namespace]
    assert (before.start, before.late_events, before.late_corrections) == (hour_at(-3), 0, 1)
    assert (after.start, after.late_events, after.late_corrections) == (hour_at(0), 0, 2)
    assert [house.value(after.vector, hour) for hour in (-3, 0)] == [0, 25]
    assert after.previous is not None
    assert [house.value(after.previous, hour) for hour in (-3, 0)] == [1, 10]


def test_a_namespace_without_events_needs_no_seal_of_its_own(house: SealHouse) -> None:
    house.send(Use(id="a"))
    house.pass_hours(2)
    house.seal()
    house.pass_hours(30)
    house.seal()
    (seal,) = house.store.list(house.namespace)
    assert (seal.end, seal.extended_at) == (hour_at(31), hour_at(32))
    # What comes then is late for all of these hours.
    house.send(Use(id="b", hour=20))
    house.pass_hours(1)
    revision, _ = house.seal().sealed[house.namespace]
    assert (revision.start, revision.revision, revision.late_events) == (hour_at(20), 2, 1)


def test_what_is_in_the_log_is_waited_for(house: SealHouse) -> None:
    house.send(Use(id="a"))
    house.append([house.encoded(Use(id="b"))])
    house.pass_hours(2)
    run = house.sealer(wait_ms=1).run()
    generation = house.stage.log.generation
    assert run.problem == (
        f"not loaded yet: generation {generation}, partition 0: loaded up to offset 0 of 1"
    )
    house.load()
    (seal,) = house.seal().sealed[house.namespace]
    assert str(seal.vector) == f"{generation};0:1"


@pytest.mark.parametrize(
    ("statement", "differences"),
    [
        ("events DELETE WHERE id = 'b'", "stored: 3 expected, 2 found"),
        ("event_outcomes DELETE WHERE outcome = 'duplicate'", "duplicate: 1 expected, 0 found"),
        (
            "event_corrections DELETE WHERE id = 'a'",
            "corrections: 1 expected, 0 found; amended: 0 expected, 1 found",
        ),
        ("events DELETE WHERE amendment = 1", "amended: 1 expected, 0 found"),
        (
            "ledger UPDATE stored = 2, duplicate = 1 WHERE stored = 3",
            "stored: 2 expected, 3 found; duplicate: 2 expected, 1 found",
        ),
        ("ledger UPDATE accepted = 4 WHERE accepted = 3", "accepted: 5 expected, 4 found"),
    ],
)
def test_what_does_not_balance_does_not_seal_and_says_why(
    house: SealHouse, statement: str, differences: str
) -> None:
    house.send(Use(id="a"), Use(id="b"), Use(id="c"))
    house.send(Use(id="a"))
    house.correct("a", Use(id="a", n=7))
    table, _, change = statement.partition(" ")
    generation = house.stage.log.generation
    house.clickhouse.command(
        f"ALTER TABLE {DATABASE}.{table} {change} AND log_generation = {generation}"
        " SETTINGS mutations_sync = 2"
    )
    house.pass_hours(2)
    run = house.sealer(slice_events_max=1000).run()
    assert run.sealed == {}
    assert house.store.state(house.namespace).sealed_through == BEGINNING
    reason = run.blocked[house.namespace]
    assert "the ledger does not balance: received in the hour 2026-11-02T12:00:00Z" in reason
    assert reason.endswith(differences)
    # It stays so, and is looked at again each time.
    found = house.recounts.imbalances(house.namespace)
    house.pass_hours(1)
    assert house.seal().blocked == run.blocked
    assert house.recounts.imbalances(house.namespace) == found


def test_what_balances_again_seals(house: SealHouse) -> None:
    house.send(Use(id="a"), Use(id="b"))
    generation = house.stage.log.generation
    rows = f"{DATABASE}.ledger UPDATE stored = {{}} WHERE log_generation = {generation}"
    sync = " SETTINGS mutations_sync = 2"
    house.clickhouse.command(f"ALTER TABLE {rows.format(1)}{sync}")
    house.pass_hours(2)
    assert house.namespace in house.seal().blocked
    house.clickhouse.command(f"ALTER TABLE {rows.format(2)}{sync}")
    assert house.namespace in house.seal().sealed
    assert house.recounts.imbalances() == ()


def test_a_hole_in_the_ledger_concerns_everybody(house: SealHouse) -> None:
    for number in range(3):
        house.send(Use(id=str(number)))
    for table in ("ledger", "events"):
        house.clickhouse.command(
            f"ALTER TABLE {DATABASE}.{table} DELETE WHERE log_offset = 1"
            f" AND log_generation = {house.stage.log.generation} SETTINGS mutations_sync = 2"
        )
    house.pass_hours(2)
    reason = house.sealer(slice_events_max=1).run().blocked[house.namespace]
    assert "records: 3 expected, 2 found" in reason


def test_a_batch_that_was_loaded_twice_balances(house: SealHouse) -> None:
    house.append([house.encoded(Use(id=i)) for i in "abca"])
    records = house.stage.log.read(0, -1, 1 << 20)
    loader = house.stage.loader()
    loader.load(records)
    house.clickhouse.command(
        f"ALTER TABLE {DATABASE}.ledger DELETE WHERE log_generation ="
        f" {house.stage.log.generation} SETTINGS mutations_sync = 2"
    )
    loader.load(records)
    house.pass_hours(2)
    (seal,) = house.seal().sealed[house.namespace]
    assert seal.revision == 1


def test_two_runs_at_once_seal_once(house: SealHouse) -> None:
    house.send(Use(id="a"))
    house.pass_hours(2)
    house.seal()
    house.send(Use(id="b"))
    house.pass_hours(1)
    state = house.store.state(house.namespace)
    recounted = house.recounts.recounted()
    house.seal()
    sealed = house.store.list(house.namespace)
    # The other one had decided the same before.
    with pytest.raises(Conflict, match="another run"):
        house.recounts.save_recount(recounted, recounted, ())
    with pytest.raises(Conflict, match="another run"):
        house.store.seal(house.namespace, state, sealed[-1], {})
    assert house.store.list(house.namespace) == sealed
    assert [(s.start, s.revision) for s in sealed] == [
        (BEGINNING, 1),
        (hour_at(0), 2),
        (hour_at(1), 1),
    ]


@pytest.mark.parametrize("step", range(1, 6))
def test_a_run_that_was_killed_is_taken_up(
    house: SealHouse, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        house.send(Use(id=str(number)))
    house.pass_hours(2)
    with monkeypatch.context() as patched:
        begin, left = house.store._database.begin, [step]

        def begin_or_die() -> object:
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt
            return begin()

        patched.setattr(house.store._database, "begin", begin_or_die)
        try:
            house.sealer(slice_events_max=1).run()
        except KeyboardInterrupt:
            assert house.store.list(house.namespace) == ()
    house.sealer(slice_events_max=1).run()
    (seal,) = house.store.list(house.namespace)
    assert house.value(seal.vector) == 3


def test_a_forced_seal_says_what_was_missing(house: SealHouse) -> None:
    house.send(Use(id="a"), Use(id="b"))
    generation = house.stage.log.generation
    house.clickhouse.command(
        f"ALTER TABLE {DATABASE}.events DELETE WHERE id = 'b' AND log_generation = {generation}"
        " SETTINGS mutations_sync = 2"
    )
    house.append([house.encoded(Use(id="c"))])
    house.pass_hours(1)
    house.sealer(wait_ms=1).run()
    sealer = house.sealer()
    for wrong in (hour_at(2), hour_at(0) + LATENESS / 2):
        with pytest.raises(InvalidInput):
            sealer.force(house.namespace, wrong, "r", "")
    (seal,) = sealer.force(house.namespace, hour_at(1), "the month must close", "key-1")
    assert (seal.kind, seal.reason, seal.actor) == ("forced", "the month must close", "key-1")
    assert seal.missing == (
        "the allowed lateness of these hours was not over",
        f"generation {generation}, partition 0: loaded up to offset 0 of 1",
        "not all of the ledger was counted again",
    )
    with pytest.raises(Conflict, match="2026-11-02T13:00:00Z are sealed already"):
        sealer.force(house.namespace, hour_at(1), "again", "key-1")
    house.load()
    house.pass_hours(2)
    # What was found after it still stands against the next hours, until a person says otherwise.
    assert house.namespace in house.seal().blocked
    late, seal = sealer.force(house.namespace, hour_at(2), "known", "key-1")
    assert (late.start, late.revision, late.late_events) == (hour_at(0), 2, 1)
    assert seal.missing[-1].startswith("the ledger does not balance")
    house.pass_hours(1)
    (seal,) = house.seal().sealed[house.namespace]
    assert (seal.kind, seal.start, seal.end) == ("scheduled", hour_at(2), hour_at(3))


class KeepingLog(OneLayout):
    """A log that gives no record back, as Kafka's, over one that does."""

    def __init__(self, house: SealHouse) -> None:
        super().__init__(house.stage.log)
        self.records: dict[int, StoredRecord] = {}
        self.generation = house.stage.log.generation
        self.partitions = 1

    def open(self, generation: int) -> Any:
        assert generation == self.generation
        return self

    def end(self, partition: int) -> int:
        return self._log.end(partition)

    def released(self, partition: int) -> int:
        return min(self.records) - 1 + 0 * partition

    def read(self, partition: int, after: int, bytes_max: int) -> list[StoredRecord]:
        found = [self.records[offset] for offset in sorted(self.records) if offset > after]
        return found[: 1 + 0 * partition * bytes_max]


def test_every_record_of_the_log_has_its_row_in_the_ledger(house: SealHouse) -> None:
    log = KeepingLog(house)
    for number in range(3):
        house.append([house.encoded(Use(id=f"{number}-{n}")) for n in range(2)])
        (record,) = house.stage.log.read(0, number - 1, 1 << 20)
        log.records[number] = record
        house.load()
    sealer = replace(house.sealer(), layouts=log, gapless=False)
    house.pass_hours(2)
    # Another record than the one that was loaded, and one that the ledger does not know.
    lost = replace(log.records[1], value=encode_record([group(house, "x", "y", "z")]))
    log.records[1] = lost
    run = sealer.run()
    assert "log: 3 expected, 2 found" in run.blocked[house.namespace]
    (off,) = house.recounts.imbalances()
    assert (off.namespace, off.hour) == (house.namespace, hour_at(0))
    log.records[1] = replace(lost, value=b"nobody's")
    assert "log: 1 expected, 2 found" in sealer.run().blocked[house.namespace]
    (off,) = house.recounts.imbalances()
    assert off.namespace == EVERYBODY
    # Retention: what is gone can't be held against the ledger.
    del log.records[0], log.records[1]
    assert house.namespace in sealer.run().sealed


def group(house: SealHouse, *ids: str) -> Group:
    lines = [house.encoded(Use(id=each)) for each in ids]
    return Group(house.namespace, hour_us(0), lines)


def hour_us(hour: int) -> int:
    return us_from_datetime(hour_at(hour))


def test_a_range_is_cut_into_slices_without_a_gap(house: SealHouse) -> None:
    for number in range(5):
        house.append([house.encoded(Use(id=f"{number}-{n}")) for n in range(3)])
    house.load()
    generation = house.stage.log.generation
    begin = Token(generation=generation, offsets={0: 1})
    end = Token(generation=generation, offsets={0: 3})
    (part,) = read_slices(house.clickhouse, begin, end)
    assert (part.after, part.through) == (1, 3)
    # Of an older generation all that may stand behind its end, too.
    younger = Token(generation=generation + 1, offsets={})
    (part,) = read_slices(house.clickhouse, begin, younger)
    assert (part.after, part.through) == (1, 2**63 - 1)
    assert recount(house.clickhouse, part) == (
        {(house.namespace, hour_us(0) // 3_600_000_000): Counts(accepted=9, stored=9)},
        [],
    )


def test_what_waits_is_counted_by_the_hour_of_its_receipt(house: SealHouse) -> None:
    log = house.stage.log
    house.send(Use(id="a"))
    house.append([house.encoded(Use(id="b")), house.encoded(Use(id="c"))])
    house.pass_hours(1)
    house.append([house.encoded(Use(id="d"))])
    frontiers = read_frontiers(house.clickhouse, log)
    found = read_in_flight(log, frontiers, house.namespace)
    assert found == InFlight(hours={hour_at(0): 2, hour_at(1): 1}, complete=True)
    assert read_in_flight(log, frontiers, "another").hours == {}


def test_the_scheduled_step_says_how_it_went(house: SealHouse, tmp_path: Path) -> None:
    parts = Parts(Settings(data=tmp_path, seal_lateness_seconds=3600), house.stage.clock)
    parts.get(open_seal_progress)
    made: dict[Any, Any] = {
        open_clickhouse: house.clickhouse,
        open_seal_store: house.store,
        open_recount_store: house.recounts,
        open_sealer: house.sealer(),
    }
    parts._made |= made
    assert list(seal_metrics(parts)) == []
    house.send(Use(id="a"))
    house.pass_hours(3)
    run = recount_and_seal(parts)
    assert run.sealed.keys() == {house.namespace}
    figures = {
        sample.name: sample.value for family in seal_metrics(parts) for sample in family.samples
    }
    assert figures["tollgate_ledger_imbalanced_hours"] == 0
    assert figures["tollgate_seal_namespaces_blocked"] == 0
    assert figures["tollgate_seal_delay_seconds"] == 0
    assert figures["tollgate_seal_last_success"] == house.stage.clock.us / 1_000_000
    assert figures["tollgate_seal_revisions"] == 0
    house.send(Use(id="b"))
    house.pass_hours(1)
    recount_and_seal(parts)
    figures = {
        sample.name: sample.value for family in seal_metrics(parts) for sample in family.samples
    }
    assert figures["tollgate_seal_revisions"] == 1
    assert figures["tollgate_seal_delay_seconds"] == 0
    parts.close()
