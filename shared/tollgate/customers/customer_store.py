"""Customers in SQL. Every call names the namespace first."""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa

from tollgate.core.clock import Clock
from tollgate.core.errors import Conflict, Gone, NotFound
from tollgate.core.ids import new_ulid
from tollgate.customers.attribution import Origin, origins
from tollgate.customers.attribution_store import (
    AttributionStore,
    attributions,
    holder,
    listed_subjects,
    set_attributions,
)
from tollgate.customers.customer import Customer, CustomerInput
from tollgate.customers.customer_use import refuse_if_entitled
from tollgate.platform.filters import Comparison, Filter, Match, Membership, Operator, Presence
from tollgate.platform.sql import ROWS_SKIPPED_MAX, Database, Instant, Json, Text, metadata
from tollgate.platform.sql_filters import sql_condition

customers = sa.Table(
    "customers",
    metadata,
    sa.Column("id", Text, primary_key=True),
    sa.Column("namespace", Text, nullable=False),
    sa.Column("key", Text),
    sa.Column("name", Text, nullable=False),
    sa.Column("description", Text),
    sa.Column("metadata", Json, nullable=False),
    sa.Column("annotations", Json, nullable=False),
    sa.Column("primary_email", Text),
    sa.Column("currency", Text),
    sa.Column("billing_address", Json),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
    sa.Column("deleted_at", Instant),
)
_c = customers.c
sa.Index(
    "uq_customers_live_key",
    _c.namespace,
    _c.key,
    unique=True,
    sqlite_where=_c.deleted_at.is_(None),
    postgresql_where=_c.deleted_at.is_(None),
)
sa.Index("ix_customers_namespace", _c.namespace, _c.name, _c.id)
sa.Index("ix_customers_updated", _c.namespace, _c.updated_at, _c.id)


class CustomerOrder(StrEnum):
    """What a list of customers may be sorted by; ties fall to the id, so pages never overlap."""

    ID = "id"
    NAME = "name"
    CREATED_AT = "created_at"


