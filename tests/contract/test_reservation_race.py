"""256 clients of four processes race for one limit on PostgreSQL, and processes are killed."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.support.reservation_replica import HOT
from tests.support.reservations import Desk, supply
from tests.support.server import wait_until
from tollgate.core.clock import SystemClock
from tollgate.limits.reservation import HoldState, ReservationState
from tollgate.limits.reservation_tables import holds, reservations
from tollgate.local.postgres import Postgres
from tollgate.platform.paths import ROOT
from tollgate.platform.sql import Database, migrate

LIMIT, REPLICAS, CLIENTS = 600, 4, 64


@pytest.fixture
def url(postgres: Postgres) -> str:
    made = postgres.create_database("race")
    migrate(made)
    return made


@contextmanager
def replica(url: str, name: str, heard: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = ("-m", "tests.support.reservation_replica", url, name, str(CLIENTS), str(LIMIT))
    with heard.open("ab") as out:
        process = subprocess.Popen([sys.executable, *command], stdout=out, cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def has_heard(path: Path) -> bool:
    return path.stat().st_size > 200


def lines(folder: Path) -> Iterator[dict[str, object]]:
    for path in folder.glob("*.jsonl"):
        for line in path.read_text().splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                continue  # killed while it wrote


def test_never_beyond_the_limit_whoever_dies(url: str, tmp_path: Path) -> None:
    database, clock = Database(url), SystemClock()
    desk = Desk(database, clock)
    desk.offer(HOT, supply(LIMIT))

    def taken() -> Decimal:
        book = desk.store.book(HOT)
        total = book.held + book.unseen
        assert total <= LIMIT
        return total

    for generation in range(3):
        names = [f"{generation}-{number}" for number in range(REPLICAS)]
        with (
            replica(url, names[0], tmp_path / f"{names[0]}.jsonl") as first,
            replica(url, names[1], tmp_path / f"{names[1]}.jsonl"),
            replica(url, names[2], tmp_path / f"{names[2]}.jsonl") as third,
            replica(url, names[3], tmp_path / f"{names[3]}.jsonl"),
        ):
            wait_until(partial(has_heard, tmp_path / f"{names[3]}.jsonl"))
            first.kill()
            until = time.monotonic() + 0.7
            while time.monotonic() < until:
                taken()
            third.kill()
            while time.monotonic() < until + 0.5:
                taken()
        # All four are dead, some within a transaction.
    told = list(lines(tmp_path))

    def nothing_is_held() -> bool:
        desk.store.sweep(desk.supply_of)
        return desk.store.book(HOT).held == 0

    wait_until(nothing_is_held, what="every hold has ended")
    book = desk.store.book(HOT)
    with database.connect() as connection:
        rows = connection.execute(sa.select(reservations.c.id, reservations.c.state))
        states = {row.id: row.state for row in rows}
        settled = connection.execute(
            sa.select(holds.c.reservation_id, holds.c.actual).where(
                holds.c.state == HoldState.UNSEEN.value
            )
        ).all()
        left = connection.execute(
            sa.select(sa.func.count()).where(holds.c.state == HoldState.HELD.value)
        ).scalar()
    assert left == 0
    assert {str(each["granted"]) for each in told if "granted" in each} <= states.keys()
    heard = {str(each["settled"]) for each in told if "settled" in each}
    assert heard
    assert all(states[each] == ReservationState.SETTLED for each in heard)
    used = sum((row.actual for row in settled), Decimal(0))
    assert book.unseen == used <= LIMIT
    # What is left can be had, to the last unit, and no more.
    rest = LIMIT - used
    assert desk.reserve({HOT: str(rest + 1)}).lacking
    assert not rest or not desk.reserve({HOT: str(rest)}).lacking
    database.dispose()
