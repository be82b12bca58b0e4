"""Balances of real entitlements: what the watch looks at again, and as of when."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from tests.support.notification_shop import Shop, at, opened_stage
from tollgate.limits.entitlement_record import RecurrenceInput
from tollgate.limits.interval import Interval
from tollgate.platform.sql import Database

MARCH, APRIL = "2026-03-10T00:00:00Z", "2026-04-01T00:00:00Z"


@pytest.fixture
def shop(database: Database, engine: Client, engine_path: Path, tmp_path: Path) -> Iterator[Shop]:
    del engine  # keeps it open
    with opened_stage(engine_path, tmp_path / "log") as stage:
        made = Shop(database, stage)
        made.office.rule(made.office.channel(), levels=[("usage_percentage", 80)])
        yield made


def test_usage_is_told_when_it_is_loaded(shop: Shop) -> None:
    one, other = shop.entitle(), shop.entitle()
    assert shop.watch() == []
    shop.use(one, (at(3, 11), 79))
    shop.use(other, (at(3, 11), 10))
    assert shop.watch(at(3, 12)) == []
    shop.use(one, (at(3, 12), 1))
    (data,) = shop.watch(at(3, 13))
    assert (data["entitlement"]["id"], data["value"]["usage"]) == (one, 80)


def test_late_events_tell_of_each_period_that_they_belong_to(shop: Shop) -> None:
    one = shop.entitle()
    assert shop.watch(at(5, 10)) == []
    # Found in one look: the earliest tells nothing, those after it do.
    shop.use(one, (at(3, 11), 1), (at(4, 11), 90))
    assert shop.begun(at(5, 11)) == [(one, APRIL)]
    shop.use(one, (at(4, 12), 1), (at(3, 12), 90))
    assert shop.begun(at(5, 12)) == [(one, MARCH)]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_balance_of_very_many_changes_holds_up_no_other(shop: Shop) -> None:
    shop.entitle(
        usage_period=RecurrenceInput(interval=Interval(elapsed=timedelta(hours=1))),
        measure_usage_from=datetime(2023, 11, 25, tzinfo=UTC),
        issue_after_reset=None,
    )
    one = shop.entitle()
    shop.watch()
    shop.use(one, (at(3, 10), 90))
    assert shop.begun(at(3, 10) + timedelta(minutes=9)) == [(one, MARCH)]