class CustomerField(StrEnum):
    """What customers can be filtered by."""

    KEY = "key"
    NAME = "name"
    PRIMARY_EMAIL = "primary_email"
    SUBJECT = "subject"
    NOTHING = "nothing"
    """What no customer has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerListing:
    """Which customers, and which page of them.

    Attributes:
        page: from 1.
        orders: the weightiest first, each with whether it descends.
        filters: all must hold. Case is ignored for ASCII only.
    """

    page: int = 1
    page_size: int = 100
    orders: tuple[tuple[CustomerOrder, bool], ...] = ((CustomerOrder.NAME, False),)
    include_deleted: bool = False
    filters: tuple[tuple[CustomerField, Filter], ...] = ()


class CustomerStore:
    """The customers of every namespace. Deleting is soft: it frees key and subjects."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self.attributions = AttributionStore(database)

    def create(self, namespace: str, wanted: CustomerInput) -> Customer:
        """Stores a new customer.

        Raises:
            Conflict: a live customer has the key, or one of the subjects.
        """
        customer_id = new_ulid()
        try:
            with self._database.begin() as connection:
                now = self._clock.now()
                values = _values(wanted) | {"id": customer_id, "namespace": namespace}
                values |= {"annotations": {}, "created_at": now, "updated_at": now}
                connection.execute(customers.insert().values(values))
                _attribute(connection, namespace, customer_id, wanted, now)
                return _read(connection, namespace, customer_id)
        except Conflict:
            raise self._explained(namespace, customer_id, wanted) from None

    def get(self, namespace: str, id_or_key: str) -> Customer:
        """The live customer of this id, or else of this key.

        A key may look like an id; then the id wins. Ids are found in either case.

        Raises:
            NotFound: there is none.
        """
        with self._database.connect() as connection:
            return _read(connection, namespace, id_or_key)

    def get_by_id(self, namespace: str, customer_id: str) -> Customer:
        """The live customer of this id.

        Raises:
            NotFound: there is none.
        """
        found = self.get(namespace, customer_id)
        if found.id != customer_id.upper():
            raise NotFound(f"there is no customer {customer_id}")
        return found

    def owner(self, namespace: str, subject_key: str, instant: datetime) -> Customer | None:
        """The customer whose a subject's usage of an instant is, deleted or not; None: nobody."""
        customer_id = self.attributions.owner(namespace, subject_key, instant)
        return None if customer_id is None else self.find(namespace, [customer_id])[customer_id]

    def find(self, namespace: str, customer_ids: Collection[str]) -> dict[str, Customer]:
        """Customers of these ids, deleted ones too, by id."""
        query = sa.select(customers).where(
            _c.namespace == namespace, _c.id.in_(sorted(set(customer_ids)))
        )
        with self._database.connect() as connection:
            rows = connection.execute(query).mappings().all()
            return {each.id: each for each in _with_subjects(connection, namespace, rows)}

    def changes(self, namespace: str, since: datetime) -> dict[str, datetime]:
        """When customers changed that did from an instant on, by id; attributions are of them."""
        changed = (_c.namespace == namespace, _c.updated_at >= since)
        query = sa.select(_c.id, _c.updated_at).where(*changed)
        with self._database.connect() as connection:
            return {row.id: row.updated_at for row in connection.execute(query)}

    def list(self, namespace: str, listing: CustomerListing) -> tuple[tuple[Customer, ...], int]:
        """One page of customers, and how many all pages have together."""
        columns = [(_c[order.value], descending) for order, descending in listing.orders]
        columns.append((_c.id, columns[0][1]))
        conditions = tuple(_conditions(namespace, listing))
        query = (
            sa.select(customers)
            .where(*conditions)
            .order_by(*(c.desc() if descending else c for c, descending in columns))
            .limit(listing.page_size)
            .offset(min((listing.page - 1) * listing.page_size, ROWS_SKIPPED_MAX))
        )
        counting = sa.select(sa.func.count()).select_from(customers).where(*conditions)
        with self._database.connect() as connection:
            rows = connection.execute(query).mappings().all()
            total = connection.scalar(counting) or 0
            return _with_subjects(connection, namespace, rows), total

    def replace(
        self, namespace: str, id_or_key: str, change: Callable[[Customer], CustomerInput]
    ) -> Customer:
        """Makes a live customer what `change` gives.

        Args:
            namespace: whose customer.
            id_or_key: as in `get`.
            change: gives the new customer from the stored one; called inside the transaction. What
                it raises ends the update.

        Returns:
            the customer; unchanged, `updated_at` included, where nothing differs.

        Raises:
            NotFound: there is no such customer. Gone: it was deleted; only ids are known then.
            Conflict: another live customer has the key, or one of the subjects.
        """
        stored: Customer | None = None
        wanted: CustomerInput | None = None
        try:
            with self._database.begin() as connection:
                stored = self._to_replace(connection, namespace, id_or_key)
                wanted = change(stored)
                now = self._clock.now()
                changed = _attribute(connection, namespace, stored.id, wanted, now)
                if changed or _values(wanted) != _values(stored):
                    write = customers.update().where(_c.id == stored.id)
                    connection.execute(write.values(**_values(wanted), updated_at=now))
                return _read(connection, namespace, stored.id)
        except Conflict:
            if stored is None or wanted is None:
                raise
            raise self._explained(namespace, stored.id, wanted) from None

    def delete(self, namespace: str, id_or_key: str) -> None:
        """Ends a customer, and its attributions at that instant; key and subjects are free again.

        Raises:
            NotFound: no such live customer.
            Conflict: it has entitlements that hold, or are to.
        """
        with self._database.begin() as connection:
            row = _live(connection, namespace, id_or_key, for_update=True)
            now = self._clock.now()
            refuse_if_entitled(connection, namespace, row["id"], now)
            set_attributions(connection, namespace, row["id"], {}, now)
            write = customers.update().where(_c.id == row["id"])
            connection.execute(write.values(deleted_at=now, updated_at=now))

    def _to_replace(self, connection: sa.Connection, namespace: str, id_or_key: str) -> Customer:
        try:
            row = _live(connection, namespace, id_or_key, for_update=True)
        except NotFound:
            was = (_c.namespace == namespace, _c.id == id_or_key.upper())
            if connection.scalar(sa.select(_c.id).where(*was)) is not None:
                raise Gone(f"the customer {id_or_key} was deleted") from None
            raise
        return _with_subjects(connection, namespace, [row])[0]

    def _explained(self, namespace: str, customer_id: str, wanted: CustomerInput) -> Conflict:
        """What a conflict that the database found is about, and with whom."""
        with self._database.connect() as connection:
            return Conflict(_conflict(connection, namespace, customer_id, wanted))


def held_customer(
    connection: sa.Connection, namespace: str, id_or_key: str
) -> tuple[str, str | None]:
    """Id and key of a live customer, which nobody else changes until the transaction ends.

    Args:
        connection: of a `Database.begin`.
        namespace: whose customer.
        id_or_key: as in `CustomerStore.get`.

    Raises:
        NotFound: there is none.
    """
    row = _live(connection, namespace, id_or_key, for_update=True)
    return row["id"], row["key"]


