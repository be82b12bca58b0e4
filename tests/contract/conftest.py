"""The stores of the control plane on a real database, migrated as in production.

No test knows which database it is: another engine is another parameter of `database_url`.
"""

import itertools
from collections.abc import Callable, Iterator
from inspect import signature
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

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
def empty_again(postgres: Postgres) -> Iterator[Callable[[], str]]:
    """A migrated database that is emptied for each test: to copy one takes a hundred times as long.

    Whoever may change more than rows gets one of its own: it asks for `database_url` too.
    """
    url = postgres.create_database("migrated")
    migrate(url)
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        names = connection.execute(
            "SELECT tablename FROM pg_tables"
            " WHERE schemaname = 'public' AND tablename != 'alembic_version'"
        ).fetchall()
        # In any order: what refers to what is not looked at.
        connection.execute("SET session_replication_role = replica")
        connection.execute("SET lock_timeout = '10s'")
        empty = sql.SQL("; ").join(
            sql.SQL("DELETE FROM {}").format(sql.Identifier(name)) for (name,) in names
        )

        def emptied() -> str:
            connection.execute(empty)
            return url

        yield emptied


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
    if migrated and "database_url" not in signature(request.function).parameters:
        emptied: Callable[[], str] = request.getfixturevalue("empty_again")
        return emptied()
    server: Postgres = request.getfixturevalue("postgres")
    url = server.create_database(f"test_{next(_numbers)}")
    if migrated:
        migrate(url)
    return url


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
