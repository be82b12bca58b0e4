"""Entitlements in SQL. Every call names the namespace first.

Whoever makes or ends an entitlement holds the customer's row, so that at no instant two of one
customer to one feature hold. A partial unique index on those without an end backs that.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from tollgate.core.clock import Clock
from tollgate.core.errors import Conflict, Fault, InvalidInput, NotFound
from tollgate.core.ids import new_ulid
from tollgate.customers.customer_store import held_customer, named_customer
from tollgate.limits.entitlement import AnyEntitlement, MeteredEntitlement, supersede
from tollgate.limits.entitlement_record import (
    EntitlementInput,
    EntitlementKind,
    EntitlementRecord,
    check_grant,
    usage_period_at,
)
from tollgate.limits.entitlement_rows import (
    SELECTED,
    end,
    named,
    of_customers,
    of_features,
    read_entitlement,
    resets_of,
)
from tollgate.limits.entitlement_tables import (
    active_at,
    entitlements,
    grants,
    record_of_row,
    row_of_entitlement,
    row_of_grant,
)
from tollgate.limits.feature import Feature
from tollgate.limits.feature_store import held_feature
from tollgate.limits.grant import Grant
from tollgate.limits.reset import Reset
from tollgate.platform.sql import ROWS_SKIPPED_MAX, Database

_c = entitlements.c


class EntitlementOrder(StrEnum):
    """What a list of entitlements may be sorted by; ties fall to the id."""

    CREATED_AT = "created_at"
    UPDATED_AT = "updated_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class EntitlementListing:
    """Which entitlements, and which stretch of them.

    Attributes:
        skipped: how many come before.
        count_max: how many at most.
        customers: only of these, by id or key; None: of all. The same of `features`.
        kinds: only of these; empty: of all.
        active_at: only those that hold at an instant; None: whenever they do.
    """

    skipped: int = 0
    count_max: int = 100
    order: EntitlementOrder = EntitlementOrder.CREATED_AT
    descending: bool = False
    include_deleted: bool = False
    customers: tuple[str, ...] | None = None
    features: tuple[str, ...] | None = None
    kinds: tuple[EntitlementKind, ...] = ()
    active_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """That something of an entitlement changed."""

    entitlement_id: str
    customer_id: str
    feature_key: str
    version: int
    changed_at: datetime


class EntitlementStore:
    """The entitlements of every namespace. Nothing is ever taken out: what was, stays readable."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def create(
        self, namespace: str, customer: str, wanted: EntitlementInput
    ) -> tuple[EntitlementRecord, tuple[Reset, ...]]:
        """Stores a new entitlement of a customer, by id or key, with its grants.

        Returns:
            It, and its resets: none.

        Raises:
            NotFound: there is no such customer.
            InvalidInput: no such feature, or one without a meter where one is needed: every fault.
            Conflict: the customer has an entitlement to the feature in the same time.
        """
        with self._database.begin() as connection:
            customer_id, _ = held_customer(connection, namespace, customer)
            feature = _wanted_feature(connection, namespace, wanted)
            now = self._clock.now()
            made = wanted.entitlement(new_ulid(), customer_id, feature.key, now)
            self._insert(connection, feature, made, wanted, None)
            return read_entitlement(connection, namespace, made.id), ()

    def override(
        self, namespace: str, customer: str, name: str, wanted: EntitlementInput
    ) -> tuple[EntitlementRecord, tuple[Reset, ...]]:
        """Ends an entitlement where a new one to the same feature begins: now, at once.

        Args:
            namespace: whose.
            customer: id or key.
            name: id of the entitlement, or the key of its feature.
            wanted: what takes its place.

        Raises:
            NotFound: there is no such customer or entitlement.
            InvalidInput, Conflict: as in `create`; or the entitlement does not hold now.
        """
        with self._database.begin() as connection:
            customer_id, _ = held_customer(connection, namespace, customer)
            now = self._clock.now()
            current = named(connection, namespace, customer_id, name, now, for_update=True)
            feature = _wanted_feature(connection, namespace, wanted)
            made = wanted.entitlement(new_ulid(), customer_id, feature.key, now)
            ended, made = supersede(current.definition, made)
            end(connection, current, now, ended.active_to or now)
            self._insert(connection, feature, made, wanted, current.id)
            return read_entitlement(connection, namespace, made.id), ()

    def delete(self, namespace: str, customer: str, name: str) -> None:
        """Ends an entitlement now, for good; what it was before stays.

        Raises:
            NotFound: there is no such customer, or no such entitlement that is not deleted.
        """
        with self._database.begin() as connection:
            customer_id, _ = held_customer(connection, namespace, customer)
            now = self._clock.now()
            current = named(connection, namespace, customer_id, name, now, for_update=True)
            if current.deleted_at is not None:
                raise NotFound(f"the entitlement {current.id} was deleted already")
            known = current.definition
            ends = now if known.active_to is None else min(now, known.active_to)
            end(connection, current, now, max(ends, known.active_from))

    def get(
        self, namespace: str, customer: str, name: str
    ) -> tuple[EntitlementRecord, tuple[Reset, ...]]:
        """A customer's entitlement and its resets: by id, or by a feature's key the one held now.

        Raises:
            NotFound: there is none.
        """
        with self._database.connect() as connection:
            customer_id = named_customer(connection, namespace, customer)
            found = named(connection, namespace, customer_id, name, self._clock.now())
            return found, resets_of(connection, [found.id]).get(found.id, ())

    def get_by_id(
        self, namespace: str, entitlement_id: str
    ) -> tuple[EntitlementRecord, tuple[Reset, ...]]:
        """An entitlement of any customer, deleted or not, and its resets.

        Raises:
            NotFound: there is none.
        """
        with self._database.connect() as connection:
            found = read_entitlement(connection, namespace, entitlement_id.upper())
            return found, resets_of(connection, [found.id]).get(found.id, ())

    def list(
        self, namespace: str, listing: EntitlementListing
    ) -> tuple[tuple[tuple[EntitlementRecord, tuple[Reset, ...]], ...], int]:
        """A stretch of entitlements with their resets, and how many there are in all."""
        conditions = tuple(_conditions(namespace, listing))
        column = _c[listing.order.value]
        orders = (column.desc(), _c.id.desc()) if listing.descending else (column, _c.id)
        query = (
            SELECTED.where(*conditions)
            .order_by(*orders)
            .limit(listing.count_max)
            .offset(min(listing.skipped, ROWS_SKIPPED_MAX))
        )
        counting = sa.select(sa.func.count()).select_from(entitlements).where(*conditions)
        with self._database.connect() as connection:
            found = [record_of_row(row) for row in connection.execute(query).mappings()]
            known = resets_of(connection, [each.id for each in found])
            total = connection.scalar(counting) or 0
        return tuple((each, known.get(each.id, ())) for each in found), total

    def require_customer(self, namespace: str, customer: str) -> str:
        """Id of a live customer, by id or key.

        Raises:
            NotFound: there is none.
        """
        with self._database.connect() as connection:
            return named_customer(connection, namespace, customer)

    def require_feature(self, namespace: str, wanted: EntitlementInput) -> None:
        """Checks that the feature of a new entitlement is there.

        Raises:
            InvalidInput: it is not, or lacks a meter that is needed.
        """
        with self._database.begin() as connection:
            _wanted_feature(connection, namespace, wanted)

    def last_changes(self, namespace: str, customer_ids: Collection[str]) -> dict[str, datetime]:
        """When something of a customer's entitlements changed last, by customer."""
        newest = sa.func.max(_c.changed_at)
        query = (
            sa.select(_c.customer_id, newest.label("newest"))
            .where(_c.namespace == namespace, _c.customer_id.in_(sorted(customer_ids)))
            .group_by(_c.customer_id)
        )
        with self._database.connect() as connection:
            return {row.customer_id: row.newest for row in connection.execute(query)}

    def changes(self, namespace: str, since: datetime, count_max: int) -> tuple[Change, ...]:
        """What changed from an instant on, oldest first; each entitlement once, as it is now.

        A change is seen when it is committed, a while after the instant that it bears: whoever asks
        again and again goes back by more than a transaction lasts, and compares versions.
        """
        query = (
            sa.select(_c.id, _c.customer_id, _c.feature_key, _c.version, _c.changed_at)
            .where(_c.namespace == namespace, _c.changed_at >= since)
            .order_by(_c.changed_at, _c.id)
            .limit(count_max)
        )
        with self._database.connect() as connection:
            return tuple(
                Change(
                    entitlement_id=row.id,
                    customer_id=row.customer_id,
                    feature_key=row.feature_key,
                    version=row.version,
                    changed_at=row.changed_at,
                )
                for row in connection.execute(query)
            )

    def _insert(
        self,
        connection: sa.Connection,
        feature: Feature,
        made: AnyEntitlement,
        wanted: EntitlementInput,
        supersedes: str | None,
    ) -> None:
        namespace = feature.namespace
        _refuse_if_held(connection, namespace, made)
        row = row_of_entitlement(made, wanted.recurrence(made.active_from)) | {
            "namespace": namespace,
            "feature_id": feature.id,
            "annotations": dict(wanted.annotations),
            "updated_at": made.created_at,
            "supersedes": supersedes,
            "version": 1,
            "changed_at": made.created_at,
        }
        try:
            connection.execute(entitlements.insert().values(row))
        except sa.exc.IntegrityError:
            raise _held(made, "another") from None
        if isinstance(made, MeteredEntitlement):
            _insert_grants(connection, namespace, made, wanted)


