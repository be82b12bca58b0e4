"""Stored keys: a table of many millions made inside the engine, then a loader's start on it.

A process of its own each time, because an embedded engine allows one data path per process and a
restart is what is measured. `prepare` fills the folder; `measure` prints one JSON object.
"""

import argparse
import gc
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.bench.processes import resident_mib
from tollgate.events.dedupe import DAY_US, SeenKeys, numbers_of
from tollgate.events.rebuild import partition_of_day, rebuild
from tollgate.events.stored_claims import stored_claims
from tollgate.platform.clickhouse import DATABASE, ClickHouse
from tollgate.platform.clickhouse_schema import migrate_clickhouse

DAYS = 37
"""Days of the default dedupe window and its slack; each holds as many keys."""
BATCH = 100_000
HITS = 1000
_FIRST_DAY = 20_700
_GENERATION, _PARTITION = 1, 0
_REPEATS = 7
_KEY = "sipHash64(number)"


def prepare(
    clickhouse: ClickHouse, keys: int, *, first_day: int = _FIRST_DAY, partitions: int = 1
) -> None:
    """Store `keys` keys, evenly over the days and the log's partitions."""
    for number in range(DAYS):
        start, end = keys * number // DAYS, keys * (number + 1) // DAYS
        clickhouse.command(
            f"INSERT INTO {DATABASE}.event_keys"
            f" SELECT {_KEY}, sipHash64(number, 1), {{generation:UInt32}},"
            " toUInt16({partition:UInt16} + number % {partitions:UInt16}),"
            " intDiv(number, 100), number % 100, {day:UInt16}"
            " FROM numbers({start:UInt64}, {count:UInt64}) SETTINGS optimize_on_insert = 0",
            {
                "generation": _GENERATION,
                "partition": _PARTITION,
                "partitions": partitions,
                "day": first_day + number,
                "start": start,
                "count": end - start,
            },
        )


def measure(clickhouse: ClickHouse, keys: int, started: float) -> dict[str, float]:
    """Measure a start on the prepared folder and what the filters then cost.

    Args:
        clickhouse: on the folder.
        keys: that `prepare` stored.
        started: by the clock of all processes, when this one was asked for.
    """
    clickhouse.client()
    engine_mib = resident_mib()
    seen = rebuild(clickhouse, _GENERATION, _PARTITION, _FIRST_DAY * DAY_US)
    ready = time.monotonic() - started
    gc.collect()
    figures = {"ready_seconds": ready, "resident_mib": resident_mib(), "engine_mib": engine_mib}
    if seen.count != keys:
        raise RuntimeError(f"{keys} keys were stored, the filters hold {seen.count}")
    figures["filters_mib"] = seen.size_bytes / 2**20
    figures["scan_seconds"] = _seconds(lambda: _scan(clickhouse), 3)
    return figures | _measure_claims(clickhouse, seen, keys) | _measure_filters(seen)


def _scan(clickhouse: ClickHouse) -> None:
    clickhouse.query(f"SELECT sum(cityHash64(key)) FROM {DATABASE}.event_keys")


def _measure_filters(seen: SeenKeys) -> dict[str, float]:
    """Milliseconds for a batch, and the share of keys named wrongly; adds keys to the filters."""
    generator = np.random.default_rng()
    batches = iter([_hashes(generator) for _ in range(_REPEATS)])
    wrong = np.count_nonzero(seen.contains(_hashes(generator))) / BATCH
    today = (_FIRST_DAY + DAYS - 1) * DAY_US

    def look_up_and_add() -> None:
        hashes = next(batches)
        seen.days_of(hashes)
        seen.add(hashes, today)

    memory = np.zeros(seen.size_bytes // 8, np.uint64)
    memory[:] = 1
    places = generator.integers(0, len(memory), BATCH)
    return {
        "batch_milliseconds": _seconds(look_up_and_add, _REPEATS) * 1000,
        "memory_milliseconds": _seconds(lambda: memory.take(places), _REPEATS) * 1000,
        "wrong_percent": 100 * wrong,
    }


def _measure_claims(clickhouse: ClickHouse, seen: SeenKeys, keys: int) -> dict[str, float]:
    """Milliseconds to read the claims of keys of the last day, beside a scan of that day."""
    generator = np.random.default_rng()
    first = keys * (DAYS - 1) // DAYS
    lookups = []
    for _ in range(_REPEATS):
        numbers = generator.choice(keys - first, HITS, replace=False) + first
        lookups.append(_wanted(clickhouse, seen, numbers.tolist()))
    named = float(sum(sum(map(len, wanted.values())) for wanted in lookups)) / _REPEATS
    left = iter(lookups)

    def look_up() -> None:
        if len(stored_claims(clickhouse, next(left))) != HITS:
            raise RuntimeError("a stored claim was not found")

    def scan_day() -> None:
        clickhouse.query(
            f"SELECT sum(cityHash64(*)) FROM {DATABASE}.event_keys"
            " WHERE _partition_id = {day:String}",
            {"day": partition_of_day(_FIRST_DAY + DAYS - 1)},
        )

    return {
        "claims_milliseconds": _seconds(look_up, _REPEATS) * 1000,
        "scan_day_milliseconds": _seconds(scan_day, _REPEATS) * 1000,
        "claims_named": named,
    }


def _wanted(clickhouse: ClickHouse, seen: SeenKeys, numbers: Sequence[int]) -> dict[int, list[int]]:
    """What a batch with those stored keys among new ones would look up."""
    rows: Sequence[Sequence[Any]] = clickhouse.query(
        f"SELECT {_KEY} FROM (SELECT arrayJoin({{numbers:Array(UInt64)}}) AS number)",
        {"numbers": list(numbers)},
    )
    hashes = _hashes(np.random.default_rng())
    # A key's number is the second half of its hash, big endian.
    hashes[:HITS, 1] = np.array([row[0] for row in rows], np.uint64).byteswap()
    keys = numbers_of(hashes)
    return {day: keys[events].tolist() for day, events in seen.days_of(hashes).items()}


def _hashes(generator: np.random.Generator) -> npt.NDArray[np.uint64]:
    return generator.integers(0, 1 << 64, (BATCH, 2), dtype=np.uint64)


def _seconds(work: Callable[[], object], repeats: int) -> float:
    """Median over the repeats."""
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))


def main() -> None:
    """Do one of both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("prepare", "measure"))
    parser.add_argument("--folder", type=Path, required=True, help="of the engine")
    parser.add_argument("--keys", type=int, required=True)
    parser.add_argument("--started", type=float, default=0, help="time.monotonic() of the caller")
    arguments = parser.parse_args()
    with ClickHouse(path=arguments.folder) as clickhouse:
        if arguments.task == "prepare":
            migrate_clickhouse(clickhouse)
            prepare(clickhouse, arguments.keys)
        else:
            print(json.dumps(measure(clickhouse, arguments.keys, arguments.started)))


if __name__ == "__main__":
    main()
