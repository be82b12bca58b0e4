"""Entitlements, grants and resets in SQL."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import pairwise
from threading import Barrier
from typing import Any

import pytest

from tests.support.control_plane import NS, SteppingClock, meter_input, renamed
from tollgate.core.errors import Conflict, InvalidInput, NotFound, TollgateError
from tollgate.customers.customer import Customer, parse_customer
from tollgate.customers.customer_store import CustomerStore
from tollgate.limits.entitlement import (
    IssueAfterReset,
    MeasureUsageFrom,
    MeteredEntitlement,
    StaticEntitlement,
)
from tollgate.limits.entitlement_record import (
    EntitlementInput,
    EntitlementKind,
    EntitlementRecord,
    GrantInput,
    RecurrenceInput,
)
from tollgate.limits.entitlement_store import EntitlementListing, EntitlementStore
from tollgate.limits.feature import parse_feature
from tollgate.limits.feature_store import FeatureStore
from tollgate.limits.grant import Expiration, ExpirationUnit
from tollgate.limits.grant_store import GrantListing, GrantStore
from tollgate.limits.interval import Interval
from tollgate.limits.reset import Reset
from tollgate.metering.store import MeterStore
from tollgate.metering.window import zone
from tollgate.platform.sql import Database

MONTH = Interval(months=1)
WIDE = Decimal("12345678901234567890.123456789012345678")


class Shop:
    """A customer, two features, and the stores."""

    def __init__(self, database: Database, clock: SteppingClock) -> None:
        self.clock = clock
        self.customers = CustomerStore(database, clock)
        self.entitlements = EntitlementStore(database, clock)
        self.grants = GrantStore(database, clock)
        self.features = FeatureStore(database, clock)
        MeterStore(database, clock).create(NS, meter_input())
        self.features.create(
            NS, parse_feature({"key": "tokens", "name": "t", "meterSlug": "tokens_total"})
        )
        self.features.create(NS, parse_feature({"key": "sso", "name": "s"}))
        self.customer: Customer = self.customers.create(
            NS, parse_customer({"key": "acme", "name": "Acme"})
        )

    def create(self, wanted: EntitlementInput | None = None) -> EntitlementRecord:
        return self.entitlements.create(NS, "acme", wanted or metered())[0]

    def override(self, wanted: EntitlementInput | None = None) -> EntitlementRecord:
        return self.entitlements.override(NS, "acme", "tokens", wanted or metered())[0]

    def held(self, at: datetime) -> list[str]:
        listing = EntitlementListing(active_at=at, include_deleted=True)
        return [record.id for record, _ in self.entitlements.list(NS, listing)[0]]

    def version(self, record: EntitlementRecord) -> int:
        return self.entitlements.get_by_id(NS, record.id)[0].version


@pytest.fixture
def shop(database: Database, clock: SteppingClock) -> Shop:
    return Shop(database, clock)


def metered(**more: Any) -> EntitlementInput:
    given = {"usage_period": RecurrenceInput(interval=MONTH)} | more
    return EntitlementInput(kind=EntitlementKind.METERED, feature="tokens", **given)


def boolean(**more: Any) -> EntitlementInput:
    return EntitlementInput(kind=EntitlementKind.BOOLEAN, feature="sso", **more)


def grant(amount: str | int, at: datetime, **more: Any) -> GrantInput:
    return GrantInput(amount=Decimal(amount), effective_at=at, **more)


def test_a_metered_one_is_kept_as_it_was_made(shop: Shop) -> None:
    anchor = datetime(2026, 1, 31, 8, 30, 0, 7, tzinfo=UTC)
    berlin = zone("Europe/Berlin").rules
    made = shop.create(
        metered(
            usage_period=RecurrenceInput(interval=MONTH, anchor=anchor, zone=berlin),
            measure_usage_from=MeasureUsageFrom.CURRENT_PERIOD_START,
            is_soft_limit=True,
            issue_after_reset=IssueAfterReset(amount=WIDE, priority=7),
            preserve_overage_at_reset=True,
            metadata={"crm": "1"},
            grants=(
                grant(
                    5,
                    anchor,
                    priority=3,
                    expiration=Expiration(duration=ExpirationUnit.DAY, count=90),
                    recurrence=RecurrenceInput(interval=Interval(days=7)),
                    max_rollover=Decimal(5),
                    annotations={"why": ["a", 1]},
                ),
            ),
        )
    )
    known = made.definition
    assert isinstance(known, MeteredEntitlement)
    assert (known.usage_period.interval, known.usage_period.anchor) == (MONTH, anchor)
    assert known.usage_period.zone is berlin
    # One month after January 31 is February 28, at 09:30 of Berlin as before.
    assert known.measure_usage_from == datetime(2026, 2, 28, 8, 30, 0, 7, tzinfo=UTC)
    assert known.issue_after_reset == IssueAfterReset(amount=WIDE, priority=7)
    assert (known.is_soft_limit, known.preserve_overage_at_reset) == (True, True)
    assert (made.customer_key, made.version, made.deleted_at) == ("acme", 1, None)
    assert shop.entitlements.get(NS, shop.customer.id, "tokens") == (made, ())
    assert shop.entitlements.get(NS, "acme", made.id.lower()) == (made, ())
    (issued, given), total = shop.grants.of_entitlement(NS, "acme", "tokens", GrantListing())
    assert (total, issued.grant.amount, issued.grant.max_rollover) == (2, WIDE, WIDE)
    assert issued.grant.effective_at == known.measure_usage_from
    assert given.grant.recurrence is not None
    assert given.grant.recurrence.anchor == anchor
    assert given.grant.recurrence.zone is given.grant.zone is berlin
    # Ninety days on Berlin's calendar: the clock was put forward on March 29.
    assert given.grant.expires_at == datetime(2026, 5, 1, 7, 30, 0, 7, tzinfo=UTC)
    assert given.annotations == {"why": ["a", 1]}
    with pytest.raises(NotFound):
        shop.entitlements.get_by_id("other", made.id)


def test_static_and_boolean_ones_have_no_grants(shop: Shop) -> None:
    config = '{"b": 1.10, "a": []}'
    static = EntitlementInput(kind=EntitlementKind.STATIC, feature="tokens", config=config)
    made = shop.create(static).definition
    assert isinstance(made, StaticEntitlement)
    assert made.config == config
    shop.create(boolean())
    for name in ("tokens", "sso"):
        with pytest.raises(Conflict, match="not metered"):
            shop.grants.add(NS, "acme", name, grant(1, shop.clock.now()))


def test_what_cannot_be_is_refused(shop: Shop) -> None:
    late = shop.clock.now() + timedelta(days=1)
    refused: list[tuple[EntitlementInput, str]] = [
        (metered(usage_period=None), "usagePeriod"),
        (metered(measure_usage_from=late), "measureUsageFrom"),
        (metered(usage_period=RecurrenceInput(interval=Interval(elapsed=timedelta(1) / 48))), "h"),
        (metered(grants=(grant(0, late),)), "grants.0.amount"),
        (EntitlementInput(kind=EntitlementKind.METERED, feature="sso"), "featureKey"),
        (EntitlementInput(kind=EntitlementKind.BOOLEAN, feature="none"), "featureKey"),
    ]
    for wanted, field in refused:
        with pytest.raises(InvalidInput) as refusal:
            shop.create(wanted)
        assert field in refusal.value.faults[0].field + refusal.value.faults[0].message
    assert shop.entitlements.list(NS, EntitlementListing())[1] == 0
    with pytest.raises(NotFound):
        shop.entitlements.create(NS, "nobody", metered())


def test_one_holds_at_a_time_also_of_those_to_come(shop: Shop) -> None:
    now = shop.clock.now()
    days = [now + timedelta(days=number) for number in range(6)]
    first = shop.create(metered(active_from=days[2], active_to=days[4]))
    for begin, end in ((None, None), (None, days[3]), (days[3], None), (days[2], days[4])):
        with pytest.raises(Conflict, match=first.id):
            shop.create(metered(active_from=begin, active_to=end))
    before = shop.create(metered(active_to=days[2]))
    after = shop.create(metered(active_from=days[4]))
    held = [shop.held(day) for day in days]
    assert held[1:] == [[before.id], [first.id], [first.id], [after.id], [after.id]]
    shop.create(boolean())


def test_an_override_leaves_no_gap(shop: Shop) -> None:
    first = shop.create()
    second = shop.override()
    ended = shop.entitlements.get_by_id(NS, first.id)[0]
    begin = second.definition.active_from
    assert ended.definition.active_to == ended.deleted_at == begin
    assert (second.supersedes, ended.version) == (first.id, 2)
    assert shop.held(begin) == [second.id]
    assert shop.held(begin - timedelta(microseconds=1)) == [first.id]
    with pytest.raises(Conflict, match="not active"):
        shop.entitlements.override(NS, "acme", first.id, metered())
    with pytest.raises(Conflict, match="same customer and feature"):
        shop.entitlements.override(NS, "acme", "tokens", boolean())
    with pytest.raises(NotFound):
        shop.entitlements.override(NS, "acme", "sso", boolean())
    assert shop.held(shop.clock.now()) == [second.id]


def test_a_deleted_one_was_there_until_then(shop: Shop) -> None:
    made = shop.create()
    shop.entitlements.delete(NS, "acme", "tokens")
    gone = shop.entitlements.get(NS, "acme", made.id)[0]
    assert gone.deleted_at is not None
    assert gone.definition.active_to == gone.deleted_at
    assert shop.held(gone.deleted_at - timedelta(microseconds=1)) == [made.id]
    assert shop.held(gone.deleted_at) == []
    assert shop.entitlements.list(NS, EntitlementListing())[1] == 0
    for name in ("tokens", made.id):
        with pytest.raises(NotFound):
            shop.entitlements.delete(NS, "acme", name)
    coming = shop.create(metered(active_from=shop.clock.now() + timedelta(days=1)))
    shop.entitlements.delete(NS, "acme", coming.id)
    never = shop.entitlements.get_by_id(NS, coming.id)[0].definition
    assert never.active_to == never.active_from
    shop.create()


def test_grants_are_given_voided_and_counted(shop: Shop) -> None:
    made = shop.create()
    now = shop.clock.now()
    given = shop.grants.add(NS, "acme", "tokens", grant("0.1", now, annotations={"a": 1}))
    assert (given.grant.amount, given.annotations) == (Decimal("0.1"), {"a": 1})
    assert (given.customer_id, given.feature_key) == (shop.customer.id, "tokens")
    early = shop.grants.add(NS, "acme", made.id, grant(1, now - timedelta(days=400)))
    assert shop.version(made) == 3
    with pytest.raises(InvalidInput, match="future"):
        shop.grants.void(NS, early.grant.id, now + timedelta(days=1))
    voided = shop.grants.void(NS, given.grant.id.lower(), now + timedelta(microseconds=1))
    assert voided.grant.voided_at == now + timedelta(microseconds=1)
    with pytest.raises(Conflict, match="void already"):
        shop.grants.void(NS, given.grant.id)
    with pytest.raises(NotFound):
        shop.grants.void("other", early.grant.id)
    assert shop.version(made) == 4
    listed, total = shop.grants.list(NS, GrantListing(features=("tokens",), customers=("acme",)))
    assert ([each.grant.id for each in listed], total) == ([early.grant.id, given.grant.id], 2)
    assert shop.grants.list(NS, GrantListing(features=("sso",))) == ((), 0)
    assert shop.grants.list(NS, GrantListing(customers=("other",))) == ((), 0)
    shop.entitlements.delete(NS, "acme", "tokens")
    assert shop.grants.list(NS, GrantListing())[1] == 0
    left = shop.grants.list(NS, GrantListing(include_deleted=True))[0]
    assert all(each.deleted_at is not None for each in left)
    with pytest.raises(Conflict, match="does not hold"):
        shop.grants.void(NS, early.grant.id)


def test_resets_bound_what_may_still_be_given(shop: Shop) -> None:
    made = shop.create()
    begin = made.definition.active_from
    at = begin + timedelta(microseconds=1)
    shop.grants.reset(NS, "acme", "tokens", lambda now: Reset(effective_at=now))
    with pytest.raises(InvalidInput, match="before the current usage period"):
        shop.grants.reset(NS, "acme", "tokens", lambda _: Reset(effective_at=at))
    with pytest.raises(InvalidInput, match="before the current usage period"):
        shop.grants.add(NS, "acme", "tokens", grant(1, at))
    with pytest.raises(InvalidInput, match="future"):
        shop.grants.reset(
            NS, "acme", "tokens", lambda now: Reset(effective_at=now + timedelta(seconds=1))
        )
    (reset,) = shop.entitlements.get(NS, "acme", made.id)[1]
    assert (reset.retain_anchor, reset.preserve_overage) == (False, None)
    assert shop.version(made) == 2


def test_who_remembers_asks_only_for_what_changed(shop: Shop) -> None:
    made, other = shop.create(), shop.create(boolean())
    since = shop.clock.now()
    assert shop.entitlements.changes(NS, since, 10) == ()
    shop.grants.add(NS, "acme", "tokens", grant(1, since))
    (change,) = shop.entitlements.changes(NS, since, 10)
    assert (change.entitlement_id, change.version) == (made.id, 2)
    assert (change.customer_id, change.feature_key) == (shop.customer.id, "tokens")
    shop.entitlements.delete(NS, "acme", other.id)
    ids = [each.entitlement_id for each in shop.entitlements.changes(NS, since, 10)]
    assert ids == [made.id, other.id]


def test_lists_are_cut_and_chosen(shop: Shop) -> None:
    shop.customers.create(NS, parse_customer({"key": "other", "name": "Other"}))
    ids = [
        shop.create().id,
        shop.create(boolean()).id,
        shop.entitlements.create(NS, "other", boolean())[0].id,
    ]

    def listed(**more: Any) -> list[int]:
        found, total = shop.entitlements.list(NS, EntitlementListing(**more))
        assert total >= len(found)
        return [ids.index(record.id) for record, _ in found]

    assert listed() == [0, 1, 2]
    assert listed(descending=True, skipped=1, count_max=1) == [1]
    assert listed(kinds=(EntitlementKind.BOOLEAN,)) == [1, 2]
    assert listed(customers=("acme",)) == listed(customers=(shop.customer.id.lower(),)) == [0, 1]
    assert listed(features=("sso",), customers=("other", "acme")) == [1, 2]
    assert listed(customers=()) == []


def test_a_dimension_stays_while_it_is_counted_by(shop: Shop, meters: MeterStore) -> None:
    """Also by an archived feature, as long as somebody has a right to it."""
    meters.create(NS, meter_input("by_model", groupBy={"model": "$.model"}))
    members = {
        "key": "gpt",
        "name": "g",
        "meterSlug": "by_model",
        "meterGroupByFilters": {"model": "x"},
    }
    shop.features.create(NS, parse_feature(members))
    period = RecurrenceInput(interval=MONTH)
    shop.create(EntitlementInput(kind=EntitlementKind.METERED, feature="gpt", usage_period=period))
    shop.features.archive(NS, "gpt")
    with pytest.raises(Conflict, match="gpt"):
        meters.update(NS, "by_model", lambda _: renamed("m"))
    shop.entitlements.delete(NS, "acme", "gpt")
    assert meters.update(NS, "by_model", lambda _: renamed("m")).group_by == {}


def race(*claims: Callable[[], object]) -> list[str]:
    """Runs them at once; what came of it, sorted."""
    barrier = Barrier(len(claims))

    def run(claim: Callable[[], object]) -> str:
        barrier.wait()
        try:
            return type(claim()).__name__
        except TollgateError as refusal:
            return type(refusal).__name__

    with ThreadPoolExecutor(len(claims)) as pool:
        return sorted(pool.map(run, claims))


def test_of_two_that_are_made_at_once_one_is(shop: Shop) -> None:
    now = shop.clock.now()
    for number in range(5):
        begin = now + timedelta(days=10 * number)
        wanted = metered(active_from=begin, active_to=begin + timedelta(days=10))
        ended = race(*[partial(shop.create, wanted)] * 3)
        assert ended == ["Conflict", "Conflict", "EntitlementRecord"]
    shop.create(boolean())
    # Those without an end too, where another may just have been deleted.
    for _ in range(5):
        shop.entitlements.delete(NS, "acme", "sso")
        assert race(*[partial(shop.create, boolean())] * 2) == ["Conflict", "EntitlementRecord"]


def test_an_override_and_a_creation_leave_one(shop: Shop) -> None:
    shop.create()
    for _ in range(5):
        race(
            shop.create,
            shop.override,
            shop.override,
            partial(shop.entitlements.delete, NS, "acme", "tokens"),
        )
        found, _ = shop.entitlements.list(NS, EntitlementListing(include_deleted=True))
        spans = sorted(
            (it.definition.active_from, it.definition.active_to or datetime.max.replace(tzinfo=UTC))
            for it, _ in found
        )
        assert all(one[1] <= two[0] for one, two in pairwise(spans))
        if not shop.held(shop.clock.now()):
            shop.create()


def test_a_customer_that_goes_and_an_entitlement_that_comes(shop: Shop) -> None:
    for number in range(5):
        key = f"c{number}"
        shop.customers.create(NS, parse_customer({"key": key, "name": key}))
        ended = race(
            partial(shop.customers.delete, NS, key),
            partial(shop.entitlements.create, NS, key, boolean()),
        )
        assert ended in (["Conflict", "tuple"], ["NoneType", "NotFound"])


def test_a_customer_stays_while_it_has_entitlements(shop: Shop) -> None:
    shop.create()
    with pytest.raises(Conflict, match="tokens"):
        shop.customers.delete(NS, "acme")
    shop.entitlements.delete(NS, "acme", "tokens")
    shop.customers.delete(NS, "acme")
    found, _ = shop.entitlements.list(NS, EntitlementListing(include_deleted=True))
    assert [record.customer_key for record, _ in found] == ["acme"]
