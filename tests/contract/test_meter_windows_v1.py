"""Windows and periods over HTTP, against a table of local days, hours and months by hand."""

import pytest

from tests.support.server import Server
from tests.support.usage import Usage, event, quantities

DAY_IN_BERLIN = [
    # Clocks go forward on 2026-03-29: 23 hours.
    ("2026-03-27T23:00:00Z", "2026-03-28T23:00:00Z", ["2026-03-28T22:59:59.999999Z"]),
    (
        "2026-03-28T23:00:00Z",
        "2026-03-29T22:00:00Z",
        ["2026-03-28T23:00:00Z", "2026-03-29T21:59:59.999999Z"],
    ),
    ("2026-03-29T22:00:00Z", "2026-03-30T22:00:00Z", ["2026-03-29T22:00:00Z"]),
    # And back on 2026-10-25: 25 hours.
    (
        "2026-10-24T22:00:00Z",
        "2026-10-25T23:00:00Z",
        ["2026-10-24T22:00:00Z", "2026-10-25T22:30:00Z"],
    ),
]
HOUR_IN_BERLIN = [
    # 01:30 to 03:30 local: there is no hour from 02:00 to 03:00.
    ("2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z", ["2026-03-29T00:30:00Z"]),
    ("2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z", ["2026-03-29T01:30:00Z"]),
    # 02:30 local comes twice: two windows.
    ("2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", ["2026-10-25T00:30:00Z"]),
    ("2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z", ["2026-10-25T01:30:00Z"]),
]
MONTH_IN_BERLIN = [
    ("2026-01-31T23:00:00Z", "2026-02-28T23:00:00Z", ["2026-02-28T22:59:59Z"]),
    (
        "2026-02-28T23:00:00Z",
        "2026-03-31T22:00:00Z",
        ["2026-02-28T23:00:00Z", "2026-03-31T21:59:59Z"],
    ),
    ("2026-03-31T22:00:00Z", "2026-04-30T22:00:00Z", ["2026-03-31T22:00:00Z"]),
]
MIDNIGHT_SKIPPED_IN_SANTIAGO = [
    # 2026-09-06 begins at 01:00 local.
    ("2026-09-05T04:00:00Z", "2026-09-06T04:00:00Z", ["2026-09-06T03:59:59Z"]),
    (
        "2026-09-06T04:00:00Z",
        "2026-09-07T03:00:00Z",
        ["2026-09-06T04:00:00Z", "2026-09-07T02:59:59Z"],
    ),
]
DAY_IN_INDIA = [  # UTC+05:30
    ("2026-03-09T18:30:00Z", "2026-03-10T18:30:00Z", ["2026-03-10T18:29:59Z"]),
    ("2026-03-10T18:30:00Z", "2026-03-11T18:30:00Z", ["2026-03-10T18:30:00Z"]),
]
HOUR_IN_INDIA = [
    ("2026-03-10T19:30:00Z", "2026-03-10T20:30:00Z", ["2026-03-10T20:00:00Z"]),
    ("2026-03-10T20:30:00Z", "2026-03-10T21:30:00Z", ["2026-03-10T20:30:00Z"]),
]
HOUR_IN_NEPAL = [  # UTC+05:45
    ("2026-03-10T19:15:00Z", "2026-03-10T20:15:00Z", ["2026-03-10T20:00:00Z"]),
    ("2026-03-10T20:15:00Z", "2026-03-10T21:15:00Z", ["2026-03-10T20:15:00Z"]),
]
DAY_IN_NEPAL = [
    ("2026-03-09T18:15:00Z", "2026-03-10T18:15:00Z", ["2026-03-09T18:15:00Z"]),
    ("2026-03-10T18:15:00Z", "2026-03-11T18:15:00Z", ["2026-03-10T18:20:00Z"]),
]
HOUR_ON_LORD_HOWE = [
    # Half an hour is lost at 2026-10-03T15:30Z: 01:30 becomes 02:30, that hour is a half.
    ("2026-10-03T14:30:00Z", "2026-10-03T15:30:00Z", ["2026-10-03T15:29:59Z"]),
    ("2026-10-03T15:30:00Z", "2026-10-03T16:00:00Z", ["2026-10-03T15:45:00Z"]),
    ("2026-10-03T16:00:00Z", "2026-10-03T17:00:00Z", ["2026-10-03T16:15:00Z"]),
]
MINUTES = [
    (
        "2026-03-10T12:34:00Z",
        "2026-03-10T12:35:00Z",
        ["2026-03-10T12:34:00Z", "2026-03-10T12:34:59.999999Z"],
    ),
    ("2026-03-10T12:35:00Z", "2026-03-10T12:36:00Z", ["2026-03-10T12:35:00Z"]),
    # Before 1970 too.
    ("1969-12-31T23:59:00Z", "1970-01-01T00:00:00Z", ["1969-12-31T23:59:59.999999Z"]),
]


@pytest.fixture
def usage(server: Server) -> Usage:
    return Usage(server)


