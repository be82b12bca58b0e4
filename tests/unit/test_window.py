"""Windows against a table worked out by hand from the published rules of each zone."""

from datetime import UTC, datetime, timedelta

import pytest

from tollgate.core.errors import InvalidInput, PermanentFault
from tollgate.metering.window import Windows, WindowSize, zone, zone_names

MINUTE, HOUR, DAY, MONTH = WindowSize


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# zone, size, an instant, the start and the end of its window; all UTC.
TABLE = [
    ("UTC", MINUTE, "2024-03-01T00:00:59.999999", "2024-03-01T00:00", "2024-03-01T00:01"),
    ("UTC", HOUR, "2024-03-01T23:59:59.999999", "2024-03-01T23:00", "2024-03-02T00:00"),
    ("UTC", DAY, "2024-02-29T12:00", "2024-02-29T00:00", "2024-03-01T00:00"),
    ("UTC", MONTH, "2024-02-29T23:59:59.999999", "2024-02-01T00:00", "2024-03-01T00:00"),
    ("UTC", MONTH, "2023-12-31T23:59:59.999999", "2023-12-01T00:00", "2024-01-01T00:00"),
    ("UTC", MONTH, "1900-02-28T12:00", "1900-02-01T00:00", "1900-03-01T00:00"),
    # Before 1970 microseconds are negative and must still round down.
    ("UTC", MINUTE, "1969-12-31T23:59:59.999999", "1969-12-31T23:59", "1970-01-01T00:00"),
    ("UTC", HOUR, "1969-12-31T23:59:59.999999", "1969-12-31T23:00", "1970-01-01T00:00"),
    ("UTC", DAY, "1969-12-31T00:00", "1969-12-31T00:00", "1970-01-01T00:00"),
    ("UTC", MONTH, "1969-12-31T23:59:59.999999", "1969-12-01T00:00", "1970-01-01T00:00"),
    ("UTC", DAY, "1960-02-29T23:59:59.999999", "1960-02-29T00:00", "1960-03-01T00:00"),
    # +5:30: hours begin at half past, days at 18:30 the evening before.
    ("Asia/Kolkata", HOUR, "2024-05-01T10:29:59.999999", "2024-05-01T09:30", "2024-05-01T10:30"),
    ("Asia/Kolkata", DAY, "2024-05-01T18:29:59.999999", "2024-04-30T18:30", "2024-05-01T18:30"),
    ("Asia/Kolkata", MONTH, "2024-01-31T18:30", "2024-01-31T18:30", "2024-02-29T18:30"),
    # +5:45.
    ("Asia/Kathmandu", HOUR, "2024-05-01T10:14:59", "2024-05-01T09:15", "2024-05-01T10:15"),
    ("Asia/Kathmandu", DAY, "2024-05-01T18:15", "2024-05-01T18:15", "2024-05-02T18:15"),
    # Standard time -5, summer time -4 from 2024-03-10 07:00 to 2024-11-03 06:00.
    ("America/New_York", DAY, "2024-03-10T12:00", "2024-03-10T05:00", "2024-03-11T04:00"),
    ("America/New_York", DAY, "2024-03-11T03:59:59.999999", "2024-03-10T05:00", "2024-03-11T04:00"),
    ("America/New_York", DAY, "2024-11-03T12:00", "2024-11-03T04:00", "2024-11-04T05:00"),
    ("America/New_York", HOUR, "2024-03-10T06:59:59", "2024-03-10T06:00", "2024-03-10T07:00"),
    ("America/New_York", HOUR, "2024-03-10T07:00", "2024-03-10T07:00", "2024-03-10T08:00"),
    # 01:00 to 02:00 happens twice: two windows.
    ("America/New_York", HOUR, "2024-11-03T05:30", "2024-11-03T05:00", "2024-11-03T06:00"),
    ("America/New_York", HOUR, "2024-11-03T06:30", "2024-11-03T06:00", "2024-11-03T07:00"),
    ("America/New_York", MONTH, "2024-03-20T00:00", "2024-03-01T05:00", "2024-04-01T04:00"),
    ("America/New_York", MONTH, "2024-11-20T00:00", "2024-11-01T04:00", "2024-12-01T05:00"),
    # Midnight of 2024-09-08 is skipped: at 04:00 UTC the clock goes from 24:00 to 01:00.
    ("America/Santiago", DAY, "2024-09-08T03:59:59.999999", "2024-09-07T04:00", "2024-09-08T04:00"),
    ("America/Santiago", DAY, "2024-09-08T04:00", "2024-09-08T04:00", "2024-09-09T03:00"),
    # On 2024-04-07 at 03:00 UTC 24:00 becomes 23:00: the 6th has 25 hours.
    ("America/Santiago", DAY, "2024-04-07T03:30", "2024-04-06T03:00", "2024-04-07T04:00"),
    ("America/Santiago", HOUR, "2024-04-07T02:30", "2024-04-07T02:00", "2024-04-07T03:00"),
    ("America/Santiago", HOUR, "2024-04-07T03:30", "2024-04-07T03:00", "2024-04-07T04:00"),
    # +11 in summer, +10:30 in winter. 2024-04-06 15:00 UTC: 02:00 becomes 01:30.
    ("Australia/Lord_Howe", HOUR, "2024-04-06T14:59", "2024-04-06T14:00", "2024-04-06T15:00"),
    ("Australia/Lord_Howe", HOUR, "2024-04-06T15:00", "2024-04-06T15:00", "2024-04-06T15:30"),
    ("Australia/Lord_Howe", HOUR, "2024-04-06T15:30", "2024-04-06T15:30", "2024-04-06T16:30"),
    ("Australia/Lord_Howe", DAY, "2024-04-07T00:00", "2024-04-06T13:00", "2024-04-07T13:30"),
    # 2024-10-05 15:30 UTC: 02:00 becomes 02:30.
    ("Australia/Lord_Howe", HOUR, "2024-10-05T15:29", "2024-10-05T14:30", "2024-10-05T15:30"),
    ("Australia/Lord_Howe", HOUR, "2024-10-05T15:30", "2024-10-05T15:30", "2024-10-05T16:00"),
    ("Australia/Lord_Howe", DAY, "2024-10-05T20:00", "2024-10-05T13:30", "2024-10-06T13:00"),
    # Samoa went from -10 (summer) to +14 at the end of 2011-12-29: there was no 30th.
    ("Pacific/Apia", DAY, "2011-12-30T09:59:59.999999", "2011-12-29T10:00", "2011-12-30T10:00"),
    ("Pacific/Apia", DAY, "2011-12-30T10:00", "2011-12-30T10:00", "2011-12-31T10:00"),
    ("Pacific/Apia", MONTH, "2011-12-30T10:00", "2011-12-01T10:00", "2011-12-31T10:00"),
    ("Pacific/Apia", HOUR, "2011-12-30T10:00", "2011-12-30T10:00", "2011-12-30T11:00"),
    # Until 2011 Newfoundland's clock went back at 00:01, to 23:01 of a day that was over.
    ("America/St_Johns", DAY, "2010-11-07T02:30:30", "2010-11-07T02:30", "2010-11-08T03:30"),
    ("America/St_Johns", DAY, "2010-11-07T02:31", "2010-11-07T02:30", "2010-11-08T03:30"),
    ("America/St_Johns", DAY, "2010-11-07T03:29:59", "2010-11-07T02:30", "2010-11-08T03:30"),
    ("America/St_Johns", DAY, "2010-11-07T02:29:59", "2010-11-06T02:30", "2010-11-07T02:30"),
    ("America/St_Johns", HOUR, "2010-11-07T02:30:30", "2010-11-07T02:30", "2010-11-07T02:31"),
    ("America/St_Johns", HOUR, "2010-11-07T02:31", "2010-11-07T02:31", "2010-11-07T03:30"),
    ("America/St_Johns", HOUR, "2010-11-07T03:30", "2010-11-07T03:30", "2010-11-07T04:30"),
    ("America/St_Johns", MINUTE, "2010-11-07T02:31:59", "2010-11-07T02:31", "2010-11-07T02:32"),
    # Kwajalein went from +11 to -12 at the end of 1969-09-30: that day came twice.
    ("Pacific/Kwajalein", DAY, "1969-10-01T00:00", "1969-09-29T13:00", "1969-10-01T12:00"),
    ("Pacific/Kwajalein", MONTH, "1969-10-01T00:00", "1969-08-31T13:00", "1969-10-01T12:00"),
    # Local mean time: Kathmandu +5:41:16 until 1920, Monrovia -0:44:30 until 1972.
    ("Asia/Kathmandu", HOUR, "1910-06-01T00:00", "1910-05-31T23:18:44", "1910-06-01T00:18:44"),
    ("Africa/Monrovia", HOUR, "1971-06-01T00:00", "1971-05-31T23:44:30", "1971-06-01T00:44:30"),
]


