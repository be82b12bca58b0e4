"""When usage periods were reset, by themselves and by hand."""

from datetime import UTC, datetime, timedelta

from tollgate.limits.entitlement import MeteredEntitlement
from tollgate.limits.interval import Interval
from tollgate.limits.recurrence import Recurrence
from tollgate.limits.reset import Reset
from tollgate.notify.reset_times import RESETS_MAX, reset_times


def at(month: int, day: int, hour: int = 0) -> datetime:
    return datetime(2026, month, day, hour, tzinfo=UTC)


def entitlement(interval: Interval, measured: datetime) -> MeteredEntitlement:
    return MeteredEntitlement(
        id="e",
        customer_id="c",
        feature_key="f",
        created_at=measured,
        active_from=measured,
        usage_period=Recurrence(interval=interval, anchor=at(1, 1)),
        measure_usage_from=measured,
    )


MONTHLY = entitlement(Interval(months=1), at(1, 10))


def test_each_period_that_ended_is_found_once() -> None:
    assert reset_times(MONTHLY, (), at(1, 10), at(4, 15)) == (at(4, 1), at(3, 1), at(2, 1))
    assert reset_times(MONTHLY, (), at(3, 1), at(4, 1)) == (at(4, 1),)
    assert reset_times(MONTHLY, (), at(4, 1), at(4, 30)) == ()


def test_where_usage_begins_nothing_is_reset() -> None:
    assert reset_times(MONTHLY, (), at(1, 1), at(1, 31)) == ()
    assert reset_times(MONTHLY, (), at(1, 1), at(1, 5)) == ()
    assert reset_times(MONTHLY, (Reset(effective_at=at(1, 10)),), at(1, 1), at(1, 31)) == ()


def test_resets_by_hand_are_found_and_move_those_after_them() -> None:
    by_hand = (Reset(effective_at=at(2, 20)), Reset(effective_at=at(3, 25), retain_anchor=True))
    found = reset_times(MONTHLY, by_hand, at(1, 10), at(4, 25))
    assert found == (at(4, 20), at(3, 25), at(3, 20), at(2, 20), at(2, 1))
    # At a period's end it takes the place of the one that would have been.
    assert reset_times(MONTHLY, (Reset(effective_at=at(2, 1)),), at(1, 10), at(2, 2)) == (at(2, 1),)


def test_of_very_many_the_newest_are_found() -> None:
    hourly = entitlement(Interval(elapsed=timedelta(hours=1)), at(1, 1))
    found = reset_times(hourly, (), at(1, 1), at(3, 1))
    assert found == tuple(at(3, 1) - timedelta(hours=n) for n in range(RESETS_MAX))
