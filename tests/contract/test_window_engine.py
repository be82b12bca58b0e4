"""The store computes the same windows as Python: every zone, every size, around every change."""

from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from clickhouse_connect.driver.client import Client

from tollgate.core.times import EARLIEST, EARLIEST_US, LATEST, LATEST_US
from tollgate.metering.window import Windows, WindowSize, Zone, zone, zone_names

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
STEPS = (0, 1, 29 * 60_000_000, 59_999_999, 3_600_000_000, 86_400_000_000 - 1, 86_400_000_000)


@pytest.fixture(scope="module")
def instants_table(engine: Client) -> str:
    engine.command("CREATE DATABASE IF NOT EXISTS window_engine")
    engine.command(
        "CREATE OR REPLACE TABLE window_engine.instants (number UInt32, time DateTime64(6, 'UTC'))"
        " ENGINE = Memory"
    )
    return "window_engine.instants"


def microseconds(instant: datetime) -> int:
    return (instant - EPOCH) // MICROSECOND


def starts_in_engine(engine: Client, table: str, windows: Windows, times: list[int]) -> list[int]:
    rows = "".join(
        f"{number}\t{(EPOCH + at * MICROSECOND).replace(tzinfo=None).isoformat(sep=' ')}\n"
        for number, at in enumerate(times)
    )
    engine.command(f"TRUNCATE TABLE {table}")
    engine.raw_insert(table, ["number", "time"], rows, fmt="TSV")
    found = engine.query(
        f"SELECT toUnixTimestamp64Micro(time), {windows.sql('time')} FROM {table} ORDER BY number"
    ).result_rows
    assert [row[0] for row in found] == times
    return [row[1] for row in found]


def instants_around_changes(random: Random, asked: Zone, low: int, high: int) -> list[int]:
    times = [random.randrange(low, high) for _ in range(8)]
    for change in asked.changes(low, high - 1):
        times += [change.at + sign * step for step in STEPS for sign in (-1, 1)]
        times += [change.at + random.randrange(-2 * 86_400_000_000, 2 * 86_400_000_000)]
    return sorted(at for at in times if low <= at < high)


def check(engine: Client, table: str, windows: Windows, times: list[int]) -> None:
    found = starts_in_engine(engine, table, windows, times)
    expected = [microseconds(windows.start_of(EPOCH + at * MICROSECOND)) for at in times]
    assert found == expected, (windows.zone.name, windows.size, windows.low, windows.high)
    for start in set(found):
        windows.bounds(start)


@pytest.mark.parametrize("size", WindowSize)
def test_every_zone_agrees(engine: Client, instants_table: str, size: WindowSize) -> None:
    random = Random(f"zones {size}")
    for name in sorted(zone_names()):
        first = random.choice([1900, 1919, 1940, 1967, 1985, 2007, 2010, 2011, 2024, 2240])
        low = datetime(first, 1, 1, tzinfo=UTC) + timedelta(hours=random.randrange(2000))
        high = low + timedelta(days=random.choice([3, 200, 900]), microseconds=1)
        windows = Windows(size=size, zone=zone(name), low=low, high=high)
        times = instants_around_changes(random, windows.zone, microseconds(low), microseconds(high))
        check(engine, instants_table, windows, times)


@pytest.mark.parametrize("size", WindowSize)
@pytest.mark.parametrize(
    "name",
    ["UTC", "America/New_York", "America/St_Johns", "Pacific/Apia", "Australia/Lord_Howe",
     "America/Santiago", "Africa/Casablanca", "Pacific/Kwajalein", "Asia/Kathmandu"],
)  # fmt: skip
def test_the_whole_range_of_event_times_agrees(
    engine: Client, instants_table: str, name: str, size: WindowSize
) -> None:
    windows = Windows(size=size, zone=zone(name))
    times = instants_around_changes(
        Random(name), windows.zone, microseconds(EARLIEST), microseconds(LATEST)
    )
    times = [EARLIEST_US, EARLIEST_US + 1, *times[:: max(1, len(times) // 2000)], LATEST_US]
    check(engine, instants_table, windows, times)
