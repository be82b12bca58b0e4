"""Grants: bounds, ends, rollover, order; each worked out by hand."""

from datetime import timedelta
from decimal import Decimal
from itertools import permutations

import pytest

from tests.support.limits import at, every, grant, hour
from tollgate.core.errors import InvalidInput
from tollgate.limits.grant import Expiration, ExpirationUnit, Grant, burn_order, check_void
from tollgate.limits.period import Period
from tollgate.metering.window import zone

HOUR, DAY, WEEK, MONTH, YEAR = ExpirationUnit


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(InvalidInput) as refused:
        grant("a", 0, priority=256, min_rollover=Decimal(-1), max_rollover=Decimal("NaN"))
    assert [fault.field for fault in refused.value.faults] == [
        *("amount", "minRolloverAmount", "maxRolloverAmount", "priority"),
    ]


@pytest.mark.parametrize(
    "amount", ["0", "-1", "NaN", "Infinity", "1e20", "1.0000000000000000001", "1e-19"]
)
def test_amounts_that_are_refused(amount: str) -> None:
    with pytest.raises(InvalidInput):
        grant("a", amount)


@pytest.mark.parametrize(
    "amount", ["1e-18", "99999999999999999999.999999999999999999", "1.50000000000000000000000"]
)
def test_amounts_that_are_kept_digit_for_digit(amount: str) -> None:
    assert grant("a", amount).amount == Decimal(amount)


@pytest.mark.parametrize("count", [0, 1001])
def test_expirations_that_are_refused(count: int) -> None:
    with pytest.raises(InvalidInput):
        Expiration(duration=DAY, count=count)


@pytest.mark.parametrize(
    ("unit", "count", "name", "begins", "ends"),
    [
        (HOUR, 36, "UTC", "2024-02-28T12:00", "2024-03-01T00:00"),
        (DAY, 2, "UTC", "2024-02-28T12:00", "2024-03-01T12:00"),
        (WEEK, 2, "UTC", "2024-02-28T12:00", "2024-03-13T12:00"),
        (MONTH, 1, "UTC", "2024-01-31T12:00", "2024-02-29T12:00"),
        (YEAR, 1, "UTC", "2024-02-29T12:00", "2025-02-28T12:00"),
        (YEAR, 1000, "UTC", "2024-02-29T12:00", "3024-02-29T12:00"),
        (DAY, 1, "Europe/Berlin", "2024-03-30T12:00", "2024-03-31T11:00"),
        (HOUR, 24, "Europe/Berlin", "2024-03-30T12:00", "2024-03-31T12:00"),
    ],
)
def test_expiry(unit: ExpirationUnit, count: int, name: str, begins: str, ends: str) -> None:
    made = Grant(
        id="a",
        amount=Decimal(1),
        effective_at=at(begins),
        created_at=at(begins),
        expiration=Expiration(duration=unit, count=count),
        zone=zone(name).rules,
    )
    assert made.expires_at == made.ends_at == at(ends)
    assert made.counts_at(at(begins))
    assert made.counts_at(at(ends) - timedelta(microseconds=1))
    assert not made.counts_at(at(ends))
    assert not made.counts_at(at(begins) - timedelta(microseconds=1))


@pytest.mark.parametrize(
    ("lasts", "voided", "ends", "by_void", "ever"),
    [
        (None, None, None, False, True),
        (5, None, 15, False, True),
        (5, 12, 12, True, True),
        (None, 12, 12, True, True),
        (5, 15, 15, False, True),
        (5, 16, 15, False, True),
        (5, 10, 10, True, False),
        (5, 3, 3, True, False),
    ],
)
def test_voids(
    lasts: int | None, voided: int | None, ends: int | None, by_void: bool, ever: bool
) -> None:
    voided_at = None if voided is None else hour(voided)
    made = grant("a", 1, 10, lasts, voided_at=voided_at)
    assert made.ends_at == (None if ends is None else hour(ends))
    assert (made.is_void_at_end, made.ever_counts) == (by_void, ever)


@pytest.mark.parametrize(
    ("low", "high", "before", "after"),
    [
        (0, 0, 70, 0),
        (0, 100, 70, 70),
        (0, 50, 70, 50),
        (30, 100, 10, 30),
        (100, 100, 0, 100),
        (100, 100, 70, 100),
        (150, 200, 70, 150),
        (90, 50, 70, 50),  # the maximum wins
    ],
)
def test_rollover(low: int, high: int, before: int, after: int) -> None:
    made = grant("a", 100, rolls=(low, high))
    assert made.after_reset(Decimal(before)) == after


@pytest.mark.parametrize(("before", "after"), [(0, 100), (40, 100), (100, 100), (150, 150)])
def test_a_recurrence_fills_up_and_takes_nothing(before: int, after: int) -> None:
    assert grant("a", 100).after_recurrence(Decimal(before)) == after


def test_next_recurrence() -> None:
    made = grant("a", 1, 10, 20, recurrence=every(8))
    assert made.next_recurrence(hour(0)) == hour(16)
    assert made.next_recurrence(hour(16)) == hour(24)
    assert made.next_recurrence(hour(24)) is None  # 32 is after its end at 30
    assert grant("b", 1).next_recurrence(hour(0)) is None


def test_burn_order_in_every_order_of_input() -> None:
    expected = [
        grant("z", 1, priority=1),
        grant("f", 1, 0, 10, priority=2, created_at=hour(9)),
        grant("b", 1, 0, 20, priority=2, created_at=hour(-1)),
        grant("c", 1, 0, 20, priority=2),
        grant("d", 1, 0, 20, priority=2),
        grant("a", 1, 0, priority=2, voided_at=hour(5)),  # a void changes no order
    ]
    for mixed in permutations(expected):
        assert burn_order(mixed) == tuple(expected)


@pytest.mark.parametrize("moment", [5, 20, 31])
def test_voids_that_are_refused(moment: int) -> None:
    period = Period(start=hour(6), end=hour(100))
    with pytest.raises(InvalidInput):
        check_void(grant("a", 1, 0, 20), hour(moment), period=period, now=hour(30))


@pytest.mark.parametrize("moment", [6, 19])
def test_voids_that_are_taken(moment: int) -> None:
    period = Period(start=hour(6), end=hour(100))
    check_void(grant("a", 1, 0, 20), hour(moment), period=period, now=hour(19))
