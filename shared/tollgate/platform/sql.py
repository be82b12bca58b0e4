"""The control plane's SQL: SQLite in one process, PostgreSQL when distributed, one dialect of ours.

SQLAlchemy Core only. Stores define their tables on `metadata`; `infra/migrations/sql` creates them,
and a test holds the two equal. A transaction is one `with` block; whatever the driver raises inside
leaves it as one of the kinds of `tollgate.core.errors`, by the table in `translate`.
"""

import re
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from tollgate.core.clock import datetime_from_us, us_from_datetime
from tollgate.core.decimals import plain_text
from tollgate.core.errors import (
    Conflict,
    Fault,
    InvalidInput,
    PermanentFault,
    TollgateError,
    Transient,
)
from tollgate.platform.outage import Outage
from tollgate.platform.paths import INFRA

SQLITE_BUSY_TIMEOUT_MS = 10_000
ROWS_SKIPPED_MAX = 2**63 - 1
"""Greatest OFFSET that both engines take."""

_MIGRATION_LOCK = 7_464_401_001
"""Number of the PostgreSQL advisory lock that migrations hold."""
_REVISION = re.compile(r"""^(down_)?revision = ["'](\w+)["']$""", re.MULTILINE)
_WRITES = "tollgate_writes"
_POOL_SECONDS = 2

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    }
)
"""Every table of the control plane, each defined by the store that owns it."""

# SQLite compares text byte by byte, PostgreSQL only in the C collation: both must sort alike.
Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
# JSON, not JSONB: members keep their order and numbers their digits.
Json = sa.JSON(none_as_null=True)


