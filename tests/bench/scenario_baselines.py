"""The baselines alone: what this machine can do, and how far ahead the load generator is."""

from functools import partial
from typing import Final

from tests.bench.baselines import BARE, FLUSH, INSERT, NOOP, measure_flushes, measure_insert
from tests.bench.event_requests import make_event_requests
from tests.bench.figures import Row
from tests.bench.load_generator import Target, run_closed_loop
from tests.bench.processes import noop_server
from tests.bench.rounds import Bench, Measure, take_turns

_SHAPES: Final = ((1, 32), (1, 256), (100, 32))


async def measure_baselines(bench: Bench) -> list[Row]:
    """Measure the no-op servers with every shape of load, the disk and the bare insert."""
    rows: list[Row] = []
    async with (
        noop_server("asgi", bench.folder / "asgi.log") as noop,
        noop_server("bare", bench.folder / "bare.log") as bare,
    ):
        for per_request, connections in _SHAPES:
            label = f"{per_request} per POST, c={connections}"
            values = await take_turns(
                bench,
                f"baselines {label}",
                {
                    NOOP: _requests(bench, noop.target, per_request, connections),
                    BARE: _requests(bench, bare.target, per_request, connections),
                },
            )
            rows.append(
                Row(
                    scenario="baselines",
                    label=f"{NOOP}, {label}",
                    unit="POST/s",
                    values=values[NOOP],
                    baseline=BARE,
                    baseline_values=values[BARE],
                )
            )

    measures = {
        FLUSH: partial(measure_flushes, bench.folder, bench.seconds),
        INSERT: partial(measure_insert, bench.folder, bench.seconds),
    }
    alone = await take_turns(bench, "baselines", measures)
    units = {FLUSH: "flushes/s", INSERT: "rows/s"}
    rows += [
        Row(scenario="baselines", label=name, unit=units[name], values=values)
        for name, values in alone.items()
    ]
    return rows


def _requests(bench: Bench, target: Target, per_request: int, connections: int) -> Measure:
    async def requests_per_second() -> float:
        source = make_event_requests("baseline", per_request)
        result = await run_closed_loop(
            target, source, connections=connections, seconds=bench.seconds
        )
        return result.accepted_per_second

    return requests_per_second
