"""Features in SQL. Every call names the namespace first."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa

from tollgate.core.clock import Clock
from tollgate.core.errors import Conflict, Fault, Gone, InvalidInput, NotFound
from tollgate.core.ids import new_ulid
from tollgate.limits.dimension_filter import filter_from_stored, stored_from_filter
from tollgate.limits.feature import (
    Feature,
    FeatureInput,
    FeatureMeter,
    check_meter,
    dimensions_of,
    unit_cost_faults,
)
from tollgate.limits.unit_cost import UnitCost, members_from_unit_cost, parse_unit_cost
from tollgate.metering.meter import Meter
from tollgate.metering.store import held_meter
from tollgate.platform.filters import Filter
from tollgate.platform.sql import ROWS_SKIPPED_MAX, Database, Instant, Json, Text, metadata
from tollgate.platform.sql_filters import sql_condition

features = sa.Table(
    "features",
    metadata,
    sa.Column("id", Text, primary_key=True),
    sa.Column("namespace", Text, nullable=False),
    sa.Column("key", Text, nullable=False),
    sa.Column("name", Text, nullable=False),
    sa.Column("description", Text),
    sa.Column("metadata", Json, nullable=False),
    sa.Column("meter_id", Text),
    sa.Column("meter_slug", Text),
    sa.Column("conditions", Json, nullable=False),
    sa.Column("unit_cost", Json),
    # What of the meter must stay: metering's `meter_use.py` asks for it.
    sa.Column("dimensions", Json, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
    sa.Column("archived_at", Instant),
)
_c = features.c
sa.Index(
    "uq_features_live_key",
    _c.namespace,
    _c.key,
    unique=True,
    sqlite_where=_c.archived_at.is_(None),
    postgresql_where=_c.archived_at.is_(None),
)
sa.Index("ix_features_namespace", _c.namespace, _c.created_at, _c.id)
sa.Index("ix_features_meter", _c.namespace, _c.meter_id)


class FeatureOrder(StrEnum):
    """What a list of features may be sorted by; ties fall to the id, so pages never overlap."""

    ID = "id"
    KEY = "key"
    NAME = "name"
    CREATED_AT = "created_at"
    UPDATED_AT = "updated_at"


class FeatureField(StrEnum):
    """What features can be filtered by."""

    KEY = "key"
    NAME = "name"
    METER_ID = "meter_id"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureListing:
    """Which features, and which stretch of them.

    Attributes:
        skipped: how many come before.
        count_max: how many at most.
        orders: the weightiest first, each with whether it descends.
        meter_slugs: only features of meters of these slugs; empty: whatever they count by.
        filters: all must hold. Case is ignored for ASCII only.
    """

    skipped: int = 0
    count_max: int = 100
    orders: tuple[tuple[FeatureOrder, bool], ...] = ((FeatureOrder.CREATED_AT, False),)
    include_archived: bool = False
    meter_slugs: tuple[str, ...] = ()
    filters: tuple[tuple[FeatureField, Filter], ...] = ()


class FeatureStore:
    """The features of every namespace. Archiving is for good: it frees the key, and keeps the row.

    A meter stays as long as a feature that is not archived counts by it.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def create(self, namespace: str, wanted: FeatureInput) -> Feature:
        """Stores a new feature.

        Raises:
            InvalidInput: there is no such meter, or it cannot be this feature's: every fault.
            Conflict: a feature that is not archived has the key.
        """
        feature_id = new_ulid()
        try:
            with self._database.begin() as connection:
                meter = _wanted_meter(connection, namespace, wanted)
                check_meter(wanted, meter)
                now = self._clock.now()
                values = _values(wanted, meter) | {"id": feature_id, "namespace": namespace}
                values |= {"created_at": now, "updated_at": now}
                write = features.insert().values(values).returning(features)
                return _feature(connection.execute(write).mappings().one())
        except Conflict:
            raise self._key_taken(namespace, wanted.key) from None

    def get(self, namespace: str, id_or_key: str) -> Feature:
        """The feature of this id, archived or not, or else the one that has this key now.

        Ids are found in either case; no key looks like one.

        Raises:
            NotFound: there is none.
        """
        with self._database.connect() as connection:
            return _feature(_row(connection, namespace, id_or_key))

    def get_live(self, namespace: str, id_or_key: str) -> Feature:
        """The feature of this id or key, if it is not archived.

        Raises:
            NotFound: there is none.
        """
        with self._database.connect() as connection:
            return _feature(_row(connection, namespace, id_or_key, live=True))

    def get_by_id(self, namespace: str, feature_id: str) -> Feature:
        """The feature of this id, if it is not archived.

        Raises:
            NotFound: there never was one.
            Gone: it is archived.
        """
        found = self.by_ids(namespace, [feature_id.upper()]).get(feature_id.upper())
        if found is None:
            raise NotFound(f"there is no feature {feature_id}")
        if found.archived_at is not None:
            raise Gone(f"the feature {feature_id} is archived")
        return found

    def by_keys(self, namespace: str, keys: Collection[str]) -> dict[str, Feature]:
        """The features that have these keys now, by key; one statement."""
        chosen = _c.archived_at.is_(None) & _c.key.in_(sorted(set(keys)))
        return {each.key: each for each in self._where(namespace, chosen)}

    def by_ids(self, namespace: str, feature_ids: Collection[str]) -> dict[str, Feature]:
        """The features of these ids, archived ones too, by id; one statement."""
        chosen = _c.id.in_(sorted(set(feature_ids)))
        return {each.id: each for each in self._where(namespace, chosen)}

    def list(self, namespace: str, listing: FeatureListing) -> tuple[tuple[Feature, ...], int]:
        """A stretch of features, and how many there are in all."""
        columns = [(_c[order.value], descending) for order, descending in listing.orders]
        columns.append((_c.id, columns[0][1]))
        conditions = tuple(_conditions(namespace, listing))
        query = (
            sa.select(features)
            .where(*conditions)
            .order_by(*(c.desc() if descending else c for c, descending in columns))
            .limit(listing.count_max)
            .offset(min(listing.skipped, ROWS_SKIPPED_MAX))
        )
        counting = sa.select(sa.func.count()).select_from(features).where(*conditions)
        with self._database.connect() as connection:
            found = tuple(map(_feature, connection.execute(query).mappings()))
            return found, connection.scalar(counting) or 0

    def update(
        self, namespace: str, feature_id: str, change: Callable[[Feature], UnitCost | None]
    ) -> Feature:
        """Gives a feature another unit cost.

        Args:
            namespace: whose feature.
            feature_id: of one that is not archived.
            change: gives the new cost from the stored feature, inside the transaction.

        Returns:
            the feature; unchanged, `updated_at` included, where nothing differs.

        Raises:
            NotFound: no such feature.
            InvalidInput: the meter lacks dimensions that the cost needs: every fault.
        """
        with self._database.begin() as connection:
            before = _feature(_row(connection, namespace, feature_id, live=True, for_update=True))
            cost = change(before)
            if cost == before.unit_cost:
                return before
            meter = before.meter
            held = meter and held_meter(connection, namespace, meter_id=meter.id)
            faults = unit_cost_faults(cost, held or None)
            if faults:
                raise InvalidInput(tuple(faults))
            write = features.update().where(_c.id == before.id)
            values = {
                "unit_cost": None if cost is None else members_from_unit_cost(cost),
                "dimensions": dimensions_of(before.conditions, cost),
                "updated_at": self._clock.now(),
            }
            row = connection.execute(write.values(values).returning(features))
            return _feature(row.mappings().one())

    def archive(self, namespace: str, id_or_key: str) -> Feature:
        """Ends the sale of a feature, for good; its key is free again.

        Raises:
            NotFound: no such feature that is not archived.
        """
        with self._database.begin() as connection:
            row = _row(connection, namespace, id_or_key, live=True, for_update=True)
            now = self._clock.now()
            write = features.update().where(_c.id == row["id"])
            done = connection.execute(
                write.values(archived_at=now, updated_at=now).returning(features)
            )
            return _feature(done.mappings().one())

    def _where(self, namespace: str, chosen: sa.ColumnElement[bool]) -> tuple[Feature, ...]:
        query = sa.select(features).where(_c.namespace == namespace, chosen)
        with self._database.connect() as connection:
            return tuple(map(_feature, connection.execute(query).mappings()))

    def _key_taken(self, namespace: str, key: str) -> Conflict:
        holder = self.by_keys(namespace, [key]).get(key)
        whose = "" if holder is None else f": {holder.id}"
        return Conflict(f"there is a feature with the key {key} already{whose}; archive it first")


