"""Meters in SQL. Every call names the namespace first."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa

from tollgate.core.clock import Clock
from tollgate.core.errors import Conflict, NotFound
from tollgate.core.ids import new_ulid
from tollgate.metering.meter import Aggregation, ManagedBy, Meter, MeterChanges, MeterInput
from tollgate.metering.meter_use import (
    needed_dimensions,
    refuse_if_dimensions_are_used,
    refuse_if_used,
)
from tollgate.platform.filters import Filter
from tollgate.platform.sql import ROWS_SKIPPED_MAX, Database, Instant, Json, Text, metadata
from tollgate.platform.sql_filters import sql_condition

meters = sa.Table(
    "meters",
    metadata,
    sa.Column("id", Text, primary_key=True),
    sa.Column("namespace", Text, nullable=False),
    sa.Column("slug", Text, nullable=False),
    sa.Column("name", Text, nullable=False),
    sa.Column("description", Text),
    sa.Column("metadata", Json, nullable=False),
    sa.Column("annotations", Json, nullable=False),
    sa.Column("aggregation", Text, nullable=False),
    sa.Column("event_type", Text, nullable=False),
    sa.Column("event_from", Instant),
    sa.Column("value_property", Text),
    sa.Column("group_by", Json, nullable=False),
    sa.Column("managed_by", Text, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
    sa.Column("deleted_at", Instant),
)
sa.Index(
    "uq_meters_live_slug",
    meters.c.namespace,
    meters.c.slug,
    unique=True,
    sqlite_where=meters.c.deleted_at.is_(None),
    postgresql_where=meters.c.deleted_at.is_(None),
)


class MeterOrder(StrEnum):
    """What a list of meters may be sorted by; ties fall to the id, so pages never overlap."""

    SLUG = "slug"
    NAME = "name"
    AGGREGATION = "aggregation"
    CREATED_AT = "created_at"
    UPDATED_AT = "updated_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterListing:
    """Which meters, and which page of them.

    Attributes:
        page: from 1.
        then_by: what to sort by next where `order_by` ties, each with whether it descends.
        filters: columns and what must hold for each; all must hold. Case is ignored for ASCII only.
    """

    page: int = 1
    page_size: int = 100
    order_by: MeterOrder = MeterOrder.CREATED_AT
    descending: bool = False
    then_by: tuple[tuple[MeterOrder, bool], ...] = ()
    include_deleted: bool = False
    filters: tuple[tuple[MeterOrder, Filter], ...] = ()


class MeterStore:
    """The meters of every namespace. Deleting is soft: it frees the slug and keeps the row."""

    def __init__(
        self, database: Database, clock: Clock, changed: Callable[[Meter], None] | None = None
    ) -> None:
        """Opens nothing.

        Args:
            database: migrated.
            clock: for what is written.
            changed: called with a meter as it is now, after each change that was committed.
        """
        self._database = database
        self._clock = clock
        self._changed = changed or (lambda _meter: None)

    def create(
        self, namespace: str, wanted: MeterInput, managed_by: ManagedBy = ManagedBy.API
    ) -> Meter:
        """Stores a new meter.

        Raises:
            Conflict: a live meter has the slug.
        """
        now = self._clock.now()
        meter = Meter(
            id=new_ulid(),
            namespace=namespace,
            slug=wanted.slug,
            name=wanted.name,
            description=wanted.description,
            metadata=wanted.metadata,
            annotations={},
            aggregation=wanted.aggregation,
            event_type=wanted.event_type,
            event_from=wanted.event_from,
            value_property=wanted.value_property,
            group_by=wanted.group_by,
            managed_by=managed_by,
            created_at=now,
            updated_at=now,
            deleted_at=None,
        )
        try:
            with self._database.begin() as connection:
                connection.execute(meters.insert().values(_row_from_meter(meter)))
        except Conflict:
            raise Conflict(f"there is a meter with the slug {wanted.slug} already") from None
        self._changed(meter)
        return meter

    def get(self, namespace: str, id_or_slug: str) -> Meter:
        """The live meter of this id, or else of this slug.

        A slug may look like an id; then the id wins. Ids are found in either case.

        Raises:
            NotFound: there is none.
        """
        with self._database.connect() as connection:
            return _meter_from_row(_live_row(connection, namespace, id_or_slug))

    def get_by_id(self, namespace: str, meter_id: str) -> Meter:
        """The live meter of this id.

        Raises:
            NotFound: there is none.
        """
        meter = self.get(namespace, meter_id)
        if meter.id != meter_id.upper():
            raise NotFound(f"there is no meter {meter_id}")
        return meter

    def find(self, namespace: str, slugs: Collection[str]) -> dict[str, Meter]:
        """The live meters of these slugs, by slug."""
        found = self._live(namespace, meters.c.slug.in_(sorted(slugs)))
        return {meter.slug: meter for meter in found}

    def list(self, namespace: str, listing: MeterListing) -> tuple[Meter, ...]:
        """One page of meters."""
        orders = ((listing.order_by, listing.descending), *listing.then_by)
        columns = [(meters.c[order.value], descending) for order, descending in orders]
        columns.append((meters.c.id, listing.descending))
        skipped = min((listing.page - 1) * listing.page_size, ROWS_SKIPPED_MAX)
        query = (
            sa.select(meters)
            .where(*_conditions(namespace, listing))
            .order_by(*(c.desc() if descending else c for c, descending in columns))
            .limit(listing.page_size)
            .offset(skipped)
        )
        with self._database.connect() as connection:
            return tuple(_meter_from_row(row) for row in connection.execute(query).mappings())

    def count(self, namespace: str, listing: MeterListing) -> int:
        """How many meters all pages of a listing have together."""
        query = sa.select(sa.func.count()).select_from(meters)
        with self._database.connect() as connection:
            return connection.scalar(query.where(*_conditions(namespace, listing))) or 0

    def live(self, namespace: str) -> tuple[Meter, ...]:
        """Every live meter, by slug."""
        return self._live(namespace)

    def live_of_all(self) -> tuple[Meter, ...]:
        """Every live meter of every namespace."""
        query = sa.select(meters).where(meters.c.deleted_at.is_(None))
        with self._database.connect() as connection:
            return tuple(_meter_from_row(row) for row in connection.execute(query).mappings())

    def live_of_event_types(
        self, namespace: str, event_types: Collection[str]
    ) -> tuple[Meter, ...]:
        """Every live meter that reads one of these event types, by slug."""
        return self._live(namespace, meters.c.event_type.in_(sorted(event_types)))

    def needed_dimensions(self, namespace: str) -> dict[str, dict[str, str]]:
        """Dimensions that must stay, by meter's id, each with the key of a feature for it."""
        with self._database.connect() as connection:
            return needed_dimensions(connection, namespace)

    def update(
        self,
        namespace: str,
        id_or_slug: str,
        change: Callable[[Meter], MeterChanges],
        managed_by: ManagedBy | None = None,
    ) -> Meter:
        """Replaces the mutable part of a live meter.

        Args:
            namespace: whose meter.
            id_or_slug: as in `get`.
            change: gives the new part from the stored meter; called inside the transaction, so what
                it decides on cannot change before it is written. What it raises ends the update.
            managed_by: who defines the meter from now on; None: as before.

        Returns:
            the meter; unchanged, `updated_at` included, where nothing differs.

        Raises:
            NotFound: no such live meter.
            Conflict: a feature needs a dimension that would be gone.
        """
        with self._database.begin() as connection:
            before = _meter_from_row(_live_row(connection, namespace, id_or_slug, for_update=True))
            changes = change(before)
            values = {
                "name": changes.name,
                "description": changes.description,
                "metadata": dict(changes.metadata),
                "group_by": dict(changes.group_by),
                "managed_by": (managed_by or before.managed_by).value,
            }
            stored = _row_from_meter(before)
            if all(_same(stored[name], value) for name, value in values.items()):
                return before
            refuse_if_dimensions_are_used(connection, before, changes.group_by)
            row = connection.execute(
                meters.update()
                .where(meters.c.id == before.id)
                .values(**values, updated_at=self._clock.now())
                .returning(meters)
            )
            after = _meter_from_row(row.mappings().one())
        self._changed(after)
        return after

    def delete(self, namespace: str, id_or_slug: str) -> Meter:
        """Ends a meter; its slug is free again.

        Raises:
            NotFound: no such live meter.
            Conflict: a feature counts by it.
        """
        now = self._clock.now()
        with self._database.begin() as connection:
            row = _live_row(connection, namespace, id_or_slug, for_update=True)
            refuse_if_used(connection, _meter_from_row(row))
            deleted = connection.execute(
                meters.update()
                .where(meters.c.id == row["id"])
                .values(deleted_at=now, updated_at=now)
                .returning(meters)
            )
            gone = _meter_from_row(deleted.mappings().one())
        self._changed(gone)
        return gone

    def _live(self, namespace: str, *conditions: sa.ColumnElement[bool]) -> tuple[Meter, ...]:
        live = (meters.c.namespace == namespace, meters.c.deleted_at.is_(None))
        query = sa.select(meters).where(*live, *conditions).order_by(meters.c.slug)
        with self._database.connect() as connection:
            return tuple(_meter_from_row(row) for row in connection.execute(query).mappings())


