"""Ingest: durable acknowledgements a second over HTTP, with the loader running behind them."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from tests.bench.baselines import BARE, FLUSH, NOOP, measure_flushes
from tests.bench.event_requests import make_event_requests
from tests.bench.figures import Row, spread_of
from tests.bench.histogram import Histogram
from tests.bench.load_generator import LoadResult, Target, run_closed_loop
from tests.bench.processes import Server, noop_server
from tests.bench.product import COUNT_METER, MeterReader, running_product
from tests.bench.rounds import Bench, Measure, latency_note, refusals_of, take_turns

PRODUCT: Final = "product"
_WARM_UP_SECONDS: Final = 0.5
_LOADED_SECONDS_MAX: Final = 120


class _Load:
    """Sends the same load to several servers and keeps what each answered."""

    def __init__(
        self, bench: Bench, scenario: str, events_per_request: int, connections: int
    ) -> None:
        self._bench = bench
        self.events_per_request = events_per_request
        self._connections = connections
        self.label = f"{scenario} c={connections}"
        self._sources = 0
        self.latencies: dict[str, Histogram] = {}
        self.refusals: dict[str, int] = {}

    async def send(self, name: str, target: Target, seconds: float | None = None) -> LoadResult:
        self._sources += 1
        source = make_event_requests(f"{self.label}-{self._sources}", self.events_per_request)
        result = await run_closed_loop(
            target,
            source,
            connections=self._connections,
            seconds=self._bench.seconds if seconds is None else seconds,
        )
        self.latencies.setdefault(name, Histogram()).add(result.latencies)
        for kind, count in refusals_of(result).items():
            key = f"{name} {kind}"
            self.refusals[key] = self.refusals.get(key, 0) + count
        return result

    def forget(self) -> None:
        """Drop what the warm-up measured; its ids stay used."""
        self.latencies.clear()
        self.refusals.clear()

    def measure(self, name: str, target: Target) -> Measure:
        async def events_per_second() -> float:
            result = await self.send(name, target)
            return result.accepted_per_second * self.events_per_request

        return events_per_second


class _Counting:
    """What the product acknowledged under one load, and what its meter counted of it."""

    def __init__(self, load: _Load, product: Server, reader: MeterReader, before: int) -> None:
        self._load = load
        self._product = product
        self._reader = reader
        self._before = before
        self._answers = 0
        self.counted = 0

    @property
    def acknowledged(self) -> int:
        return self._answers * self._load.events_per_request

    async def ingest(self, seconds: float | None = None) -> float:
        """Return events acknowledged a second, after all of them are loaded.

        What is still loading would take processor time from the baseline's turn.
        """
        result = await self._load.send(PRODUCT, self._product.events, seconds)
        self._answers += result.acknowledged
        total = await self._reader.wait_for_total(
            COUNT_METER, self._before + self.acknowledged, _LOADED_SECONDS_MAX
        )
        self.counted = int(total) - self._before
        return result.accepted_per_second * self._load.events_per_request


async def measure_ingest(
    bench: Bench, scenario: str, events_per_request: int, all_connections: Sequence[int]
) -> list[Row]:
    """Measure POSTs of `events_per_request` events for every number of connections."""
    folder = bench.folder / scenario
    rows: list[Row] = []
    async with (
        running_product(folder, distributed=bench.distributed) as product,
        noop_server("asgi", folder / "asgi.log") as noop,
        noop_server("bare", folder / "bare.log") as bare,
    ):
        reader = MeterReader(product.target)
        try:
            for connections in all_connections:
                load = _Load(bench, scenario, events_per_request, connections)
                before = int(await reader.total(COUNT_METER))
                counting = _Counting(load, product, reader, before)
                await counting.ingest(_WARM_UP_SECONDS)
                load.forget()
                measures: dict[str, Measure] = {
                    PRODUCT: counting.ingest,
                    NOOP: load.measure(NOOP, noop.target),
                    BARE: load.measure(BARE, bare.target),
                    FLUSH: partial(measure_flushes, bench.folder, min(bench.seconds, 1)),
                }
                values = await take_turns(bench, load.label, measures)
                rows += _rows(scenario, load, counting, values, product.resident_mib())
        finally:
            reader.close()
    return rows


def _rows(
    scenario: str,
    load: _Load,
    counting: _Counting,
    values: Mapping[str, Sequence[float]],
    resident_mib: float,
) -> list[Row]:
    notes = [
        latency_note(name, h.percentile(50), h.percentile(99), h.maximum)
        for name, h in load.latencies.items()
        if name in (PRODUCT, NOOP)
    ]
    ceiling = spread_of(values[BARE]).median
    notes.append(f"the generator reaches {ceiling:,.0f} events/s against a {BARE}")
    notes.append(f"acknowledged {counting.acknowledged:,}, counted {counting.counted:,}")
    notes.append(f"resident afterwards {resident_mib:,.0f} MiB")
    if load.refusals:
        notes.append(f"not 2xx: {load.refusals}")
    details = {
        "latency_us": {
            name: {f"p{p}": h.percentile(p) for p in (50, 90, 99)} | {"max": h.maximum}
            for name, h in load.latencies.items()
        },
        "generator_ceiling": list(values[BARE]),
        "acknowledged": counting.acknowledged,
        "counted": counting.counted,
        "resident_mib": resident_mib,
        "refusals": load.refusals,
    }
    return [
        Row(
            scenario=scenario,
            label=load.label,
            unit="events/s",
            values=values[PRODUCT],
            baseline=NOOP,
            baseline_values=values[NOOP],
            notes=notes,
            details=details,
        ),
        Row(
            scenario=scenario,
            label=f"{load.label}, POSTs",
            unit="POST/s",
            values=[value / load.events_per_request for value in values[PRODUCT]],
            baseline=FLUSH,
            baseline_values=values[FLUSH],
            notes=("the ratio is how many POSTs must share one flush, if the disk is not to wait",),
        ),
    ]
