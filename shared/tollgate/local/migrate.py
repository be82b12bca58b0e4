"""From embedded to distributed: `python -m tollgate.local.migrate`.

Loads what the folder's log still holds, copies events and control plane, proves that both sides
hold the same rows and say the same totals, and only then makes the log's next generation, from
which the distributed loaders go on. The folder stays as it is. Can be repeated at any time: what is
equal already is left out, so a migration that was cut off goes on.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path

from tollgate.core.errors import Conflict, PermanentFault, TollgateError
from tollgate.events.ledger import open_frontier, read_newest_generation
from tollgate.events.load_service import open_workers
from tollgate.events.migrate import copy_day, count_events, differences, require_room
from tollgate.local.tables import TABLES
from tollgate.local.world import DATA, World
from tollgate.metering.meter import Meter
from tollgate.metering.query import QueryBounds, run_query
from tollgate.metering.question import MeterQuery
from tollgate.metering.rollup_store import DERIVED_TABLES
from tollgate.metering.store import MeterStore
from tollgate.platform.database import open_database
from tollgate.platform.kafka_client import kafka_place
from tollgate.platform.kafka_topics import Topics
from tollgate.platform.parts import (
    Parts,
    has_embedded_log,
    open_clickhouse,
    open_layouts,
    open_log,
)
from tollgate.platform.settings import Settings, read_settings
from tollgate.platform.setup import lines_of, lock_data_folder, prepare_stores
from tollgate.platform.sql_copy import copy_control_plane
from tollgate.platform.telemetry import configure_logs

_PLACES = ("clickhouse_url", "database_url", "log_url")
_LEFT_OUT = ("query_progress", *DERIVED_TABLES)
_LOOK_MS = 500
_STUCK_LOOKS = 120
_SECONDS_MAX = 3600
Say = Callable[[str], None]


def migrate(source: Parts, target: Parts, say: Say) -> None:
    """Does all of it.

    Raises:
        Conflict: the target is in use.
        Transient: a store is away; run it again.
        PermanentFault: both sides do not come out equal, or the folder can't be loaded.
    """
    for parts in (source, target):
        for line in prepare_stores(parts):
            del line
    _load_rest(source, say)
    here, there = source.get(open_clickhouse), target.get(open_clickhouse)
    newest = max(read_newest_generation(here), source.get(open_layouts).newest())
    topics = Topics(kafka_place(target.settings))
    generations = topics.generations()
    done = max(generations, default=0) > newest
    require_room(here, there, newest)
    if not done:
        _require_empty(target, newest)
        if generations:
            # Nothing is taken from here on until the next generation is there.
            topics.fence(max(generations))
        _copy_control_plane(source, target, say)
        for each in list(differences(here, there, newest)):
            say(f"{each.table}: {each.rows:,} rows of {each.day}")
            copy_day(here, there, each.table, each.day)
    _prove(source, target, newest, say)
    if done:
        say(f"already migrated: generation {max(generations)} of the log takes events")
        return
    topics.create(newest + 1, target.settings)
    say(f"migrated: generation {newest + 1} of the log takes events from now on")


def _load_rest(source: Parts, say: Say) -> None:
    """Loads the folder's log to its end, as its own loader would."""
    log, frontier = source.get(open_log), source.get(open_frontier)
    ends = {(log.generation, p): log.end(p) for p in range(log.partitions)}
    workers = source.get(open_workers)
    workers.assigned(list(ends))
    try:
        looks, before = 0, frontier.known()
        while not frontier.reach(ends, _LOOK_MS):
            looks = looks + 1 if frontier.known() == before else 0
            before = frontier.known()
            if looks == _STUCK_LOOKS:
                reasons = {worker.unreadiness() for worker in workers.workers()} - {""}
                raise PermanentFault(
                    f"the folder's log can't be loaded: {'; '.join(sorted(reasons)) or 'stuck'}"
                )
    finally:
        workers.stop()
    say("event log: loaded to its end")


def _require_empty(target: Parts, newest: int) -> None:
    layouts = target.get(open_layouts)
    for generation in layouts.generations():
        log = layouts.open(generation)
        if any(log.end(p) >= 0 for p in range(log.partitions)):
            raise Conflict(
                f"the target's log has events of its own in generation {generation}, which is not"
                f" younger than this folder's ({newest}): migrate into an empty one"
            )


