"""Stored usage: its bytes, its queries beside a table in OpenMeter's order, one hour's rollup."""

import asyncio
import json
import shutil
import sys
from pathlib import Path
from typing import Any, Final

from tests.bench.figures import Row
from tests.bench.processes import ROOT
from tests.bench.rounds import Bench
from tests.bench.usage_store import DAYS, RAW_TABLE, SUBJECTS

_RAW: Final = "JSON in OpenMeter's order"
_ONCE_READ: Final = "values read once, by subject"


async def run_usage(task: str, folder: Path, *arguments: str) -> Any:
    """Run one task of `tests.bench.usage_queries` and return what it printed.

    Raises:
        RuntimeError: It failed; the message holds what it said.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.usage_queries", task),
        *("--folder", str(folder), *arguments),
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
    return json.loads(output)


async def measure_queries(bench: Bench) -> list[Row]:
    """Store the usage once; in every round ask both tables in a process of its own."""
    folder = bench.folder / "queries"
    bench.say(f"queries: storing {bench.events:,}")
    try:
        stored = await run_usage("prepare", folder, "--events", str(bench.events))
        rounds = []
        for number in range(bench.rounds):
            bench.noise.sample()
            rounds.append(await run_usage("measure", folder))
            shown = ", ".join(f"{name} {own:,.1f} ms" for name, (own, _) in rounds[-1].items())
            bench.say(f"queries: round {number + 1} of {bench.rounds}: {shown}")
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    seconds = ", ".join(f"{name} {taken:,.0f} s" for name, taken in stored["seconds"].items())
    note = f"{bench.events:,} events of {SUBJECTS:,} subjects on {DAYS} days; made in: {seconds}"
    rows = [_bytes_row(bench.events, stored, note)]
    rows += [
        Row(
            scenario="queries",
            label=f"query, {name}",
            unit="ms",
            values=[each[name][0] for each in rounds],
            baseline=_RAW,
            baseline_values=[each[name][1] for each in rounds],
        )
        for name in rounds[0]
    ]
    return rows


def _bytes_row(events: int, stored: Any, note: str) -> Row:
    sizes = {name: size / events for name, size in stored["tables"].items()}
    raw = sizes.pop(RAW_TABLE)
    largest = [
        f"{table}: "
        + ", ".join(f"{name} {size / events:.1f}" for name, size in list(columns.items())[:10])
        for table, columns in stored["columns"].items()
    ]
    parts = ", ".join(f"{name} {size:.2f}" for name, size in sizes.items())
    return Row(
        scenario="queries",
        label="stored, keys included",
        unit="B/event",
        values=[sum(sizes.values())],
        baseline=_RAW,
        baseline_values=[raw],
        notes=[note, f"keys of all days are held: {parts}", *largest],
        details=stored,
    )


async def measure_rollup(bench: Bench) -> list[Row]:
    """Roll up one hour of events, then one that comes late; in every round on a fresh folder."""
    rounds = []
    for number in range(bench.rounds):
        folder = bench.folder / f"rollup-{number}"
        bench.noise.sample()
        try:
            rounds.append(await run_usage("roll-up", folder, "--events", str(bench.hour_events)))
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        last = rounds[-1]
        bench.say(f"rollup: round {number + 1} of {bench.rounds}: {last['hour_seconds']:.1f} s")
    peak = max(each["peak_mib"] for each in rounds)
    return [
        Row(
            scenario="rollup",
            label=f"rollup, {bench.hour_events:,} events of one hour",
            unit="s",
            values=[each["hour_seconds"] for each in rounds],
            baseline=_ONCE_READ,
            baseline_values=[each["read_seconds"] for each in rounds],
            notes=[f"resident {rounds[-1]['before_mib']:,.0f} MiB before, at most {peak:,.0f} MiB"],
        ),
        Row(
            scenario="rollup",
            label="rollup, one late event of one subject",
            unit="ms",
            values=[each["late_milliseconds"] for each in rounds],
        ),
    ]
