"""Migrations and transactions of the control plane, on a real database."""

import multiprocessing
import sqlite3
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from tests.support.control_plane import NS, START, meter_input
from tollgate.core.clock import datetime_from_us
from tollgate.core.errors import (
    Conflict,
    InvalidInput,
    PermanentFault,
    Transient,
)
from tollgate.customers.customer_store import CustomerStore
from tollgate.events.correction_operation_store import OperationStore
from tollgate.events.recount_store import RecountStore
from tollgate.events.seal_store import SealStore
from tollgate.events.store import DeadLetterStore
from tollgate.limits.entitlement_store import EntitlementStore
from tollgate.limits.feature_store import FeatureStore
from tollgate.limits.limit_rule_store import LimitRuleStore
from tollgate.limits.reservation_store import ReservationStore
from tollgate.metering.meter import Meter, MeterChanges
from tollgate.metering.progress import query_progress
from tollgate.metering.rollup_store import RollupStore
from tollgate.metering.store import MeterListing, MeterStore
from tollgate.notify.outbox_store import OutboxStore
from tollgate.notify.rule_store import RuleStore
from tollgate.platform.sql import Database, metadata, migrate, put_row

# Whoever imports them all knows all tables.
STORES = (
    CustomerStore,
    DeadLetterStore,
    EntitlementStore,
    FeatureStore,
    LimitRuleStore,
    MeterStore,
    OperationStore,
    OutboxStore,
    RecountStore,
    ReservationStore,
    RollupStore,
    RuleStore,
    SealStore,
)


def test_the_migrated_schema_is_the_one_that_the_stores_expect(database: Database) -> None:
    with database.connect() as connection:
        differences = compare_metadata(
            MigrationContext.configure(connection, opts={"compare_type": True}), metadata
        )
    assert differences == []


def test_migrating_again_changes_nothing_and_is_quick(
    database: Database, database_url: str, meters: MeterStore
) -> None:
    kept = meters.create(NS, meter_input())
    started = time.perf_counter()
    migrate(database_url)
    assert time.perf_counter() - started < 1
    assert meters.get(NS, kept.id) == kept


