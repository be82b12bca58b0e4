"""The stores of the control plane on a real database, migrated as in production.

No test knows which database it is: another engine is another parameter of `database_url`.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.control_plane import SteppingClock
from tests.support.houses import world
from tollgate.customers.store import SubjectStore
from tollgate.metering.store import MeterStore
from tollgate.platform.access_store import (
    AccessKeyStore,
)
from tollgate.platform.sql import Database, migrate

__all__ = ["world"]


@pytest.fixture(params=["sqlite"])
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'control.sqlite'}"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    migrate(database_url)
    database = Database(database_url)
    yield database
    database.dispose()


@pytest.fixture
def clock() -> SteppingClock:
    return SteppingClock()


@pytest.fixture
def meters(database: Database, clock: SteppingClock) -> MeterStore:
    return MeterStore(database, clock)


@pytest.fixture
def subjects(database: Database, clock: SteppingClock) -> SubjectStore:
    return SubjectStore(database, clock)


@pytest.fixture
def keys(database: Database, clock: SteppingClock) -> AccessKeyStore:
    return AccessKeyStore(database, clock)
