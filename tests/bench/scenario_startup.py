"""Startup: from the command to the first 200 on `/readyz`, and the memory it then holds."""

import os
import sys
from typing import Final

from tests.bench.baselines import NOOP
from tests.bench.figures import Row
from tests.bench.processes import ROOT, noop_server
from tests.bench.product import running_product
from tests.bench.rounds import Bench

_INSTALL_SECONDS_MAX: Final = 900
_UP: Final = ROOT / "scripts" / "up"


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
