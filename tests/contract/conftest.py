"""The stores of the control plane on a real database, migrated as in production.

No test knows which database it is: another engine is another parameter of `database_url`.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.control_plane import SteppingClock
from tests.support.engine import DATABASES, takes_databases
from tests.support.houses import world
from tests.support.migrated import migrated_sqlite
from tollgate.customers.store import SubjectStore
from tollgate.local.postgres import Postgres
from tollgate.metering.store import MeterStore
from tollgate.platform.access_store import (
    AccessKeyStore,
)
from tollgate.platform.sql import Database, migrate

__all__ = ["world"]


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A real PostgreSQL server, shared by the session."""
    with Postgres(tmp_path_factory.mktemp("postgres") / "server") as server:
        yield server


@pytest.fixture(scope="session")
def migrated_database(postgres: Postgres) -> str:
    """The name of one that is migrated, and only copied."""
    migrate(postgres.create_database("migrated"))
    return "migrated"


_numbers = itertools.count(1)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every store on both databases; `tests.support.engine` pairs them with the engine's places."""
    if takes_databases(metafunc) and "engine_place" not in metafunc.fixturenames:
        metafunc.parametrize("database_url", DATABASES, indirect=True)


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database; of a migrated one for a test that takes `database` too."""
    migrated = "database" in request.fixturenames
    if request.param == "sqlite":
        path = tmp_path / "control.sqlite"
        if migrated:
            path.write_bytes(migrated_sqlite())
        return f"sqlite:///{path}"
    server: Postgres = request.getfixturevalue("postgres")
    template = request.getfixturevalue("migrated_database") if migrated else "template1"
    return server.create_database(f"test_{next(_numbers)}", template)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
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
