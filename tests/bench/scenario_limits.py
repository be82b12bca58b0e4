"""Limits: checks beside balances computed each time, reservations, and how soon usage counts."""

import asyncio
import itertools
import json
import random
import time
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from tests.bench.figures import Row
from tests.bench.histogram import Histogram
from tests.bench.http_client import HttpClient
from tests.bench.limits_house import (
    CUSTOMERS,
    FEATURES,
    HOT,
    MORE_METERS,
    PROBE,
    TYPE,
    event_requests,
    post,
    seed,
    send_events,
)
from tests.bench.load_generator import OpenLoop, Target, run_closed_loop
from tests.bench.processes import Server
from tests.bench.product import running_product, world_processes
from tests.bench.rounds import Bench, latency_note
from tollgate.core.clock import SystemClock
from tollgate.core.times import format_instant

_CHECKS_A_SECOND: Final = 500
_PAIR_CLIENTS: Final = 64
_PROBES: Final = 60
_EVENTS_A_SECOND: Final = 5000
_LOADED_SECONDS_MAX: Final = 600


async def measure_limits(bench: Bench) -> list[Row]:
    """Seed a product once; in every round check, compute and reserve, under a stream of events."""
    folder = bench.folder / "limits"
    async with running_product(
        folder, distributed=bench.distributed, more_meters=MORE_METERS
    ) as product:
        url = _database(folder / "data", distributed=bench.distributed)
        seeded = await asyncio.to_thread(seed, url)
        bench.say(f"limits: {seeded.customers:,} customers, {seeded.entitlements:,} entitlements")
        sent = await send_events(product.events, bench.limit_events)
        await _loaded(product.target, sent)
        bench.say(f"limits: {sent:,} events loaded")
        return await _measure(bench, product, sent)


async def _loaded(target: Target, events: int) -> None:
    """Wait until so many events are counted."""
    http, until = HttpClient(target), time.perf_counter() + _LOADED_SECONDS_MAX
    counted = 0
    while counted < events:
        if time.perf_counter() > until:
            raise RuntimeError(f"{counted:,} of {events:,} events were counted in time")
        await asyncio.sleep(0.5)
        answer = json.loads((await http.get("/api/v1/meters/limit_calls/query")).body)
        counted = sum(int(row["value"]) for row in answer["data"])
    http.close()


def _database(data: Path, *, distributed: bool) -> str:
    if distributed:
        return str(world_processes(data)["postgres"]["url"])
    return f"sqlite:///{data / 'control.sqlite'}"


@dataclass
class _Seen:
    """What all rounds saw."""

    medians: list[float] = field(default_factory=list)
    checks: list[float] = field(default_factory=list)
    computed: list[float] = field(default_factory=list)
    pairs: list[float] = field(default_factory=list)
    latencies: Histogram = field(default_factory=Histogram)
    waited: Histogram = field(default_factory=Histogram)
    visible: Histogram = field(default_factory=Histogram)


async def _measure(bench: Bench, product: Server, sent: int) -> list[Row]:
    cold = await _warm(product.target)
    bench.say(f"limits: all limits in memory after {cold:.1f} s")
    seen = _Seen()
    for number in range(bench.rounds):
        bench.noise.sample()
        await _beside_events(bench, product, seen, number)
        for source, rates in (
            (_checks(100 + number), seen.checks),
            (_values(number), seen.computed),
        ):
            result = await run_closed_loop(
                product.target, source, connections=32, seconds=bench.seconds
            )
            rates.append(result.accepted_per_second)
        seen.pairs.append(await _pairs(product.target, bench.seconds, seen.waited, number))
        bench.say(
            f"limits: round {number + 1} of {bench.rounds}: check p50 {seen.medians[-1]:.1f} ms, "
            f"{seen.checks[-1]:,.0f} checks/s, {seen.computed[-1]:,.0f} computed/s, "
            f"{seen.pairs[-1]:,.0f} pairs/s"
        )
    return _rows(seen, sent, cold)


async def _beside_events(bench: Bench, product: Server, seen: _Seen, number: int) -> None:
    """Check at a fixed rate, then probe, while events come."""
    stream = OpenLoop(
        product.events,
        event_requests(f"stream-{number}"),
        connections=8,
        per_second=_EVENTS_A_SECOND // 100,
    )
    await stream.start()
    await asyncio.sleep(1)
    found = Histogram()
    loop = OpenLoop(product.target, _checks(number), connections=32, per_second=_CHECKS_A_SECOND)
    await loop.start(seconds=bench.seconds)
    await asyncio.sleep(bench.seconds + 0.4)
    found.add((await loop.stop()).latencies)
    seen.latencies.add(found)
    seen.medians.append(found.percentile(50) / 1000)
    await _probe(product.target, seen.visible, number)
    await stream.stop()