class Instant(sa.types.TypeDecorator[datetime]):
    """A UTC time as integer microseconds since the epoch: exact, and sorted alike everywhere."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: sa.Dialect) -> int | None:
        return None if value is None else us_from_datetime(value)

    def process_result_value(self, value: int | None, _dialect: sa.Dialect) -> datetime | None:
        return None if value is None else datetime_from_us(value)


class Exact(sa.types.TypeDecorator[Decimal]):
    """A decimal quantity, digit for digit. SQLite has none: a text there, which does not sort."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(sa.Numeric())
        return dialect.type_descriptor(sa.Text())

    def process_bind_param(self, value: Decimal | None, dialect: sa.Dialect) -> Any:
        return value if value is None or dialect.name == "postgresql" else plain_text(value)

    def process_result_value(self, value: Any, _dialect: sa.Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


class Database:
    """One control-plane database. Thread-safe; make it after a fork, never at import time."""

    def __init__(self, url: str, *, bounded: bool = True) -> None:
        """Connects lazily: a database that is away shows in the first transaction.

        Args:
            url: `sqlite:////absolute/path/control.db` or `postgresql+psycopg://…`.
            bounded: give up a PostgreSQL that does not answer within seconds. False for statements
                that may take as long as they must.

        Raises:
            PermanentFault: the URL names no database that this process can use.
        """
        self._outage = Outage()
        self._engine = _engine(url, self._outage if bounded else None)
        self._writer = self._engine.execution_options(**{_WRITES: True})
        self._reader = self._engine
        if self._engine.dialect.name == "postgresql":
            # What `_begin_sqlite` does there: one snapshot, no writes. It costs no round trip.
            self._reader = self._engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A transaction that may write; committed when the block ends, rolled back when it raises.

        SQLite takes the write lock at once (BEGIN IMMEDIATE), so what was read cannot change before
        the write, and waiting for the lock never ends in a deadlock.
        """
        self._outage.enter()
        with translate(), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def connect(self) -> Iterator[sa.Connection]:
        """A transaction that only reads, on one snapshot. A write inside it is refused."""
        self._outage.enter()
        with translate(), self._reader.begin() as connection:
            yield connection

    def dispose(self) -> None:
        """Closes every pooled connection."""
        self._engine.dispose()


def migrate(url: str, scripts: Path | None = None) -> None:
    """Brings the schema to the newest revision. Idempotent; only reads when it is there already.

    Runs in one transaction under a lock in the database, so that several that start at once migrate
    once, and one that dies midway leaves nothing behind.

    Args:
        url: as in `Database`.
        scripts: folder of the Alembic environment; by default `infra/migrations/sql` of the clone.

    Raises:
        Transient: the database is away or busy.
        PermanentFault: the database has a revision that these scripts do not know.
    """
    folder = scripts or INFRA / "migrations" / "sql"
    head = _newest_revision(folder)
    database = Database(url, bounded=False)
    try:
        with database.connect() as connection:
            if _revision(connection) == head:
                return
        with database.begin() as connection:
            if connection.dialect.name == "postgresql":
                lock = sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)
                connection.execute(sa.select(lock))
            # Who waited for the lock may find the work done.
            if _revision(connection) != head:
                _upgrade(folder, connection)
    finally:
        database.dispose()


def put_row(
    connection: sa.Connection,
    table: sa.Table,
    key: Mapping[str, object],
    values: Mapping[str, object],
) -> None:
    """Inserts a row, or replaces `values` in the one that has this key; atomic in both engines.

    Args:
        connection: of a `Database.begin`.
        table: what to write to.
        key: every column of the primary key, with its value.
        values: the other columns.
    """
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    row = {**key, **values}
    connection.execute(
        insert(table).values(row).on_conflict_do_update(index_elements=[*key], set_=dict(values))
    )


@contextmanager
def translate() -> Iterator[None]:
    """Turns every error of SQLAlchemy and its drivers into one of ours."""
    try:
        yield
    except DBAPIError as error:
        raise _fault_of_driver(error) from error
    except PoolTimeoutError as error:
        raise Transient("every database connection is in use") from error
    except UnicodeEncodeError as error:
        raise _unstorable_text() from error
    except SQLAlchemyError as error:
        raise PermanentFault(f"the control-plane database refused: {error}") from error


def _fault_of_driver(error: DBAPIError) -> TollgateError:
    if isinstance(error.orig, UnicodeEncodeError):
        return _unstorable_text()
    code = _vendor_code(error)
    if code in _UNIQUE:
        return Conflict("a row with the same key exists already")
    if code in _UNSTORABLE:
        return _unstorable_text()
    if error.connection_invalidated or code.startswith(_TRANSIENT):
        return Transient(f"the control-plane database cannot answer now: {error.orig}")
    return PermanentFault(f"the control-plane database refused: {error.orig}")


_UNIQUE = frozenset({"SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY", "23505"})
# 22021 is PostgreSQL's own refusal of a NUL in text; psycopg refuses it before it is sent.
_UNSTORABLE = frozenset({"22021", "DataError"})
_TRANSIENT = (
    "SQLITE_BUSY",
    "SQLITE_LOCKED",
    "SQLITE_FULL",
    "SQLITE_IOERR",
    "SQLITE_NOMEM",
    "SQLITE_PROTOCOL",
    "08",  # connection lost
    "25P03",  # idle transaction ended by the server
    "40",  # deadlock, serialization
    "53",  # out of disk, memory, connections
    "55P03",  # lock not available
    "57",  # shutting down, starting up, query cancelled
    "58030",  # I/O error
    "OperationalError",  # no connection was made at all, so the server gave no code
    "ConnectionTimeout",  # the same
)


def _vendor_code(error: DBAPIError) -> str:
    """SQLite's error name, PostgreSQL's SQLSTATE, or the error's class where there is neither."""
    for attribute in ("sqlite_errorname", "sqlstate"):
        code = getattr(error.orig, attribute, None)
        if isinstance(code, str):
            return code
    return type(error.orig).__name__


def _unstorable_text() -> InvalidInput:
    fault = Fault(
        field="",
        code="text_not_storable",
        message="text must be Unicode without NUL and without lone surrogates",
    )
    return InvalidInput((fault,))


def _engine(url: str, outage: Outage | None) -> sa.Engine:
    try:
        target = sa.make_url(url)
        if target.get_backend_name() != "sqlite":
            engine = sa.create_engine(
                target, pool_pre_ping=True, pool_timeout=_POOL_SECONDS, pool_use_lifo=True
            )
            if outage is not None and target.get_driver_name() == "psycopg":
                _bound(engine, outage)
            return engine
    except ModuleNotFoundError as error:
        raise PermanentFault(f"the driver of the database is not installed: {error}") from error
    except SQLAlchemyError:
        # The cause is left out on purpose: it may quote the URL, which may hold a password.
        raise PermanentFault("the database URL is not one that SQLAlchemy can open") from None
    if target.database in {None, "", ":memory:"}:
        raise PermanentFault("SQLite needs a file: each thread would see a memory of its own")
    engine = sa.create_engine(target)
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _bound(engine: sa.Engine, outage: Outage) -> None:
    """Gives up a server that does not answer, and keeps others from waiting for it too."""
    import psycopg

    from tollgate.platform.postgres_client import (
        ANSWER_SECONDS,
        CONNECTION,
        PROBE_SECONDS,
        BoundedConnection,
    )

    def connect(
        _dialect: sa.Dialect, _record: object, arguments: list[Any], parameters: dict[str, Any]
    ) -> BoundedConnection:
        if outage.was_silent_just_now:
            raise psycopg.OperationalError("the server did not answer a moment ago")
        try:
            made = BoundedConnection.connect(*arguments, **{**CONNECTION, **parameters})
        except psycopg.errors.ConnectionTimeout:
            outage.silent()
            raise
        made.on_silence = outage.silent
        return made

    # A statement may also wait for another's lock: only the pool's question tells of an outage.

    def taken(connection: BoundedConnection, _record: object, _proxy: object) -> None:
        # It was just made, or has answered the pool's question whether it is alive.
        outage.answered()
        connection.answer_seconds_max, connection.on_silence = ANSWER_SECONDS, None

    def given_back(connection: BoundedConnection | None, _record: object) -> None:
        if connection is not None:
            connection.answer_seconds_max = PROBE_SECONDS
            connection.on_silence = outage.silent

    sa.event.listen(engine, "do_connect", connect)
    sa.event.listen(engine, "checkout", taken)
    sa.event.listen(engine, "checkin", given_back)


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # The driver's own BEGIN comes too late for DDL and knows no IMMEDIATE; `_begin_sqlite` says it.
    connection.isolation_level = None
    with closing(connection.cursor()) as cursor:
        cursor.execute(f"PRAGMA busy_timeout = {SQLITE_BUSY_TIMEOUT_MS}")
        _switch_to_wal(cursor)
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")


def _switch_to_wal(cursor: sqlite3.Cursor) -> None:
    """Puts a new file into WAL mode; on one that has it, nothing happens.

    Two that switch the same new file at once may get SQLITE_BUSY without the busy timeout being
    waited for (https://sqlite.org/wal.html, "Sometimes Queries Return SQLITE_BUSY").
    """
    deadline = time.monotonic() + SQLITE_BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > deadline:
                raise
            threading.Event().wait(0.01)
        else:
            return


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql(f"PRAGMA query_only = {'OFF' if writes else 'ON'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _revision(connection: sa.Connection) -> str | None:
    """The revision that the database has; None before the first migration."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(
        sa.select(sa.column("version_num", sa.Text)).select_from(sa.table("alembic_version"))
    ).scalar()
    return revision


def _newest_revision(scripts: Path) -> str:
    """The revision that no other builds on, read without Alembic, which only a migration imports.

    Raises:
        PermanentFault: there is none, or more than one.
    """
    found: dict[str, set[str]] = {"": set(), "down_": set()}
    for path in (scripts / "versions").glob("*.py"):
        for down, revision in _REVISION.findall(path.read_text()):
            found[down].add(revision)
    (head, *others) = sorted(found[""] - found["down_"]) or [""]
    if others or not head:
        raise PermanentFault(f"the migrations at {scripts} do not end in one revision")
    return head


def _upgrade(scripts: Path, connection: sa.Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(scripts))
    # Alembic's default splits at spaces, which a folder of a clone may have.
    config.set_main_option("path_separator", "newline")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise PermanentFault(f"the SQL schema cannot be migrated: {error}") from error
