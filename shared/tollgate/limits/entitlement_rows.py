"""Statements on the rows of entitlements that several stores need."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from tollgate.core.errors import NotFound
from tollgate.customers.customer_store import customers
from tollgate.limits.entitlement_record import EntitlementRecord
from tollgate.limits.entitlement_tables import (
    active_at,
    entitlements,
    record_of_row,
    reset_of_row,
    resets,
)
from tollgate.limits.feature_store import features
from tollgate.limits.reset import Reset
from tollgate.metering.store import meters

_c = entitlements.c
SELECTED = (
    sa.select(
        entitlements,
        customers.c.key.label("customer_key"),
        customers.c.updated_at.label("customer_changed_at"),
        meters.c.updated_at.label("meter_changed_at"),
    )
    .outerjoin_from(entitlements, customers, customers.c.id == _c.customer_id)
    .outerjoin(features, features.c.id == _c.feature_id)
    .outerjoin(meters, meters.c.id == features.c.meter_id)
)
"""Rows that `record_of_row` takes."""


def named(
    connection: sa.Connection,
    namespace: str,
    customer_id: str,
    name: str,
    now: datetime,
    *,
    for_update: bool = False,
) -> EntitlementRecord:
    """A customer's entitlement: by id whether it holds or not, or by a feature's key if it does.

    Raises:
        NotFound: there is none.
    """
    by_id = _c.id == name.upper()
    whose = (_c.namespace == namespace, _c.customer_id == customer_id)
    query = SELECTED.where(*whose, by_id | sa.and_(_c.feature_key == name, active_at(now)))
    if for_update:
        query = query.with_for_update(of=entitlements)
    # No feature's key looks like an id: there is one at most.
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"the customer {customer_id} has no entitlement {name}")
    return record_of_row(row)


def read_entitlement(
    connection: sa.Connection, namespace: str, entitlement_id: str, *, for_update: bool = False
) -> EntitlementRecord:
    """An entitlement by its id.

    Raises:
        NotFound: there is none.
    """
    query = SELECTED.where(_c.namespace == namespace, _c.id == entitlement_id)
    if for_update:
        query = query.with_for_update(of=entitlements)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no entitlement {entitlement_id}")
    return record_of_row(row)


def resets_of(
    connection: sa.Connection, entitlement_ids: Collection[str]
) -> dict[str, tuple[Reset, ...]]:
    """All resets by hand of entitlements, by entitlement; one statement."""
    found: dict[str, list[Reset]] = {}
    query = sa.select(resets).where(resets.c.entitlement_id.in_(sorted(set(entitlement_ids))))
    ordered = query.order_by(resets.c.effective_at, resets.c.id)
    for row in connection.execute(ordered).mappings():
        found.setdefault(row["entitlement_id"], []).append(reset_of_row(row))
    return {entitlement: tuple(each) for entitlement, each in found.items()}


def touch(connection: sa.Connection, entitlement_id: str, now: datetime, **values: Any) -> None:
    """Counts a change of an entitlement, in the transaction of the change itself."""
    write = entitlements.update().where(_c.id == entitlement_id)
    connection.execute(write.values(version=_c.version + 1, changed_at=now, **values))


def end(
    connection: sa.Connection, record: EntitlementRecord, now: datetime, ends: datetime
) -> None:
    """Marks an entitlement as deleted now and ended then."""
    touch(connection, record.id, now, active_to=ends, deleted_at=now, updated_at=now)


def of_features(names: Collection[str]) -> sa.ColumnElement[bool]:
    """Entitlements to features of these ids or keys."""
    ids = [name.upper() for name in names]
    return _c.feature_key.in_(list(names)) | _c.feature_id.in_(ids)


def of_customers(namespace: str, names: Collection[str]) -> sa.ColumnElement[bool]:
    """Entitlements of customers of these ids, or of the live ones of these keys."""
    c = customers.c
    keyed = sa.select(c.id).where(
        c.namespace == namespace, c.deleted_at.is_(None), c.key.in_(list(names))
    )
    return _c.customer_id.in_([name.upper() for name in names]) | _c.customer_id.in_(keyed)
