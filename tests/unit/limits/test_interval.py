"""Intervals against a table worked out with a calendar."""

from datetime import timedelta

import pytest

from tests.support.limits import at
from tollgate.core.errors import InvalidInput
from tollgate.limits.interval import Interval
from tollgate.metering.window import zone

# text, months, days, elapsed seconds, its ISO 8601 text, its name
TEXTS = [
    ("DAY", 0, 1, 0, "P1D", "DAY"),
    ("WEEK", 0, 7, 0, "P7D", "WEEK"),
    ("MONTH", 1, 0, 0, "P1M", "MONTH"),
    ("YEAR", 12, 0, 0, "P1Y", "YEAR"),
    ("P1W", 0, 7, 0, "P7D", "WEEK"),
    ("P12M", 12, 0, 0, "P1Y", "YEAR"),
    ("P1Y2M", 14, 0, 0, "P1Y2M", None),
    ("PT1H", 0, 0, 3600, "PT1H", None),
    ("PT90M", 0, 0, 5400, "PT1H30M", None),
    ("PT1.5H", 0, 0, 5400, "PT1H30M", None),
    ("P1DT12H", 0, 1, 43200, "P1DT12H", None),
    ("PT24H", 0, 0, 86400, "PT24H", None),
    ("P1Y1M1W1DT1H1M1S", 13, 8, 3661, "P1Y1M8DT1H1M1S", None),
]


@pytest.mark.parametrize(("text", "months", "days", "seconds", "iso", "name"), TEXTS)
def test_texts(text: str, months: int, days: int, seconds: int, iso: str, name: str | None) -> None:
    interval = Interval.parse(text)
    assert interval == Interval(months=months, days=days, elapsed=timedelta(seconds=seconds))
    assert (interval.iso_text(), interval.name) == (iso, name)
    assert Interval.parse(iso) == interval


def test_a_microsecond_is_kept() -> None:
    interval = Interval.parse("PT3600.000001S")
    assert interval.elapsed == timedelta(hours=1, microseconds=1)
    assert interval.iso_text() == "PT1H0.000001S"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "not_an_interval"),
        ("P", "not_an_interval"),
        ("PT", "not_an_interval"),
        ("P1DT", "not_an_interval"),
        ("day", "not_an_interval"),
        ("P1H", "not_an_interval"),
        ("-P1D", "not_an_interval"),
        ("P1D ", "not_an_interval"),
        ("P\u0661D", "not_an_interval"),
        ("P" + "1" * 70 + "D", "not_an_interval"),
        ("P0.5M", "fraction"),
        ("P1.5D", "fraction"),
        ("PT3600.0000001S", "too_fine"),
        ("P0D", "out_of_bounds"),
        ("P401Y", "out_of_bounds"),
        ("PT" + "9" * 60 + "H", "out_of_bounds"),
    ],
)
def test_texts_that_are_refused(text: str, code: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Interval.parse(text)
    assert [fault.code for fault in refused.value.faults] == [code]


# interval, zone, from, count, to; instants in UTC.
STEPS = [
    ("P1M", "UTC", "2024-01-31T10:00", 1, "2024-02-29T10:00"),
    ("P1M", "UTC", "2023-01-31T10:00", 1, "2023-02-28T10:00"),
    ("P1M", "UTC", "2024-01-31T10:00", 2, "2024-03-31T10:00"),
    ("P1M", "UTC", "2024-01-31T10:00", 3, "2024-04-30T10:00"),
    ("P1M", "UTC", "2024-01-31T10:00", -2, "2023-11-30T10:00"),
    ("P1M", "UTC", "2024-01-31T10:00", 11, "2024-12-31T10:00"),
    ("P1M", "UTC", "2024-01-31T10:00", 12, "2025-01-31T10:00"),
    ("P1Y", "UTC", "2024-02-29T00:00", 1, "2025-02-28T00:00"),
    ("P1Y", "UTC", "2024-02-29T00:00", 4, "2028-02-29T00:00"),
    ("P1Y", "UTC", "2096-02-29T00:00", 4, "2100-02-28T00:00"),
    ("P1Y", "UTC", "2096-02-29T00:00", 8, "2104-02-29T00:00"),
    ("P1M1D", "UTC", "2024-01-31T00:00", 1, "2024-03-01T00:00"),
    # 10:00 in New York is 15:00 UTC in winter, 14:00 from 2024-03-10 on.
    ("P1D", "America/New_York", "2024-03-09T15:00", 1, "2024-03-10T14:00"),
    ("PT24H", "America/New_York", "2024-03-09T15:00", 1, "2024-03-10T15:00"),
    ("P1DT12H", "America/New_York", "2024-03-09T15:00", 1, "2024-03-11T02:00"),
    # 02:30 is skipped on 2024-03-10: it is 03:30, 07:30 UTC. The day after it is 02:30 again.
    ("P1D", "America/New_York", "2024-03-09T07:30", 1, "2024-03-10T07:30"),
    ("P1D", "America/New_York", "2024-03-09T07:30", 2, "2024-03-11T06:30"),
    # 01:30 happens twice on 2024-11-03, at 05:30 and 06:30 UTC: the first.
    ("P1D", "America/New_York", "2024-11-02T05:30", 1, "2024-11-03T05:30"),
    ("P1D", "America/New_York", "2024-11-02T05:30", 2, "2024-11-04T06:30"),
    # So it is six years after the second of them: 2030-11-03 is a Sunday too.
    ("P1Y", "America/New_York", "2024-11-03T06:30", 6, "2030-11-03T05:30"),
    # The month ends in Berlin: 23:00 UTC on the 30th is the 31st there.
    ("P1M", "Europe/Berlin", "2024-01-30T23:00", 1, "2024-02-28T23:00"),
    # From 2024-03-31 on midnight in Berlin is 22:00 UTC.
    ("P1M", "Europe/Berlin", "2024-01-30T23:00", 3, "2024-04-29T22:00"),
]


@pytest.mark.parametrize(("text", "name", "start", "count", "end"), STEPS)
def test_steps(text: str, name: str, start: str, count: int, end: str) -> None:
    assert Interval.parse(text).step(at(start), zone(name).rules, count) == at(end)
