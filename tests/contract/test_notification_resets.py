"""Resets of real entitlements: found when they come about, and after the process was away."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from tests.support.control_plane import meter_input
from tests.support.notifications import NS, MemoryBalances, Office
from tests.support.reservations import StandingClock
from tollgate.core.ids import new_ulid
from tollgate.customers.attribution_store import AttributionStore
from tollgate.customers.customer import parse_customer
from tollgate.customers.customer_store import CustomerStore
from tollgate.limits.entitled_subjects import EntitledSubjects
from tollgate.limits.entitlement import IssueAfterReset
from tollgate.limits.entitlement_record import EntitlementInput, EntitlementKind, RecurrenceInput
from tollgate.limits.entitlement_store import EntitlementStore
from tollgate.limits.facts_store import FactsStore
from tollgate.limits.feature import parse_feature
from tollgate.limits.feature_store import FeatureStore
from tollgate.limits.grant_store import GrantStore
from tollgate.limits.interval import Interval
from tollgate.limits.reset import Reset
from tollgate.limits.usage_reader import UsageReader
from tollgate.metering.store import MeterStore
from tollgate.notify.limit_balances import LimitBalances
from tollgate.notify.limit_resets import LimitResets
from tollgate.notify.rule import FeatureName, Kind, Rule, parse_rule
from tollgate.notify.watch import Watch
from tollgate.platform.clickhouse import ClickHouse
from tollgate.platform.clickhouse_schema import migrate_clickhouse
from tollgate.platform.sql import Database


def at(month: int, day: int, hour: int = 0) -> datetime:
    return datetime(2026, month, day, hour, tzinfo=UTC)


@pytest.fixture(scope="module")
def clickhouse(engine: Client, engine_path: Path) -> Iterator[ClickHouse]:
    del engine  # keeps it open
    made = ClickHouse(path=engine_path)
    migrate_clickhouse(made)
    yield made
    made.close()


class Shop:
    """Customers with a right to tokens, from March 10 on, and the watch over them."""

    def __init__(self, database: Database, clickhouse: ClickHouse) -> None:
        self.clock = clock = StandingClock()
        clock.instant = at(3, 10)
        self.office = Office(database, clock)
        self.customers = CustomerStore(database, clock)
        self.entitlements = EntitlementStore(database, clock)
        self.grants = GrantStore(database, clock)
        MeterStore(database, clock).create(NS, meter_input())
        feature = {"key": "tokens", "name": "t", "meterSlug": "tokens_total"}
        made = FeatureStore(database, clock).create(NS, parse_feature(feature))
        self.tokens = FeatureName(id=made.id, key=made.key)
        facts = FactsStore(database)
        balances = LimitBalances(
            clickhouse,
            self.entitlements,
            facts,
            UsageReader(clickhouse, None, 60),
            EntitledSubjects(database, clock),
            AttributionStore(database),
        )
        self.resets = LimitResets(database, self.entitlements, facts, balances)

    def entitle(self, **more: Any) -> str:
        """The id of a new customer's entitlement, of a hundred each month from its first on."""
        key = f"c{new_ulid().lower()}"
        self.customers.create(NS, parse_customer({"key": key, "name": key}))
        wanted = EntitlementInput(
            kind=EntitlementKind.METERED,
            feature="tokens",
            usage_period=RecurrenceInput(interval=Interval(months=1), anchor=at(1, 1)),
            issue_after_reset=IssueAfterReset(amount=Decimal(100)),
            **more,
        )
        return self.entitlements.create(NS, key, wanted)[0].id

    def customer(self, entitlement_id: str) -> str:
        return self.entitlements.get_by_id(NS, entitlement_id)[0].definition.customer_id

    def reset(self, entitlement_id: str, effective: datetime | None = None) -> None:
        """By hand, now, or as of an earlier instant."""
        self.grants.reset(
            NS,
            self.customer(entitlement_id),
            entitlement_id,
            lambda now: Reset(effective_at=effective or now, retain_anchor=True),
        )

    def rule(self, **more: Any) -> Rule:
        kind = Kind.ENTITLEMENT_RESET.value
        return self.office.rule(self.office.channel(), type=kind, **more)

    def watch(self, instant: datetime | None = None) -> list[tuple[str, str]]:
        """Entitlement and begin of the period of what a watch told, oldest first."""
        self.clock.instant = instant or self.clock.instant
        before = len(self.office.told())
        office = self.office
        count = Watch(
            office.rules,
            office.watches,
            MemoryBalances(),
            self.resets,
            office.reporter,
            office.clock,
        ).run(threading.Event())
        told = [json.loads(each.payload)["data"] for each in office.told()]
        found = [
            (data["entitlement"]["id"], data["entitlement"]["currentUsagePeriod"]["from"])
            for data in told[before:]
        ]
        assert len(found) == count
        return sorted(found, key=lambda each: each[::-1])


