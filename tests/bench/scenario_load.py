"""Load: events a second that were acknowledged and are counted by a query."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.baselines import INSERT, measure_insert
from tests.bench.event_requests import make_event_requests
from tests.bench.figures import Row
from tests.bench.load_generator import LoadResult, Target, run_closed_loop
from tests.bench.product import COUNT_METER, MeterReader, running_product
from tests.bench.rounds import Bench, refusals_of

_EVENTS_PER_REQUEST: Final = 100
_CONNECTIONS: Final = 32
_LOADED_SECONDS_MAX: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drained:
    """One round, rates in events a second; no `drained_rate` without a backlog worth timing."""

    acknowledged_rate: float
    loaded_rate: float
    drained_rate: float | None
    acknowledged: int
    counted: int
    backlog: int
    resident_mib: float
    refusals: dict[str, int]


async def measure_load(bench: Bench) -> list[Row]:
    """Fill, drain and compare with the bare insert, on a fresh data folder in every round.

    With settings that hold the loader, the whole backlog is there before the loader starts.
    Without, the loader runs while it is filled, and the backlog is what it left behind.
    """
    drained: list[_Drained] = []
    inserts: list[float] = []
    for round_number in range(bench.rounds):
        bench.noise.sample()
        folder = bench.folder / f"load-{round_number}"
        if round_number % 2:
            inserts.append(await measure_insert(bench.folder, bench.seconds))
        drained.append(await (_held(bench, folder) if bench.hold_loader else _live(bench, folder)))
        if not round_number % 2:
            inserts.append(await measure_insert(bench.folder, bench.seconds))
        last = drained[-1]
        bench.say(
            f"load: round {round_number + 1} of {bench.rounds}: "
            f"acknowledged {last.acknowledged_rate:,.0f}, loaded {last.loaded_rate:,.0f}, "
            f"{INSERT} {inserts[-1]:,.0f}"
        )
    return _rows(bench, drained, inserts)


def _rows(bench: Bench, drained: list[_Drained], inserts: list[float]) -> list[Row]:
    how = "loader held meanwhile" if bench.hold_loader else "loader running"
    notes = [
        "acknowledged {:,}, counted {:,}; backlog when sending ended {}".format(
            sum(one.acknowledged for one in drained),
            sum(one.counted for one in drained),
            ", ".join(f"{one.backlog:,}" for one in drained),
        ),
        f"resident afterwards {max(one.resident_mib for one in drained):,.0f} MiB",
    ]
    notes += [f"not 2xx: {one.refusals}" for one in drained if one.refusals]
    details: dict[str, object] = {
        "acknowledged": [one.acknowledged for one in drained],
        "counted": [one.counted for one in drained],
        "backlog": [one.backlog for one in drained],
        "resident_mib": [one.resident_mib for one in drained],
        "loader_held": bool(bench.hold_loader),
    }
    columns: list[tuple[str, list[float], list[float]]] = [
        (f"load acknowledged, {how}", [one.acknowledged_rate for one in drained], inserts),
        ("load acknowledged and counted", [one.loaded_rate for one in drained], inserts),
    ]
    timed = [(one.drained_rate, rate) for one, rate in zip(drained, inserts, strict=True)]
    pairs = [(mine, theirs) for mine, theirs in timed if mine is not None]
    if pairs and not bench.hold_loader:
        columns.append(
            ("load backlog drained", [mine for mine, _ in pairs], [rate for _, rate in pairs])
        )
    return [
        Row(
            scenario="load",
            label=label,
            unit="events/s",
            values=values,
            baseline=INSERT,
            baseline_values=baseline,
            notes=notes if index == 1 else (),
            details=details if index == 1 else {},
        )
        for index, (label, values, baseline) in enumerate(columns)
    ]


async def _fill(bench: Bench, target: Target, name: str) -> LoadResult:
    return await run_closed_loop(
        target,
        make_event_requests(name, _EVENTS_PER_REQUEST),
        connections=_CONNECTIONS,
        seconds=bench.seconds,
        warm_up_seconds=0,
    )


async def _live(bench: Bench, folder: Path) -> _Drained:
    """Fill with the loader running; `loaded_rate` is from the first POST until all are counted."""
    async with running_product(folder) as product:
        reader = MeterReader(product.target)
        started = time.perf_counter()
        result = await _fill(bench, product.target, folder.name)
        stopped = time.perf_counter()
        acknowledged = result.acknowledged * _EVENTS_PER_REQUEST
        backlog = acknowledged - int(await reader.total(COUNT_METER))
        counted = int(await reader.wait_for_total(COUNT_METER, acknowledged, _LOADED_SECONDS_MAX))
        ended = time.perf_counter()
        reader.close()
        return _Drained(
            acknowledged_rate=result.accepted_per_second * _EVENTS_PER_REQUEST,
            loaded_rate=counted / (ended - started),
            drained_rate=backlog / (ended - stopped) if backlog > acknowledged // 10 else None,
            acknowledged=acknowledged,
            counted=counted,
            backlog=backlog,
            resident_mib=product.resident_mib(),
            refusals=refusals_of(result),
        )


async def _held(bench: Bench, folder: Path) -> _Drained:
    """Fill without a loader, start again with it; `loaded_rate` is from ready until all count."""
    async with running_product(folder, environment=bench.hold_loader) as product:
        result = await _fill(bench, product.target, folder.name)
    acknowledged = result.acknowledged * _EVENTS_PER_REQUEST
    async with running_product(folder) as product:
        reader = MeterReader(product.target)
        started = time.perf_counter()
        already = int(await reader.total(COUNT_METER))
        counted = int(await reader.wait_for_total(COUNT_METER, acknowledged, _LOADED_SECONDS_MAX))
        ended = time.perf_counter()
        reader.close()
        return _Drained(
            acknowledged_rate=result.accepted_per_second * _EVENTS_PER_REQUEST,
            loaded_rate=(counted - already) / (ended - started),
            drained_rate=None,
            acknowledged=acknowledged,
            counted=counted,
            backlog=acknowledged - already,
            resident_mib=product.resident_mib(),
            refusals=refusals_of(result),
        )
