"""Query under load: a query's median while a backlog is loaded at full speed, and once it is."""

import re
import statistics
import time
from typing import Final

from tests.bench.event_requests import make_event_requests
from tests.bench.figures import Row
from tests.bench.http_client import HttpClient
from tests.bench.load_generator import run_closed_loop
from tests.bench.product import INGEST_ONLY, running_product
from tests.bench.rounds import Bench
from tests.bench.scenario_queries import run_usage
from tests.bench.usage_store import GENERATION, NUMBERED_TYPES
from tollgate.platform.disk import Disk
from tollgate.platform.segment_state import new_state, write_state

_EVENTS_PER_REQUEST: Final = 100
_CONNECTIONS: Final = 32
_SLUG: Final = "bench_tokens_used"
_METERS: Final = f"""  - slug: {_SLUG}
    eventType: {NUMBERED_TYPES[0]}
    aggregation: SUM
    valueProperty: $.tokens
    groupBy:
      model: $.model
      region: $.region
"""
_MONTH: Final = "from=2026-07-01T00:00:00Z&to=2026-08-01T00:00:00Z"
_PATHS: Final = {
    "one subject, one month": f"/api/v1/meters/{_SLUG}/query?{_MONTH}&subject=customer-00042",
    "per day, one month": f"/api/v1/meters/{_SLUG}/query?{_MONTH}&windowSize=DAY",
}
_LOADED: Final = re.compile(
    rb'^tollgate_load_events(?:_total)?\{outcome="stored"\} (\S+)$', re.MULTILINE
)
_LOADED_SECONDS_MAX: Final = 300
_WARM_UP: Final = 1
_IDLE_QUERIES: Final = 30


async def measure_query_under_load(bench: Bench) -> list[Row]:
    """In every round: fill the log without a loader, start whole, query until all is loaded."""
    folder = bench.folder / "query-load"
    engine = folder / "data" / "clickhouse"
    bench.say(f"query-under-load: storing {bench.events:,}")
    await run_usage("prepare", engine, "--events", str(bench.events), "--without-raw")
    # What is stored came from a log of before: the product's own begins with nothing.
    log = folder / "data" / "log"
    log.mkdir()
    write_state(log, new_state(generation=GENERATION + 1), Disk())
    loaded: dict[str, list[float]] = {name: [] for name in _PATHS}
    idle: dict[str, list[float]] = {name: [] for name in _PATHS}
    counts: list[int] = []
    for number in range(bench.rounds):
        bench.noise.sample()
        async with running_product(folder, environment=INGEST_ONLY, more_meters=_METERS) as product:
            sent = await run_closed_loop(
                product.events,
                make_event_requests(f"backlog-{number}", _EVENTS_PER_REQUEST),
                connections=_CONNECTIONS,
                seconds=bench.seconds,
                warm_up_seconds=0,
            )
        async with running_product(folder, more_meters=_METERS) as product:
            client = HttpClient(product.target)
            wanted = sent.acknowledged * _EVENTS_PER_REQUEST
            busy = await _query_until_loaded(client, wanted)
            quiet: dict[str, list[float]] = {name: [] for name in _PATHS}
            for _ in range(_IDLE_QUERIES):
                for name, path in _PATHS.items():
                    quiet[name].append(await _milliseconds(client, path))
            client.close()
        counts.append(min(map(len, busy.values())))
        for name in _PATHS:
            loaded[name].append(statistics.median(busy[name]))
            idle[name].append(statistics.median(quiet[name]))
        shown = ", ".join(f"{n} {loaded[n][-1]:.1f} and {idle[n][-1]:.1f} ms" for n in _PATHS)
        bench.say(f"query-under-load: round {number + 1} of {bench.rounds}: {shown}")
    return [
        Row(
            scenario="query-under-load",
            label=f"query while loading, median, {name}",
            unit="ms",
            values=loaded[name],
            baseline="the loader idle",
            baseline_values=idle[name],
            notes=[f"{bench.events:,} events stored; at least {min(counts)} queries a round"],
        )
        for name in _PATHS
    ]


async def _query_until_loaded(client: HttpClient, events: int) -> dict[str, list[float]]:
    """Milliseconds of queries that ended before the backlog did.

    Raises:
        RuntimeError: It never ended, or before enough could be asked.
    """
    found: dict[str, list[float]] = {name: [] for name in _PATHS}
    for _ in range(_WARM_UP):
        for path in _PATHS.values():
            await _milliseconds(client, path)
    deadline = time.perf_counter() + _LOADED_SECONDS_MAX
    while time.perf_counter() < deadline:
        taken = {name: await _milliseconds(client, path) for name, path in _PATHS.items()}
        if await loaded_events(client) >= events:
            if not all(found.values()):
                raise RuntimeError("the backlog was loaded at once: send for longer (--seconds)")
            return found
        for name, milliseconds in taken.items():
            found[name].append(milliseconds)
    raise RuntimeError("the backlog was not loaded in time")


async def _milliseconds(client: HttpClient, path: str) -> float:
    started = time.perf_counter()
    answer = await client.get(path)
    if answer.status != 200:
        raise RuntimeError(f"{path}: {answer.status} {answer.body[:500]!r}")
    return (time.perf_counter() - started) * 1000


async def loaded_events(client: HttpClient) -> int:
    """Return how many events were stored since the product was started."""
    answer = await client.get("/metrics")
    found = _LOADED.search(answer.body)
    if answer.status != 200 or found is None:
        raise RuntimeError(f"the metrics say nothing of what is loaded: {answer.status}")
    return int(float(found[1]))
