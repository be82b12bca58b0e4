"""Grants and resets in SQL. Every call names the namespace first.

Whoever adds one holds the entitlement's row, so that two see each other's.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa

from tollgate.core.clock import Clock
from tollgate.core.errors import Conflict, NotFound
from tollgate.core.ids import new_ulid
from tollgate.customers.customer_store import named_customer
from tollgate.limits.entitlement import MeteredEntitlement
from tollgate.limits.entitlement_record import (
    EntitlementRecord,
    GrantInput,
    GrantRecord,
    check_grant,
    usage_period_at,
)
from tollgate.limits.entitlement_rows import (
    named,
    of_customers,
    of_features,
    read_entitlement,
    resets_of,
    touch,
)
from tollgate.limits.entitlement_tables import (
    entitlements,
    grant_record_of_row,
    grants,
    resets,
    row_of_grant,
)
from tollgate.limits.grant import check_void
from tollgate.limits.period import Period
from tollgate.limits.reset import Reset, check_reset
from tollgate.platform.sql import ROWS_SKIPPED_MAX, Database

_c = grants.c
_SELECTED = sa.select(
    grants,
    entitlements.c.deleted_at,
    entitlements.c.customer_id,
    entitlements.c.feature_key,
).join_from(grants, entitlements, entitlements.c.id == _c.entitlement_id)


class GrantOrder(StrEnum):
    """What a list of grants may be sorted by; ties fall to the id."""

    ID = "id"
    CREATED_AT = "created_at"
    UPDATED_AT = "updated_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantListing:
    """Which grants, and which stretch of them.

    Attributes:
        skipped: how many come before.
        count_max: how many at most.
        include_deleted: also those of deleted entitlements.
        customers: only of these, by id or key; None: of all. The same of `features`.
    """

    skipped: int = 0
    count_max: int = 100
    order: GrantOrder = GrantOrder.UPDATED_AT
    descending: bool = False
    include_deleted: bool = False
    customers: tuple[str, ...] | None = None
    features: tuple[str, ...] | None = None


class GrantStore:
    """The grants and resets of every namespace: only added; a grant can be voided once."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def add(self, namespace: str, customer: str, name: str, wanted: GrantInput) -> GrantRecord:
        """Gives a grant to a metered entitlement that holds now.

        Args:
            namespace: whose.
            customer: id or key.
            name: id of the entitlement, or the key of its feature.
            wanted: the grant.

        Raises:
            NotFound: there is no such customer or entitlement.
            Conflict: the entitlement does not hold now, or is not metered.
            InvalidInput: every fault of the grant.
        """
        with self._database.begin() as connection:
            record, known, period, now = self._held(connection, namespace, customer, name)
            check_grant(wanted, period=period, measure_usage_from=known.measure_usage_from)
            grant = wanted.grant(new_ulid(), now, known.usage_period.zone)
            row = row_of_grant(grant) | {
                "namespace": namespace,
                "entitlement_id": record.id,
                "annotations": dict(wanted.annotations),
            }
            connection.execute(grants.insert().values(row))
            touch(connection, record.id, now)
            return _read(connection, namespace, grant.id)

    def void(self, namespace: str, grant_id: str, at: datetime | None = None) -> GrantRecord:
        """Takes a grant back from an instant of the current usage period on; None: from now on.

        Raises:
            NotFound: there is no such grant.
            Conflict: it is void already, or its entitlement is over.
            InvalidInput: the instant is in the future, or before the current usage period.
        """
        with self._database.begin() as connection:
            found = _read(connection, namespace, grant_id.upper())
            # Who holds the entitlement's row is alone: what was read before may be of yesterday.
            record = read_entitlement(connection, namespace, found.entitlement_id, for_update=True)
            found = _read(connection, namespace, grant_id.upper())
            if found.grant.voided_at is not None:
                raise Conflict(f"the grant {found.grant.id} is void already")
            now = self._clock.now()
            _, period = _period(connection, record, now)
            voided = now if at is None else at
            check_void(found.grant, voided, period=period, now=now)
            write = grants.update().where(_c.id == found.grant.id)
            connection.execute(write.values(voided_at=voided, updated_at=now))
            touch(connection, record.id, now)
            return _read(connection, namespace, found.grant.id)

    def reset(
        self, namespace: str, customer: str, name: str, wanted: Callable[[datetime], Reset]
    ) -> Reset:
        """Ends the usage period of a metered entitlement that holds now.

        Args:
            namespace: whose.
            customer: id or key.
            name: id of the entitlement, or the key of its feature.
            wanted: gives the reset from the present.

        Raises:
            NotFound: there is no such customer or entitlement.
            Conflict: the entitlement does not hold now, or is not metered.
            InvalidInput: the reset is in the future, or before the current usage period.
        """
        with self._database.begin() as connection:
            record, _, period, now = self._held(connection, namespace, customer, name)
            reset = wanted(now)
            check_reset(reset, period=period, now=now)
            row = {
                "id": new_ulid(),
                "namespace": namespace,
                "entitlement_id": record.id,
                "effective_at": reset.effective_at,
                "retain_anchor": reset.retain_anchor,
                "preserve_overage": reset.preserve_overage,
                "created_at": now,
            }
            connection.execute(resets.insert().values(row))
            touch(connection, record.id, now)
            return reset

    def of_entitlement(
        self, namespace: str, customer: str, name: str, listing: GrantListing
    ) -> tuple[tuple[GrantRecord, ...], int]:
        """A stretch of an entitlement's grants, and how many there are in all.

        Raises:
            NotFound: there is no such customer or entitlement.
        """
        with self._database.connect() as connection:
            customer_id = named_customer(connection, namespace, customer)
            record = named(connection, namespace, customer_id, name, self._clock.now())
            conditions = [_c.entitlement_id == record.id]
            if not listing.include_deleted:
                conditions.append(entitlements.c.deleted_at.is_(None))
            return _stretch(connection, conditions, listing)

    def list(self, namespace: str, listing: GrantListing) -> tuple[tuple[GrantRecord, ...], int]:
        """A stretch of all grants, and how many there are in all."""
        conditions = list(_conditions(namespace, listing))
        with self._database.connect() as connection:
            return _stretch(connection, conditions, listing)

    def _held(
        self, connection: sa.Connection, namespace: str, customer: str, name: str
    ) -> tuple[EntitlementRecord, MeteredEntitlement, Period, datetime]:
        customer_id = named_customer(connection, namespace, customer)
        found = named(connection, namespace, customer_id, name, self._clock.now())
        record = read_entitlement(connection, namespace, found.id, for_update=True)
        now = self._clock.now()
        known, period = _period(connection, record, now)
        return record, known, period, now


