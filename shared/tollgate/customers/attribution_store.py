"""Attributions in SQL. Every call names the namespace first.

Rows are only added and ended. Two partial unique indexes decide every race: one open attribution of
a subject, and one that begins with the beginning of time.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice

import sqlalchemy as sa

from tollgate.core.ids import new_ulid
from tollgate.customers.attribution import Attribution, Origin
from tollgate.platform.sql import Database, Instant, Text, metadata

_KEYS_AT_ONCE = 1000
"""Values that one statement binds: SQLite takes 32,766, PostgreSQL 65,535."""

attributions = sa.Table(
    "attributions",
    metadata,
    sa.Column("id", Text, primary_key=True),
    sa.Column("namespace", Text, nullable=False),
    sa.Column("customer_id", Text, nullable=False),
    sa.Column("subject_key", Text, nullable=False),
    sa.Column("origin", Text, nullable=False),
    sa.Column("begins_at", Instant),
    sa.Column("ends_at", Instant),
    sa.Column("reason", Text),
)
_c = attributions.c
for _name, _absent in (("open", _c.ends_at), ("first", _c.begins_at)):
    sa.Index(
        f"uq_attributions_{_name}",
        _c.namespace,
        _c.subject_key,
        unique=True,
        sqlite_where=_absent.is_(None),
        postgresql_where=_absent.is_(None),
    )
sa.Index("ix_attributions_subject", _c.namespace, _c.subject_key)
sa.Index("ix_attributions_customer", _c.namespace, _c.customer_id)

_VALUES = (_c.customer_id, _c.subject_key, _c.begins_at, _c.ends_at)


class AttributionStore:
    """Reads whose usage is whose. Each question is one indexed statement."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of_customers(
        self,
        namespace: str,
        customer_ids: Collection[str],
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> dict[str, tuple[Attribution, ...]]:
        """What is attributed to customers at some instant of [start, end), by customer id.

        Returns:
            every customer that ever was in the namespace, deleted ones too; others are left out.
        """
        # Every customer has its own id as a subject, for ever: it shows that there is one.
        wanted = sa.or_(_within(start, end), _c.origin == Origin.ID.value)
        query = sa.select(*_VALUES).where(
            _c.namespace == namespace, _c.customer_id.in_(sorted(set(customer_ids))), wanted
        )
        found: dict[str, list[Attribution]] = {}
        with self._database.connect() as connection:
            for row in connection.execute(query.order_by(_c.id)).mappings():
                found.setdefault(row["customer_id"], []).append(Attribution(**row))
        return {customer: tuple(rows) for customer, rows in found.items()}

    def of_all(
        self, namespace: str, start: datetime | None, end: datetime | None, count_max: int
    ) -> tuple[Attribution, ...] | None:
        """What is attributed to anybody at some instant of [start, end).

        Returns:
            None if there are more than `count_max`.
        """
        query = sa.select(*_VALUES).where(_c.namespace == namespace, _within(start, end))
        with self._database.connect() as connection:
            rows = connection.execute(query.limit(count_max + 1)).mappings().all()
        return None if len(rows) > count_max else tuple(Attribution(**row) for row in rows)

    def of_subjects(self, namespace: str, subject_keys: Collection[str]) -> tuple[Attribution, ...]:
        """Every attribution that these subjects ever had; at most some thousands are asked for."""
        keys = sorted(set(subject_keys))
        query = sa.select(*_VALUES).where(_c.namespace == namespace, _c.subject_key.in_(keys))
        with self._database.connect() as connection:
            found = connection.execute(query.order_by(_c.id)).mappings()
            return tuple(Attribution(**row) for row in found)

    def owner(self, namespace: str, subject_key: str, instant: datetime) -> str | None:
        """Id of the customer whose a subject's usage of an instant is; None: nobody's."""
        found = self.of_subjects(namespace, [subject_key])
        return next((each.customer_id for each in found if each.covers(instant)), None)


def attributions_of(
    connection: sa.Connection, namespace: str, customer_ids: Collection[str]
) -> dict[str, tuple[Attribution, ...]]:
    """All that ever was attributed to customers, by customer id; one statement."""
    query = sa.select(*_VALUES).where(
        _c.namespace == namespace, _c.customer_id.in_(sorted(set(customer_ids)))
    )
    found: dict[str, list[Attribution]] = {}
    for row in connection.execute(query.order_by(_c.id)).mappings():
        found.setdefault(row["customer_id"], []).append(Attribution(**row))
    return {customer: tuple(rows) for customer, rows in found.items()}


