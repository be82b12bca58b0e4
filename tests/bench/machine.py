"""How steady the machine was: on a shared virtual machine a figure without this says little."""

import os
import platform
import statistics
import time
from pathlib import Path
from typing import Final

from tests.bench.figures import Spread, spread_of

_LOOP_TURNS: Final = 400_000


class MachineNoise:
    """Times the same piece of pure computation again and again between the measurements."""

    def __init__(self) -> None:
        """Note the processor times now; shares are counted from here on."""
        self._start = _processor_times()
        self._loop_milliseconds: list[float] = []
        self.load_at_start = os.getloadavg()[0]

    def sample(self) -> None:
        """Keep the median of five loops, some 50 ms in all; call it when nothing of ours runs."""
        self._loop_milliseconds.append(statistics.median(_time_loop() for _ in range(5)))

    def loop(self) -> Spread:
        """Return the spread of the loop's milliseconds."""
        return spread_of(self._loop_milliseconds or [0.0])

    def stolen_percent(self) -> float:
        """Return the share of processor time that the hypervisor gave to others."""
        total, stolen = (
            now - then for now, then in zip(_processor_times(), self._start, strict=True)
        )
        return 100 * stolen / total if total else 0.0


def _time_loop() -> float:
    started = time.perf_counter()
    total = 0
    for number in range(_LOOP_TURNS):
        total += number & 7
    return (time.perf_counter() - started) * 1000


def _processor_times() -> tuple[int, int]:
    """Return all and stolen processor time since boot, in ticks."""
    fields = [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return sum(fields[:8]), fields[7]


def describe_machine(folder: Path) -> dict[str, object]:
    """Return processor, kernel, Python and the file system of the data folder."""
    models = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "processor": models[0] if models else platform.machine(),
        "processors": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "file_system": _file_system_of(folder),
    }


def _file_system_of(folder: Path) -> str:
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    path = folder.resolve()
    holding = [(point, kind) for point, kind in mounts if path.is_relative_to(point)]
    return max(holding, key=lambda mount: len(mount[0]))[1] if holding else "unknown"
