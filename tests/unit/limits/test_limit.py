"""Entitlements and decisions."""

from datetime import datetime
from decimal import Decimal

import pytest

from tests.support.limits import at, burn_down, every, facts, grant, hour, reset
from tollgate.core.errors import Conflict, InvalidInput
from tollgate.limits.entitlement import (
    BooleanEntitlement,
    IssueAfterReset,
    MeasureUsageFrom,
    MeteredEntitlement,
    StaticEntitlement,
    resolve_measure_usage_from,
    supersede,
)
from tollgate.limits.interval import Interval
from tollgate.limits.limit import Limit, decide
from tollgate.limits.period import Period
from tollgate.limits.recurrence import Recurrence
from tollgate.limits.reset import check_reset
from tollgate.limits.usage_kind import UsageKind, usage_kind
from tollgate.metering.meter import Aggregation


def metered(*, soft: bool = False, issue: IssueAfterReset | None = None) -> MeteredEntitlement:
    return MeteredEntitlement(
        id="e",
        customer_id="c",
        feature_key="tokens",
        created_at=hour(0),
        active_from=hour(0),
        active_to=hour(50),
        usage_period=every(10),
        measure_usage_from=hour(0),
        is_soft_limit=soft,
        issue_after_reset=issue,
    )


def static(config: str) -> StaticEntitlement:
    return StaticEntitlement(
        id="e",
        customer_id="c",
        feature_key="sso",
        created_at=hour(0),
        active_from=hour(0),
        config=config,
    )


def boolean(begins: int = 0, ends: int | None = None, feature: str = "sso") -> BooleanEntitlement:
    return BooleanEntitlement(
        id=f"from {begins}",
        customer_id="c",
        feature_key=feature,
        created_at=hour(0),
        active_from=hour(begins),
        active_to=None if ends is None else hour(ends),
    )


@pytest.mark.parametrize(
    ("used", "soft", "access"),
    [(9, False, True), (10, False, False), (11, False, False), (11, True, True)],
)
def test_metered_access_is_what_remains_or_a_soft_limit(
    used: int, soft: bool, access: bool
) -> None:
    balance = burn_down(facts(grant("a", 10)), {0: used}, 5).balance
    assert decide(metered(soft=soft), hour(5), balance) == Limit(has_access=access, balance=balance)


def test_nothing_granted_is_no_access() -> None:
    balance = burn_down(facts(), {}, 5).balance
    assert not decide(metered(), hour(5), balance).has_access


@pytest.mark.parametrize("moment", [-1, 50])
def test_an_inactive_entitlement_says_no_and_nothing_more(moment: int) -> None:
    assert decide(metered(soft=True), hour(moment)) == Limit(has_access=False)


def test_static_and_boolean_access() -> None:
    assert decide(static('{"seats": 5}'), hour(5)) == Limit(has_access=True, config='{"seats": 5}')
    assert decide(boolean(), hour(5)) == Limit(has_access=True)
    assert decide(boolean(0, 5), hour(5)) == Limit(has_access=False)


@pytest.mark.parametrize("config", ["", "[]", "1", "{", "{key: 1}", "[" * 100_000])
def test_configs_that_are_refused(config: str) -> None:
    with pytest.raises(InvalidInput):
        static(config)


def test_an_entitlement_does_not_end_before_it_begins() -> None:
    with pytest.raises(InvalidInput):
        boolean(5, 4)


@pytest.mark.parametrize(("amount", "priority"), [("-1", 1), ("NaN", 1), ("1", 0), ("1", 256)])
def test_issues_that_are_refused(amount: str, priority: int) -> None:
    with pytest.raises(InvalidInput):
        IssueAfterReset(amount=Decimal(amount), priority=priority)


def test_the_default_grant_is_whole_again_after_every_reset() -> None:
    issue = IssueAfterReset(amount=Decimal(10), priority=3)
    made = metered(issue=issue).default_grant("d")
    assert made is not None
    assert made.amount == 10
    assert (made.priority, made.effective_at) == (3, hour(0))
    known = facts(made, usage_period=every(10), resets=(reset(13, retain_anchor=False),))
    used = {1: 4, 11: 4, 14: 4}
    left = [burn_down(known, used, until).balance.remaining for until in (9, 10, 12, 13, 20, 23)]
    assert left == [6, 10, 6, 10, 6, 10]


def test_nothing_issued_is_no_default_grant() -> None:
    assert metered().default_grant("d") is None
    assert metered(issue=IssueAfterReset(amount=Decimal(0))).default_grant("d") is None


def test_an_override_ends_one_where_the_other_begins() -> None:
    ended, successor = supersede(boolean(0, 50), boolean(20))
    assert ended == BooleanEntitlement(
        id="from 0",
        customer_id="c",
        feature_key="sso",
        created_at=hour(0),
        active_from=hour(0),
        active_to=hour(20),
    )
    assert successor == boolean(20)
    active = [(ended.is_active(hour(it)), successor.is_active(hour(it))) for it in (0, 19, 20)]
    assert active == [(True, False), (True, False), (False, True)]


@pytest.mark.parametrize("successor", [boolean(50), boolean(20, feature="other"), boolean(-1)])
def test_overrides_that_are_refused(successor: BooleanEntitlement) -> None:
    with pytest.raises(Conflict):
        supersede(boolean(0, 50), successor)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (MeasureUsageFrom.CURRENT_PERIOD_START, "2024-02-29T00:00"),
        (MeasureUsageFrom.NOW, "2024-03-30T12:00"),
        (None, "2024-03-30T12:00"),
        (at("2024-03-01T00:00"), "2024-03-01T00:00"),
    ],
)
def test_measure_usage_from(asked: MeasureUsageFrom | datetime | None, found: str) -> None:
    monthly = Recurrence(interval=Interval(months=1), anchor=at("2024-01-31"))
    now = at("2024-03-30T12:00")
    assert resolve_measure_usage_from(asked, usage_period=monthly, now=now) == at(found)


@pytest.mark.parametrize(("moment", "fine"), [(9, False), (10, True), (15, True), (16, False)])
def test_resets_are_neither_before_the_period_nor_in_the_future(moment: int, fine: bool) -> None:
    period = Period(start=hour(10), end=hour(20))
    if fine:
        check_reset(reset(moment), period=period, now=hour(15))
    else:
        with pytest.raises(InvalidInput):
            check_reset(reset(moment), period=period, now=hour(15))


def test_kinds_of_aggregations() -> None:
    assert {it: usage_kind(it) for it in Aggregation if it not in {"MIN", "AVG"}} == {
        Aggregation.SUM: UsageKind.FLOW,
        Aggregation.COUNT: UsageKind.FLOW,
        Aggregation.UNIQUE_COUNT: UsageKind.DISTINCT,
        Aggregation.LATEST: UsageKind.LEVEL,
        Aggregation.MAX: UsageKind.LEVEL,
    }


@pytest.mark.parametrize("aggregation", [Aggregation.MIN, Aggregation.AVG])
def test_aggregations_that_cannot_be_limited(aggregation: Aggregation) -> None:
    with pytest.raises(InvalidInput, match="cannot be limited"):
        usage_kind(aggregation)