def listed_subjects(
    connection: sa.Connection, namespace: str, customer_ids: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """The subject keys that customers list now, in the order in which they came."""
    query = sa.select(_c.customer_id, _c.subject_key).where(
        _c.namespace == namespace,
        _c.customer_id.in_(sorted(customer_ids)),
        _c.ends_at.is_(None),
        _c.origin == Origin.SUBJECT.value,
    )
    found: dict[str, list[str]] = {}
    for customer_id, subject_key in connection.execute(query.order_by(_c.id)):
        found.setdefault(customer_id, []).append(subject_key)
    return {customer_id: tuple(keys) for customer_id, keys in found.items()}


def set_attributions(
    connection: sa.Connection,
    namespace: str,
    customer_id: str,
    wanted: Mapping[str, Origin],
    now: datetime,
) -> bool:
    """Makes these the subjects of a customer from now on; what is its already goes on.

    Args:
        connection: of `Database.begin`.
        namespace: whose.
        customer_id: of a customer that nobody else changes meanwhile.
        wanted: all of its subjects; none ends all.
        now: when.

    Returns:
        whether anything changed.

    Raises:
        Conflict: a subject is another customer's.
    """
    query = sa.select(_c.subject_key, _c.origin).where(
        _c.namespace == namespace, _c.customer_id == customer_id, _c.ends_at.is_(None)
    )
    held = {key: Origin(origin) for key, origin in connection.execute(query)}
    gone = [key for key in held if key not in wanted]
    renamed = {key for key, origin in wanted.items() if held.get(key, origin) is not origin}
    new = [key for key in wanted if key not in held]
    end_attributions(connection, namespace, customer_id, gone, now)
    for origin in Origin:
        for keys in _pieces(key for key in renamed if wanted[key] is origin):
            connection.execute(_open(namespace, customer_id, keys).values(origin=origin.value))
    if new:
        add_attributions(connection, namespace, customer_id, {key: wanted[key] for key in new}, now)
    return bool(gone or renamed or new)


def end_attributions(
    connection: sa.Connection,
    namespace: str,
    customer_id: str,
    subject_keys: Collection[str],
    now: datetime,
) -> None:
    """Ends what is a customer's; what begins later than now never was."""
    for keys in _pieces(subject_keys):
        ended = sa.case((_c.begins_at > now, _c.begins_at), else_=sa.literal(now, Instant))
        connection.execute(_open(namespace, customer_id, keys).values(ends_at=ended))


def holder(
    connection: sa.Connection, namespace: str, customer_id: str, subject_keys: Collection[str]
) -> tuple[str, str] | None:
    """A subject among these that is another customer's now, and the id of that customer."""
    for keys in _pieces(subject_keys):
        query = sa.select(_c.subject_key, _c.customer_id).where(
            _c.namespace == namespace,
            _c.subject_key.in_(keys),
            _c.ends_at.is_(None),
            _c.customer_id != customer_id,
        )
        row = connection.execute(query.order_by(_c.subject_key).limit(1)).one_or_none()
        if row is not None:
            return row.subject_key, row.customer_id
    return None


def add_attributions(
    connection: sa.Connection,
    namespace: str,
    customer_id: str,
    new: Mapping[str, Origin],
    now: datetime,
    reason: str | None = None,
) -> None:
    """Makes subjects that are nobody's a customer's, from now on or from the beginning of time.

    Raises:
        Conflict: a subject is somebody's.
    """
    rows = [
        {
            "id": new_ulid(),
            "namespace": namespace,
            "customer_id": customer_id,
            "subject_key": key,
            "origin": origin.value,
            "begins_at": now,
            "reason": reason,
        }
        for key, origin in new.items()
    ]
    # In one order, so that two that claim the same subjects do not wait for each other.
    connection.execute(attributions.insert(), sorted(rows, key=lambda row: str(row["subject_key"])))
    # Only now nobody else can attribute them: what was before is known for good.
    before = attributions.alias("before")
    same = sa.and_(
        before.c.namespace == namespace,
        before.c.subject_key == _c.subject_key,
        before.c.id != _c.id,
    )
    added = sa.and_(
        _c.namespace == namespace,
        _c.customer_id == customer_id,
        _c.ends_at.is_(None),
        _c.begins_at == now,
    )
    is_first = ~sa.exists().where(same)
    connection.execute(attributions.update().where(added, is_first).values(begins_at=None))
    # A clock that was set back, or another machine's, must not make two own one instant.
    last = sa.select(sa.func.max(before.c.ends_at)).where(same).scalar_subquery()
    late = sa.exists().where(same, before.c.ends_at > now)
    connection.execute(attributions.update().where(added, late).values(begins_at=last))


def _open(namespace: str, customer_id: str, keys: Collection[str]) -> sa.Update:
    return attributions.update().where(
        _c.namespace == namespace,
        _c.customer_id == customer_id,
        _c.ends_at.is_(None),
        _c.subject_key.in_(keys),
    )


def _within(start: datetime | None, end: datetime | None) -> sa.ColumnElement[bool]:
    """Attributions that hold at some instant of [start, end)."""
    parts: list[sa.ColumnElement[bool]] = [sa.true()]
    if start is not None:
        parts.append(sa.or_(_c.ends_at.is_(None), _c.ends_at > start))
    if end is not None:
        parts.append(sa.or_(_c.begins_at.is_(None), _c.begins_at < end))
    return sa.and_(*parts)


def _pieces(keys: Iterable[str]) -> Iterator[list[str]]:
    left = iter(keys)
    while piece := list(islice(left, _KEYS_AT_ONCE)):
        yield piece
