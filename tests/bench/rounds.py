"""What every scenario needs: its settings, and rounds in which product and baselines take turns."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.bench.load_generator import LoadResult
from tests.bench.machine import MachineNoise

Measure = Callable[[], Awaitable[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Settings of a run.

    Attributes:
        folder: Scratch folder on the disk to be measured.
        seconds: Length of one measured piece.
        rounds: How often each piece is repeated.
        noise: Sampled between the pieces.
        say: Prints one line of progress.
        probes: Number of probes of `visible`, over all rounds.
        visible_rate: Events a second beside the probes.
        visible_batch: Events per POST beside the probes.
        keys: Keys stored for `keys`.
        events: Events stored for `queries` and `query-under-load`.
        hour_events: Events of one hour for `rollup`.
        limit_events: Events stored for `limits`.
        distributed: Whether the product runs as separate processes on a real broker.
    """

    folder: Path
    seconds: float
    rounds: int
    noise: MachineNoise
    say: Callable[[str], None]
    probes: int = 200
    visible_rate: int = 5000
    visible_batch: int = 1
    keys: int = 50_000_000
    events: int = 5_000_000
    hour_events: int = 10_000_000
    limit_events: int = 10_000_000
    distributed: bool = False


async def take_turns(
    bench: Bench, label: str, measures: Mapping[str, Measure]
) -> dict[str, list[float]]:
    """Measure all in turn, every other round backwards, so that a drifting machine favours none."""
    values: dict[str, list[float]] = {name: [] for name in measures}
    for round_number in range(bench.rounds):
        bench.noise.sample()
        order = list(measures)
        if round_number % 2:
            order.reverse()
        for name in order:
            values[name].append(await measures[name]())
        figures = ", ".join(f"{name} {values[name][-1]:,.0f}" for name in measures)
        bench.say(f"{label}: round {round_number + 1} of {bench.rounds}: {figures}")
    return values


def refusals_of(result: LoadResult) -> dict[str, int]:
    """Count what was not a 2xx: other statuses, broken connections, unanswered requests."""
    found = {
        str(status): count for status, count in result.statuses.items() if not 200 <= status < 300
    }
    found |= {"broken": result.broken, "unanswered": result.unanswered}
    return {name: count for name, count in found.items() if count}


def latency_note(name: str, p50: int, p99: int, maximum: int) -> str:
    """Return latencies, given in microseconds, as one line in milliseconds."""
    return f"{name}: p50 {p50 / 1000:.1f} ms, p99 {p99 / 1000:.1f} ms, max {maximum / 1000:.1f} ms"
