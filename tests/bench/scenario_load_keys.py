"""Load beside many millions of stored keys: a restart of the loaders, then a backlog."""

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.bench.baselines import INSERT, measure_insert
from tests.bench.event_requests import make_repeating_requests, new_of_repeating
from tests.bench.figures import Row
from tests.bench.http_client import HttpClient
from tests.bench.key_store import DAYS, prepare
from tests.bench.load_generator import Target, run_closed_loop
from tests.bench.processes import Server
from tests.bench.product import COUNT_METER, MeterReader, running_product, world_processes
from tests.bench.rounds import Bench
from tollgate.events.dedupe import DAY_US
from tollgate.platform.clickhouse import DATABASE, ClickHouse

_EVENTS_PER_REQUEST: Final = 100
_CONNECTIONS: Final = 32
_READY_SECONDS_MAX: Final = 120
_LOADED_SECONDS_MAX: Final = 300
_POLL_SECONDS: Final = 0.05
_LEDGER_POLL_SECONDS: Final = 0.05
_STORED: Final = f"SELECT sum(stored) FROM {DATABASE}.ledger FINAL"
_DAY_SECONDS: Final = DAY_US // 1_000_000


async def measure_load_with_keys(bench: Bench) -> list[Row]:
    """In every round: end the loaders, wait until they are ready again, let them load a backlog.

    One event in a hundred is a repeat. Distributed only: a loader is a process of its own there.
    """
    ready, rates, inserts, resident = (list[float]() for _ in range(4))
    sent = counted = 0
    data = bench.folder / "load-keys" / "data"
    async with running_product(data.parent, distributed=True) as product:
        bench.say(f"load-keys: storing {bench.keys:,}")
        await asyncio.to_thread(_store, data, bench.keys)
        reader = MeterReader(product.target)
        loaders = _loaders(data)
        for number in range(bench.rounds):
            bench.noise.sample()
            ready.append(await _restart(data))
            before = int(await reader.total(COUNT_METER))
            loaders = _loaders(data)
            new = await _fill(bench, product, list(loaders.values()), f"load-keys-{number}")
            started = time.perf_counter()
            await _wait_for_ledger(data, before + new)
            seconds = time.perf_counter() - started
            total = await reader.wait_for_total(COUNT_METER, before + new, _LOADED_SECONDS_MAX)
            rates.append((int(total) - before) / seconds)
            sent, counted = sent + new, counted + int(total) - before
            inserts.append(await measure_insert(bench.folder, bench.seconds))
            resident.append(max(map(_resident_mib, _loaders(data).values())))
            bench.say(
                f"load-keys: round {number + 1} of {bench.rounds}: ready {ready[-1]:.1f} s,"
                f" {rates[-1]:,.0f} events/s"
            )
        reader.close()
    stored = f"{bench.keys:,} keys on {DAYS} days, {len(loaders)} loaders"
    return [
        Row(
            scenario="load-keys",
            label="load beside stored keys, backlog counted",
            unit="events/s",
            values=rates,
            baseline=INSERT,
            baseline_values=inserts,
            notes=[
                f"{stored}; one event in {_EVENTS_PER_REQUEST} a repeat",
                f"different events {sent:,}, counted {counted:,}",
                f"resident, each loader: {max(resident):,.0f} MiB",
            ],
        ),
        Row(
            scenario="load-keys",
            label="loaders ended until ready again",
            unit="s",
            values=ready,
            baseline=INSERT,
            baseline_values=inserts,
            notes=[stored],
        ),
    ]


def _loaders(data: Path) -> dict[str, int]:
    processes = world_processes(data)
    return {name: each["pid"] for name, each in processes.items() if name.startswith("load")}


def _resident_mib(pid: int) -> float:
    return Server(
        target=Target(port=0), pid=pid, ready_seconds=0, functions={"": pid}
    ).resident_mib()


def _store(data: Path, keys: int) -> None:
    """Store the keys on the days that end with today."""
    first_day = int(time.time()) // _DAY_SECONDS - DAYS + 1
    url = world_processes(data)["clickhouse"]["url"]
    with ClickHouse(url=url) as clickhouse:
        prepare(clickhouse, keys, first_day=first_day, partitions=2)


async def _wait_for_ledger(data: Path, wanted: int) -> None:
    """Wait until the ledger has so many events: a meter's query would cost what is measured.

    Raises:
        RuntimeError: It does not get them.
    """
    deadline = time.perf_counter() + _LOADED_SECONDS_MAX
    with ClickHouse(url=world_processes(data)["clickhouse"]["url"]) as clickhouse:
        while time.perf_counter() < deadline:
            ((stored,),) = await asyncio.to_thread(clickhouse.query, _STORED)
            if stored >= wanted:
                return
            await asyncio.sleep(_LEDGER_POLL_SECONDS)
    raise RuntimeError(f"the ledger did not get {wanted:,} events")


async def _restart(data: Path) -> float:
    """End the loaders; return seconds until all are there again and ready.

    Raises:
        RuntimeError: They did not come back.
    """
    killed = _loaders(data)
    started = time.perf_counter()
    for pid in killed.values():
        os.kill(pid, signal.SIGTERM)
    while time.perf_counter() - started < _READY_SECONDS_MAX:
        await asyncio.sleep(_POLL_SECONDS)
        now = _loaders(data)
        if all(now[name] and now[name] != killed[name] for name in killed):
            ports = [int(world_processes(data)[name]["url"].rpartition(":")[2]) for name in killed]
            if all([await _loads(port) for port in ports]):
                return time.perf_counter() - started
    raise RuntimeError("the loaders did not become ready again")


async def _loads(port: int) -> bool:
    """Whether a loader has its share, and all its keys. Before that it is ready with nothing."""
    client = HttpClient(Target(port=port))
    try:
        with suppress(OSError, EOFError):
            metrics = (await client.get("/metrics")).body.decode().splitlines()
            values = dict(line.split(" ", 1) for line in metrics if not line.startswith("#"))
            mine = float(values["tollgate_load_partitions"])
            return mine > 0 and float(values["tollgate_load_partitions_waiting"]) == 0
        return False
    finally:
        client.close()


async def _fill(bench: Bench, product: Server, loaders: list[int], name: str) -> int:
    """Send while the loaders are stopped; return how many different events were acknowledged."""
    for pid in loaders:
        os.kill(pid, signal.SIGSTOP)
    try:
        result = await run_closed_loop(
            product.events,
            make_repeating_requests(name, _EVENTS_PER_REQUEST),
            connections=_CONNECTIONS,
            seconds=bench.seconds,
            warm_up_seconds=0,
        )
    finally:
        for pid in loaders:
            os.kill(pid, signal.SIGCONT)
    if result.broken or result.unanswered or set(result.statuses) - {204}:
        raise RuntimeError(f"not all was acknowledged: {result.statuses}")
    return new_of_repeating(result.acknowledged, _EVENTS_PER_REQUEST)