@pytest.mark.parametrize(
    ("size", "zone", "table"),
    [
        ("DAY", "Europe/Berlin", DAY_IN_BERLIN),
        ("HOUR", "Europe/Berlin", HOUR_IN_BERLIN),
        ("MONTH", "Europe/Berlin", MONTH_IN_BERLIN),
        ("DAY", "America/Santiago", MIDNIGHT_SKIPPED_IN_SANTIAGO),
        ("DAY", "Asia/Kolkata", DAY_IN_INDIA),
        ("HOUR", "Asia/Kolkata", HOUR_IN_INDIA),
        ("HOUR", "Asia/Kathmandu", HOUR_IN_NEPAL),
        ("DAY", "Asia/Kathmandu", DAY_IN_NEPAL),
        ("HOUR", "Australia/Lord_Howe", HOUR_ON_LORD_HOWE),
        ("MINUTE", "UTC", MINUTES),
    ],
)
def test_windows(
    usage: Usage, size: str, zone: str, table: list[tuple[str, str, list[str]]]
) -> None:
    slug = usage.meter("COUNT")
    usage.send(*(event(time=time) for _, _, times in table for time in times))
    expected = sorted((start, end, len(times)) for start, end, times in table)
    columns = ("windowStart", "windowEnd", "value")
    asked = {"windowSize": size, "windowTimeZone": zone}
    found = usage.query(slug, **asked)
    assert quantities(found, *columns) == expected
    assert found["windowSize"] == size
    # A period around all of them changes nothing; the same by GET.
    period = {"from": "1960-01-01T00:00:00Z", "to": "2027-01-01T00:00:00Z"}
    answer = usage.on_meters("GET", f"/{slug}/query", params=asked | period)
    assert quantities(answer.json(), *columns) == expected
    assert answer.json() | period == answer.json()


@pytest.fixture(scope="module")
def quarters(server: Server) -> tuple[Usage, str]:
    """1, 2, 4, 8 … a quarter of an hour apart, from 12:00."""
    usage = Usage(server)
    slug = usage.meter()
    times = [f"2026-03-10T{12 + n // 4}:{n % 4 * 15:02}:00Z" for n in range(8)]
    usage.send(*(event(f'{{"v":{2**n}}}', time=time) for n, time in enumerate(times)))
    return usage, slug


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("2026-03-10T12:00:00Z", "2026-03-10T12:15:00Z", 1),
        ("2026-03-10T12:00:00.000001Z", "2026-03-10T12:15:00.000001Z", 2),
        ("2026-03-10T12:15:00Z", "2026-03-10T13:00:00Z", 2 + 4 + 8),
        ("2026-03-10T13:15:00+01:00", "2026-03-10T14:00:00+01:00", 2 + 4 + 8),
        ("2026-03-10T13:00:00Z", None, 16 + 32 + 64 + 128),
        (None, "2026-03-10T13:00:00Z", 1 + 2 + 4 + 8),
        ("2026-03-10T13:45:00.000001Z", None, None),
        (None, "2026-03-10T12:00:00Z", None),
    ],
)
def test_periods_are_half_open(
    quarters: tuple[Usage, str], start: str | None, end: str | None, expected: int | None
) -> None:
    usage, slug = quarters
    period = {name: at for name, at in (("start", start), ("end", end)) if at}
    assert usage.values(slug, **period) == ([] if expected is None else [expected])


def test_windows_are_whole_and_their_values_clipped(quarters: tuple[Usage, str]) -> None:
    usage, slug = quarters
    found = usage.query(
        slug, start="2026-03-10T12:30:00Z", end="2026-03-10T13:30:00Z", windowSize="HOUR"
    )
    assert quantities(found, "windowStart", "windowEnd", "value") == [
        ("2026-03-10T12:00:00Z", "2026-03-10T13:00:00Z", 4 + 8),
        ("2026-03-10T13:00:00Z", "2026-03-10T14:00:00Z", 16 + 32),
    ]


def test_windows_by_subject_leave_out_what_is_empty(usage: Usage) -> None:
    slug = usage.meter()
    usage.send(
        event('{"v":1}', subject="ada", time="2026-03-10T12:00:00Z"),
        event('{"v":2}', subject="bob", time="2026-03-10T12:59:59Z"),
        event('{"v":4}', subject="ada", time="2026-03-10T15:00:00Z"),
        event('{"v":null}', subject="bob", time="2026-03-10T16:00:00Z"),
    )
    found = usage.query(slug, windowSize="HOUR", groupBy=["subject"])
    assert quantities(found, "windowStart", "subject", "value") == [
        ("2026-03-10T12:00:00Z", "ada", 1),
        ("2026-03-10T12:00:00Z", "bob", 2),
        ("2026-03-10T15:00:00Z", "ada", 4),
    ]


def test_a_total_without_a_period_spans_the_minutes_that_count(usage: Usage) -> None:
    slug = usage.meter()
    usage.send(
        event('{"v":"no"}', time="2026-03-10T09:00:00Z"),
        event('{"v":1}', time="2026-03-10T12:00:59.5Z"),
        event('{"v":2}', time="2026-03-10T12:05:00Z"),
    )
    columns = ("windowStart", "windowEnd", "value")
    bounds = ("2026-03-10T12:00:00Z", "2026-03-10T12:06:00Z", 3)
    found = usage.query(slug)
    assert quantities(found, *columns) == [bounds]
    assert {"from", "to", "windowSize"}.isdisjoint(found)
    start, end = "2026-03-10T00:00:00Z", "2026-03-11T00:00:00Z"
    assert quantities(usage.query(slug, start=start), *columns) == [(start, bounds[1], 3)]
    assert quantities(usage.query(slug, end=end), *columns) == [(bounds[0], end, 3)]
