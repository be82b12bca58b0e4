"""What was known at a vector of the log, from rollups that know no more than that."""

from dataclasses import replace

from tests.property.test_rollup_property import (
    BY_SUBJECT,
    FACTS,
    MORE,
    NEVER,
    Teller,
    answers,
    at,
    database,
    house_of,
)
from tests.support.loading import NewStage, Stage
from tollgate.events.position import Token
from tollgate.metering.meter import Aggregation
from tollgate.platform.clickhouse import DATABASE
from tollgate.platform.sql import Database

pytest_plugins = ["tests.support.stages"]
__all__ = ["database"]


def test_what_was_known_then_comes_from_rollups_that_know_no_more(
    stages: NewStage, database: Database
) -> None:
    with stages() as stage:
        house = house_of(stage, database, *Aggregation)
        teller = Teller(stage)
        teller.load(FACTS)
        house.roll_up().build(NEVER)
        teller.load([at(2000, "1e3")])
        then = replace(BY_SUBJECT, as_of=ledger_end(stage))
        before = [answers(house, each, then)[0] for each in house.meters]
        assert all(each.source is not None for each in before)
        teller.load(MORE)
        for answer, each in zip(before, house.meters, strict=True):
            found, expected = answers(house, each, then)
            assert found.rows == expected.rows == answer.rows, each.aggregation
            assert found.source is not None
        house.roll_up().build(NEVER)  # now they know more
        for answer, each in zip(before, house.meters, strict=True):
            found, _ = answers(house, each, then)
            assert (found.rows, found.source) == (answer.rows, None)


def ledger_end(stage: Stage) -> Token:
    """The vector that has all records that are loaded."""
    rows = stage.clickhouse.query(
        f"SELECT log_generation, log_partition, max(log_offset) FROM {DATABASE}.ledger"
        " GROUP BY log_generation, log_partition"
    )
    newest = max(int(row[0]) for row in rows)
    return Token(
        generation=newest, offsets={int(row[1]): int(row[2]) for row in rows if row[0] == newest}
    )
