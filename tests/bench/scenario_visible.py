"""Visible: from sending an event to the first query that counts it, in a stream of others."""

import asyncio
import random
import time
from typing import Final

from tests.bench.event_requests import make_event_requests
from tests.bench.figures import Row
from tests.bench.histogram import Histogram
from tests.bench.http_client import HttpClient
from tests.bench.load_generator import OpenLoop, Target
from tests.bench.product import (
    COUNT_METER,
    PROBE_LANES,
    MeterReader,
    probe_meter,
    probe_type,
    running_product,
)
from tests.bench.rounds import Bench, latency_note, refusals_of

_CONNECTIONS: Final = 64
_POLL_SECONDS: Final = 0.01
_SPREAD_SECONDS: Final = 0.25
_VISIBLE_SECONDS_MAX: Final = 30
_FLOOR_PROBES: Final = 10
_LOADED_SECONDS_MAX: Final = 120


class _Lane:
    """One probe at a time, each counted by the meter of this lane only."""

    def __init__(self, target: Target, number: int) -> None:
        self._source = make_event_requests(f"probe-{number}", 1, probe_type(number))
        self._meter = probe_meter(number)
        self._client = HttpClient(target)
        self._reader = MeterReader(target)
        self._shuffle = random.Random(number)
        self._sent = 0

    def close(self) -> None:
        self._client.close()
        self._reader.close()

    async def _post(self) -> int:
        """Send one marked event and return the instant before it was sent, in nanoseconds."""
        started_ns = time.perf_counter_ns()
        answer = await self._client.send(self._source())
        if answer.status != 204:
            raise RuntimeError(f"a probe was answered with {answer.status}: {answer.body[:500]!r}")
        self._sent += 1
        return started_ns

    async def floor(self) -> int:
        """Return microseconds of one POST and one query: what an instant loader would give."""
        started_ns = await self._post()
        await self._reader.total(self._meter)
        return (time.perf_counter_ns() - started_ns) // 1000

    async def settle(self) -> None:
        """Wait until everything sent so far is counted."""
        await self._reader.wait_for_total(self._meter, self._sent, _LOADED_SECONDS_MAX)

    async def probe(self) -> int:
        """Return microseconds from sending one event to the answer that counts it.

        Raises:
            RuntimeError: It was not counted within the limit.
        """
        # Without a random pause every probe would start right after a batch and wait the longest.
        await asyncio.sleep(self._shuffle.uniform(0, _SPREAD_SECONDS))
        started_ns = await self._post()
        while await self._reader.total(self._meter) < self._sent:
            if time.perf_counter_ns() - started_ns > _VISIBLE_SECONDS_MAX * 1_000_000_000:
                raise RuntimeError(f"a probe was not visible within {_VISIBLE_SECONDS_MAX} s")
            await asyncio.sleep(_POLL_SECONDS)
        return (time.perf_counter_ns() - started_ns) // 1000


class _Seen:
    """What all rounds saw."""

    def __init__(self) -> None:
        self.visible = Histogram()
        self.posts = Histogram()
        self.medians: list[float] = []
        self.tails: list[float] = []
        self.floors: list[float] = []
        self.rates: list[float] = []
        self.refusals: list[dict[str, int]] = []
        self.acknowledged = 0


async def measure_visible(bench: Bench) -> list[Row]:
    """Probe in every round, first the floor on an idle product, then under the stream."""
    seen = _Seen()
    async with running_product(bench.folder / "visible", distributed=bench.distributed) as product:
        lanes = [_Lane(product.target, number) for number in range(PROBE_LANES)]
        reader = MeterReader(product.target)
        try:
            for round_number in range(bench.rounds):
                bench.noise.sample()
                await _measure_round(bench, product.events, lanes, seen, round_number)
                wanted = seen.acknowledged * bench.visible_batch
                await reader.wait_for_total(COUNT_METER, wanted, _LOADED_SECONDS_MAX)
                bench.say(
                    f"visible: round {round_number + 1} of {bench.rounds}: median "
                    f"{seen.medians[-1]:,.0f} ms, floor {seen.floors[-1]:,.1f} ms"
                )
            return _rows(bench, seen, int(await reader.total(COUNT_METER)), product.resident_mib())
        finally:
            for lane in lanes:
                lane.close()
            reader.close()


async def _measure_round(
    bench: Bench, target: Target, lanes: list[_Lane], seen: _Seen, round_number: int
) -> None:
    floor = Histogram()
    for lane in lanes:
        for _ in range(_FLOOR_PROBES):
            floor.record(await lane.floor())
        await lane.settle()
    stream = OpenLoop(
        target,
        make_event_requests(f"stream-{round_number}", bench.visible_batch),
        connections=_CONNECTIONS,
        per_second=max(1, bench.visible_rate // bench.visible_batch),
    )
    await stream.start()
    await asyncio.sleep(bench.seconds / 2)
    visible = Histogram()
    each = -(-bench.probes // (bench.rounds * len(lanes)))

    async def run(lane: _Lane) -> None:
        for _ in range(each):
            visible.record(await lane.probe())

    try:
        await asyncio.gather(*(run(lane) for lane in lanes))
    finally:
        result = await stream.stop()
    seen.visible.add(visible)
    seen.posts.add(result.latencies)
    seen.medians.append(visible.percentile(50) / 1000)
    seen.tails.append(visible.percentile(99) / 1000)
    seen.floors.append(floor.percentile(50) / 1000)
    seen.rates.append(result.accepted_per_second * bench.visible_batch)
    seen.refusals.append(refusals_of(result))
    seen.acknowledged += result.acknowledged


def _rows(bench: Bench, seen: _Seen, counted: int, resident_mib: float) -> list[Row]:
    visible, posts = seen.visible, seen.posts
    p50, p99 = visible.percentile(50), visible.percentile(99)
    notes = [
        f"{visible.total} probes, all rounds: "
        + latency_note("visible", p50, p99, visible.maximum),
        f"polled every {_POLL_SECONDS * 1000:.0f} ms after each answer, {PROBE_LANES} at a time",
        f"stream {min(seen.rates):,.0f} to {max(seen.rates):,.0f} events/s, "
        f"{bench.visible_rate:,} wanted, {bench.visible_batch} per POST; "
        + latency_note("POST", posts.percentile(50), posts.percentile(99), posts.maximum),
        f"stream acknowledged {seen.acknowledged * bench.visible_batch:,}, counted {counted:,}",
        f"resident afterwards {resident_mib:,.0f} MiB",
    ]
    notes += [f"not 2xx: {refusals}" for refusals in seen.refusals if refusals]
    details = {
        "probes": visible.total,
        "visible_us": {f"p{p}": visible.percentile(p) for p in (50, 90, 99)}
        | {"max": visible.maximum},
        "post_us": {f"p{p}": posts.percentile(p) for p in (50, 90, 99)} | {"max": posts.maximum},
        "stream_events_per_second": seen.rates,
        "resident_mib": resident_mib,
    }
    floor = "a POST and a query, idle"
    return [
        Row(
            scenario="visible",
            label="visible, median",
            unit="ms",
            values=seen.medians,
            baseline=floor,
            baseline_values=seen.floors,
            notes=notes,
            details=details,
        ),
        Row(
            scenario="visible",
            label="visible, p99 of the round",
            unit="ms",
            values=seen.tails,
            baseline=floor,
            baseline_values=seen.floors,
        ),
    ]
