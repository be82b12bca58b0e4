"""Keys: what exact dedupe costs a loader when many millions of keys are stored."""

import asyncio
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Final

from tests.bench.figures import Row
from tests.bench.key_store import BATCH, DAYS, HITS
from tests.bench.processes import ROOT
from tests.bench.rounds import Bench

# name in the measured figures, label, unit, baseline's name there, what the baseline is
_FIGURES: Final = (
    ("ready_seconds", "restart to filters ready", "s", "scan_seconds", "scan of the key column"),
    ("resident_mib", "resident when ready", "MiB", "engine_mib", "the engine alone"),
    (
        "batch_milliseconds",
        f"lookup and add of {BATCH:,} keys",
        "ms",
        "memory_milliseconds",
        "as many random reads of that memory",
    ),
    (
        "claims_milliseconds",
        f"claims of {HITS:,} keys of a day",
        "ms",
        "scan_day_milliseconds",
        "scan of the day's keys",
    ),
)


async def measure_keys(bench: Bench) -> list[Row]:
    """Store the keys once; in every round start a process on them and ask it for its figures."""
    folder = bench.folder / "keys"
    bench.say(f"keys: storing {bench.keys:,}")
    try:
        await _run("prepare", folder, bench.keys)
        rounds = []
        for number in range(bench.rounds):
            bench.noise.sample()
            rounds.append(json.loads(await _run("measure", folder, bench.keys)))
            shown = ", ".join(f"{name} {rounds[-1][name]:,.1f}" for name, *_ in _FIGURES)
            bench.say(f"keys: round {number + 1} of {bench.rounds}: {shown}")
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    last = rounds[-1]
    notes = {
        "ready_seconds": f"{bench.keys:,} keys on {DAYS} days; from the command, imports included",
        "resident_mib": f"filters {last['filters_mib']:,.0f} MiB of it",
        "batch_milliseconds": f"{last['wrong_percent']:.2f} % of new keys named wrongly",
        "claims_milliseconds": f"in a batch of {BATCH:,}: {last['claims_named']:,.0f} looked up",
    }
    return [
        Row(
            scenario="keys",
            label=f"keys, {label}",
            unit=unit,
            values=[each[name] for each in rounds],
            baseline=baseline,
            baseline_values=[each[beside] for each in rounds],
            notes=[notes[name]],
        )
        for name, label, unit, beside, baseline in _FIGURES
    ]


async def _run(task: str, folder: Path, keys: int) -> bytes:
    """Run one task of `tests.bench.key_store` and return what it printed.

    Raises:
        RuntimeError: It failed; the message holds what it said.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.key_store", task),
        *("--folder", str(folder), "--keys", str(keys), "--started", str(time.monotonic())),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"{task} failed:\n{errors.decode(errors='replace')[-4000:]}")
    return output
