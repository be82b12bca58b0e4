"""Subjects in SQL. Every call names the namespace first."""

import json
from collections.abc import Sequence

import sqlalchemy as sa

from tollgate.core.clock import Clock
from tollgate.core.errors import NotFound
from tollgate.core.ids import new_ulid
from tollgate.customers.subject import Subject, SubjectInput
from tollgate.platform.sql import Database, Instant, Json, Text, metadata

subjects = sa.Table(
    "subjects",
    metadata,
    sa.Column("id", Text, primary_key=True),
    sa.Column("namespace", Text, nullable=False),
    sa.Column("key", Text, nullable=False),
    sa.Column("display_name", Text),
    sa.Column("metadata", Json),
    sa.Column("stripe_customer_id", Text),
    sa.Column("current_period_start", Instant),
    sa.Column("current_period_end", Instant),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
    sa.Column("deleted_at", Instant),
)
sa.Index(
    "uq_subjects_live_key",
    subjects.c.namespace,
    subjects.c.key,
    unique=True,
    sqlite_where=subjects.c.deleted_at.is_(None),
    postgresql_where=subjects.c.deleted_at.is_(None),
)


class SubjectStore:
    """The subjects of every namespace. Deleting is soft: it frees the key and keeps the row."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def upsert(self, namespace: str, wanted: Sequence[SubjectInput]) -> tuple[Subject, ...]:
        """Creates each subject, or changes the members that are given for it; all or none.

        Returns:
            the subjects as they are now, in the order asked. Who asks for the same again gets the
            same: `updated_at` moves only where something changes.

        Raises:
            Conflict: another request created one of them at the same moment; ask again.
        """
        with self._database.begin() as connection:
            return tuple(self._upsert(connection, namespace, subject) for subject in wanted)

    def get(self, namespace: str, id_or_key: str) -> Subject:
        """The live subject of this id, or else of this key.

        A key may look like an id; then the id wins. Ids are found in either case.

        Raises:
            NotFound: there is none.
        """
        with self._database.connect() as connection:
            return _live(connection, namespace, id_or_key)

    def list(self, namespace: str, keys: Sequence[str] | None = None) -> tuple[Subject, ...]:
        """The live subjects, oldest first.

        Args:
            namespace: whose subjects.
            keys: only those of these keys; None: all.
        """
        c = subjects.c
        query = sa.select(subjects).where(c.namespace == namespace, c.deleted_at.is_(None))
        if keys is not None:
            query = query.where(c.key.in_(sorted(set(keys))))
        with self._database.connect() as connection:
            found = connection.execute(query.order_by(c.id)).mappings()
            return tuple(Subject(**row) for row in found)

    def display_names_of_all(self, count_max: int) -> tuple[tuple[str, str, str], ...] | None:
        """Namespace, key and display name of every live subject that has one.

        Returns:
            None if there are more than `count_max`.
        """
        c = subjects.c
        query = sa.select(c.namespace, c.key, c.display_name).where(
            c.deleted_at.is_(None), c.display_name.is_not(None), c.display_name != ""
        )
        with self._database.connect() as connection:
            rows = connection.execute(query.limit(count_max + 1)).all()
        return None if len(rows) > count_max else tuple((row[0], row[1], row[2]) for row in rows)

    def delete(self, namespace: str, id_or_key: str) -> Subject:
        """Ends a subject; its key is free again, and its usage stays.

        Raises:
            NotFound: no such live subject.
        """
        now = self._clock.now()
        with self._database.begin() as connection:
            subject = _live(connection, namespace, id_or_key)
            deleted = connection.execute(
                subjects.update()
                .where(subjects.c.id == subject.id)
                .values(deleted_at=now, updated_at=now)
                .returning(subjects)
            )
            return Subject(**deleted.mappings().one())

    def _upsert(self, connection: sa.Connection, namespace: str, wanted: SubjectInput) -> Subject:
        now = self._clock.now()
        c = subjects.c
        stored = connection.execute(
            sa.select(subjects)
            .where(c.namespace == namespace, c.key == wanted.key, c.deleted_at.is_(None))
            .with_for_update()
        )
        row = stored.mappings().one_or_none()
        write: sa.Insert | sa.Update
        if row is None:
            values = {
                "id": new_ulid(),
                "namespace": namespace,
                "key": wanted.key,
                "created_at": now,
                **wanted.fields,
            }
            write = subjects.insert().values(**values, updated_at=now)
        elif all(_same(row[name], value) for name, value in wanted.fields.items()):
            return Subject(**row)
        else:
            changed = subjects.update().where(c.id == row["id"])
            write = changed.values(**wanted.fields, updated_at=now)
        return Subject(**connection.execute(write.returning(subjects)).mappings().one())


def _same(stored: object, wanted: object) -> bool:
    """Equal, and in JSON too: to Python 1, 1.0 and true are one."""
    if isinstance(stored, dict) and isinstance(wanted, dict):
        return json.dumps(stored) == json.dumps(wanted)
    return stored == wanted


def _live(connection: sa.Connection, namespace: str, id_or_key: str) -> Subject:
    c = subjects.c
    by_id = c.id == id_or_key.upper()
    query = (
        sa.select(subjects)
        .where(c.namespace == namespace, c.deleted_at.is_(None), by_id | (c.key == id_or_key))
        .order_by(sa.case((by_id, 0), else_=1))
        .limit(1)
    )
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no subject {id_or_key}")
    return Subject(**row)