def held_meter(
    connection: sa.Connection, namespace: str, *, slug: str | None = None, meter_id: str = ""
) -> Meter | None:
    """The live meter of a slug, or else of an id, kept as it is until the transaction ends.

    Args:
        connection: of a `Database.begin`.
        namespace: whose meter.
        slug: which meter; None: `meter_id` says it.
        meter_id: in upper case.
    """
    c = meters.c
    named = c.id == meter_id if slug is None else c.slug == slug
    query = sa.select(meters).where(c.namespace == namespace, c.deleted_at.is_(None), named)
    # Others may hold it too, but who changes it waits. Says nothing in SQLite: see `_live_row`.
    row = connection.execute(query.with_for_update(read=True)).mappings().one_or_none()
    return None if row is None else _meter_from_row(row)


def meters_of_ids(
    connection: sa.Connection, namespace: str, meter_ids: Collection[str]
) -> dict[str, Meter]:
    """The meters of these ids, deleted ones too, by id; one statement."""
    chosen = (meters.c.namespace == namespace, meters.c.id.in_(sorted(set(meter_ids))))
    found = connection.execute(sa.select(meters).where(*chosen)).mappings()
    return {row["id"]: _meter_from_row(row) for row in found}


def _live_row(
    connection: sa.Connection, namespace: str, id_or_slug: str, *, for_update: bool = False
) -> sa.RowMapping:
    c = meters.c
    by_id = c.id == id_or_slug.upper()
    query = (
        sa.select(meters)
        .where(c.namespace == namespace, c.deleted_at.is_(None), by_id | (c.slug == id_or_slug))
        .order_by(sa.case((by_id, 0), else_=1))
        .limit(1)
    )
    if for_update:
        # Says nothing in SQLite, where `Database.begin` holds the one write lock already.
        query = query.with_for_update()
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no meter {id_or_slug}")
    return row


