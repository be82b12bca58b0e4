"""Startup: from the command to the first 200 on `/readyz`, and the memory it then holds."""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Final

from tests.bench.baselines import NOOP
from tests.bench.event_requests import make_event_requests
from tests.bench.figures import Row
from tests.bench.http_client import HttpClient
from tests.bench.processes import ROOT, Server, free_port, noop_server, running_server
from tests.bench.product import running_product, world_processes
from tests.bench.rounds import Bench

_INSTALL_SECONDS_MAX: Final = 900
_TRIES_MAX: Final = 1000
_PAUSE_SECONDS: Final = 0.01
_UP: Final = ROOT / "scripts" / "up"


async def measure_cold_start(bench: Bench) -> list[Row]:
    """Start another ingest process beside a running distributed product, in every round.

    From the command to its first 204: the event is on the broker's disk then.

    Raises:
        RuntimeError: The product is not a distributed one.
    """
    if not bench.distributed:
        raise RuntimeError("only with --distributed")
    seconds: list[float] = []
    memory: list[float] = []
    noop_seconds: list[float] = []
    noop_memory: list[float] = []
    folder = bench.folder / "cold-start"
    async with running_product(folder, distributed=True):
        settings = _settings_beside(folder)
        for number in range(bench.rounds):
            bench.noise.sample()
            port = free_port()
            settings["TOLLGATE_PORT"] = str(port)
            command = (sys.executable, "-m", "tollgate.platform.serve")
            log = folder / f"ingest-{number}.log"
            started = time.perf_counter()
            async with running_server(
                command, port=port, log=log, environment=settings, ready_path="/healthz"
            ) as server:
                await _first_answer(server, f"cold-{number}")
                seconds.append(time.perf_counter() - started)
                memory.append(server.resident_mib())
            async with noop_server("asgi", folder / "asgi.log") as server:
                noop_seconds.append(server.ready_seconds)
                noop_memory.append(server.resident_mib())
            bench.say(f"cold-start: {seconds[-1]:.2f} s, {memory[-1]:,.0f} MiB")
    return [
        Row(
            scenario="cold-start",
            label="ingest, command to first durable answer",
            unit="s",
            values=seconds,
            baseline=f"{NOOP} to its first answer",
            baseline_values=noop_seconds,
        ),
        Row(
            scenario="cold-start",
            label="ingest, resident then",
            unit="MiB",
            values=memory,
            baseline=NOOP,
            baseline_values=noop_memory,
        ),
    ]


def _settings_beside(folder: Path) -> dict[str, str]:
    """Return settings of one more ingest beside those of the product in a folder."""
    processes = world_processes(folder / "data")
    return {
        "TOLLGATE_FUNCTION": "ingest",
        "TOLLGATE_HOST": "127.0.0.1",
        "TOLLGATE_DATA": str(folder / "beside"),
        "TOLLGATE_LOG_URL": f"{processes['kafka']['url']}/tollgate-events",
        "TOLLGATE_LOG_DEVELOPMENT": "true",
        "TOLLGATE_DATABASE_URL": processes["postgres"]["url"],
        "TOLLGATE_CLICKHOUSE_URL": processes["clickhouse"]["url"],
    }


async def _first_answer(server: Server, name: str) -> None:
    request = make_event_requests(name, 1)()
    client = HttpClient(server.target)
    try:
        for _ in range(_TRIES_MAX):
            if (await client.send(request)).status == 204:
                return
            await asyncio.sleep(_PAUSE_SECONDS)
        raise RuntimeError("no durable answer came")
    finally:
        client.close()


async def measure_startup(bench: Bench) -> list[Row]:
    """Start on an empty data folder in every round, beside the start of a no-op server."""
    scripted = os.access(_UP, os.X_OK)
    command = (str(_UP),) if scripted else (sys.executable, "-m", "tollgate.platform.up")
    shown = "scripts/up" if scripted else "python -m tollgate.platform.up (no scripts/up here)"
    # The first start may install what is missing; that is not what is measured.
    first = bench.folder / "startup-first"
    async with running_product(
        first, command=command, ready_seconds_max=_INSTALL_SECONDS_MAX
    ) as server:
        first_seconds = server.ready_seconds
    seconds: list[float] = []
    memory: list[float] = []
    noop_seconds: list[float] = []
    noop_memory: list[float] = []
    for round_number in range(bench.rounds):
        bench.noise.sample()
        folder = bench.folder / f"startup-{round_number}"
        async with running_product(folder, command=command) as server:
            seconds.append(server.ready_seconds)
            memory.append(server.resident_mib())
        async with noop_server("asgi", folder / "asgi.log") as server:
            noop_seconds.append(server.ready_seconds)
            noop_memory.append(server.resident_mib())
        bench.say(
            f"startup: round {round_number + 1} of {bench.rounds}: "
            f"{seconds[-1]:.2f} s, {memory[-1]:,.0f} MiB"
        )
    return [
        Row(
            scenario="startup",
            label="startup to ready",
            unit="s",
            values=seconds,
            baseline=f"{NOOP} to its first answer",
            baseline_values=noop_seconds,
            notes=(f"{shown}; data folder empty; unmeasured first start {first_seconds:.1f} s",),
            details={"first_start_seconds": first_seconds},
        ),
        Row(
            scenario="startup",
            label="startup, resident when ready",
            unit="MiB",
            values=memory,
            baseline=NOOP,
            baseline_values=noop_memory,
        ),
    ]
