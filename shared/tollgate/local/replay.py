"""ClickHouse from the archive: `python -m tollgate.local.replay`, what `tollgate replay` runs.

Loads what `TOLLGATE_OBJECTS_URL` holds, for a period or all of it, into the ClickHouse that the
settings name or into a new data folder. It goes on where it was cut off, and ends by comparing
every total with the archived ledger.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from datetime import UTC
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tollgate.core.clock import datetime_from_us
from tollgate.core.errors import Conflict, Fault, InvalidInput, PermanentFault, TollgateError
from tollgate.core.times import format_instant, parse_instant_us
from tollgate.events.load import DAY_US
from tollgate.events.replay import OnLoaded, Period, Plan, make_plan, replay
from tollgate.events.replay_proof import TOTALS, Proof, prove
from tollgate.platform.clickhouse_schema import migrate_clickhouse
from tollgate.platform.objects import objects_of
from tollgate.platform.parts import Parts, open_clickhouse
from tollgate.platform.settings import Settings, read_settings
from tollgate.platform.setup import lines_of, lock_data_folder
from tollgate.platform.telemetry import configure_logs

_DIFFERENCES_SHOWN = 50
_SECOND_US = 1_000_000


def run(settings: Settings, period: Period, console: Console) -> Proof:
    """Replays; says what is in the result.

    Raises:
        Conflict: the target holds something else, or the archive nothing.
        Transient: a store is away; run it again.
        PermanentFault: the archive is damaged, or a store refuses.
    """
    objects = objects_of(settings)
    if objects is None:
        raise PermanentFault("TOLLGATE_OBJECTS_URL names no archive")
    embedded = not settings.clickhouse_url
    with (
        closing(objects),
        lock_data_folder(settings) if embedded else nullcontext(),
        closing(Parts(settings)) as parts,
    ):
        plan = make_plan(objects, period, settings.dedupe_window_days * DAY_US)
        _say_plan(plan, objects.place, console)
        clickhouse = parts.get(open_clickhouse)
        migrate_clickhouse(clickhouse)
        with _bar(plan.events, console) as on_loaded:
            replay(parts, objects, plan, on_loaded)
        proof = prove(clickhouse, objects, plan)
    _say_proof(proof, console)
    return proof


@contextmanager
def _bar(events: int, console: Console) -> Iterator[OnLoaded]:
    columns = (TextColumn("Loading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=events)
        yield lambda more: progress.advance(task, more)


def _say_plan(plan: Plan, place: str, console: Console) -> None:
    files = sum(map(len, plan.files.values()))
    console.print(f"{plan.events:,} events in {files:,} files of {place}")
    for gap in plan.gaps:
        console.print(
            f"Not in the archive: generation {gap.generation}, partition {gap.partition}, offsets"
            f" {gap.begin} to {gap.last}: the log had forgotten them before they were archived",
            style="yellow",
        )
    period = plan.period
    if period.until_us is not None:
        console.print(f"Nothing is loaded that was appended from {_instant(period.until_us)} on.")
    if period.since_us is not None:
        console.print(
            f"Figures are right for what was appended from {_instant(period.since_us)} on. Events"
            f" appended since {_instant(plan.lead_us)} are loaded before, for the keys that they"
            " claim: they are in the result too, and of them some may count that a claim before"
            " that time had made a duplicate.",
        )


def _say_proof(proof: Proof, console: Console) -> None:
    if proof.differences:
        table = Table("namespace", "received hour", "total", "archived", "replayed")
        for each in proof.differences[:_DIFFERENCES_SHOWN]:
            hour = _instant(each.hour * _SECOND_US)
            table.add_row(
                each.namespace, hour, each.name, f"{each.archived:,}", f"{each.replayed:,}"
            )
        console.print(table)
        console.print(f"{len(proof.differences):,} totals differ from the archived ledger.")
    else:
        sums = ", ".join(f"{name} {proof.totals[name]:,}" for name in TOTALS)
        console.print(f"All totals of {proof.hours:,} hours of namespaces are as archived: {sums}")
    if proof.uncompared:
        console.print(
            f"{proof.uncompared:,} records are loaded whose ledger was not archived: their totals"
            " could not be compared, and they count as known from now on only.",
            style="yellow",
        )


def _instant(us: int) -> str:
    return format_instant(datetime_from_us(us).astimezone(UTC))


def _read_instant(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_instant_us(text)
    except ValueError as problem:
        fault = Fault(field=name, code="invalid_time", message=str(problem))
        raise InvalidInput((fault,)) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "tollgate replay",
        description="Rebuilds ClickHouse from the archive that TOLLGATE_OBJECTS_URL names: the one"
        " that TOLLGATE_CLICKHOUSE_URL names, or that of a new data folder. Meters, keys and other"
        " parts of the control plane are not in the archive.",
    )
    parser.add_argument("--data", type=Path, help="new or unfinished data folder (TOLLGATE_DATA)")
    parser.add_argument("--archive", help="where the archive is (TOLLGATE_OBJECTS_URL)")
    when = "as RFC 3339; left out: for ever"
    parser.add_argument("--from", dest="since", help=f"what was appended from then on, {when}")
    parser.add_argument("--to", dest="until", help=f"what was appended before, {when}")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit code."""
    given = _parser().parse_args(arguments)
    console = Console(stderr=False)
    try:
        settings = read_settings(overrides={"data": given.data, "objects_url": given.archive})
        configure_logs("warning")
        period = Period(
            since_us=_read_instant("--from", given.since),
            until_us=_read_instant("--to", given.until),
        )
        proof = run(settings, period, console)
    except TollgateError as problem:
        for line in lines_of(problem):
            print(f"tollgate replay: {line}", file=sys.stderr)  # noqa: T201 -- said to a person
        return 2 if isinstance(problem, Conflict | InvalidInput) else 1
    except KeyboardInterrupt:
        return 130
    return 1 if proof.differences else 0


if __name__ == "__main__":
    sys.exit(main())
