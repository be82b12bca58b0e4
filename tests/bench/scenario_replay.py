"""Replay: events a second out of the archive, beside the loader that loads the same log."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, Final

from tests.bench.figures import Row
from tests.bench.processes import ROOT
from tests.bench.rounds import Bench, take_turns

_LOADER: Final = "the loader, from the log"
_EVENTS: Final = 1_000_000


async def measure_replay(bench: Bench) -> list[Row]:
    """Compare replay with loading, each into a new store; archiving is measured once, before."""
    folder = bench.folder / "replay"
    filled = await _work("fill", folder, folder, _EVENTS)
    rounds = 0
    peaks: dict[str, int] = {}

    async def measure(kind: str) -> float:
        nonlocal rounds
        rounds += 1
        found = await _work(kind, folder, folder / f"{kind}-{rounds}", 0)
        if found["events"] != filled["events"]:
            raise RuntimeError(f"{kind}: {found['events']} events of {filled['events']}")
        peaks[kind] = max(peaks.get(kind, 0), int(found["resident_mib"]))
        return float(found["events"] / found["seconds"])

    values = await take_turns(
        bench, "replay", {"replay": lambda: measure("replay"), _LOADER: lambda: measure("load")}
    )
    archived = filled["events"] / filled["seconds"]
    size = filled["bytes"] / filled["events"]
    return [
        Row(
            scenario="replay",
            label="replay, embedded, from a folder",
            unit="events/s",
            values=values["replay"],
            baseline=_LOADER,
            baseline_values=values[_LOADER],
            notes=[
                f"archived {archived:,.0f} events/s, {size:.1f} bytes an event",
                f"resident {peaks['replay']:,} MiB, the loader {peaks['load']:,} MiB",
            ],
        )
    ]


async def _work(kind: str, folder: Path, data: Path, events: int) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.bench.replay_worker", kind, str(folder), str(data), str(events)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complaints = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"replay_worker {kind}: {complaints.decode()[-2000:]}")
    found: dict[str, Any] = json.loads(said)
    return found
