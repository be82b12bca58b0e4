"""Resets of real entitlements: found when they come about, and after the process was away."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from tests.support.notification_shop import Shop, at, opened_stage
from tests.support.notifications import NS
from tollgate.core.ids import new_ulid
from tollgate.notify.rule import FeatureName, Kind, parse_rule
from tollgate.platform.sql import Database


@pytest.fixture
def shop(database: Database, engine: Client, engine_path: Path, tmp_path: Path) -> Iterator[Shop]:
    del engine  # keeps it open
    with opened_stage(engine_path, tmp_path / "log") as stage:
        yield Shop(database, stage)


APRIL, MAY, JUNE = "2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z", "2026-06-01T00:00:00Z"


def test_a_period_that_ends_is_told_once(shop: Shop) -> None:
    one = shop.entitle()
    rule = shop.rule()
    assert shop.begun(at(3, 31)) == []
    assert shop.begun(at(4, 1)) == [(one, APRIL)]
    assert shop.begun(at(4, 1)) == shop.begun(at(4, 2)) == []
    (event,) = shop.office.told()
    assert (event.kind, event.rule) == (Kind.ENTITLEMENT_RESET, rule)
    data = json.loads(event.payload)["data"]
    assert data["value"] == {
        "hasAccess": True,
        "balance": 100,
        "usage": 0,
        "overage": 0,
        "totalAvailableGrantAmount": 100,
    }
    assert data["entitlement"]["lastReset"] == APRIL
    assert data["customer"]["id"] == shop.customer(one)
    assert {"feature", "subject"} <= data.keys()
    assert "threshold" not in data


def test_all_periods_are_told_that_ended_while_nobody_watched(shop: Shop) -> None:
    one, two = shop.entitle(), shop.entitle()
    shop.rule()
    shop.begun()
    found = shop.begun(at(6, 20))
    assert found == sorted((each, m) for each in (one, two) for m in (APRIL, MAY, JUNE))


def test_a_reset_by_hand_is_told_also_as_of_an_earlier_instant(shop: Shop) -> None:
    one = shop.entitle()
    shop.rule()
    shop.clock.instant = at(3, 12)
    shop.reset(one)
    assert shop.begun(at(3, 12)) == [(one, "2026-03-12T00:00:00Z")]
    assert shop.begun(at(3, 20)) == []
    shop.reset(one, at(3, 15))
    assert shop.begun() == [(one, "2026-03-15T00:00:00Z")]
    # Committed a moment after the watch that had its instant behind it.
    shop.clock.instant = at(3, 20) - timedelta(seconds=30)
    shop.reset(one, at(3, 16))
    assert shop.begun(at(3, 20)) == [(one, "2026-03-16T00:00:00Z")]
    assert shop.begun(at(4, 1)) == [(one, APRIL)]


def test_a_rule_tells_nothing_of_what_was_before_it(shop: Shop) -> None:
    one = shop.entitle()
    shop.clock.instant = at(5, 10)
    shop.reset(one)
    shop.clock.instant += timedelta(microseconds=1)
    first = shop.rule()
    assert shop.begun() == shop.begun(at(5, 31)) == []
    # Off for a period: that is not told later.
    members: dict[str, object] = {"name": "r", "type": first.kind.value}
    members |= {"channels": list(first.channels)}
    shop.office.rules.replace(NS, first.id, parse_rule(members | {"disabled": True}))
    shop.clock.instant = at(6, 2)
    off = shop.office.rules.replace(NS, first.id, parse_rule(members))
    assert off.enabled_at == at(6, 2)
    assert shop.begun() == []
    # Another beside it, and a change of its name, take nothing back.
    shop.clock.instant = at(7, 1)
    second = shop.rule()
    shop.office.rules.replace(NS, first.id, parse_rule(members | {"name": "other"}))
    assert shop.begun(at(7, 2)) == [(one, "2026-07-01T00:00:00Z")] * 2
    shop.office.rules.delete(NS, second.id)
    assert shop.begun(at(8, 2)) == [(one, "2026-08-01T00:00:00Z")]


def test_what_has_ended_meanwhile_is_told_up_to_its_end(shop: Shop) -> None:
    deleted = shop.entitle()
    planned = shop.entitle(active_to=at(5, 1))
    shop.rule()
    shop.begun()
    shop.clock.instant = at(4, 20)
    customer = shop.customer(deleted)
    shop.entitlements.delete(NS, customer, deleted)
    assert shop.begun(at(5, 20)) == sorted([(deleted, APRIL), (planned, APRIL)])
    assert shop.begun(at(6, 20)) == []


def test_only_features_of_some_rule_are_looked_at(shop: Shop) -> None:
    one = shop.entitle()
    shop.rule(features=[FeatureName(id=new_ulid(), key="calls")])
    assert shop.begun(at(4, 2)) == []
    shop.rule(features=[shop.tokens])
    assert shop.begun(at(5, 2)) == [(one, MAY)]
