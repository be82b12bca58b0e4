"""RFC 3339 both ways, held to a table by hand and to Python's own reader."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.core.clock import datetime_from_us, us_from_datetime
from tollgate.core.times import (
    EARLIEST,
    EARLIEST_US,
    LATEST,
    LATEST_US,
    format_instant,
    parse_instant,
    parse_instant_us,
)

READ = [
    ("2026-01-31T08:30:00Z", "2026-01-31T08:30:00Z"),
    ("2026-01-31t08:30:00z", "2026-01-31T08:30:00Z"),
    ("2026-01-31 08:30:00Z", "2026-01-31T08:30:00Z"),
    ("2026-01-31T08:30:00+00:00", "2026-01-31T08:30:00Z"),
    ("2026-01-31T08:30:00-00:00", "2026-01-31T08:30:00Z"),
    ("2026-01-31T08:30:00+05:45", "2026-01-31T02:45:00Z"),
    ("2026-01-01T00:30:00+01:00", "2025-12-31T23:30:00Z"),
    ("2026-01-31T08:30:00.5Z", "2026-01-31T08:30:00.500000Z"),
    ("2026-01-31T08:30:00.123Z", "2026-01-31T08:30:00.123000Z"),
    ("2026-01-31T08:30:00.123456Z", "2026-01-31T08:30:00.123456Z"),
    ("2026-01-31T08:30:00.1234569Z", "2026-01-31T08:30:00.123456Z"),
    ("2026-01-31T08:30:00.999999999999Z", "2026-01-31T08:30:00.999999Z"),
    ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
    ("2016-12-31T23:59:60.5Z", "2017-01-01T00:00:00Z"),
    ("2017-01-01T05:29:60+05:30", "2017-01-01T00:00:00Z"),
    ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"),
    ("1900-01-01T00:00:00Z", "1900-01-01T00:00:00Z"),
    ("1899-12-31T23:00:00-01:00", "1900-01-01T00:00:00Z"),
    ("2299-12-31T23:59:59.999999Z", "2299-12-31T23:59:59.999999Z"),
    ("1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999Z"),
]
REFUSED = [
    "",
    "now",
    "2026-01-31",
    "2026-01-31T08:30Z",
    "2026-01-31T08:30:00",
    "2026-01-31T08:30:00,123Z",
    "2026-01-31T08:30:00:123Z",
    "2026-01-31T08:30:00.Z",
    "2026-01-31T08:30:00+0100",
    "2026-01-31T08:30:00+01",
    "2026-01-31T08:30:00 Z",
    " 2026-01-31T08:30:00Z",
    "2026-01-31T08:30:00Z\n",
    "20260131T083000Z",
    "2026-W05-6T08:30:00Z",
    "2026-1-31T08:30:00Z",
    "2026-02-29T08:30:00Z",
    "2026-13-01T08:30:00Z",
    "2026-00-01T08:30:00Z",
    "2026-01-31T24:00:00Z",
    "2026-01-31T08:60:00Z",
    "2026-01-31T08:30:61Z",
    "2026-01-31T08:30:00+24:00",
    "0000-01-01T00:00:00Z",
    "1899-12-31T23:59:59.999999Z",
    "2300-01-01T00:00:00Z",
    "2299-12-31T23:59:60Z",
    "9999-12-31T23:59:60Z",
    "0001-01-01T00:00:00+23:00",
    "٢٠٢٦-01-31T08:30:00Z",
    "2026-01-31T08:30:0\u0660Z",
    "1767225600",
]


@pytest.mark.parametrize(("text", "instant"), READ)
def test_read_by_hand(text: str, instant: str) -> None:
    wanted = datetime.fromisoformat(instant)
    assert parse_instant(text) == wanted
    assert parse_instant(text).tzinfo is UTC
    assert datetime_from_us(parse_instant_us(text)) == wanted


@pytest.mark.parametrize("text", REFUSED)
def test_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(is|names) ") as slow:
        parse_instant(text)
    with pytest.raises(ValueError, match=r"^(is|names) ") as fast:
        parse_instant_us(text)
    assert str(fast.value) == str(slow.value)


instants = st.datetimes(
    min_value=EARLIEST.replace(tzinfo=None) + timedelta(days=2),
    max_value=LATEST.replace(tzinfo=None) - timedelta(days=2),
    timezones=st.integers(-1439, 1439).map(lambda m: timezone(timedelta(minutes=m))),
)


@given(instants)
def test_reads_what_python_writes(instant: datetime) -> None:
    text = instant.isoformat()
    assert parse_instant(text) == instant
    assert parse_instant_us(text) == us_from_datetime(instant)


@given(st.datetimes(EARLIEST.replace(tzinfo=None), LATEST.replace(tzinfo=None)))
def test_what_is_written_reads_back(naive: datetime) -> None:
    instant = naive.replace(tzinfo=UTC)
    text = format_instant(instant)
    assert text.endswith("Z")
    assert parse_instant(text) == instant
    assert parse_instant_us(text) == us_from_datetime(instant)


@given(
    st.sampled_from([text for text, _ in READ if len(text) in (20, 24, 27)]),
    st.integers(0, 26),
    st.sampled_from(",:. +-Tt0159Z\u0660"),
)
def test_the_short_way_takes_no_more_than_the_long_one(text: str, at: int, mark: str) -> None:
    changed = text[:at] + mark + text[at + 1 :]
    try:
        wanted = us_from_datetime(parse_instant(changed))
    except ValueError:
        with pytest.raises(ValueError, match=r"^(is|names) "):
            parse_instant_us(changed)
    else:
        assert parse_instant_us(changed) == wanted


@pytest.mark.parametrize("year", [1970, 2001, 2038, 2242, 2243, 2299])
@pytest.mark.parametrize("microsecond", [0, 1, 499_999, 999_998, 999_999])
def test_microseconds_survive_far_from_the_epoch(year: int, microsecond: int) -> None:
    instant = datetime(year, 12, 31, 23, 59, 59, microsecond, tzinfo=UTC)
    assert parse_instant_us(f"{year}-12-31T23:59:59.{microsecond:06d}Z") == us_from_datetime(
        instant
    )


def test_bounds_by_hand() -> None:
    assert EARLIEST_US == -25_567 * 86_400 * 1_000_000
    assert LATEST_US == 120_530 * 86_400 * 1_000_000 - 1


def test_written_by_hand() -> None:
    half_past = datetime(2026, 1, 31, 9, 30, tzinfo=timezone(timedelta(hours=1)))
    assert format_instant(half_past) == "2026-01-31T08:30:00Z"
    assert format_instant(half_past.replace(microsecond=1500)) == "2026-01-31T08:30:00.001500Z"