@pytest.fixture
def shop(database: Database, clickhouse: ClickHouse) -> Shop:
    return Shop(database, clickhouse)


APRIL, MAY, JUNE = "2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z", "2026-06-01T00:00:00Z"


def test_a_period_that_ends_is_told_once(shop: Shop) -> None:
    one = shop.entitle()
    rule = shop.rule()
    assert shop.watch(at(3, 31)) == []
    assert shop.watch(at(4, 1)) == [(one, APRIL)]
    assert shop.watch(at(4, 1)) == shop.watch(at(4, 2)) == []
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
    shop.watch()
    found = shop.watch(at(6, 20))
    assert sorted(found) == sorted((each, m) for each in (one, two) for m in (APRIL, MAY, JUNE))


def test_a_reset_by_hand_is_told_also_as_of_an_earlier_instant(shop: Shop) -> None:
    one = shop.entitle()
    shop.rule()
    shop.clock.instant = at(3, 12)
    shop.reset(one)
    assert shop.watch(at(3, 12)) == [(one, "2026-03-12T00:00:00Z")]
    assert shop.watch(at(3, 20)) == []
    shop.reset(one, at(3, 15))
    assert shop.watch() == [(one, "2026-03-15T00:00:00Z")]
    # Committed a moment after the watch that had its instant behind it.
    shop.clock.instant = at(3, 20) - timedelta(seconds=30)
    shop.reset(one, at(3, 16))
    assert shop.watch(at(3, 20)) == [(one, "2026-03-16T00:00:00Z")]
    assert shop.watch(at(4, 1)) == [(one, APRIL)]


def test_a_rule_tells_nothing_of_what_was_before_it(shop: Shop) -> None:
    one = shop.entitle()
    shop.clock.instant = at(5, 10)
    shop.reset(one)
    shop.clock.instant += timedelta(microseconds=1)
    first = shop.rule()
    assert shop.watch() == shop.watch(at(5, 31)) == []
    # Off for a period: that is not told later.
    members: dict[str, object] = {"name": "r", "type": first.kind.value}
    members |= {"channels": list(first.channels)}
    shop.office.rules.replace(NS, first.id, parse_rule(members | {"disabled": True}))
    shop.clock.instant = at(6, 2)
    off = shop.office.rules.replace(NS, first.id, parse_rule(members))
    assert off.enabled_at == at(6, 2)
    assert shop.watch() == []
    # Another beside it, and a change of its name, take nothing back.
    shop.clock.instant = at(7, 1)
    second = shop.rule()
    shop.office.rules.replace(NS, first.id, parse_rule(members | {"name": "other"}))
    assert shop.watch(at(7, 2)) == [(one, "2026-07-01T00:00:00Z")] * 2
    shop.office.rules.delete(NS, second.id)
    assert shop.watch(at(8, 2)) == [(one, "2026-08-01T00:00:00Z")]


def test_what_has_ended_meanwhile_is_told_up_to_its_end(shop: Shop) -> None:
    deleted = shop.entitle()
    planned = shop.entitle(active_to=at(5, 1))
    shop.rule()
    shop.watch()
    shop.clock.instant = at(4, 20)
    customer = shop.customer(deleted)
    shop.entitlements.delete(NS, customer, deleted)
    assert shop.watch(at(5, 20)) == sorted([(deleted, APRIL), (planned, APRIL)])
    assert shop.watch(at(6, 20)) == []


def test_only_features_of_some_rule_are_looked_at(shop: Shop) -> None:
    one = shop.entitle()
    shop.rule(features=[FeatureName(id=new_ulid(), key="calls")])
    assert shop.watch(at(4, 2)) == []
    shop.rule(features=[shop.tokens])
    assert shop.watch(at(5, 2)) == [(one, MAY)]
