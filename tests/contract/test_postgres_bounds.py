"""A PostgreSQL that does not answer is noticed in bounded time, and is used again once it does."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import monotonic

import psycopg
import pytest

from tests.support.postgres import frozen
from tests.support.server import wait_until
from tollgate.core.errors import Transient
from tollgate.local.postgres import Postgres
from tollgate.platform import postgres_client
from tollgate.platform.key_reader import read_keys
from tollgate.platform.postgres_client import ANSWER_SECONDS, PROBE_SECONDS, connect_bounded
from tollgate.platform.sql import Database, migrate

NOTICED_SECONDS = 8
"""Two seconds, and what a busy machine adds; unbounded it would be minutes."""


@pytest.fixture
def migrated(postgres: Postgres) -> str:
    url = postgres.url
    migrate(url)
    return url


@pytest.fixture
def database(migrated: str) -> Iterator[Database]:
    database = Database(migrated)
    yield database
    database.dispose()


def answers(database: Database) -> bool:
    try:
        with database.connect() as connection:
            return connection.exec_driver_sql("SELECT 1").scalar() == 1
    except Transient:
        return False


def test_a_pooled_connection_to_a_server_that_hangs(postgres: Postgres, database: Database) -> None:
    assert answers(database)
    with frozen(postgres):
        began = monotonic()
        assert not answers(database)
        assert monotonic() - began < NOTICED_SECONDS
        # Only one caller at a time waits for it; the others are told at once.
        began = monotonic()
        with ThreadPoolExecutor(8) as pool:
            assert not any(pool.map(lambda _: answers(database), range(40)))
        assert monotonic() - began < 2 * NOTICED_SECONDS
    wait_until(lambda: answers(database), 10, "it answers again")


def test_a_new_connection_to_a_server_that_hangs(postgres: Postgres, migrated: str) -> None:
    database = Database(migrated)

    def reads_keys() -> bool:
        with suppress(Transient):
            read_keys(migrated)
            return True
        return False

    with frozen(postgres), ThreadPoolExecutor(2) as pool:
        began = monotonic()
        asked = [pool.submit(reads_keys), pool.submit(answers, database)]
        assert [each.result() for each in asked] == [False, False]
        assert monotonic() - began < NOTICED_SECONDS
    wait_until(lambda: answers(database), 10, "it answers again")
    assert read_keys(migrated) == ((), False)
    database.dispose()


def test_a_statement_that_gets_no_answer_ends(migrated: str) -> None:
    address = migrated.replace("+psycopg", "")
    with connect_bounded(address) as connection:
        assert connection.answer_seconds_max == ANSWER_SECONDS
        assert connection.execute("SELECT 1").fetchall() == [(1,)]
        connection.answer_seconds_max = PROBE_SECONDS
        began = monotonic()
        with pytest.raises(psycopg.OperationalError, match="no answer within"):
            connection.execute("SELECT pg_sleep(30)")
        assert PROBE_SECONDS <= monotonic() - began < NOTICED_SECONDS
        assert connection.closed


def test_who_waits_for_another_s_lock_comes_again_and_that_is_no_outage(
    migrated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_client, "ANSWER_SECONDS", 1)
    database, statement = Database(migrated), "LOCK TABLE access_keys IN EXCLUSIVE MODE"
    with database.begin() as holds:
        holds.exec_driver_sql(statement)
        with pytest.raises(Transient), database.begin() as waits:
            waits.exec_driver_sql(statement)
        assert answers(database)
    database.dispose()


def test_what_the_url_says_wins(migrated: str) -> None:
    address = migrated.replace("+psycopg", "") + "?connect_timeout=7&application_name=mine"
    with connect_bounded(address) as connection:
        parameters = connection.info.get_parameters()
        assert parameters["application_name"] == "mine"
        assert parameters["connect_timeout"] == "7"
        assert parameters["tcp_user_timeout"] == "5000"
