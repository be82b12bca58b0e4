"""Loading beside rollups: a backlog loaded while runs follow each other without a pause."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests.bench.event_requests import make_event_requests
from tests.bench.figures import Row
from tests.bench.http_client import HttpClient
from tests.bench.load_generator import Target, run_closed_loop
from tests.bench.product import INGEST_ONLY, running_product
from tests.bench.rounds import Bench
from tests.bench.scenario_query_load import loaded_events

_EVENTS_PER_REQUEST: Final = 100
_CONNECTIONS: Final = 32
_LOADED_SECONDS_MAX: Final = 300
_POLL_SECONDS: Final = 0.05
_RUN: Final = b"POST /_/rollup HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"


async def measure_load_beside_rollup(bench: Bench) -> list[Row]:
    """In every round twice: fill a log without a loader, start whole, wait until all is loaded."""
    alone: list[float] = []
    beside: list[float] = []
    runs: list[int] = []
    for number in range(bench.rounds):
        bench.noise.sample()
        # In turns: who goes first finds another machine.
        for rolling in (number % 2 == 0, number % 2 == 1):
            rate, count = await _load(bench, rolling=rolling)
            (beside if rolling else alone).append(rate)
            runs += [count] if rolling else []
        bench.say(
            f"load-beside-rollup: round {number + 1} of {bench.rounds}: {beside[-1]:,.0f},"
            f" without rollups {alone[-1]:,.0f} events/s"
        )
    return [
        Row(
            scenario="load-beside-rollup",
            label="load, a backlog counted, rollups run on and on",
            unit="events/s",
            values=beside,
            baseline="no rollup meanwhile",
            baseline_values=alone,
            notes=[
                f"one ran at any moment, at most {max(runs)} ended; the product begins one a minute"
            ],
        )
    ]


async def _load(bench: Bench, *, rolling: bool) -> tuple[float, int]:
    """Return events loaded a second, and rollups that ended meanwhile."""
    with tempfile.TemporaryDirectory(dir=bench.folder) as scratch:
        folder = Path(scratch) / "product"
        async with running_product(folder, environment=INGEST_ONLY) as product:
            sent = await run_closed_loop(
                product.events,
                make_event_requests("backlog", _EVENTS_PER_REQUEST),
                connections=_CONNECTIONS,
                seconds=bench.seconds,
                warm_up_seconds=0,
            )
        events = sent.acknowledged * _EVENTS_PER_REQUEST
        async with running_product(folder) as product:
            started = time.perf_counter()
            if rolling:
                async with _rollups(product.target) as ended:
                    await _until_loaded(product.target, events)
            else:
                ended = []
                await _until_loaded(product.target, events)
            return events / (time.perf_counter() - started), len(ended)


@asynccontextmanager
async def _rollups(target: Target) -> AsyncIterator[list[int]]:
    """Run rollups one after the other; yield the statuses of those that ended."""
    ended: list[int] = []

    async def run() -> None:
        client = HttpClient(target)
        try:
            while True:
                answer = await client.send(_RUN)
                if answer.status >= 300:
                    raise RuntimeError(f"a rollup: {answer.status} {answer.body[:500]!r}")
                ended.append(answer.status)
        finally:
            client.close()

    running = asyncio.create_task(run())
    try:
        yield ended
    finally:
        running.cancel()
        await asyncio.wait([running])
        if not running.cancelled():
            running.result()


async def _until_loaded(target: Target, events: int) -> None:
    """Wait until so many are stored.

    Raises:
        RuntimeError: They never are.
    """
    client = HttpClient(target)
    deadline = time.perf_counter() + _LOADED_SECONDS_MAX
    while await loaded_events(client) < events:
        if time.perf_counter() > deadline:
            raise RuntimeError(f"the backlog of {events:,} events was not loaded in time")
        await asyncio.sleep(_POLL_SECONDS)
    client.close()
