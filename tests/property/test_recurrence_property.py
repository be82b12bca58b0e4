"""What holds for periods of every interval in every zone."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

from hypothesis import given
from hypothesis import strategies as st

from tollgate.core.clock import datetime_from_us
from tollgate.core.times import EARLIEST_US, LATEST_US
from tollgate.limits.interval import Interval
from tollgate.limits.recurrence import Recurrence
from tollgate.metering.window import zone, zone_names

MICROSECOND = timedelta(microseconds=1)

instants = st.integers(EARLIEST_US, LATEST_US).map(datetime_from_us)
intervals = st.one_of(
    st.sampled_from(["DAY", "WEEK", "MONTH", "YEAR", "PT1H", "P3M", "P1DT12H"]).map(Interval.parse),
    st.builds(Interval, elapsed=st.timedeltas(timedelta(hours=1), timedelta(days=900))),
    st.one_of(
        st.builds(Interval, days=st.integers(1, 800)),
        st.builds(
            Interval,
            months=st.integers(1, 40),
            days=st.integers(0, 70),
            elapsed=st.timedeltas(timedelta(0), timedelta(days=3)),
        ),
    ),
)
zones = st.just(UTC) | st.sampled_from(sorted(zone_names())).map(lambda name: zone(name).rules)
recurrences = st.builds(Recurrence, interval=intervals, anchor=instants, zone=zones)


@given(recurrences, instants)
def test_an_instant_is_in_its_period(recurrence: Recurrence, instant: datetime) -> None:
    period = recurrence.period_at(instant)
    assert period.start <= instant < period.end
    assert recurrence.period_at(period.start) == period
    assert recurrence.period_at(period.end - MICROSECOND) == period
    assert recurrence.period_at(period.end).start == period.end
    assert recurrence.next_after(instant) == period.end


@given(recurrences, instants)
def test_periods_tile_time(recurrence: Recurrence, instant: datetime) -> None:
    periods = list(islice(recurrence.periods(instant, datetime(2310, 1, 1, tzinfo=UTC)), 40))
    assert periods[0] == recurrence.period_at(instant)
    assert all(one.end == following.start for one, following in pairwise(periods))
    starts = [period.start for period in periods[1:]]
    assert starts == list(recurrence.occurrences(instant, starts[-1])) if starts else True


@given(recurrences, st.integers(-1000, 1000))
def test_occurrences_never_run_backwards(recurrence: Recurrence, number: int) -> None:
    a_century_us = 100 * 366 * 86_400_000_000
    number %= a_century_us // recurrence.interval.mean_us + 1
    near = [recurrence.occurrence(number + step) for step in (-1, 0, 1)]
    assert near == sorted(near)


@given(instants, instants)
def test_a_month_from_the_anchor_keeps_its_day_or_ends_the_month(
    anchor: datetime, instant: datetime
) -> None:
    recurrence = Recurrence(interval=Interval(months=1), anchor=anchor.replace(hour=12))
    start = recurrence.period_at(instant).start
    following = start + timedelta(days=1)
    assert start.time() == recurrence.anchor.time()
    assert start.day == anchor.day or (start.day < anchor.day and following.day == 1)


@given(intervals)
def test_an_interval_reads_its_own_text(interval: Interval) -> None:
    assert Interval.parse(interval.iso_text()) == interval
    if interval.name is not None:
        assert Interval.parse(interval.name) == interval