def _insert_grants(
    connection: sa.Connection,
    namespace: str,
    made: MeteredEntitlement,
    wanted: EntitlementInput,
) -> None:
    zone = made.usage_period.zone
    rows = []
    try:
        default = made.default_grant(new_ulid())
    except InvalidInput as invalid:
        faults = (replace(it, field="issueAfterReset") for it in invalid.faults[:1])
        raise InvalidInput(tuple(faults)) from None
    if default is not None:
        rows.append(_row(default, namespace, made, {}))
    period, _ = usage_period_at(made, (), made.active_from)
    for number, asked in enumerate(wanted.grants):
        try:
            check_grant(asked, period=period, measure_usage_from=made.measure_usage_from)
            grant = asked.grant(new_ulid(), made.created_at, zone)
        except InvalidInput as invalid:
            faults = (replace(it, field=f"grants.{number}.{it.field}") for it in invalid.faults)
            raise InvalidInput(tuple(faults)) from None
        rows.append(_row(grant, namespace, made, asked.annotations))
    if rows:
        connection.execute(grants.insert(), rows)


def _row(
    grant: Grant, namespace: str, made: MeteredEntitlement, annotations: Any
) -> dict[str, object]:
    own = {"namespace": namespace, "entitlement_id": made.id, "annotations": dict(annotations)}
    return row_of_grant(grant) | own


