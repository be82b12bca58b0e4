"""Reads all that is known of entitlements, from one snapshot of the database."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from tollgate.core.errors import PermanentFault
from tollgate.customers.attribution import Attribution
from tollgate.customers.attribution_store import attributions_of
from tollgate.customers.customer_store import named_customer
from tollgate.limits.entitlement import MeteredEntitlement
from tollgate.limits.entitlement_record import EntitlementRecord
from tollgate.limits.entitlement_rows import SELECTED, resets_of
from tollgate.limits.entitlement_tables import (
    active_at,
    entitlements,
    grant_of_row,
    grants,
    record_of_row,
)
from tollgate.limits.feature import Feature
from tollgate.limits.feature_store import features_of_ids
from tollgate.limits.grant import Grant
from tollgate.limits.plan import Facts
from tollgate.limits.reset import Reset
from tollgate.limits.usage_kind import usage_kind
from tollgate.metering.meter import Meter
from tollgate.metering.store import meters_of_ids
from tollgate.platform.sql import Database

_c = entitlements.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Metering:
    """What a metered entitlement is evaluated by.

    Attributes:
        entitlement: its definition.
        feature: whose usage counts, archived or not.
        meter: that the feature counts by, deleted or not.
        grants: of it.
        resets: of it.
        attributions: all of its customer.
    """

    entitlement: MeteredEntitlement
    feature: Feature
    meter: Meter
    grants: tuple[Grant, ...]
    resets: tuple[Reset, ...]
    attributions: tuple[Attribution, ...]

    @property
    def facts(self) -> Facts:
        """The same for the engine."""
        known = self.entitlement
        return Facts(
            kind=usage_kind(self.meter.aggregation),
            usage_period=known.usage_period,
            measure_usage_from=known.measure_usage_from,
            grants=self.grants,
            resets=self.resets,
            preserve_overage_at_reset=known.preserve_overage_at_reset,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """An entitlement, and what it is evaluated by if it is metered."""

    record: EntitlementRecord
    metering: Metering | None


class FactsStore:
    """Reads; nothing is remembered."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def customer_id(self, namespace: str, customer: str) -> str:
        """Id of a live customer, by id or key.

        Raises:
            NotFound: there is none.
        """
        with self._database.connect() as connection:
            return named_customer(connection, namespace, customer)

    def of_customer(
        self, namespace: str, customer: str, at: datetime, names: Collection[str] | None = None
    ) -> tuple[str, tuple[Known, ...]]:
        """A customer's entitlements that hold at an instant, by feature.

        Args:
            namespace: whose.
            customer: id or key of a live one.
            at: the instant.
            names: only these: by id of the entitlement, whenever it holds, or by the feature's key.

        Returns:
            The customer's id, and its entitlements.

        Raises:
            NotFound: there is no such customer.
        """
        with self._database.connect() as connection:
            customer_id = named_customer(connection, namespace, customer)
            chosen = _chosen(at, names)
            return customer_id, _known(connection, namespace, [customer_id], chosen)

    def records_of_customer(
        self, namespace: str, customer: str, at: datetime, names: Collection[str] | None = None
    ) -> tuple[str, tuple[EntitlementRecord, ...]]:
        """As `of_customer`, without what metered ones are evaluated by."""
        with self._database.connect() as connection:
            customer_id = named_customer(connection, namespace, customer)
            chosen = _chosen(at, names)
            return customer_id, tuple(_records(connection, namespace, [customer_id], chosen))

    def records_of_customers(
        self, namespace: str, customer_ids: Collection[str], at: datetime, feature_keys: list[str]
    ) -> tuple[EntitlementRecord, ...]:
        """As `of_customers`, without what metered ones are evaluated by."""
        chosen = sa.and_(active_at(at), _c.feature_key.in_(feature_keys))
        with self._database.connect() as connection:
            return tuple(_records(connection, namespace, customer_ids, chosen))

    def of_ids(self, namespace: str, entitlement_ids: Collection[str]) -> tuple[Known, ...]:
        """Entitlements by id, those that hold and others."""
        query = SELECTED.where(_c.namespace == namespace, _c.id.in_(sorted(entitlement_ids)))
        with self._database.connect() as connection:
            rows = connection.execute(query.order_by(_c.id)).mappings()
            return _with_metering(connection, namespace, [record_of_row(row) for row in rows])

    def of_customers(
        self,
        namespace: str,
        customer_ids: Collection[str],
        at: datetime,
        feature_keys: Collection[str] | None = None,
    ) -> tuple[Known, ...]:
        """Entitlements of several customers that hold at an instant; of all features, or of these.

        Customers that there are not have none.
        """
        chosen = active_at(at)
        if feature_keys is not None:
            chosen = sa.and_(chosen, _c.feature_key.in_(list(feature_keys)))
        with self._database.connect() as connection:
            return _known(connection, namespace, customer_ids, chosen)


