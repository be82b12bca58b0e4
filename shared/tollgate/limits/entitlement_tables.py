"""The tables of entitlements, grants and resets, and their rows as values."""

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from tollgate.limits.entitlement import (
    AnyEntitlement,
    BooleanEntitlement,
    IssueAfterReset,
    MeteredEntitlement,
    StaticEntitlement,
)
from tollgate.limits.entitlement_record import EntitlementKind, EntitlementRecord, GrantRecord
from tollgate.limits.grant import Expiration, ExpirationUnit, Grant
from tollgate.limits.interval import Interval
from tollgate.limits.recurrence import Recurrence
from tollgate.limits.reset import Reset
from tollgate.metering.window import zone
from tollgate.platform.sql import Exact, Instant, Json, Text, metadata

entitlements = sa.Table(
    "entitlements",
    metadata,
    sa.Column("id", Text, primary_key=True),
    sa.Column("namespace", Text, nullable=False),
    sa.Column("customer_id", Text, nullable=False),
    sa.Column("feature_id", Text, nullable=False),
    sa.Column("feature_key", Text, nullable=False),
    sa.Column("kind", Text, nullable=False),
    sa.Column("metadata", Json, nullable=False),
    sa.Column("annotations", Json, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
    sa.Column("deleted_at", Instant),
    sa.Column("active_from", Instant, nullable=False),
    sa.Column("active_to", Instant),
    sa.Column("usage_period_interval", Text),
    sa.Column("usage_period_anchor", Instant),
    sa.Column("zone", Text, nullable=False),
    sa.Column("measure_usage_from", Instant),
    sa.Column("is_soft_limit", sa.Boolean, nullable=False),
    sa.Column("issue_amount", Exact),
    sa.Column("issue_priority", sa.Integer),
    sa.Column("preserve_overage_at_reset", sa.Boolean, nullable=False),
    sa.Column("config", Text),
    sa.Column("supersedes", Text),
    # Counts every change of the row and every new grant, void and reset of it.
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("changed_at", Instant, nullable=False),
)
_e = entitlements.c
sa.Index(
    "uq_entitlements_open",
    _e.namespace,
    _e.customer_id,
    _e.feature_key,
    unique=True,
    sqlite_where=_e.active_to.is_(None),
    postgresql_where=_e.active_to.is_(None),
)
sa.Index("ix_entitlements_customer", _e.namespace, _e.customer_id, _e.feature_key)
sa.Index("ix_entitlements_created", _e.namespace, _e.created_at, _e.id)
sa.Index("ix_entitlements_changed", _e.namespace, _e.changed_at, _e.id)
sa.Index("ix_entitlements_feature", _e.namespace, _e.feature_id)

grants = sa.Table(
    "grants",
    metadata,
    sa.Column("id", Text, primary_key=True),
    sa.Column("namespace", Text, nullable=False),
    sa.Column("entitlement_id", Text, nullable=False),
    sa.Column("amount", Exact, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("effective_at", Instant, nullable=False),
    sa.Column("expiration_unit", Text),
    sa.Column("expiration_count", sa.Integer),
    sa.Column("recurrence_interval", Text),
    sa.Column("recurrence_anchor", Instant),
    sa.Column("zone", Text, nullable=False),
    sa.Column("min_rollover", Exact, nullable=False),
    sa.Column("max_rollover", Exact, nullable=False),
    sa.Column("metadata", Json, nullable=False),
    sa.Column("annotations", Json, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
    sa.Column("voided_at", Instant),
)
sa.Index("ix_grants_entitlement", grants.c.entitlement_id, grants.c.created_at, grants.c.id)
sa.Index("ix_grants_created", grants.c.namespace, grants.c.created_at, grants.c.id)

resets = sa.Table(
    "resets",
    metadata,
    sa.Column("id", Text, primary_key=True),
    sa.Column("namespace", Text, nullable=False),
    sa.Column("entitlement_id", Text, nullable=False),
    sa.Column("effective_at", Instant, nullable=False),
    sa.Column("retain_anchor", sa.Boolean, nullable=False),
    sa.Column("preserve_overage", sa.Boolean),
    sa.Column("created_at", Instant, nullable=False),
)
sa.Index("ix_resets_entitlement", resets.c.entitlement_id, resets.c.effective_at)


def active_at(instant: datetime) -> sa.ColumnElement[bool]:
    """Of entitlements: those that hold at an instant."""
    ends = _e.active_to
    return sa.and_(_e.active_from <= instant, sa.or_(ends.is_(None), ends > instant))


def zone_name(known: tzinfo) -> str:
    """The IANA name under which a zone is kept."""
    return known.key if isinstance(known, ZoneInfo) and known.key else "UTC"


def zone_named(name: str) -> tzinfo:
    """The zone of the pinned table that has an IANA name."""
    return UTC if name == "UTC" else zone(name).rules


def row_of_entitlement(entitlement: AnyEntitlement, period: Recurrence | None) -> dict[str, object]:
    """The columns that say what an entitlement is."""
    row: dict[str, object] = {
        "id": entitlement.id,
        "customer_id": entitlement.customer_id,
        "feature_key": entitlement.feature_key,
        "metadata": dict(entitlement.metadata),
        "created_at": entitlement.created_at,
        "active_from": entitlement.active_from,
        "active_to": entitlement.active_to,
        "zone": "UTC" if period is None else zone_name(period.zone),
        "is_soft_limit": False,
        "preserve_overage_at_reset": False,
    }
    if period is not None:
        row["usage_period_interval"] = period.interval.iso_text()
        row["usage_period_anchor"] = period.anchor
    match entitlement:
        case StaticEntitlement():
            return row | {"kind": EntitlementKind.STATIC.value, "config": entitlement.config}
        case BooleanEntitlement():
            return row | {"kind": EntitlementKind.BOOLEAN.value}
        case MeteredEntitlement():
            issue = entitlement.issue_after_reset
            return row | {
                "kind": EntitlementKind.METERED.value,
                "measure_usage_from": entitlement.measure_usage_from,
                "is_soft_limit": entitlement.is_soft_limit,
                "issue_amount": issue and issue.amount,
                "issue_priority": issue and issue.priority,
                "preserve_overage_at_reset": entitlement.preserve_overage_at_reset,
            }


def record_of_row(row: sa.RowMapping) -> EntitlementRecord:
    """The entitlement of a row that was selected by `entitlement_rows.SELECTED`."""
    period = _recurrence(row["usage_period_interval"], row["usage_period_anchor"], row["zone"])
    return EntitlementRecord(
        definition=_entitlement(row, period),
        namespace=row["namespace"],
        feature_id=row["feature_id"],
        customer_key=row["customer_key"],
        usage_period=period,
        annotations=row["annotations"],
        updated_at=row["updated_at"],
        deleted_at=row["deleted_at"],
        supersedes=row["supersedes"],
        version=row["version"],
        customer_changed_at=row["customer_changed_at"],
        meter_changed_at=row["meter_changed_at"],
    )


def _entitlement(row: sa.RowMapping, period: Recurrence | None) -> AnyEntitlement:
    common = {
        "id": row["id"],
        "customer_id": row["customer_id"],
        "feature_key": row["feature_key"],
        "created_at": row["created_at"],
        "active_from": row["active_from"],
        "active_to": row["active_to"],
        "metadata": row["metadata"],
    }
    match EntitlementKind(row["kind"]):
        case EntitlementKind.STATIC:
            return StaticEntitlement(**common, config=row["config"])
        case EntitlementKind.BOOLEAN:
            return BooleanEntitlement(**common)
        case EntitlementKind.METERED:
            assert period is not None, "a metered entitlement has a usage period"
            issue = None
            if row["issue_amount"] is not None:
                issue = IssueAfterReset(amount=row["issue_amount"], priority=row["issue_priority"])
            return MeteredEntitlement(
                **common,
                usage_period=period,
                measure_usage_from=row["measure_usage_from"],
                is_soft_limit=row["is_soft_limit"],
                issue_after_reset=issue,
                preserve_overage_at_reset=row["preserve_overage_at_reset"],
            )


def row_of_grant(grant: Grant) -> dict[str, object]:
    """The columns that say what a grant is."""
    expiration, recurrence = grant.expiration, grant.recurrence
    return {
        "id": grant.id,
        "amount": grant.amount,
        "priority": grant.priority,
        "effective_at": grant.effective_at,
        "expiration_unit": expiration and expiration.duration.value,
        "expiration_count": expiration and expiration.count,
        "recurrence_interval": recurrence and recurrence.interval.iso_text(),
        "recurrence_anchor": recurrence and recurrence.anchor,
        "zone": zone_name(grant.zone),
        "min_rollover": grant.min_rollover,
        "max_rollover": grant.max_rollover,
        "metadata": dict(grant.metadata),
        "created_at": grant.created_at,
        "updated_at": grant.created_at,
    }


def grant_of_row(row: sa.RowMapping) -> Grant:
    """The grant of a row."""
    expiration = None
    if row["expiration_unit"] is not None:
        unit = ExpirationUnit(row["expiration_unit"])
        expiration = Expiration(duration=unit, count=row["expiration_count"])
    return Grant(
        id=row["id"],
        amount=row["amount"],
        effective_at=row["effective_at"],
        created_at=row["created_at"],
        priority=row["priority"],
        expiration=expiration,
        recurrence=_recurrence(row["recurrence_interval"], row["recurrence_anchor"], row["zone"]),
        min_rollover=row["min_rollover"],
        max_rollover=row["max_rollover"],
        voided_at=row["voided_at"],
        zone=zone_named(row["zone"]),
        metadata=row["metadata"],
    )


def grant_record_of_row(row: sa.RowMapping) -> GrantRecord:
    """The grant of a row, which has what of its entitlement is shown beside it."""
    return GrantRecord(
        grant=grant_of_row(row),
        entitlement_id=row["entitlement_id"],
        annotations=row["annotations"],
        updated_at=row["updated_at"],
        deleted_at=row["deleted_at"],
        customer_id=row["customer_id"],
        feature_key=row["feature_key"],
    )


def reset_of_row(row: sa.RowMapping) -> Reset:
    """The reset of a row."""
    return Reset(
        effective_at=row["effective_at"],
        retain_anchor=row["retain_anchor"],
        preserve_overage=row["preserve_overage"],
    )


def _recurrence(interval: str | None, anchor: datetime | None, name: str) -> Recurrence | None:
    if interval is None or anchor is None:
        return None
    return Recurrence(interval=Interval.parse(interval), anchor=anchor, zone=zone_named(name))
