"""How far the queries of a client are, kept in SQL so that any instance can answer."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from tollgate.core.clock import Clock
from tollgate.core.errors import NotFound
from tollgate.platform.sql import Database, Instant, Text, metadata, put_row

query_progress = sa.Table(
    "query_progress",
    metadata,
    sa.Column("namespace", Text, primary_key=True),
    sa.Column("client_id", Text, primary_key=True),
    sa.Column("success", sa.BigInteger, nullable=False),
    sa.Column("failed", sa.BigInteger, nullable=False),
    sa.Column("total", sa.BigInteger, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryProgress:
    """Counts of what a query has to go through: done well, failed, and all there is."""

    success: int
    failed: int
    total: int
    updated_at: datetime


class QueryProgressStore:
    """The last progress that each client's query reported."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def put(self, namespace: str, client_id: str, *, success: int, failed: int, total: int) -> None:
        """Replaces what is known of this client's query."""
        key = {"namespace": namespace, "client_id": client_id}
        values = {
            "success": success,
            "failed": failed,
            "total": total,
            "updated_at": self._clock.now(),
        }
        with self._database.begin() as connection:
            put_row(connection, query_progress, key, values)

    def get(self, namespace: str, client_id: str) -> QueryProgress:
        """What this client's query reported last.

        Raises:
            NotFound: nothing was reported.
        """
        c = query_progress.c
        query = sa.select(c.success, c.failed, c.total, c.updated_at).where(
            c.namespace == namespace, c.client_id == client_id
        )
        with self._database.connect() as connection:
            row = connection.execute(query).mappings().one_or_none()
        if row is None:
            raise NotFound(f"no query with the client id {client_id} is known")
        return QueryProgress(**row)

    def delete_before(self, instant: datetime) -> int:
        """Forgets, in every namespace, what was last reported before an instant.

        Returns:
            how many were forgotten.
        """
        stale = query_progress.delete().where(query_progress.c.updated_at < instant)
        with self._database.begin() as connection:
            return connection.execute(stale).rowcount