def _wanted_feature(connection: sa.Connection, namespace: str, wanted: EntitlementInput) -> Feature:
    try:
        feature = held_feature(connection, namespace, wanted.feature)
    except NotFound:
        message = f"there is no feature {wanted.feature} that is not archived"
        raise _refused("unknown_feature", message) from None
    if wanted.feature_key not in (None, feature.key):
        message = f"the feature {feature.id} has the key {feature.key}, not {wanted.feature_key}"
        raise _refused("contradiction", message)
    if wanted.kind is EntitlementKind.METERED and feature.meter is None:
        message = f"the feature {feature.key} has no meter, which a metered entitlement needs"
        raise _refused("no_meter", message)
    return feature


def _refuse_if_held(connection: sa.Connection, namespace: str, made: AnyEntitlement) -> None:
    """Keeps two from holding at once; the caller holds the customer's row."""
    overlaps = [sa.or_(_c.active_to.is_(None), _c.active_to > made.active_from)]
    if made.active_to is not None:
        overlaps.append(_c.active_from < made.active_to)
    query = sa.select(_c.id).where(
        _c.namespace == namespace,
        _c.customer_id == made.customer_id,
        _c.feature_key == made.feature_key,
        # What ends where it begins never held.
        sa.or_(_c.active_to.is_(None), _c.active_to > _c.active_from),
        *overlaps,
    )
    other = connection.scalar(query.limit(1))
    if other is not None:
        raise _held(made, other)


def _held(made: AnyEntitlement, other: str) -> Conflict:
    return Conflict(
        f"the customer {made.customer_id} has the entitlement {other} to {made.feature_key} "
        "already; delete or override it"
    )


def _conditions(namespace: str, listing: EntitlementListing) -> Iterator[sa.ColumnElement[bool]]:
    yield _c.namespace == namespace
    if not listing.include_deleted:
        yield _c.deleted_at.is_(None)
    if listing.active_at is not None:
        yield active_at(listing.active_at)
    if listing.kinds:
        yield _c.kind.in_([kind.value for kind in listing.kinds])
    if listing.features is not None:
        yield of_features(listing.features)
    if listing.customers is not None:
        yield of_customers(namespace, listing.customers)


def _refused(code: str, message: str) -> InvalidInput:
    return InvalidInput((Fault(field="featureKey", code=code, message=message),))
