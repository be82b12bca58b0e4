"""Load: events a second that were acknowledged and are counted by a query."""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from tests.bench.baselines import INSERT, measure_insert
from tests.bench.event_requests import make_event_requests
from tests.bench.figures import Row
from tests.bench.load_generator import LoadResult, Target, run_closed_loop
from tests.bench.processes import Server
from tests.bench.product import COUNT_METER, INGEST_ONLY, MeterReader, running_product
from tests.bench.rounds import Bench, refusals_of, take_turns

_EVENTS_PER_REQUEST: Final = 100
_CONNECTIONS: Final = 32
_LOADED_SECONDS_MAX: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """One fill and what became of it; rates in events a second."""

    acknowledged_rate: float
    loaded_rate: float
    acknowledged: int
    counted: int
    backlog: int
    resident_mib: float
    refusals: dict[str, int]


async def measure_load(bench: Bench) -> list[Row]:
    """Compare loading with the bare insert, on a fresh data folder every time.

    Backlog: filled by a product that serves ingest alone, then started whole. Live: the loader runs
    while events are sent.
    """
    held: list[_Loaded] = []
    live: list[_Loaded] = []

    async def drain_backlog() -> float:
        held.append(await _measure_held(bench, bench.folder / f"load-held-{len(held)}"))
        return held[-1].loaded_rate

    async def load_live() -> float:
        live.append(await _measure_live(bench, bench.folder / f"load-live-{len(live)}"))
        return live[-1].loaded_rate

    values = await take_turns(
        bench,
        "load",
        {
            "backlog": drain_backlog,
            "live": load_live,
            INSERT: partial(measure_insert, bench.folder, bench.seconds),
        },
    )
    inserts = values[INSERT]
    return [
        _row("load, backlog counted after a start", held, values["backlog"], inserts),
        _row("load, sent and counted, loader running", live, values["live"], inserts),
        Row(
            scenario="load",
            label="load, acknowledged, loader running",
            unit="events/s",
            values=[one.acknowledged_rate for one in live],
            baseline=INSERT,
            baseline_values=inserts,
        ),
    ]


def _row(label: str, rounds: list[_Loaded], values: list[float], inserts: list[float]) -> Row:
    acknowledged = sum(one.acknowledged for one in rounds)
    counted = sum(one.counted for one in rounds)
    backlogs = ", ".join(f"{one.backlog:,}" for one in rounds)
    notes = [
        f"acknowledged {acknowledged:,}, counted {counted:,}; not yet counted at first: {backlogs}",
        f"resident afterwards {max(one.resident_mib for one in rounds):,.0f} MiB",
    ]
    notes += [f"not 2xx: {one.refusals}" for one in rounds if one.refusals]
    return Row(
        scenario="load",
        label=label,
        unit="events/s",
        values=values,
        baseline=INSERT,
        baseline_values=inserts,
        notes=notes,
        details={
            "acknowledged": [one.acknowledged for one in rounds],
            "counted": [one.counted for one in rounds],
            "backlog": [one.backlog for one in rounds],
            "resident_mib": [one.resident_mib for one in rounds],
        },
    )


async def _fill(bench: Bench, target: Target, name: str) -> LoadResult:
    return await run_closed_loop(
        target,
        make_event_requests(name, _EVENTS_PER_REQUEST),
        connections=_CONNECTIONS,
        seconds=bench.seconds,
        warm_up_seconds=0,
    )


async def _measure_live(bench: Bench, folder: Path) -> _Loaded:
    """Fill with the loader running; `loaded_rate` is from the first POST until all are counted."""
    async with running_product(folder, distributed=bench.distributed) as product:
        started = time.perf_counter()
        result = await _fill(bench, product.events, folder.name)
        return await _wait_until_counted(product, result, started, from_start=True)


async def _measure_held(bench: Bench, folder: Path) -> _Loaded:
    """Fill without a loader, then let it work; `loaded_rate` is from there until all count.

    Embedded: started again with it. Distributed: the loaders are stopped and go on, before the
    group misses them.
    """
    if bench.distributed:
        async with running_product(folder, distributed=True) as product:
            loaders = [pid for name, pid in product.functions.items() if name.startswith("load")]
            _send_all(loaders, signal.SIGSTOP)
            try:
                result = await _fill(bench, product.events, folder.name)
            finally:
                _send_all(loaders, signal.SIGCONT)
            return await _wait_until_counted(product, result, time.perf_counter(), from_start=False)
    async with running_product(folder, environment=INGEST_ONLY) as product:
        result = await _fill(bench, product.target, folder.name)
    async with running_product(folder) as product:
        return await _wait_until_counted(product, result, time.perf_counter(), from_start=False)


def _send_all(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, number)


async def _wait_until_counted(
    product: Server, result: LoadResult, started: float, *, from_start: bool
) -> _Loaded:
    """Wait until the meter counts all; without `from_start` what it counts already is no work."""
    reader = MeterReader(product.target)
    acknowledged = result.acknowledged * _EVENTS_PER_REQUEST
    already = int(await reader.total(COUNT_METER))
    counted = int(await reader.wait_for_total(COUNT_METER, acknowledged, _LOADED_SECONDS_MAX))
    seconds = time.perf_counter() - started
    reader.close()
    return _Loaded(
        acknowledged_rate=result.accepted_per_second * _EVENTS_PER_REQUEST,
        loaded_rate=(counted if from_start else counted - already) / seconds,
        acknowledged=acknowledged,
        counted=counted,
        backlog=acknowledged - already,
        resident_mib=product.resident_mib(),
        refusals=refusals_of(result),
    )