def test_processes_that_start_at_once_migrate_once(database_url: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=migrate, args=(database_url,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    database = Database(database_url)
    with database.connect() as connection:
        versions = connection.execute(sa.text("SELECT version_num FROM alembic_version")).all()
    database.dispose()
    assert len(versions) == 1


def test_a_migration_that_fails_leaves_nothing_behind(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "scripts" / "versions").mkdir(parents=True)
    (tmp_path / "scripts" / "env.py").write_text(
        "from alembic import context\n"
        "context.configure(connection=context.config.attributes['connection'])\n"
        "with context.begin_transaction():\n    context.run_migrations()\n"
    )
    (tmp_path / "scripts" / "versions" / "0001_bad.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\nrevision = '0001'\ndown_revision = None\n"
        "def upgrade():\n"
        "    op.create_table('half', sa.Column('id', sa.Integer))\n"
        "    op.execute('INSERT INTO nowhere VALUES (1)')\n"
    )
    with pytest.raises(PermanentFault, match="nowhere"):
        migrate(database_url, tmp_path / "scripts")
    migrate(database_url)
    database = Database(database_url)
    with database.connect() as connection:
        assert not sa.inspect(connection).has_table("half")
        assert sa.inspect(connection).has_table("meters")
    database.dispose()


def test_a_newer_schema_is_refused(database: Database, database_url: str) -> None:
    with database.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(PermanentFault, match="9999"):
        migrate(database_url)


def test_missing_scripts_are_told(database_url: str, tmp_path: Path) -> None:
    with pytest.raises(PermanentFault, match="nowhere"):
        migrate(database_url, tmp_path / "nowhere")


def test_a_block_that_raises_writes_nothing(database: Database, meters: MeterStore) -> None:
    meter = meters.create(NS, meter_input())

    def fail(_stored: Meter) -> MeterChanges:
        raise InvalidInput((), "no")

    with pytest.raises(InvalidInput):
        meters.update(NS, meter.id, fail)
    with pytest.raises(PermanentFault):
        _delete_all_then_fail(database)
    assert meters.get(NS, meter.id) == meter


def _delete_all_then_fail(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(sa.text("DELETE FROM meters"))
        connection.execute(sa.text("SELECT * FROM nowhere"))


def test_a_read_transaction_cannot_write(database: Database, meters: MeterStore) -> None:
    meters.create(NS, meter_input())
    with pytest.raises(PermanentFault), database.connect() as connection:
        connection.execute(sa.text("DELETE FROM meters"))
    # The connection goes back to the pool and must write again for the next one.
    meters.delete(NS, "tokens_total")
    assert meters.live(NS) == ()


def test_a_read_transaction_sees_one_snapshot(database: Database, meters: MeterStore) -> None:
    count = sa.text("SELECT count(*) FROM meters")
    with database.connect() as connection:
        assert connection.scalar(count) == 0
        meters.create(NS, meter_input())
        assert connection.scalar(count) == 0
    assert meters.count(NS, MeterListing()) == 1


def test_errors_of_the_vendor_become_ours(database: Database) -> None:
    progress = query_progress
    row = {
        "namespace": NS,
        "client_id": "c",
        "success": 1,
        "failed": 0,
        "total": 1,
        "updated_at": START,
    }
    with database.begin() as connection:
        connection.execute(progress.insert().values(row))
    with pytest.raises(Conflict), database.begin() as connection:
        connection.execute(progress.insert().values(row))
    with pytest.raises(PermanentFault), database.begin() as connection:
        connection.execute(progress.insert().values({**row, "client_id": "d", "total": None}))
    with pytest.raises(PermanentFault), database.begin() as connection:
        connection.execute(sa.text("SELECT * FROM nowhere"))
    with pytest.raises(InvalidInput), database.begin() as connection:
        connection.execute(progress.insert().values({**row, "client_id": "\ud800"}))


def test_put_row_inserts_then_replaces(database: Database) -> None:
    table = query_progress
    key = {"namespace": NS, "client_id": "c"}
    for total in (1, 2):
        values = {"success": 0, "failed": 0, "total": total, "updated_at": START}
        with database.begin() as connection:
            put_row(connection, table, key, values)
    with database.connect() as connection:
        assert connection.scalars(sa.select(table.c.total)).all() == [2]


@pytest.mark.parametrize(
    "instant", [START, datetime(1900, 1, 1, tzinfo=UTC), datetime_from_us(-1), datetime_from_us(0)]
)
def test_times_keep_every_microsecond(meters: MeterStore, instant: datetime) -> None:
    meter = meters.create(NS, meter_input(eventFrom=instant))
    assert meters.get_by_id(NS, meter.id).event_from == instant


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///:memory:", "no url", "nosuch://host/db", "postgresql+nosuch://h/d"],
)
def test_a_url_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(PermanentFault):
        Database(url)


def test_a_refused_url_does_not_tell_its_password() -> None:
    with pytest.raises(PermanentFault) as caught:
        Database("nosuch://user:hunter2@host/db")
    assert "hunter2" not in f"{caught.value}{caught.value.__cause__}"


def test_sqlite_is_durable_and_a_folder_that_is_missing_is_told(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'a b.sqlite'}")
    with database.begin() as connection:
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    database.dispose()
    assert settings == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 10_000,
    }
    with pytest.raises(PermanentFault), Database(f"sqlite:///{tmp_path}/no/x").begin():
        pass


def test_a_full_and_a_locked_sqlite_are_transient(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'control.sqlite'}"
    migrate(url)
    database = Database(url)
    with database.begin() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(Transient, match="full"), database.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE big AS SELECT zeroblob(1000000)")
    other = sqlite3.connect(tmp_path / "control.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with database.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout = 1")
    with pytest.raises(Transient, match="locked"), database.begin():
        pass
    other.close()
    database.dispose()