def _conditions(namespace: str, listing: MeterListing) -> Iterable[sa.ColumnElement[bool]]:
    yield meters.c.namespace == namespace
    if not listing.include_deleted:
        yield meters.c.deleted_at.is_(None)
    for column, asked in listing.filters:
        yield sql_condition(meters.c[column.value], asked)


def _same(stored: object, wanted: object) -> bool:
    """Equal, and where they are objects, in the same order: dimensions are shown as defined."""
    if isinstance(stored, dict) and isinstance(wanted, dict):
        return list(stored.items()) == list(wanted.items())
    return stored == wanted


def _row_from_meter(meter: Meter) -> dict[str, object]:
    return {
        "id": meter.id,
        "namespace": meter.namespace,
        "slug": meter.slug,
        "name": meter.name,
        "description": meter.description,
        "metadata": dict(meter.metadata),
        "annotations": dict(meter.annotations),
        "aggregation": meter.aggregation.value,
        "event_type": meter.event_type,
        "event_from": meter.event_from,
        "value_property": meter.value_property,
        "group_by": dict(meter.group_by),
        "managed_by": meter.managed_by.value,
        "created_at": meter.created_at,
        "updated_at": meter.updated_at,
        "deleted_at": meter.deleted_at,
    }


def _meter_from_row(row: sa.RowMapping) -> Meter:
    enums = {
        "aggregation": Aggregation(row["aggregation"]),
        "managed_by": ManagedBy(row["managed_by"]),
    }
    return Meter(**{**row, **enums})