def _chosen(at: datetime, names: Collection[str] | None) -> sa.ColumnElement[bool]:
    """Entitlements that hold at an instant; of these ids, whenever they hold, or features' keys."""
    if names is None:
        return active_at(at)
    wanted = list(names)
    by_id = _c.id.in_([name.upper() for name in wanted])
    return sa.or_(by_id, sa.and_(active_at(at), _c.feature_key.in_(wanted)))


def _known(
    connection: sa.Connection,
    namespace: str,
    customer_ids: Collection[str],
    chosen: sa.ColumnElement[bool],
) -> tuple[Known, ...]:
    records = _records(connection, namespace, customer_ids, chosen)
    return _with_metering(connection, namespace, records)


def _records(
    connection: sa.Connection,
    namespace: str,
    customer_ids: Collection[str],
    chosen: sa.ColumnElement[bool],
) -> list[EntitlementRecord]:
    query = SELECTED.where(
        _c.namespace == namespace, _c.customer_id.in_(sorted(customer_ids)), chosen
    )
    ordered = query.order_by(_c.feature_key, _c.active_from, _c.id)
    return [record_of_row(row) for row in connection.execute(ordered).mappings()]


def _with_metering(
    connection: sa.Connection, namespace: str, records: Sequence[EntitlementRecord]
) -> tuple[Known, ...]:
    """One statement for each kind of fact, however many entitlements there are."""
    metered = [it for it in records if isinstance(it.definition, MeteredEntitlement)]
    if not metered:
        return tuple(Known(record=record, metering=None) for record in records)
    ids = [record.id for record in metered]
    given: dict[str, list[Grant]] = {}
    query = sa.select(grants).where(grants.c.entitlement_id.in_(ids))
    for row in connection.execute(query).mappings():
        given.setdefault(row["entitlement_id"], []).append(grant_of_row(row))
    by_hand = resets_of(connection, ids)
    features = features_of_ids(connection, namespace, {record.feature_id for record in metered})
    meter_ids = {each.meter.id for each in features.values() if each.meter is not None}
    meters = meters_of_ids(connection, namespace, meter_ids)
    whose = {record.definition.customer_id for record in metered}
    attributions = attributions_of(connection, namespace, whose)
    found = []
    for record in records:
        metering, known = None, record.definition
        if isinstance(known, MeteredEntitlement):
            feature = features.get(record.feature_id)
            named = None if feature is None else feature.meter
            meter = None if named is None else meters.get(named.id)
            if feature is None or meter is None:
                raise PermanentFault(f"the entitlement {record.id} has no feature or no meter")
            metering = Metering(
                entitlement=known,
                feature=feature,
                meter=meter,
                grants=tuple(given.get(record.id, ())),
                resets=by_hand.get(record.id, ()),
                attributions=attributions.get(known.customer_id, ()),
            )
        found.append(Known(record=record, metering=metering))
    return tuple(found)
