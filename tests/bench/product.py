"""The product as the scenarios see it: one command, one URL, meters made for the benchmark."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from tests.bench.event_requests import LOAD_TYPE
from tests.bench.http_client import HttpClient
from tests.bench.load_generator import Target
from tests.bench.processes import Server, free_port, running_server

COUNT_METER: Final = "bench_events"
PROBE_LANES: Final = 2
INGEST_ONLY: Final = {"TOLLGATE_FUNCTION": "ingest"}

_POLL_SECONDS: Final = 0.05
_WORLD: Final = (sys.executable, "-m", "tollgate.local.world")
_WORLD_SECONDS_MAX: Final = 300
_MODULE: Final = (sys.executable, "-m", "tollgate.platform.up")


def probe_type(lane: int) -> str:
    """Return the event type of one lane of probes; each lane has its own meter."""
    return f"bench.probe.{lane}"


def probe_meter(lane: int) -> str:
    """Return the meter that counts the probes of one lane."""
    return f"bench_probes_{lane}"


def _meters() -> str:
    entries = [
        (COUNT_METER, LOAD_TYPE, ("aggregation: COUNT",)),
        (
            "bench_tokens",
            LOAD_TYPE,
            ("aggregation: SUM", "valueProperty: $.tokens", "groupBy:", "  model: $.model"),
        ),
        *(
            (probe_meter(lane), probe_type(lane), ("aggregation: COUNT",))
            for lane in range(PROBE_LANES)
        ),
    ]
    lines = ["meters:"]
    for slug, event_type, rest in entries:
        lines += [f"  - slug: {slug}", f"    eventType: {event_type}"]
        lines += [f"    {line}" for line in rest]
    return "\n".join(lines) + "\n"


def _write_meters(folder: Path, more: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "meters.yaml"
    path.write_text(_meters() + more)
    return path


@asynccontextmanager
async def running_product(
    folder: Path,
    *,
    command: Sequence[str] = _MODULE,
    environment: Mapping[str, str] | None = None,
    ready_seconds_max: float = 60,
    distributed: bool = False,
    more_meters: str = "",
) -> AsyncIterator[Server]:
    """Run the product on `folder` (its data, log and meters file) until the block ends.

    Distributed: as separate processes on a real broker; `command` is not used. `more_meters` are
    further entries of the meters file.

    Started again on the same folder it goes on with the same data.

    Raises:
        RuntimeError: It did not become ready; the message holds the end of its log.
    """
    meters = _write_meters(folder, more_meters)
    port = free_port()
    data = folder / "data"
    options = ("--port", str(port), "--data", str(data), "--meters", str(meters))
    async with running_server(
        (*(_WORLD if distributed else command), *options),
        port=port,
        log=folder / "product.log",
        environment=environment,
        ready_seconds_max=max(ready_seconds_max, _WORLD_SECONDS_MAX if distributed else 0),
    ) as server:
        yield _with_functions(server, data) if distributed else server


def world_processes(data: Path) -> dict[str, dict[str, Any]]:
    """Return what the distributed product says of its processes: pid and URL by name."""
    found: dict[str, dict[str, Any]] = json.loads((data / "world.json").read_text())["processes"]
    return found


def _with_functions(server: Server, data: Path) -> Server:
    processes = world_processes(data)
    stores = ("kafka", "postgres", "clickhouse", "entry")
    pids = {name: process["pid"] for name, process in processes.items() if name not in stores}
    port = int(processes["ingest"]["url"].rpartition(":")[2])
    return replace(server, ingest=Target(port=port), functions=pids)


class MeterReader:
    """Reads totals of meters over one connection."""

    def __init__(self, target: Target) -> None:
        """Query from yesterday to the day after tomorrow, which holds every event of a run."""
        midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        bounds = (midnight - timedelta(days=1), midnight + timedelta(days=2))
        self._query = "from={}&to={}".format(*(f"{bound:%Y-%m-%dT%H:%M:%SZ}" for bound in bounds))
        self._client = HttpClient(target)

    async def total(self, meter: str) -> Decimal:
        """Return the meter's total, 0 when it has no row.

        Raises:
            RuntimeError: The query was not answered with 200.
        """
        answer = await self._client.get(f"/api/v1/meters/{meter}/query?{self._query}")
        if answer.status != 200:
            raise RuntimeError(f"query of {meter}: {answer.status} {answer.body[:500]!r}")
        rows = json.loads(answer.body, parse_float=Decimal)["data"]
        return sum((Decimal(row["value"] or 0) for row in rows), Decimal(0))

    async def wait_for_total(self, meter: str, wanted: int, seconds_max: float) -> Decimal:
        """Wait until the total is `wanted` or more, or the time is over; return the last total."""
        deadline = time.perf_counter() + seconds_max
        while True:
            total = await self.total(meter)
            if total >= wanted or time.perf_counter() >= deadline:
                return total
            await asyncio.sleep(_POLL_SECONDS)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
