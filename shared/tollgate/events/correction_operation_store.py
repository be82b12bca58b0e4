"""Operations in SQL. Every call names the namespace first."""

from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from tollgate.core.errors import Conflict, NotFound
from tollgate.events.correction_operation import Operation
from tollgate.events.position import vector_from_text
from tollgate.events.selection import selection_from_members
from tollgate.platform.database import open_database
from tollgate.platform.parts import Parts
from tollgate.platform.sql import Database, Instant, Json, Text, metadata

correction_operations = sa.Table(
    "correction_operations",
    metadata,
    sa.Column("namespace", Text, primary_key=True),
    sa.Column("name", Text, primary_key=True),
    sa.Column("kind", Text, nullable=False),
    sa.Column("state", Text, nullable=False),
    sa.Column("reason", Text, nullable=False),
    sa.Column("actor", Text, nullable=False),
    sa.Column("filter", Json, nullable=False),
    sa.Column("vector", Text, nullable=False),
    sa.Column("step", Text, nullable=False),
    sa.Column("cursor", Text, nullable=False),
    sa.Column("total", sa.BigInteger, nullable=False),
    sa.Column("done", sa.BigInteger, nullable=False),
    sa.Column("written", Text, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("closed_at", Instant, nullable=True),
    sa.Column("reverted_at", Instant, nullable=True),
    sa.Column("revert_reason", Text, nullable=False),
    sa.Column("revert_actor", Text, nullable=False),
)
_PLAIN = (
    *("namespace", "name", "kind", "state", "reason", "actor", "step", "cursor", "total", "done"),
    *("created_at", "closed_at", "reverted_at", "revert_reason", "revert_actor"),
)
_c = correction_operations.c


class OperationStore:
    """The operations of every namespace."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, namespace: str, name: str) -> Operation:
        """One of them.

        Raises:
            NotFound: there is none of that name.
        """
        with self._database.connect() as connection:
            found = self._find(connection, namespace, name)
        if found is None:
            raise NotFound(f"there is no backfill or correction in bulk named {name}")
        return found

    def list(
        self, namespace: str, after: tuple[Any, str] | None, limit: int
    ) -> tuple[Operation, ...]:
        """The newest first.

        Args:
            namespace: whose.
            after: time of creation and name of the last one of the page before.
            limit: how many at most.
        """
        query = sa.select(correction_operations).where(_c.namespace == namespace)
        if after is not None:
            created, name = after
            query = query.where(
                sa.or_(_c.created_at < created, sa.and_(_c.created_at == created, _c.name < name))
            )
        query = query.order_by(_c.created_at.desc(), _c.name.desc()).limit(limit)
        with self._database.connect() as connection:
            rows = connection.execute(query).mappings().all()
        return tuple(map(_operation, rows))

    def create(self, wanted: Operation) -> Operation:
        """Begins an operation; the same again gives the one that there is.

        Raises:
            Conflict: another one has the name.
        """
        with self._database.begin() as connection:
            found = self._find(connection, wanted.namespace, wanted.name)
            if found is None:
                connection.execute(correction_operations.insert().values(_values(wanted)))
                return wanted
        same = (found.kind, found.selection, found.reason) == (
            wanted.kind,
            wanted.selection,
            wanted.reason,
        )
        if not same:
            raise Conflict(f"{wanted.name} is the name of another operation; choose a new one")
        return found

    def move(self, known: Operation, **changes: Any) -> Operation:
        """An operation in its next state; one that somebody else has moved stays where it is.

        Args:
            known: as it was read.
            changes: what is different.

        Returns:
            what is stored now.
        """
        wanted = replace(known, **changes)
        unmoved = (_c.state == known.state, _c.step == known.step, _c.cursor == known.cursor)
        mine = (_c.namespace == known.namespace, _c.name == known.name)
        with self._database.begin() as connection:
            moved = connection.execute(
                correction_operations.update().where(*mine, *unmoved).values(_values(wanted))
            )
            if moved.rowcount:
                return wanted
            found = self._find(connection, known.namespace, known.name)
        assert found is not None
        return found

    def _find(self, connection: sa.Connection, namespace: str, name: str) -> Operation | None:
        query = sa.select(correction_operations).where(_c.namespace == namespace, _c.name == name)
        row = connection.execute(query).mappings().first()
        return None if row is None else _operation(row)


def open_operation_store(parts: Parts) -> OperationStore:
    """The operations in the control plane."""
    return OperationStore(parts.get(open_database))


def _values(operation: Operation) -> dict[str, Any]:
    return {name: getattr(operation, name) for name in _PLAIN} | {
        "filter": operation.selection.members(),
        "vector": str(operation.vector),
        "written": str(operation.written),
    }


def _operation(row: sa.RowMapping) -> Operation:
    return Operation(
        selection=selection_from_members(row["filter"]),
        vector=vector_from_text(row["vector"]),
        written=vector_from_text(row["written"]),
        **{name: row[name] for name in _PLAIN},
    )
