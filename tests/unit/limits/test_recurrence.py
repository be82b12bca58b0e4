"""Recurrences against a table worked out with a calendar."""

from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest

from tests.support.limits import at
from tollgate.core.errors import InvalidInput
from tollgate.limits.interval import Interval
from tollgate.limits.period import Period
from tollgate.limits.recurrence import Recurrence
from tollgate.metering.window import zone

NEW_YORK, APIA = "America/New_York", "Pacific/Apia"

# interval, anchor, zone, an instant, its period
PERIODS = [
    ("P1M", "2024-01-31", "UTC", "2024-02-28T23:59:59.999999", "2024-01-31", "2024-02-29"),
    ("P1M", "2024-01-31", "UTC", "2024-02-29", "2024-02-29", "2024-03-31"),
    ("P1M", "2024-01-31", "UTC", "2024-03-30", "2024-02-29", "2024-03-31"),
    ("P1M", "2024-01-31", "UTC", "2024-05-01", "2024-04-30", "2024-05-31"),
    ("P1M", "2024-01-31", "UTC", "2023-12-01", "2023-11-30", "2023-12-31"),
    ("P1Y", "2024-02-29", "UTC", "2025-02-28", "2025-02-28", "2026-02-28"),
    ("P1Y", "2024-02-29", "UTC", "2028-02-28", "2027-02-28", "2028-02-29"),
    ("P7D", "2024-01-03", "UTC", "2024-01-01", "2023-12-27", "2024-01-03"),
    ("P7D", "1904-01-04", "UTC", "2024-01-03", "2024-01-01", "2024-01-08"),
    ("PT5H", "2024-01-01", "UTC", "2024-01-02", "2024-01-01T20:00", "2024-01-02T01:00"),
    # A day of 23 hours, then one of 25.
    (
        "P1D",
        "2024-01-01T05:00",
        "America/New_York",
        "2024-03-10T12:00",
        "2024-03-10T05:00",
        "2024-03-11T04:00",
    ),
    (
        "P1D",
        "2024-01-01T05:00",
        "America/New_York",
        "2024-11-04T04:59",
        "2024-11-03T04:00",
        "2024-11-04T05:00",
    ),
    # December 30, 2011 never was in Apia: the period before it ends where the one after begins.
    (
        "P1D",
        "2011-12-28T10:00",
        "Pacific/Apia",
        "2011-12-30T09:59",
        "2011-12-29T10:00",
        "2011-12-30T10:00",
    ),
    (
        "P1D",
        "2011-12-28T10:00",
        "Pacific/Apia",
        "2011-12-30T10:00",
        "2011-12-30T10:00",
        "2011-12-31T10:00",
    ),
]


@pytest.mark.parametrize(("text", "anchor", "name", "instant", "start", "end"), PERIODS)
def test_periods(text: str, anchor: str, name: str, instant: str, start: str, end: str) -> None:
    recurrence = Recurrence(interval=Interval.parse(text), anchor=at(anchor), zone=zone(name).rules)
    assert recurrence.period_at(at(instant)) == Period(start=at(start), end=at(end))


def test_an_anchor_in_the_second_of_two_equal_hours_is_itself_an_occurrence() -> None:
    recurrence = Recurrence(
        interval=Interval(days=1),
        anchor=at("2024-11-03T06:30"),
        zone=zone(NEW_YORK).rules,
    )
    assert recurrence.period_at(at("2024-11-03T06:30")) == Period(
        start=at("2024-11-03T06:30"), end=at("2024-11-04T06:30")
    )


def test_occurrences_are_after_one_instant_and_up_to_another() -> None:
    recurrence = Recurrence(interval=Interval(months=1), anchor=at("2024-01-31"))
    found = list(recurrence.occurrences(at("2024-01-31"), at("2024-04-30")))
    assert found == [at("2024-02-29"), at("2024-03-31"), at("2024-04-30")]


def test_a_day_that_the_zone_skipped_is_no_period() -> None:
    recurrence = Recurrence(
        interval=Interval(days=1), anchor=at("2011-12-28T10:00"), zone=zone(APIA).rules
    )
    found = list(recurrence.occurrences(at("2011-12-28T10:00"), at("2012-01-01T00:00")))
    assert found == [at(f"2011-12-{day}T10:00") for day in (29, 30, 31)]
    periods = list(recurrence.periods(at("2011-12-29T10:00"), at("2011-12-31T10:00")))
    assert periods == [
        Period(start=at("2011-12-29T10:00"), end=at("2011-12-30T10:00")),
        Period(start=at("2011-12-30T10:00"), end=at("2011-12-31T10:00")),
    ]


def test_periods_are_made_as_they_are_asked_for() -> None:
    recurrence = Recurrence(interval=Interval.parse("PT1H"), anchor=at("2024-01-01"))
    first = islice(recurrence.periods(at("1950-01-01T00:30"), at("2290-01-01")), 2)
    assert list(first) == [
        Period(start=at("1950-01-01"), end=at("1950-01-01T01:00")),
        Period(start=at("1950-01-01T01:00"), end=at("1950-01-01T02:00")),
    ]
    assert not list(recurrence.periods(at("2024-01-01"), at("2024-01-01")))


class Counted(Interval):
    """Counts how many steps are taken."""

    steps = 0

    def step(self, *given: object, **named: object) -> datetime:
        Counted.steps += 1
        return super().step(*given, **named)  # type: ignore[arg-type]


@pytest.mark.parametrize("interval", ["PT1H", "P1D", "P1M", "P1Y", "P1M1DT1H"])
def test_a_far_anchor_takes_no_more_steps_than_a_near_one(interval: str) -> None:
    parsed = Interval.parse(interval)
    counted = Counted(months=parsed.months, days=parsed.days, elapsed=parsed.elapsed)
    recurrence = Recurrence(interval=counted, anchor=at("1900-01-31"))
    Counted.steps = 0
    recurrence.period_at(at("2299-12-31"))
    assert 0 < Counted.steps <= 12


def test_shorter_than_an_hour_and_far_anchors_are_refused_together() -> None:
    with pytest.raises(InvalidInput) as refused:
        Recurrence(
            interval=Interval(elapsed=timedelta(minutes=59)),
            anchor=datetime(2300, 1, 1, tzinfo=UTC),
        )
    assert [fault.field for fault in refused.value.faults] == ["interval", "anchor"]
