"""The filters of a partition, built again from the keys that ClickHouse holds.

One number per key crosses over, 8 bytes: the half of the hash that filters work with. A day is one
partition of the table and one query, so no append time is read.
"""

import math
import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import Final, TypeVar

import numpy as np
from clickhouse_connect.driver.exceptions import ClickHouseError

from tollgate.core.clock import datetime_from_us, us_from_datetime
from tollgate.events.dedupe import DAY_US, Numbers, SeenKeys
from tollgate.platform.clickhouse import DATABASE, ClickHouse, translated

Given = TypeVar("Given")
_BLOCKS_AHEAD: Final = 8
_LOOK_SECONDS: Final = 0.05
# Reading is not what takes longest, and other loaders read beside.
_ONE_THREAD: Final = {"max_threads": 1}
# Keys are even, and sorted: counting those of one day in so many parts reads that part alone.
_SAMPLED: Final = 64
_DEVIATIONS: Final = 3
# What stands in an older generation may stand in any of its partitions: their number was another.
_MINE: Final = "(log_generation != {generation:UInt32} OR log_partition = {partition:UInt16})"


class Stopped(Exception):
    """Filters are not wanted any more."""


def partition_of_day(day: int) -> str:
    """Name of the partition of `event_keys` that holds what was appended on a day since 1970."""
    return f"{datetime_from_us(day * DAY_US):%Y%m%d}"


def _day_of_partition(name: str) -> int:
    return us_from_datetime(datetime.strptime(name, "%Y%m%d").replace(tzinfo=UTC)) // DAY_US


def rebuild(
    clickhouse: ClickHouse,
    generation: int,
    partition: int,
    since_us: int,
    stop: threading.Event | None = None,
) -> SeenKeys:
    """Filters with every key that an event of the partition could repeat.

    Those are the keys of the same generation and partition, and all keys of other generations.

    Args:
        clickhouse: where `event_keys` stands.
        generation: of the log that is loaded.
        partition: the same.
        since_us: keys appended on an earlier day are left out.
        stop: set once the filters are not wanted any more: who takes the partition over waits for
            the end of this.

    Raises:
        Stopped: `stop` was set before they were whole.
        Transient: the engine is away, or ended before its answer did. PermanentFault: it refuses.
    """
    chosen: dict[str, object] = {"generation": generation, "partition": partition}
    days = _expected(clickhouse, chosen, partition_of_day(max(0, since_us) // DAY_US))
    seen = SeenKeys(expected=days)
    try:
        with closing(_ahead(_read_all(clickhouse, chosen, days))) as blocks:
            for day, numbers in blocks:
                # The end of the day: that its keys were appended earlier only keeps them longer.
                seen.add_numbers(numbers, (day + 1) * DAY_US - 1)
                if stop is not None and stop.is_set():
                    raise Stopped
    except (ClickHouseError, OSError, RuntimeError) as problem:
        raise translated(problem) from problem
    return seen


def _expected(clickhouse: ClickHouse, chosen: dict[str, object], first: str) -> dict[int, int]:
    """About how many keys will come, by day; hardly ever fewer than do."""
    since = chosen | {"first": first}
    # Without a condition on columns the engine answers from what it knows of its parts.
    rows = clickhouse.query(
        f"SELECT _partition_id, count() FROM {DATABASE}.event_keys"
        " WHERE _partition_id >= {first:String} GROUP BY _partition_id ORDER BY _partition_id",
        since,
    )
    sampled = clickhouse.query(
        f"SELECT _partition_id, count() FROM {DATABASE}.event_keys"
        " WHERE _partition_id >= {first:String} AND key BETWEEN 0 AND {last:UInt64}"
        f" AND {_MINE} GROUP BY _partition_id",
        since | {"last": (1 << 64) // _SAMPLED - 1},
    )
    sample = {str(name): int(count) for name, count in sampled}
    days = {}
    for name, count in rows:
        found = sample.get(str(name), 0)
        likely = found + _DEVIATIONS * (math.isqrt(found) + 1)
        days[_day_of_partition(str(name))] = min(int(count), _SAMPLED * likely)
    return days


def _read_all(
    clickhouse: ClickHouse, chosen: dict[str, object], days: Iterable[int]
) -> Generator[tuple[int, Numbers], None, None]:
    """Numbers of keys, day after day."""
    for day in days:
        for numbers in _read(clickhouse, chosen | {"day": partition_of_day(day)}):
            yield day, numbers


def _ahead(blocks: Generator[Given, None, None]) -> Generator[Given, None, None]:
    """The same, some of them ahead: the engine reads while filters are filled."""
    ready: queue.Queue[Given | Exception | None] = queue.Queue(_BLOCKS_AHEAD)
    unwanted = threading.Event()

    def read() -> None:
        end: Exception | None = None
        try:
            with closing(blocks):
                for block in blocks:
                    ready.put(block)
                    if unwanted.is_set():
                        break
        except Exception as problem:  # noqa: BLE001 -- raised again where it is waited for
            end = problem
        ready.put(end)

    reader = threading.Thread(target=read, name="rebuild", daemon=True)
    reader.start()
    try:
        while (block := ready.get()) is not None:
            if isinstance(block, Exception):
                raise block
            yield block
    finally:
        unwanted.set()
        while reader.is_alive():
            with suppress(queue.Empty):
                ready.get(timeout=_LOOK_SECONDS)


def _read(clickhouse: ClickHouse, chosen: dict[str, object]) -> Iterator[Numbers]:
    """Numbers of a day's keys, block by block, each block in order: parts are sorted by key."""
    # Through the driver's own reader: it notices an answer that ends in an error or too early. A
    # key that is missed here would be counted twice later.
    with clickhouse.client().query_np_stream(
        f"SELECT key FROM {DATABASE}.event_keys WHERE _partition_id = {{day:String}} AND {_MINE}",
        parameters=chosen,
        settings=_ONE_THREAD,
    ) as blocks:
        for block in blocks:
            yield np.asarray(block, np.uint64).reshape(-1)


def drop_keys_before(clickhouse: ClickHouse, before_us: int) -> None:
    """Drops the days of keys that end before an instant; none before 1970, where days wrap around.

    Raises:
        Transient: ClickHouse is away.
    """
    if before_us <= 0:
        return
    rows = clickhouse.query(
        "SELECT DISTINCT partition FROM system.parts WHERE database = {database:String}"
        " AND table = 'event_keys' AND active"
        " AND partition < toString(toDate(fromUnixTimestamp64Micro({before:Int64}, 'UTC')))",
        {"database": DATABASE, "before": before_us},
    )
    for (partition,) in rows:
        clickhouse.command(
            f"ALTER TABLE {DATABASE}.event_keys DROP PARTITION {{partition:String}}",
            {"partition": str(partition)},
        )
