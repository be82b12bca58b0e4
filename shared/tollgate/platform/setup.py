"""Makes and migrates what the settings name: `python -m tollgate.platform.setup`.

SQL schema, ClickHouse schema, topics of the event log. Safe to run again, and by several at once:
SQL migrates under a lock in the database, ClickHouse by statements that may be repeated, and Kafka
creates a topic once. `scripts/up` does the same before it starts; in a cluster a Job does, and no
function ever.
"""

import argparse
import fcntl
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

from tollgate.core.errors import InvalidInput, PermanentFault, TollgateError
from tollgate.platform.functions import Function
from tollgate.platform.garbage import begin_start
from tollgate.platform.parts import Parts, open_clickhouse
from tollgate.platform.settings import Settings, read_settings
from tollgate.platform.telemetry import configure_logs

_log = logging.getLogger(__name__)
_LOCK_SECONDS = 30


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit code."""
    begin_start()
    parser = argparse.ArgumentParser(
        prog="python -m tollgate.platform.setup", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", type=Path, help="data folder (TOLLGATE_DATA)")
    parser.add_argument(
        "--new-generation",
        action="store_true",
        help="close the event log's newest layout and create the next, with"
        " TOLLGATE_LOG_PARTITIONS partitions (Kafka only)",
    )
    given = parser.parse_args(arguments)
    try:
        settings = read_settings(overrides={"data": given.data})
        configure_logs(settings.log_level)
        for line in run(settings, new_generation=given.new_generation):
            print(line, flush=True)  # noqa: T201 -- said to a person
    except TollgateError as problem:
        for line in lines_of(problem):
            print(f"tollgate: {line}", file=sys.stderr)  # noqa: T201 -- said to a person
        return 2
    return 0


def lines_of(problem: TollgateError) -> list[str]:
    """An error as a person should read it."""
    if isinstance(problem, InvalidInput):
        return [f"{fault.field}: {fault.message}" for fault in problem.faults]
    return [problem.detail]


def run(settings: Settings, *, new_generation: bool = False) -> Iterator[str]:
    """Does all of it; yields what was done, for people.

    Raises:
        Transient: something is away; what was done by then stays.
        PermanentFault: something refuses, or would lose events as it is set up.
    """
    parts = Parts(settings)
    try:
        if settings.clickhouse_url and settings.database_url:
            yield from prepare(parts)
        else:
            with lock_data_folder(settings, seconds=_LOCK_SECONDS):
                yield from prepare(parts)
        if new_generation:
            yield from _switch_layout(settings)
    finally:
        parts.close()


@contextmanager
def lock_data_folder(settings: Settings, *, seconds: int = 0) -> Iterator[None]:
    """Keeps the data folder to this process, and makes it.

    Raises:
        PermanentFault: another process has it, and did not give it up in time.
    """
    settings.data.mkdir(parents=True, exist_ok=True)
    until = monotonic() + seconds
    pause = threading.Event()
    with (settings.data / "lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if monotonic() >= until:
                    raise PermanentFault(
                        f"another process uses the data folder {settings.data}; end it, or give"
                        " another --data"
                    ) from None
            pause.wait(0.1)
        yield


def prepare(parts: Parts) -> Iterator[str]:
    """Makes and migrates everything; yields what was done.

    Raises:
        Transient, PermanentFault: as in `run`.
    """
    yield from prepare_stores(parts)
    if parts.settings.log_url.startswith("kafka://"):
        yield from _prepare_topics(parts.settings)


def prepare_stores(parts: Parts) -> Iterator[str]:
    """Makes and migrates all but the event log; yields what was done.

    Raises:
        Transient, PermanentFault: as in `run`.
    """
    yield from _prepare_sql(parts)
    yield from _prepare_clickhouse(parts)


def prepare_own(parts: Parts, function: Function) -> Iterator[str]:
    """What a single function may make: stores in the data folder of this process, if it needs any.

    Raises:
        Transient, PermanentFault: as in `run`.
    """
    if not function.needs_stores:
        return
    if not parts.settings.database_url:
        yield from _prepare_sql(parts)
    if not parts.settings.clickhouse_url:
        yield from _prepare_clickhouse(parts)


def _prepare_sql(parts: Parts) -> Iterator[str]:
    # SQLAlchemy and Alembic take half a second to import: a function of the distributed world that
    # needs neither does without them.
    from tollgate.platform.sql import migrate

    migrate(parts.settings.sql_url)
    yield "control plane: the schema is up to date"


def _prepare_clickhouse(parts: Parts) -> Iterator[str]:
    from tollgate.platform.clickhouse_schema import migrate_clickhouse

    count = migrate_clickhouse(parts.get(open_clickhouse))
    yield f"ClickHouse: {count} migrations applied" if count else "ClickHouse: up to date"


def _prepare_topics(settings: Settings) -> Iterator[str]:
    from tollgate.platform.kafka_client import kafka_place
    from tollgate.platform.kafka_topics import Needs, Topics

    place = kafka_place(settings)
    topics = Topics(place)
    found = topics.generations()
    newest = max(found, default=0)
    if newest and topics.is_fenced(newest):
        # A switch of layouts was interrupted: nothing takes records until it is done.
        topics.fence(newest)
    if not newest or topics.is_fenced(newest):
        newest += 1
        if topics.create(newest, settings):
            yield f"event log: created topic {place.topic(newest)}"
    needs = Needs(record_bytes_max=settings.record_bytes_max, development=settings.log_development)
    if faults := topics.faults(newest, needs):
        raise PermanentFault("; ".join(faults))
    partitions = topics.generations()[newest]
    yield f"event log: topic {place.topic(newest)} with {partitions} partitions takes events"
    if partitions != settings.log_partitions:
        yield (
            f"event log: TOLLGATE_LOG_PARTITIONS is {settings.log_partitions}; --new-generation"
            " creates a layout that has so many"
        )


def _switch_layout(settings: Settings) -> Iterator[str]:
    if not settings.log_url.startswith("kafka://"):
        raise PermanentFault("--new-generation: only an event log on Kafka has layouts")
    from tollgate.platform.kafka_client import kafka_place
    from tollgate.platform.kafka_topics import Topics

    place = kafka_place(settings)
    topics = Topics(place)
    newest = max(topics.generations())
    topics.fence(newest)
    yield f"event log: topic {place.topic(newest)} takes no more events"
    topics.create(newest + 1, settings)
    yield f"event log: topic {place.topic(newest + 1)} takes events from now on"


if __name__ == "__main__":
    sys.exit(main())