def _copy_control_plane(source: Parts, target: Parts, say: Say) -> None:
    counts = copy_control_plane(
        source.get(open_database), target.get(open_database), TABLES, without=_LEFT_OUT
    )
    say("control plane: " + ", ".join(f"{n} {name}" for name, n in sorted(counts.items())))


def _prove(source: Parts, target: Parts, newest: int, say: Say) -> None:
    """Raises PermanentFault unless rows and totals of both sides are equal."""
    here, there = source.get(open_clickhouse), target.get(open_clickhouse)
    wrong = [
        f"{each.table} of {each.day}: {each.rows:,} rows here, {each.rows_there:,} there, or other"
        " ones"
        for each in differences(here, there, newest)
    ]
    if wrong:
        raise PermanentFault("both sides differ: " + "; ".join(wrong))
    events = count_events(there, newest)
    say(f"events: {events:,} on both sides, row by row the same")
    if max(read_newest_generation(there), 0) > newest:
        # Events of its own count in the totals of the target by now.
        return
    for meter in MeterStore(source.get(open_database), source.clock).live_of_all():
        one, other = _total(source, meter), _total(target, meter)
        if one != other:
            raise PermanentFault(f"{meter.namespace}/{meter.slug}: {one} here, {other} there")
        say(f"{meter.namespace}/{meter.slug}: {one if one is not None else 'no usage'}")


def _total(parts: Parts, meter: Meter) -> Decimal | None:
    bounds = QueryBounds(rows_max=1, seconds_max=_SECONDS_MAX)
    rows = run_query(parts.get(open_clickhouse), meter, MeterQuery(), bounds)
    return rows[0].value if rows else None


@contextmanager
def _target(given: Settings, folder: Path) -> Iterator[Settings]:
    """The stores that the settings name, or else those of a local world, running meanwhile.

    Raises:
        PermanentFault: only some are named, or the world runs.
    """
    named = [place for place in _PLACES if getattr(given, place)]
    if len(named) == len(_PLACES):
        yield given
        return
    if named:
        missing = ", ".join(f"TOLLGATE_{p.upper()}" for p in _PLACES if p not in named)
        raise PermanentFault(f"name all of the target or nothing of it: {missing} is not set")
    own = given.model_copy(update={"data": folder})
    with lock_data_folder(own):
        world = World(own)
        try:
            yield read_settings(world.start_stores())
        finally:
            world.stop()


def run(settings: Settings, folder: Path, say: Say) -> None:
    """Migrates the data folder of the settings; errors as in `migrate`."""
    if not has_embedded_log(settings):
        raise PermanentFault(f"{settings.data} is no data folder of the embedded world")
    embedded = settings.model_copy(update=dict.fromkeys(_PLACES, ""))
    with (
        lock_data_folder(embedded),
        _target(settings, folder) as distributed,
        closing(Parts(embedded)) as source,
        closing(Parts(distributed)) as target,
    ):
        migrate(source, target, say)


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 -- said to a person


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit code."""
    parser = argparse.ArgumentParser(
        "tollgate migrate",
        description="Moves an embedded data folder into the distributed world: the one that"
        " TOLLGATE_CLICKHOUSE_URL, TOLLGATE_DATABASE_URL and TOLLGATE_LOG_URL name, or the local"
        " one of scripts/up --distributed.",
    )
    parser.add_argument("--data", type=Path, help="embedded data folder (TOLLGATE_DATA, .data)")
    parser.add_argument(
        "--to-data", type=Path, default=DATA, help=f"data folder of the local world ({DATA})"
    )
    given = parser.parse_args(arguments)
    try:
        settings = read_settings(overrides={"data": given.data})
        configure_logs("warning")
        run(settings, given.to_data, _say)
    except TollgateError as problem:
        for line in lines_of(problem):
            print(f"tollgate migrate: {line}", file=sys.stderr)  # noqa: T201 -- said to a person
        return 2 if isinstance(problem, Conflict) else 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
