"""Baselines of the same run: no-op HTTP, the disk's flushes, the bare ClickHouse insert."""

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.bench.processes import ROOT

NOOP: Final = "no-op uvicorn ASGI"
BARE: Final = "bare protocol 204"
FLUSH: Final = "fdatasync of 8 KiB"
INSERT: Final = "bare ClickHouse insert"

_FLUSH_BYTES: Final = 8 * 1024
_FILE_BYTES: Final = 8 * 1024 * 1024


async def measure_flushes(folder: Path, seconds: float) -> float:
    """Return how many group commits a second the disk under `folder` makes, one at a time.

    One group commit is 8 KiB (some 25 events) written behind the last one, then `fdatasync`.
    The file is written once before, as a reused write-ahead log is, so that no flush pays for a
    change of its length.
    """
    return await asyncio.to_thread(_count_flushes, folder, seconds)


def _count_flushes(folder: Path, seconds: float) -> float:
    block = os.urandom(_FLUSH_BYTES)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        descriptor = file.fileno()
        file.write(bytes(_FILE_BYTES))
        os.fsync(descriptor)
        flushes = 0
        started = time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds:
            os.pwrite(descriptor, block, flushes * _FLUSH_BYTES % _FILE_BYTES)
            os.fdatasync(descriptor)
            flushes += 1
    return flushes / elapsed


async def measure_insert(folder: Path, seconds: float) -> float:
    """Return rows a second of the bare insert, in a process of its own.

    Raises:
        RuntimeError: The process failed; the message holds what it said.
    """
    with tempfile.TemporaryDirectory(dir=folder) as data:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.bench.clickhouse_insert",
            "--folder",
            data,
            "--seconds",
            str(seconds),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        output, errors = await process.communicate()
        if process.returncode:
            raise RuntimeError(
                f"the bare insert failed:\n{errors.decode(errors='replace')[-4000:]}"
            )
    return float(json.loads(output)["rows_per_second"])
