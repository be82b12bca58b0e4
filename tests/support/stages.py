"""Fixtures of `tests.support.loading`; a test module names this one in its `pytest_plugins`."""

import itertools
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from tests.support.engine import EnginePlace
from tests.support.loading import Interruptible, NewStage, SetClock, Stage
from tollgate.platform.clickhouse_schema import migrate_clickhouse
from tollgate.platform.disk import Disk
from tollgate.platform.segment_log import SegmentLog
from tollgate.platform.segment_state import new_state, write_state

_numbers = itertools.count(1000)


def new_generation() -> int:
    """Of a log. The engine is everybody's, and in it the last generation is the present one."""
    return next(_numbers)


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
    def open_stage(disk: Disk | None = None) -> Iterator[Stage]:
        number = new_generation()
        path = tmp_path_factory.mktemp("stage") / "log"
        clock = SetClock()
        path.mkdir()
        write_state(path, new_state(generation=number), Disk())
        interruptible.fail_at(0, after=False)
        with closing(SegmentLog(path, clock, disk=disk)) as log:
            stage = Stage(interruptible, log, f"stage-{number}")
            stage.clock = clock
            yield stage

    return open_stage