def held_feature(connection: sa.Connection, namespace: str, id_or_key: str) -> Feature:
    """The feature of this id or key, kept from being archived until the transaction ends.

    Raises:
        NotFound: there is none that is not archived.
    """
    return _feature(_row(connection, namespace, id_or_key, live=True, for_share=True))


def features_of_ids(
    connection: sa.Connection, namespace: str, feature_ids: Collection[str]
) -> dict[str, Feature]:
    """The features of these ids, archived ones too, by id; one statement."""
    chosen = (_c.namespace == namespace, _c.id.in_(sorted(set(feature_ids))))
    found = connection.execute(sa.select(features).where(*chosen)).mappings()
    return {row["id"]: _feature(row) for row in found}


def _wanted_meter(connection: sa.Connection, namespace: str, wanted: FeatureInput) -> Meter | None:
    slug, meter_id = wanted.meter_slug, wanted.meter_id
    if slug is None and meter_id is None:
        return None
    meter = held_meter(connection, namespace, slug=slug, meter_id=(meter_id or "").upper())
    if meter is None:
        message = f"there is no meter {slug or meter_id}"
        fault = Fault(field="meterSlug", code="unknown_meter", message=message)
        raise InvalidInput((fault,))
    return meter


def _row(
    connection: sa.Connection,
    namespace: str,
    id_or_key: str,
    *,
    live: bool = False,
    for_update: bool = False,
    for_share: bool = False,
) -> sa.RowMapping:
    by_id = _c.id == id_or_key.upper()
    is_live = _c.archived_at.is_(None)
    named = by_id | (_c.key == id_or_key)
    chosen = is_live & named if live else by_id | (is_live & named)
    query = sa.select(features).where(_c.namespace == namespace, chosen)
    if for_update or for_share:
        # Says nothing in SQLite, where `Database.begin` holds the one write lock already.
        query = query.with_for_update(read=for_share)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no feature {id_or_key}")
    return row


