"""Grants: immutable allowances, and the order in which usage burns them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from enum import StrEnum

from tollgate.core.decimals import EXACT, SCALE
from tollgate.core.errors import Fault, InvalidInput
from tollgate.core.times import EARLIEST, LATEST
from tollgate.limits.interval import Interval
from tollgate.limits.period import Period
from tollgate.limits.recurrence import Recurrence

PRIORITY_MAX = 255
EXPIRATION_COUNT_MAX = 1000
WHOLE_DIGITS_MAX = 20
"""Digits before the point, as quantities have them."""

_DIGITS = f"at most {WHOLE_DIGITS_MAX} digits before and {SCALE} after the point"
_CEILING = Decimal(10) ** WHOLE_DIGITS_MAX
_ZERO = Decimal(0)
_NEVER = datetime.max.replace(tzinfo=UTC)


class ExpirationUnit(StrEnum):
    """What the duration of a grant is counted in."""

    HOUR = "HOUR"
    DAY = "DAY"
    WEEK = "WEEK"
    MONTH = "MONTH"
    YEAR = "YEAR"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiration:
    """How long a grant lasts.

    Attributes:
        duration: the unit.
        count: how many, 1 to 1000.

    Raises:
        InvalidInput: another count.
    """

    duration: ExpirationUnit
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.count <= EXPIRATION_COUNT_MAX:
            message = f"must be between 1 and {EXPIRATION_COUNT_MAX}"
            fault = Fault(field="expiration.count", code="out_of_bounds", message=message)
            raise InvalidInput((fault,))

    def expires_at(self, effective_at: datetime, zone: tzinfo) -> datetime:
        """The first instant at which a grant is no more."""
        return _unit(self.duration).step(effective_at, zone, self.count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """An allowance; one that exists is valid, and only its void is added later.

    Attributes:
        id: unique within the entitlement.
        amount: what it allows, above 0, at most 20 digits before and 18 after the point.
        effective_at: first instant at which it counts.
        created_at: when it was made; decides among equals.
        priority: 1 to 255; lower burns first.
        expiration: how long it lasts; None: for ever.
        recurrence: when it is topped up to its amount; None: never.
        min_rollover: what is left of it after a reset at least, if `max_rollover` allows.
        max_rollover: what is left of it after a reset at most.
        voided_at: from when on it is taken back; None: it is not. At or before `effective_at` it
            never counts.
        zone: whose calendar counts the expiration's days and months.
        metadata: the maker's own.
        expires_at: first instant at which it is no more; computed.

    Raises:
        InvalidInput: with every fault, under the contract's names.
    """

    id: str
    amount: Decimal
    effective_at: datetime
    created_at: datetime
    priority: int = 1
    expiration: Expiration | None = None
    recurrence: Recurrence | None = None
    min_rollover: Decimal = _ZERO
    max_rollover: Decimal = _ZERO
    voided_at: datetime | None = None
    zone: tzinfo = UTC
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    expires_at: datetime | None = field(init=False)

    def __post_init__(self) -> None:
        faults = tuple(self._faults())
        if faults:
            raise InvalidInput(faults)
        expires_at = self.expiration and self.expiration.expires_at(self.effective_at, self.zone)
        object.__setattr__(self, "expires_at", expires_at)

    @property
    def ends_at(self) -> datetime | None:
        """The first instant at which it no longer counts: expired or void; None: never."""
        if self.voided_at is None or self.expires_at is None:
            return self.voided_at or self.expires_at
        return min(self.voided_at, self.expires_at)

    @property
    def is_void_at_end(self) -> bool:
        """Whether it ends by its void, before it would have expired."""
        return self.voided_at is not None and self.voided_at == self.ends_at != self.expires_at

    @property
    def ever_counts(self) -> bool:
        """Whether there is an instant at which it counts."""
        return self.ends_at is None or self.ends_at > self.effective_at

    def counts_at(self, instant: datetime) -> bool:
        """Whether it is in force at an instant: begun, neither expired nor void."""
        ends_at = self.ends_at
        return self.effective_at <= instant and (ends_at is None or instant < ends_at)

    def after_reset(self, balance: Decimal) -> Decimal:
        """What a reset leaves of a balance: at least the minimum, never more than the maximum.

        The source is the contract: MIN(MaxRolloverAmount, MAX(Balance_Before_Reset,
        MinRolloverAmount)).
        """
        return min(self.max_rollover, max(balance, self.min_rollover))

    def after_recurrence(self, balance: Decimal) -> Decimal:
        """A balance topped up to the amount; never taken from, where a rollover left more."""
        return max(balance, self.amount)

    def next_recurrence(self, after: datetime) -> datetime | None:
        """When it is topped up next, after an instant; None if never again."""
        if self.recurrence is None:
            return None
        found = self.recurrence.next_after(max(after, self.effective_at))
        return found if self.ends_at is None or found < self.ends_at else None

    def _faults(self) -> Iterator[Fault]:
        if _digits_fault(self.amount) or self.amount <= 0:
            yield _fault("amount", f"must be above 0, {_DIGITS}")
        for name, bound in (
            ("minRolloverAmount", self.min_rollover),
            ("maxRolloverAmount", self.max_rollover),
        ):
            if _digits_fault(bound) or bound < 0:
                yield _fault(name, f"must be 0 or more, {_DIGITS}")
        if not 1 <= self.priority <= PRIORITY_MAX:
            yield _fault("priority", f"must be between 1 and {PRIORITY_MAX}")
        if not EARLIEST <= self.effective_at <= LATEST:
            yield _fault("effectiveAt", "is outside the years 1900 to 2299")


def burn_order(grants: Iterable[Grant]) -> tuple[Grant, ...]:
    """Grants as usage burns them: by priority, then earliest expiry, then age, then id.

    One that never expires comes after all that do. A void changes no order: it is not known
    before. The order of the input does not matter.
    """
    return tuple(
        sorted(
            grants,
            key=lambda it: (it.priority, it.expires_at or _NEVER, it.created_at, it.id),
        )
    )


def check_void(grant: Grant, at: datetime, *, period: Period, now: datetime) -> None:
    """Checks that a grant may be taken back from an instant on.

    Raises:
        InvalidInput: in the future, before the current usage period, or the grant is over by then.
    """
    if at > now:
        raise InvalidInput((_fault("at", "must not be in the future"),))
    if at < period.start:
        raise InvalidInput((_fault("at", "must not be before the current usage period"),))
    if grant.ends_at is not None and grant.ends_at <= at:
        raise InvalidInput((_fault("at", "must be before the grant ends"),))


def _unit(unit: ExpirationUnit) -> Interval:
    match unit:
        case ExpirationUnit.HOUR:
            return Interval(elapsed=timedelta(hours=1))
        case ExpirationUnit.DAY | ExpirationUnit.WEEK | ExpirationUnit.MONTH | ExpirationUnit.YEAR:
            return Interval.parse(unit)


def _digits_fault(amount: Decimal) -> bool:
    if not amount.is_finite() or amount.copy_abs() >= _CEILING:
        return True
    exponent = amount.normalize(EXACT).as_tuple().exponent
    return isinstance(exponent, int) and exponent < -SCALE


def _fault(name: str, message: str) -> Fault:
    return Fault(field=name, code="out_of_bounds", message=message)
