"""The recount: what the ledger says, counted again in the tables and in the log."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.loading import NewStage
from tests.support.sealing import SealHouse, Use, hour_at, open_house
from tollgate.core.clock import us_from_datetime
from tollgate.events.balance import read_frontiers
from tollgate.events.imbalance import EVERYBODY, Counts
from tollgate.events.in_flight import InFlight, read_in_flight
from tollgate.events.position import Token
from tollgate.events.record import Group, encode_record
from tollgate.events.recount import read_slices, recount
from tollgate.events.seal import BEGINNING
from tollgate.platform.clickhouse import DATABASE
from tollgate.platform.event_log import OneLayout, StoredRecord

pytest_plugins = ["tests.support.stages"]


@pytest.fixture
def house(stages: NewStage, tmp_path: Path) -> Iterator[SealHouse]:
    with open_house(stages, tmp_path) as opened:
        yield opened


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