def _conditions(namespace: str, listing: FeatureListing) -> Iterator[sa.ColumnElement[bool]]:
    yield _c.namespace == namespace
    if not listing.include_archived:
        yield _c.archived_at.is_(None)
    if listing.meter_slugs:
        yield _c.meter_slug.in_(listing.meter_slugs)
    for field, asked in listing.filters:
        yield sql_condition(_c[field.value], asked, nullable=field is FeatureField.METER_ID)


def _values(wanted: FeatureInput, meter: Meter | None) -> dict[str, object]:
    cost = wanted.unit_cost
    return {
        "key": wanted.key,
        "name": wanted.name,
        "description": wanted.description,
        "metadata": dict(wanted.metadata),
        "meter_id": meter and meter.id,
        "meter_slug": meter and meter.slug,
        "conditions": {n: stored_from_filter(each) for n, each in wanted.conditions.items()},
        "unit_cost": None if cost is None else members_from_unit_cost(cost),
        "dimensions": dimensions_of(wanted.conditions, cost),
    }


def _feature(row: sa.RowMapping) -> Feature:
    meter = None
    if row["meter_id"] is not None:
        meter = FeatureMeter(id=row["meter_id"], slug=row["meter_slug"])
    return Feature(
        id=row["id"],
        namespace=row["namespace"],
        key=row["key"],
        name=row["name"],
        description=row["description"],
        metadata=row["metadata"],
        meter=meter,
        conditions={name: filter_from_stored(each) for name, each in row["conditions"].items()},
        unit_cost=parse_unit_cost(row["unit_cost"], "unitCost", []),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        archived_at=row["archived_at"],
    )
