"""Fixtures of `tests.support.loading`; a test module names this one in its `pytest_plugins`."""

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support.engine import EnginePlace
from tests.support.loading import Interruptible, NewStage, SetClock, Stage
from tollgate.platform.clickhouse_schema import migrate_clickhouse
from tollgate.platform.sqlite_log import SqliteLog

_numbers = itertools.count(1000)


@pytest.fixture(scope="session")
def interruptible(engine_place: EnginePlace) -> Iterator[Interruptible]:
    clickhouse = Interruptible(path=engine_place.path, url=engine_place.url)
    migrate_clickhouse(clickhouse)
    yield clickhouse
    clickhouse.close()


@pytest.fixture(scope="session")
def stages(interruptible: Interruptible, tmp_path_factory: pytest.TempPathFactory) -> NewStage:
    """Makes stages; each is a context manager."""

    @contextmanager
    def open_stage() -> Iterator[Stage]:
        number = next(_numbers)
        path = tmp_path_factory.mktemp("stage") / "log.sqlite"
        clock = SetClock()
        SqliteLog(path, clock).close()
        _renumber(path, number)
        interruptible.fail_at(0, after=False)
        with closing(SqliteLog(path, clock)) as log:
            stage = Stage(interruptible, log, f"stage-{number}")
            stage.clock = clock
            yield stage

    return open_stage


def _renumber(path: Path, generation: int) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE facts SET value = ? WHERE name = 'generation'", (generation,))