@pytest.mark.parametrize(("name", "size", "instant", "start", "end"), TABLE)
def test_window_of_an_instant(
    name: str, size: WindowSize, instant: str, start: str, end: str
) -> None:
    windows = Windows(size=size, zone=zone(name))
    assert windows.start_of(at(instant)) == at(start)
    assert windows.end_of(at(instant)) == at(end)
    start_us = (at(start) - at("1970-01-01")) // timedelta(microseconds=1)
    assert windows.bounds(start_us) == (at(start), at(end))


def test_days_around_both_changes_have_23_and_25_hours() -> None:
    for low, hours in (("2024-03-09T05:00", [24, 23, 24]), ("2024-11-02T04:00", [24, 25, 24])):
        windows = Windows(
            size=DAY,
            zone=zone("America/New_York"),
            low=at(low),
            high=at(low) + timedelta(hours=sum(hours)),
        )
        assert [(end - start) // timedelta(hours=1) for start, end in windows.tile()] == hours


def test_a_skipped_date_has_no_window() -> None:
    windows = Windows(
        size=DAY,
        zone=zone("Pacific/Apia"),
        low=at("2011-12-28T10:00"),
        high=at("2012-01-01T10:00"),
    )
    assert [start for start, _ in windows.tile()] == [
        at("2011-12-28T10:00"),
        at("2011-12-29T10:00"),
        at("2011-12-30T10:00"),  # the 31st, local
        at("2011-12-31T10:00"),
    ]


def test_tile_reports_whole_windows_and_nothing_of_an_empty_period() -> None:
    zone_utc = zone("UTC")
    windows = Windows(
        size=MONTH, zone=zone_utc, low=at("2024-01-31T23:59"), high=at("2024-02-01T00:00:00.000001")
    )
    assert list(windows.tile()) == [
        (at("2024-01-01"), at("2024-02-01")),
        (at("2024-02-01"), at("2024-03-01")),
    ]
    empty = Windows(size=DAY, zone=zone_utc, low=at("2024-01-01"), high=at("2024-01-01"))
    assert list(empty.tile()) == []


def test_bounds_refuse_what_is_no_start() -> None:
    with pytest.raises(PermanentFault, match="no HOUR window in UTC begins at"):
        Windows(size=HOUR, zone=zone("UTC")).bounds(1)


def test_sql_of_utc_is_one_modulo() -> None:
    windows = Windows(size=DAY, zone=zone("UTC"))
    assert windows.sql("time") == (
        "toUnixTimestamp64Micro(time)"
        " - positiveModulo(toUnixTimestamp64Micro(time) + 0, 86400000000)"
    )


def test_sql_of_a_zone_without_a_change_in_the_period_is_one_modulo() -> None:
    windows = Windows(
        size=HOUR,
        zone=zone("America/New_York"),
        low=at("2024-06-01"),
        high=at("2024-07-01"),
    )
    assert windows.sql("time") == (
        "toUnixTimestamp64Micro(time)"
        " - positiveModulo(toUnixTimestamp64Micro(time) + -14400000000, 3600000000)"
    )


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../../etc/passwd", "/etc/passwd", "europe/berlin", "Local", "Europe", "UTC\0",
     "Europe/Berlin/", "UTC ", "a" * 10_000, "zones", "Europe//Berlin", "\ud800", "+01:00"],
)  # fmt: skip
def test_unknown_zones_are_faults_of_the_field(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        zone(name)
    (fault,) = caught.value.faults
    assert (fault.field, fault.code) == ("windowTimeZone", "unknown_time_zone")
    assert len(fault.message) < 200


def test_every_listed_zone_loads_and_is_the_same_value_each_time() -> None:
    assert {"UTC", "Etc/UTC", "GMT", "Europe/Berlin", "America/Argentina/La_Rioja"} <= zone_names()
    for name in zone_names():
        assert zone(name) is zone(name)
        assert zone(name).name == name
