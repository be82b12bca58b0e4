"""The planner against a table by hand: what whole windows of a level cover, and what is left."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tollgate.core.clock import us_from_datetime
from tollgate.metering.plan import Period, Span, Tile, Tiling, tile
from tollgate.metering.rollup import (
    HOUR,
    MINUTE,
    QUARTER,
    SUBJECT_DAY,
    SUBJECT_MONTH,
    Level,
)
from tollgate.metering.window import Windows, WindowSize, zone

Times = tuple[str, str]


def at(text: str) -> int:
    """`01 06:30` is 06:30 UTC on the first of November 2026."""
    moment = datetime.strptime("2026-11-" + text, "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
    return us_from_datetime(moment)


def spans(*times: Times) -> tuple[Span, ...]:
    return tuple((at(start), at(end)) for start, end in times)


def tiles_of(level: Level, *covered: Span) -> tuple[Tile, ...]:
    return tuple(Tile(level, start, end) for start, end in covered)


def day_of(month: int, day: int) -> int:
    """Midnight of a day of 2026, UTC."""
    return us_from_datetime(datetime(2026, month, day, tzinfo=UTC))


def period(
    low: str | None, high: str | None, window: WindowSize | None = None, name: str = "UTC"
) -> Period:
    """Of facts from the 2nd 10:00 up to the 6th 15:00."""
    return Period(
        low=None if low is None else at(low),
        high=None if high is None else at(high),
        first=at("02 10:00"),
        last=at("06 15:00"),
        windows=Windows(size=window, zone=zone(name)) if window else None,
    )


NY, KOLKATA, LORD_HOWE = "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"
DAY, MONTH = WindowSize.DAY, WindowSize.MONTH
BY_HAND: list[tuple[str, Period, Level, list[Times], list[Times]]] = [
    (
        "all of it",
        period(None, None),
        SUBJECT_DAY,
        [("02 00:00", "07 00:00")],
        [],
    ),
    (
        "bounds of days",
        period("03 00:00", "05 00:00"),
        SUBJECT_DAY,
        [("03 00:00", "05 00:00")],
        [],
    ),
    (
        "bounds within days are edges, as far as they are asked for",
        period("03 06:30", "06 10:00"),
        SUBJECT_DAY,
        [("04 00:00", "06 00:00")],
        [("03 06:30", "04 00:00"), ("06 00:00", "06 10:00")],
    ),
    (
        "bounds beyond all facts cut nothing",
        period("02 09:00", "06 16:00"),
        SUBJECT_DAY,
        [("02 00:00", "07 00:00")],
        [],
    ),
    (
        "the last of them does",
        period("02 10:00", "06 14:59"),
        SUBJECT_DAY,
        [("02 00:00", "06 00:00")],
        [("06 00:00", "06 14:59")],
    ),
    ("nothing is there", period("07 00:00", "08 00:00"), SUBJECT_DAY, [], []),
    (
        "minutes fit any bound of minutes",
        period("03 06:31", "06 10:07"),
        MINUTE,
        [("03 06:31", "06 10:07")],
        [],
    ),
    (
        "days of a zone of half an hour of minutes",
        period(None, None, DAY, KOLKATA),
        MINUTE,
        [("02 10:00", "06 15:00")],
        [],
    ),
    (
        "of hours",
        period("04 18:30", None, DAY, KOLKATA),
        HOUR,
        [("04 19:00", "05 18:00"), ("05 19:00", "06 15:00")],
        [("04 18:30", "04 19:00"), ("05 18:00", "05 19:00")],
    ),
    (
        "of quarters",
        period(None, None, DAY, KOLKATA),
        QUARTER,
        [("02 10:00", "06 15:00")],
        [],
    ),
    (
        "days of UTC of days",
        period(None, None, DAY),
        SUBJECT_DAY,
        [("02 00:00", "07 00:00")],
        [],
    ),
    (
        "hours of UTC of hours, of a period of half hours",
        period("03 06:30", "05 06:30", WindowSize.HOUR),
        HOUR,
        [("03 07:00", "05 06:00")],
        [("03 06:30", "03 07:00"), ("05 06:00", "05 06:30")],
    ),
    (
        # October ends on the 1st at 04:00 UTC, before all facts: no bound of a month is inside.
        "months of New York of days",
        period(None, None, MONTH, NY),
        SUBJECT_DAY,
        [("02 00:00", "07 00:00")],
        [],
    ),
]


@pytest.mark.parametrize(
    ("asked", "level", "tiles", "edges"),
    [row[1:] for row in BY_HAND],
    ids=[row[0] for row in BY_HAND],
)
def test_a_period_is_tiled(
    asked: Period, level: Level, tiles: list[Times], edges: list[Times]
) -> None:
    found = Tiling(tiles=tiles_of(level, *spans(*tiles)), edges=spans(*edges))
    assert tile(asked, level) == found


@pytest.mark.parametrize(
    ("asked", "level"),
    [
        (period(None, None, DAY, NY), SUBJECT_DAY),
        (period(None, None, WindowSize.HOUR), SUBJECT_DAY),
        (period(None, None, WindowSize.MINUTE), QUARTER),
        (period("03 06:30", "04 20:00"), SUBJECT_DAY),
    ],
    ids=["every day is cut", "hours of days", "minutes", "no whole day"],
)
def test_a_level_that_can_not_help(asked: Period, level: Level) -> None:
    assert tile(asked, level) is None


def test_a_month_that_ends_within_is_an_edge() -> None:
    asked = Period(
        low=None,
        high=None,
        first=us_from_datetime(datetime(2026, 10, 1, tzinfo=UTC)),
        last=us_from_datetime(datetime(2026, 12, 1, tzinfo=UTC)),
        windows=Windows(size=MONTH, zone=zone(NY)),
    )
    found = tile(asked, SUBJECT_DAY)
    assert found is not None
    # October begins at 04:00 UTC, November too; December at 05:00, after all facts.
    october = us_from_datetime(datetime(2026, 10, 1, tzinfo=UTC))
    day = 86_400_000_000
    assert found.edges == ((october, october + day), (at("01 00:00"), at("02 00:00")))
    assert found.spans(SUBJECT_DAY) == (
        (october + day, at("01 00:00")),
        (at("02 00:00"), at("02 00:00") + 29 * day),
    )
    assert tile(asked, SUBJECT_DAY, SUBJECT_MONTH) == found


def test_days_around_a_change_of_half_an_hour() -> None:
    """On Lord Howe the clock goes back by half an hour on 2026-04-04 at 15:00 UTC.

    So the 5th begins at 13:00 UTC, and the 6th at 13:30.
    """
    april, hour = us_from_datetime(datetime(2026, 4, 4, tzinfo=UTC)), 3_600_000_000
    asked = Period(
        low=None,
        high=None,
        first=april,
        last=april + 48 * hour,
        windows=Windows(size=DAY, zone=zone(LORD_HOWE)),
    )
    whole = tiles_of(QUARTER, (april, april + 48 * hour))
    assert tile(asked, QUARTER) == Tiling(tiles=whole, edges=())
    cut = april + 37 * hour
    assert tile(asked, HOUR) == Tiling(
        tiles=tiles_of(HOUR, (april, cut), (cut + hour, april + 48 * hour)),
        edges=((cut, cut + hour),),
    )


def test_a_change_of_owners_cuts_the_window_that_it_is_in() -> None:
    cuts = frozenset((at("03 06:30"), at("04 00:00"), at("09 06:30")))
    found = tile(replace(period(None, None), cuts=cuts), SUBJECT_DAY)
    assert found == Tiling(
        tiles=tiles_of(SUBJECT_DAY, *spans(("02 00:00", "03 00:00"), ("04 00:00", "07 00:00"))),
        edges=spans(("03 00:00", "04 00:00")),
    )


MONTHS: list[
    tuple[str, int | None, int | None, frozenset[int], list[tuple[Level, int, int]], int]
] = [
    (
        "months that facts begin and end in reach beyond them",
        None,
        None,
        frozenset(),
        [(SUBJECT_MONTH, day_of(8, 1), day_of(12, 1))],
        0,
    ),
    (
        "bounds beyond all facts cut no month",
        day_of(8, 20),
        day_of(11, 21),
        frozenset(),
        [(SUBJECT_MONTH, day_of(8, 1), day_of(12, 1))],
        0,
    ),
    (
        "bounds inside leave days",
        day_of(9, 3),
        day_of(11, 5),
        frozenset(),
        [
            (SUBJECT_DAY, day_of(9, 3), day_of(10, 1)),
            (SUBJECT_MONTH, day_of(10, 1), day_of(11, 1)),
            (SUBJECT_DAY, day_of(11, 1), day_of(11, 5)),
        ],
        0,
    ),
    (
        "from the last of a month of 31 days",
        day_of(8, 31),
        day_of(10, 1),
        frozenset(),
        [
            (SUBJECT_DAY, day_of(8, 31), day_of(9, 1)),
            (SUBJECT_MONTH, day_of(9, 1), day_of(10, 1)),
        ],
        0,
    ),
    (
        "an owner who changes at midnight cuts a month, but not on its first day",
        None,
        None,
        frozenset((day_of(9, 1), day_of(10, 7))),
        [
            (SUBJECT_MONTH, day_of(8, 1), day_of(10, 1)),
            (SUBJECT_DAY, day_of(10, 1), day_of(11, 1)),
            (SUBJECT_MONTH, day_of(11, 1), day_of(12, 1)),
        ],
        0,
    ),
    (
        "an edge leaves the days around it",
        None,
        None,
        frozenset((day_of(10, 7) + 1,)),
        [
            (SUBJECT_MONTH, day_of(8, 1), day_of(10, 1)),
            (SUBJECT_DAY, day_of(10, 1), day_of(10, 7)),
            (SUBJECT_DAY, day_of(10, 8), day_of(11, 1)),
            (SUBJECT_MONTH, day_of(11, 1), day_of(12, 1)),
        ],
        1,
    ),
    (
        "no whole month",
        day_of(9, 2),
        day_of(9, 30),
        frozenset(),
        [(SUBJECT_DAY, day_of(9, 2), day_of(9, 30))],
        0,
    ),
]


@pytest.mark.parametrize(
    ("low", "high", "cuts", "tiles", "edges"),
    [row[1:] for row in MONTHS],
    ids=[row[0] for row in MONTHS],
)
@pytest.mark.parametrize("window", [None, MONTH])
def test_whole_months_stand_for_their_days(
    low: int | None,
    high: int | None,
    cuts: frozenset[int],
    tiles: list[tuple[Level, int, int]],
    edges: int,
    window: WindowSize | None,
) -> None:
    """Of facts from August 20 to November 20."""
    asked = Period(
        low=low,
        high=high,
        first=day_of(8, 20) + 7,
        last=day_of(11, 20) - 7,
        windows=Windows(size=window, zone=zone("UTC")) if window else None,
        cuts=cuts,
    )
    found = tile(asked, SUBJECT_DAY, SUBJECT_MONTH)
    assert found is not None
    assert (list(found.tiles), len(found.edges)) == (tiles, edges)


def test_days_are_never_read_as_months() -> None:
    asked = replace(period(None, None, DAY), first=day_of(8, 1), last=day_of(12, 1))
    assert tile(asked, SUBJECT_DAY, SUBJECT_MONTH) == tile(asked, SUBJECT_DAY)
