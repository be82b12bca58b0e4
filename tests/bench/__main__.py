"""Run benchmarks of the product, each beside a baseline that the same run measures.

name        measures                                                beside
ingest-1    events acknowledged a second, 1 per POST, c=32, c=256   a no-op ASGI server, flushes
ingest-100  the same with 100 per POST, c=32                        a no-op ASGI server, flushes
load        events counted a second: of a backlog, and while sent   the bare ClickHouse insert
visible     milliseconds from an event sent to a query counting it  a POST and a query when idle
startup     seconds to ready, resident memory                       a no-op ASGI server
cold-start  seconds to the first durable answer; --distributed      a no-op ASGI server
keys        a loader's filters with 50 M keys; only when asked for  a scan, plain memory reads
load-keys   the same beside a broker: loaders ended, then a backlog  the bare ClickHouse insert
queries     bytes an event, and queries of 90 days; when asked for  JSON in OpenMeter's order
query-under-load  a query while a backlog is loaded; when asked for  the loader idle
load-beside-rollup  a backlog while rollups run on and on; when asked for  no rollup meanwhile
rollup      10 M events of one hour; only when asked for            the same values once read
limits      checks, reservations, freshness; only when asked for    the balance computed each call
replay      events loaded again from the archive, a second          the loader, from the log
baselines   the baselines alone; only when asked for                the load generator's limit

With --distributed the product runs as separate processes on a real broker, with PostgreSQL and
ClickHouse over HTTP; events go straight to the ingest process, queries through the entry.

Product and baseline take turns in several rounds. The ratio is taken round by round; its least,
median and greatest are printed, and how noisy the machine was. No figure is judged: the exit status
is 1 only when a scenario could not run.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import uvloop

from tests.bench.figures import Row
from tests.bench.machine import MachineNoise, describe_machine
from tests.bench.report import document_of, render_machine, render_table
from tests.bench.rounds import Bench
from tests.bench.scenario_baselines import measure_baselines
from tests.bench.scenario_ingest import measure_ingest
from tests.bench.scenario_keys import measure_keys
from tests.bench.scenario_limits import measure_limits
from tests.bench.scenario_load import measure_load
from tests.bench.scenario_load_keys import measure_load_with_keys
from tests.bench.scenario_queries import measure_queries, measure_rollup
from tests.bench.scenario_query_load import measure_query_under_load
from tests.bench.scenario_replay import measure_replay
from tests.bench.scenario_rollup_load import measure_load_beside_rollup
from tests.bench.scenario_startup import measure_cold_start, measure_startup
from tests.bench.scenario_visible import measure_visible

_SCENARIOS: dict[str, Callable[[Bench], Awaitable[list[Row]]]] = {
    "ingest-1": lambda bench: measure_ingest(bench, "ingest-1", 1, (32, 256)),
    "ingest-100": lambda bench: measure_ingest(bench, "ingest-100", 100, (32,)),
    "load": measure_load,
    "visible": measure_visible,
    "startup": measure_startup,
    "cold-start": measure_cold_start,
    "keys": measure_keys,
    "load-keys": measure_load_with_keys,
    "queries": measure_queries,
    "query-under-load": measure_query_under_load,
    "load-beside-rollup": measure_load_beside_rollup,
    "rollup": measure_rollup,
    "limits": measure_limits,
    "replay": measure_replay,
    "baselines": measure_baselines,
}
_DEFAULT = ("ingest-1", "ingest-100", "load", "visible", "startup")
_DEFAULT_DISTRIBUTED = ("ingest-1", "ingest-100", "load", "visible", "cold-start")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 < number <= 3600:
        raise argparse.ArgumentTypeError("must be more than 0 and at most 3600")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"scenarios to run (default: {' '.join(_DEFAULT)})"
    )
    parser.add_argument(
        "--seconds", type=_seconds, default=3, help="length of one measured piece (3)"
    )
    parser.add_argument("--rounds", type=_positive, default=5, help="rounds per figure (5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every value there")
    parser.add_argument(
        "--folder",
        type=Path,
        help="where scratch data goes: on the disk to be measured (system default)",
    )
    parser.add_argument("--probes", type=_positive, default=200, help="probes of `visible` (200)")
    parser.add_argument(
        "--visible-rate",
        type=_positive,
        default=5000,
        help="events a second during `visible` (5000)",
    )
    parser.add_argument(
        "--visible-batch", type=_positive, default=1, help="events per POST during `visible` (1)"
    )
    parser.add_argument(
        "--distributed", action="store_true", help="separate processes on a real Kafka broker"
    )
    parser.add_argument(
        "--keys",
        type=_positive,
        default=50_000_000,
        help="keys stored for `keys` and `load-keys` (50 million)",
    )
    parser.add_argument(
        "--events",
        type=_positive,
        default=5_000_000,
        help="events stored for `queries` and `query-under-load` (5 million)",
    )
    parser.add_argument(
        "--hour-events",
        type=_positive,
        default=10_000_000,
        help="events of one hour for `rollup` (10 million)",
    )
    parser.add_argument(
        "--limit-events",
        type=_positive,
        default=10_000_000,
        help="events stored for `limits` (10 million)",
    )
    return parser


async def _run(bench: Bench, names: Sequence[str], rows: list[Row], failed: list[str]) -> None:
    """Run the scenarios one after another; one that fails does not stop the next."""
    task = asyncio.current_task()
    if task is not None:
        # As with SIGINT: unwind, so that the servers we started are stopped.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    for name in names:
        try:
            rows += await _SCENARIOS[name](bench)
        except (RuntimeError, OSError, EOFError, ExceptionGroup) as error:
            failed.append(name)
            bench.say(f"{name} could not run: {error}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for and return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.names) - set(_SCENARIOS)):
        parser.error(f"no scenario {', '.join(unknown)}; there are {', '.join(_SCENARIOS)}")
    noise = MachineNoise()
    rows: list[Row] = []
    failed: list[str] = []
    stopped = False
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-") as folder:
        bench = Bench(
            folder=Path(folder),
            seconds=options.seconds,
            rounds=options.rounds,
            noise=noise,
            say=partial(print, file=sys.stderr, flush=True),
            probes=options.probes,
            visible_rate=options.visible_rate,
            visible_batch=options.visible_batch,
            keys=options.keys,
            events=options.events,
            hour_events=options.hour_events,
            limit_events=options.limit_events,
            distributed=options.distributed,
        )
        machine = describe_machine(bench.folder)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            try:
                default = _DEFAULT_DISTRIBUTED if options.distributed else _DEFAULT
                runner.run(_run(bench, options.names or default, rows, failed))
            except (asyncio.CancelledError, KeyboardInterrupt):
                stopped = True
    print(render_machine(machine, noise))
    if rows:
        print(f"\n{render_table(rows)}")
    if options.json is not None:
        options.json.write_text(json.dumps(document_of(rows, machine, noise), indent=2) + "\n")
    if failed:
        print(f"could not run: {', '.join(failed)}", file=sys.stderr)
    if stopped:
        print("stopped by a signal; figures above are those complete before", file=sys.stderr)
    return 130 if stopped else int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