def _period(
    connection: sa.Connection, record: EntitlementRecord, now: datetime
) -> tuple[MeteredEntitlement, Period]:
    """The current usage period of an entitlement whose row is held."""
    known = record.definition
    if not isinstance(known, MeteredEntitlement):
        raise Conflict(f"the entitlement {record.id} is not metered: it has no usage to grant")
    if not known.is_active(now):
        raise Conflict(f"the entitlement {record.id} does not hold now")
    by_hand = resets_of(connection, [record.id]).get(record.id, ())
    return known, usage_period_at(known, by_hand, now)[0]


def _read(connection: sa.Connection, namespace: str, grant_id: str) -> GrantRecord:
    query = _SELECTED.where(_c.namespace == namespace, _c.id == grant_id)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no grant {grant_id}")
    return grant_record_of_row(row)


def _conditions(namespace: str, listing: GrantListing) -> Iterator[sa.ColumnElement[bool]]:
    yield _c.namespace == namespace
    if not listing.include_deleted:
        yield entitlements.c.deleted_at.is_(None)
    if listing.features is not None:
        yield of_features(listing.features)
    if listing.customers is not None:
        yield of_customers(namespace, listing.customers)


def _stretch(
    connection: sa.Connection, conditions: list[sa.ColumnElement[bool]], listing: GrantListing
) -> tuple[tuple[GrantRecord, ...], int]:
    column = _c[listing.order.value]
    orders = (column.desc(), _c.id.desc()) if listing.descending else (column, _c.id)
    query = (
        _SELECTED.where(*conditions)
        .order_by(*orders)
        .limit(listing.count_max)
        .offset(min(listing.skipped, ROWS_SKIPPED_MAX))
    )
    counting = sa.select(sa.func.count()).select_from(_SELECTED.where(*conditions).subquery())
    found = tuple(map(grant_record_of_row, connection.execute(query).mappings()))
    return found, connection.scalar(counting) or 0
