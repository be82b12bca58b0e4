"""Entitlements and grants as they are asked for, and as they are kept."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from enum import StrEnum

from tollgate.core.errors import Fault, InvalidInput
from tollgate.limits.entitlement import (
    AnyEntitlement,
    BooleanEntitlement,
    IssueAfterReset,
    MeasureUsageFrom,
    MeteredEntitlement,
    StaticEntitlement,
    resolve_measure_usage_from,
)
from tollgate.limits.grant import Expiration, Grant
from tollgate.limits.interval import Interval
from tollgate.limits.period import Period
from tollgate.limits.recurrence import Recurrence
from tollgate.limits.reset import Reset

PERIODS_MAX = 100_000
"""Usage periods that may have passed before an entitlement begins."""
_ZERO = Decimal(0)
_MICROSECOND = timedelta(microseconds=1)


class EntitlementKind(StrEnum):
    """What an entitlement gives."""

    METERED = "metered"
    STATIC = "static"
    BOOLEAN = "boolean"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurrenceInput:
    """A recurrence as it is asked for.

    Attributes:
        interval: between occurrences.
        anchor: an occurrence; None: whatever it recurs from.
        zone: whose calendar counts months and days; None: that of what it belongs to.
    """

    interval: Interval
    anchor: datetime | None = None
    zone: tzinfo | None = None

    def under(self, name: str, anchor: datetime, zone: tzinfo = UTC) -> Recurrence:
        """The recurrence, with what it leaves open; it was sent under a name.

        Raises:
            InvalidInput: shorter than an hour, or an anchor outside the years of event time.
        """
        anchor, zone = self.anchor or anchor, self.zone or zone
        try:
            return Recurrence(interval=self.interval, anchor=anchor, zone=zone)
        except InvalidInput as invalid:
            faults = (replace(each, field=f"{name}.{each.field}") for each in invalid.faults)
            raise InvalidInput(tuple(faults)) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantInput:
    """A grant as it is asked for."""

    amount: Decimal
    effective_at: datetime
    priority: int = 1
    expiration: Expiration | None = None
    recurrence: RecurrenceInput | None = None
    min_rollover: Decimal = _ZERO
    max_rollover: Decimal = _ZERO
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    annotations: Mapping[str, object] = field(default_factory=dict, hash=False)

    def grant(self, grant_id: str, created_at: datetime, zone: tzinfo) -> Grant:
        """The grant of an entitlement in a zone.

        Raises:
            InvalidInput: every fault of it.
        """
        recurrence = None
        if self.recurrence is not None:
            recurrence = self.recurrence.under("recurrence", self.effective_at, zone)
        return Grant(
            id=grant_id,
            amount=self.amount,
            effective_at=self.effective_at,
            created_at=created_at,
            priority=self.priority,
            expiration=self.expiration,
            recurrence=recurrence,
            min_rollover=self.min_rollover,
            max_rollover=self.max_rollover,
            zone=zone,
            metadata=self.metadata,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EntitlementInput:
    """An entitlement as it is asked for.

    Attributes:
        kind: which of the rest counts.
        feature: id or key of a feature that is not archived.
        feature_key: beside an id the key that the feature must have; None: whatever it has.
        usage_period: needed by a metered one.
        active_from: when it begins; None: at once.
        active_to: when it ends; None: nobody knows yet.
        grants: what a metered one begins with, beside what it issues by itself.
    """

    kind: EntitlementKind
    feature: str
    feature_key: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    annotations: Mapping[str, object] = field(default_factory=dict, hash=False)
    usage_period: RecurrenceInput | None = None
    measure_usage_from: MeasureUsageFrom | datetime | None = None
    is_soft_limit: bool = False
    issue_after_reset: IssueAfterReset | None = None
    preserve_overage_at_reset: bool = False
    config: str = ""
    active_from: datetime | None = None
    active_to: datetime | None = None
    grants: tuple[GrantInput, ...] = ()

    def entitlement(
        self, entitlement_id: str, customer_id: str, feature_key: str, now: datetime
    ) -> AnyEntitlement:
        """The entitlement, made now.

        Raises:
            InvalidInput: it has no usage period, or is measured from after its beginning.
        """
        begin = self.active_from or now
        match self.kind:
            case EntitlementKind.STATIC:
                return StaticEntitlement(
                    id=entitlement_id,
                    customer_id=customer_id,
                    feature_key=feature_key,
                    created_at=now,
                    active_from=begin,
                    active_to=self.active_to,
                    metadata=self.metadata,
                    config=self.config,
                )
            case EntitlementKind.BOOLEAN:
                return BooleanEntitlement(
                    id=entitlement_id,
                    customer_id=customer_id,
                    feature_key=feature_key,
                    created_at=now,
                    active_from=begin,
                    active_to=self.active_to,
                    metadata=self.metadata,
                )
            case EntitlementKind.METERED:
                period = self.recurrence(begin)
                if period is None:
                    raise _refused("usagePeriod", "required", "is needed by metered entitlements")
                measured = resolve_measure_usage_from(
                    self.measure_usage_from, usage_period=period, now=begin
                )
                if measured > begin:
                    message = "must not be after the entitlement begins"
                    raise _refused("measureUsageFrom", "out_of_bounds", message)
                if (begin - measured) // _MICROSECOND > PERIODS_MAX * period.interval.mean_us:
                    message = f"must not be over {PERIODS_MAX} usage periods ago"
                    raise _refused("measureUsageFrom", "out_of_bounds", message)
                return MeteredEntitlement(
                    id=entitlement_id,
                    customer_id=customer_id,
                    feature_key=feature_key,
                    created_at=now,
                    active_from=begin,
                    active_to=self.active_to,
                    metadata=self.metadata,
                    usage_period=period,
                    measure_usage_from=measured,
                    is_soft_limit=self.is_soft_limit,
                    issue_after_reset=self.issue_after_reset,
                    preserve_overage_at_reset=self.preserve_overage_at_reset,
                )

    def recurrence(self, begin: datetime) -> Recurrence | None:
        """The usage period of what begins then; None: it has none."""
        if self.usage_period is None:
            return None
        return self.usage_period.under("usagePeriod", begin)


@dataclass(frozen=True, slots=True, kw_only=True)
class EntitlementRecord:
    """An entitlement as it is kept.

    Attributes:
        definition: what never changes, and when it ends.
        feature_id: the feature that had the key when it was made.
        customer_key: of the customer, if it has one.
        usage_period: also one of a static or boolean entitlement, for which it means nothing.
        deleted_at: when it was deleted or superseded; it ended then at the latest.
        supersedes: id of the one that it took the place of.
        version: counts every change and every new fact of it, from 1.
        customer_changed_at: when its customer did last, or what is attributed to that.
        meter_changed_at: when the meter did last that its feature counts by, if it has one.
    """

    definition: AnyEntitlement
    namespace: str
    feature_id: str
    customer_key: str | None
    usage_period: Recurrence | None
    annotations: Mapping[str, object]
    updated_at: datetime
    deleted_at: datetime | None
    supersedes: str | None
    version: int
    customer_changed_at: datetime | None = None
    meter_changed_at: datetime | None = None

    @property
    def id(self) -> str:
        """Of the entitlement."""
        return self.definition.id

    @property
    def stamp(self) -> tuple[str, int, datetime | None, datetime | None]:
        """Another one where anything else is known that a balance follows from, beside usage."""
        return self.id, self.version, self.customer_changed_at, self.meter_changed_at


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantRecord:
    """A grant as it is kept.

    Attributes:
        deleted_at: when its entitlement was deleted.
        customer_id: whose.
        feature_key: of what.
    """

    grant: Grant
    entitlement_id: str
    annotations: Mapping[str, object]
    updated_at: datetime
    deleted_at: datetime | None
    customer_id: str
    feature_key: str


def usage_period_at(
    entitlement: MeteredEntitlement, resets: tuple[Reset, ...], at: datetime
) -> tuple[Period, Recurrence]:
    """The usage period that holds an instant, and the recurrence that ends it; no usage is needed.

    Args:
        entitlement: whose.
        resets: all by hand; those after the instant are not looked at.
        at: not before usage is measured.
    """
    start, recurrence = entitlement.measure_usage_from, entitlement.usage_period
    known = [reset for reset in resets if reset.effective_at <= at]
    moves = [each.effective_at for each in known if not each.retain_anchor]
    if moves:
        recurrence = replace(recurrence, anchor=max(moves))
    start = max([start, *(each.effective_at for each in known)])
    period = recurrence.period_at(at)
    return Period(start=max(start, period.start), end=period.end), recurrence


def check_grant(grant: GrantInput, *, period: Period, measure_usage_from: datetime) -> None:
    """Checks that a grant may be given now.

    Before the first reset nothing is settled: then it may begin at any time.

    Raises:
        InvalidInput: it would begin before the current usage period: what was settled stays.
    """
    if period.start > measure_usage_from and grant.effective_at < period.start:
        message = "must not be before the current usage period"
        raise _refused("effectiveAt", "out_of_bounds", message)


def _refused(name: str, code: str, message: str) -> InvalidInput:
    return InvalidInput((Fault(field=name, code=code, message=message),))