def named_customer(connection: sa.Connection, namespace: str, id_or_key: str) -> str:
    """Id of a live customer, by id or else by key.

    Raises:
        NotFound: there is none.
    """
    customer_id: str = _live(connection, namespace, id_or_key)["id"]
    return customer_id


def _attribute(
    connection: sa.Connection,
    namespace: str,
    customer_id: str,
    wanted: CustomerInput,
    now: datetime,
) -> bool:
    subjects = origins(customer_id, wanted.key, wanted.subject_keys)
    return set_attributions(connection, namespace, customer_id, subjects, now)


def _conflict(
    connection: sa.Connection, namespace: str, customer_id: str, wanted: CustomerInput
) -> str:
    if wanted.key is not None:
        query = sa.select(_c.id).where(
            _c.namespace == namespace,
            _c.key == wanted.key,
            _c.deleted_at.is_(None),
            _c.id != customer_id,
        )
        other = connection.scalar(query)
        if other is not None:
            return f"the customer {other} has the key {wanted.key} already"
    subjects = origins(customer_id, wanted.key, wanted.subject_keys)
    held = holder(connection, namespace, customer_id, subjects)
    if held is None:
        return "another request changed the same customers at the same moment; ask again"
    subject, owner = held
    key = connection.scalar(sa.select(_c.key).where(_c.id == owner))
    shown = owner if key is None else f"{owner} ({key})"
    return f"the subject {subject} belongs to the customer {shown} already, and to one at a time"


def _live(
    connection: sa.Connection, namespace: str, id_or_key: str, *, for_update: bool = False
) -> sa.RowMapping:
    by_id = _c.id == id_or_key.upper()
    query = (
        sa.select(customers)
        .where(_c.namespace == namespace, _c.deleted_at.is_(None), by_id | (_c.key == id_or_key))
        .order_by(sa.case((by_id, 0), else_=1))
        .limit(1)
    )
    if for_update:
        # Says nothing in SQLite, where `Database.begin` holds the one write lock already.
        query = query.with_for_update()
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no customer {id_or_key}")
    return row


def _read(connection: sa.Connection, namespace: str, id_or_key: str) -> Customer:
    return _with_subjects(connection, namespace, [_live(connection, namespace, id_or_key)])[0]


def _with_subjects(
    connection: sa.Connection, namespace: str, rows: Iterable[sa.RowMapping]
) -> tuple[Customer, ...]:
    found = list(rows)
    subjects = listed_subjects(connection, namespace, [row["id"] for row in found])
    return tuple(Customer(**row, subject_keys=subjects.get(row["id"], ())) for row in found)


def _conditions(namespace: str, listing: CustomerListing) -> Iterator[sa.ColumnElement[bool]]:
    yield _c.namespace == namespace
    if not listing.include_deleted:
        yield _c.deleted_at.is_(None)
    for field, asked in listing.filters:
        match field:
            case CustomerField.SUBJECT:
                yield _subject_condition(namespace, asked)
            case CustomerField.NOTHING:
                yield sql_condition(sa.cast(sa.null(), Text), asked, nullable=True)
            case _:
                yield sql_condition(_c[field.value], asked, nullable=True)


def _subject_condition(namespace: str, asked: Filter) -> sa.ColumnElement[bool]:
    """Some subject passes; of filters that say no, none fails."""
    positive, negated = asked, False
    match asked:
        case Presence(present=present):
            positive, negated = Presence(present=True), not present
        case Comparison(operator=Operator.NOT_EQUAL, value=value):
            positive, negated = Comparison(operator=Operator.EQUAL, value=value), True
        case Membership(values=values, negated=True):
            positive, negated = Membership(values=values, negated=False), True
        case Match(pattern=pattern, ignore_case=ignore_case, negated=True):
            positive = Match(pattern=pattern, ignore_case=ignore_case, negated=False)
            negated = True
        case _:
            pass
    found = sa.exists().where(
        attributions.c.namespace == namespace,
        attributions.c.customer_id == _c.id,
        attributions.c.ends_at.is_(None),
        attributions.c.origin == Origin.SUBJECT.value,
        sql_condition(attributions.c.subject_key, positive),
    )
    return sa.not_(found) if negated else found


def _values(wanted: CustomerInput) -> dict[str, object]:
    address = wanted.billing_address
    return {
        "key": wanted.key,
        "name": wanted.name,
        "description": wanted.description,
        "metadata": dict(wanted.metadata),
        "primary_email": wanted.primary_email,
        "currency": wanted.currency,
        "billing_address": None if address is None else dict(address),
    }