def _rows(seen: _Seen, sent: int, cold: float) -> list[Row]:
    return [
        Row(
            scenario="limits",
            label=f"check at {_CHECKS_A_SECOND}/s, median",
            unit="ms",
            values=seen.medians,
            notes=[
                f"{sent:,} events, {CUSTOMERS:,} customers, {len(FEATURES)} features each",
                f"{_EVENTS_A_SECOND:,} events/s beside",
                latency_note("all rounds", *_figures(seen.latencies)),
                f"all {CUSTOMERS * len(FEATURES):,} limits read into memory in {cold:.1f} s",
            ],
        ),
        Row(
            scenario="limits",
            label="checks, c=32",
            unit="/s",
            values=seen.checks,
            baseline="the balance computed for each call",
            baseline_values=seen.computed,
        ),
        Row(
            scenario="limits",
            label=f"reserve and settle, {_PAIR_CLIENTS} clients, one customer",
            unit="pairs/s",
            values=seen.pairs,
            notes=[latency_note("each of the two", *_figures(seen.waited))],
        ),
        Row(
            scenario="limits",
            label="an event is in the check, median",
            unit="ms",
            values=[seen.visible.percentile(50) / 1000],
            notes=[latency_note(f"{seen.visible.total} probes", *_figures(seen.visible))],
        ),
    ]


def _figures(found: Histogram) -> tuple[int, int, int]:
    return found.percentile(50), found.percentile(99), found.maximum


def _checks(number: int) -> Any:
    shuffle = random.Random(number)
    made = [
        post(
            "/api/v1/limits/check",
            {
                "customer": f"customer-{shuffle.randrange(CUSTOMERS):05d}",
                "features": [{"feature": shuffle.choice(FEATURES), "amount": 1}],
            },
        )
        for _ in range(5000)
    ]
    turn = itertools.cycle(made)
    return lambda: next(turn)


def _values(number: int) -> Any:
    shuffle = random.Random(number)

    def request() -> bytes:
        customer = f"customer-{shuffle.randrange(CUSTOMERS):05d}"
        feature = shuffle.choice(FEATURES)
        # With a time it is evaluated, never taken from memory.
        query = f"time={format_instant(SystemClock().now())}"
        path = f"/api/v2/customers/{customer}/entitlements/{feature}/value?{query}"
        return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()

    return request


async def _warm(target: Target) -> float:
    """Ask for every limit once; return the seconds that it took."""
    names = iter([f"customer-{number:05d}" for number in range(CUSTOMERS)] + [HOT, PROBE])
    started = time.perf_counter()

    async def client() -> None:
        http = HttpClient(target)
        for name in names:
            body = {"customer": name, "features": [{"feature": key} for key in FEATURES]}
            answer = await http.send(post("/api/v1/limits/check", body))
            if answer.status != 200:
                raise RuntimeError(f"check: {answer.status} {answer.body[:500]!r}")
        http.close()

    await asyncio.gather(*(client() for _ in range(64)))
    return time.perf_counter() - started


async def _pairs(target: Target, seconds: float, waited: Histogram, number: int) -> float:
    """Reserve and settle by many clients on one customer; return pairs a second."""
    until = time.perf_counter() + seconds
    done = 0

    async def client(mine: int) -> None:
        nonlocal done
        http = HttpClient(target)
        for turn in itertools.count():
            if time.perf_counter() > until:
                break
            key = f"{number}-{mine}-{turn}"
            amounts = [{"feature": "tokens", "amount": 5}]
            body = {"customer": HOT, "amounts": amounts, "idempotencyKey": key}
            held = json.loads(await _timed(http, "/api/v1/limits/reservations", body, waited))
            settle = {"amounts": [{"feature": "tokens", "amount": 3}], "position": "1;0:0"}
            await _timed(http, f"/api/v1/limits/reservations/{held['id']}/settle", settle, waited)
            done += 1
        http.close()

    await asyncio.gather(*(client(each) for each in range(_PAIR_CLIENTS)))
    return done / seconds


async def _timed(http: HttpClient, path: str, body: object, waited: Histogram) -> bytes:
    started = time.perf_counter_ns()
    answer = await http.send(post(path, body))
    waited.record((time.perf_counter_ns() - started) // 1000)
    if answer.status not in (200, 201):
        raise RuntimeError(f"{path}: {answer.status} {answer.body[:500]!r}")
    return answer.body


async def _probe(target: Target, visible: Histogram, number: int) -> None:
    """From sending an event to the check that knows of it, one after another."""
    http, shuffle = HttpClient(target), random.Random(number)
    check = post("/api/v1/limits/check", {"customer": PROBE, "features": [{"feature": "calls"}]})

    async def usage() -> Decimal:
        answer = json.loads((await http.send(check)).body)
        return Decimal(answer["limits"][0]["usage"])

    known = await usage()
    for turn in range(_PROBES // 3):
        await asyncio.sleep(shuffle.uniform(0, 0.25))
        event = {
            "specversion": "1.0",
            "id": f"probe-{number}-{turn}",
            "source": "bench/probe",
            "type": TYPE,
            "subject": PROBE,
            "data": {"tokens": 1, "model": "small"},
        }
        started = time.perf_counter_ns()
        body = json.dumps(event).encode()
        head = (
            "POST /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            "Content-Type: application/cloudevents+json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        answer = await http.send(head.encode() + body)
        if answer.status != 204:
            raise RuntimeError(f"a probe: {answer.status} {answer.body[:500]!r}")
        while await usage() <= known:  # noqa: ASYNC110 -- another process counts
            await asyncio.sleep(0.01)
        known += 1
        visible.record((time.perf_counter_ns() - started) // 1000)
    http.close()
