"""Plans: the phases into which boundaries cut time, so that one query can give all their usage.

A boundary is an instant at which balances change without usage. Between two of them only usage
counts. What happens at one instant happens in this order:

1. usage before it is burned;
2. grants that expire or are void from there on leave, with what they held;
3. the usage period ends and the next begins: balances roll over, overage is dropped or carried;
4. recurring grants are topped up;
5. new grants begin with their whole amount;
6. overage that is left is burned from what there is now.

So a grant that expires at a reset does not roll over, one that begins there is not rolled over, and
a top-up at a reset makes up for what the rollover took. A reset by hand at the end of a period
takes the place of the automatic one. Several by hand at one instant are one: it keeps the anchor if
all do, and preserves overage if all do.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property

from tollgate.core.errors import Conflict, Fault, InvalidInput, TooLarge
from tollgate.limits.grant import Grant, burn_order
from tollgate.limits.period import Period
from tollgate.limits.recurrence import Recurrence
from tollgate.limits.reset import Reset
from tollgate.limits.snapshot import Snapshot
from tollgate.limits.usage_kind import UsageKind

BOUNDARY_COUNT_MAX = 20_000
"""More than two years of hourly periods; who needs more goes on from a snapshot."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of one metered entitlement. The order of grants and resets does not matter.

    Attributes:
        kind: how its meter's quantities make up usage.
        usage_period: by its definition, before any reset by hand.
        measure_usage_from: where the first usage period begins, also inside a calendar one.
        grants: all that may count; ids differ.
        resets: all by hand, none before `measure_usage_from`.
        preserve_overage_at_reset: what resets do that do not say.

    Raises:
        InvalidInput: a reset before usage is measured.
        Conflict: two grants with one id.
    """

    kind: UsageKind
    usage_period: Recurrence
    measure_usage_from: datetime
    grants: tuple[Grant, ...] = ()
    resets: tuple[Reset, ...] = ()
    preserve_overage_at_reset: bool = False

    def __post_init__(self) -> None:
        if len({grant.id for grant in self.grants}) < len(self.grants):
            raise Conflict("two grants of an entitlement have the same id")
        if any(reset.effective_at < self.measure_usage_from for reset in self.resets):
            message = "must not be before usage is measured"
            fault = Fault(field="effectiveAt", code="out_of_bounds", message=message)
            raise InvalidInput((fault,))

    @cached_property
    def burn_order(self) -> tuple[Grant, ...]:
        """The grants that ever count, in the order in which usage burns them."""
        return burn_order(grant for grant in self.grants if grant.ever_counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodStart:
    """A usage period ends and the next one begins.

    Attributes:
        preserve_overage: whether overage goes over into the next.
        by_hand: a person or program reset it; otherwise it ran out.
        usage_period: when the next ends, if no reset comes before.
    """

    preserve_overage: bool
    by_hand: bool
    usage_period: Recurrence


@dataclass(slots=True, kw_only=True)
class Boundary:
    """All that happens at one instant, beside usage.

    Attributes:
        ended: grants that leave, by their place in the burn order.
        period_start: the reset, if there is one.
        recurred: grants that are topped up, by their place.
        started: grants that begin, by their place.
    """

    ended: list[int] = field(default_factory=list)
    period_start: PeriodStart | None = None
    recurred: list[int] = field(default_factory=list)
    started: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of time within which only usage counts.

    Attributes:
        start: first instant inside.
        end: first instant after it.
        period_start: when the usage period began that it lies in.
        boundary: what happens at its end; None if it is only cut there.
    """

    start: datetime
    end: datetime
    period_start: datetime
    boundary: Boundary | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to ask for, and what to fold; made by `plan`.

    Attributes:
        facts: what it was made of.
        snapshot: the state at `start`; None: usage is measured from there.
        start: first instant of the first phase.
        until: first instant after the last one.
        phases: without gaps, from `start` to `until`; none if they are the same.
        usage_period: the recurrence in force at `start`.
    """

    facts: Facts
    snapshot: Snapshot | None
    start: datetime
    until: datetime
    phases: tuple[Phase, ...]
    usage_period: Recurrence

    def intervals(self) -> list[Period]:
        """What quantity to ask for of each phase, in their order.

        FLOW: the phase itself; the quantity is the meter's in it. DISTINCT and LEVEL: from the
        usage period's start to the phase's end; nothing there is 0.
        """
        if self.facts.kind is UsageKind.FLOW:
            return [Period(start=phase.start, end=phase.end) for phase in self.phases]
        return [Period(start=phase.period_start, end=phase.end) for phase in self.phases]


def plan(
    facts: Facts,
    until: datetime,
    *,
    snapshot: Snapshot | None = None,
    cuts: Iterable[datetime] = (),
) -> Plan:
    """Cuts the time up to an instant into phases.

    Args:
        facts: of the entitlement.
        until: the instant to know the state at: all that happens at it, and usage before it.
        snapshot: a state to go on from; the result is the same as without.
        cuts: further instants to cut at, such as the windows of a history; they change no balance.
            Those that are not between start and `until` are ignored.

    Raises:
        InvalidInput: `until` is before usage is measured, or before the snapshot.
        Conflict: the snapshot does not have the grants that the facts put in force at its instant.
        TooLarge: over 20,000 boundaries.
    """
    if snapshot is None:
        start = period_start = facts.measure_usage_from
        usage_period = _anchored(facts, facts.usage_period, start)
    else:
        start, period_start = snapshot.at, snapshot.last_reset
        usage_period = snapshot.usage_period
        _check_fit(facts, snapshot)
    if until < start:
        message = "is before usage is measured, or before the snapshot"
        raise InvalidInput((Fault(field="time", code="out_of_bounds", message=message),))
    found = _Boundaries(start, until)
    for at, reset in _period_starts(facts, usage_period, start, until):
        found.at(at).period_start = reset
    for place, grant in enumerate(facts.burn_order):
        found.add_grant(place, grant)
    boundaries = found.by_instant
    phases = []
    opened = start
    for at in sorted({*boundaries, *(cut for cut in cuts if start < cut < until), until} - {start}):
        boundary = boundaries.get(at)
        phases.append(Phase(opened, at, period_start, boundary))
        opened = at
        if boundary is not None and boundary.period_start is not None:
            period_start = at
    return Plan(
        facts=facts,
        snapshot=snapshot,
        start=start,
        until=until,
        phases=tuple(phases),
        usage_period=usage_period,
    )


class _Boundaries:
    """All boundaries in (start, until]; places come in burn order."""

    def __init__(self, start: datetime, until: datetime) -> None:
        self.start = start
        self.until = until
        self.by_instant: dict[datetime, Boundary] = {}

    def at(self, instant: datetime) -> Boundary:
        """The boundary of an instant, new if there was none."""
        known = self.by_instant.get(instant)
        if known is None:
            if len(self.by_instant) == BOUNDARY_COUNT_MAX:
                raise TooLarge(f"over {BOUNDARY_COUNT_MAX} changes of balance between two instants")
            known = self.by_instant[instant] = Boundary()
        return known

    def add_grant(self, place: int, grant: Grant) -> None:
        """Adds where a grant begins, ends and is topped up."""
        ends_at = grant.ends_at
        if grant.effective_at > self.until or (ends_at is not None and ends_at <= self.start):
            return
        if self.start < grant.effective_at:
            self.at(grant.effective_at).started.append(place)
        if ends_at is not None and ends_at <= self.until:
            self.at(ends_at).ended.append(place)
        if grant.recurrence is None:
            return
        for at in grant.recurrence.occurrences(max(self.start, grant.effective_at), self.until):
            if ends_at is not None and at >= ends_at:
                return
            self.at(at).recurred.append(place)


def _period_starts(
    facts: Facts, usage_period: Recurrence, start: datetime, until: datetime
) -> Iterator[tuple[datetime, PeriodStart]]:
    """Every reset in (start, until], in order of time; the last of an instant counts."""
    by_hand = sorted({it.effective_at for it in facts.resets if start < it.effective_at <= until})
    opened = start
    for at in (*by_hand, None):
        automatic = PeriodStart(
            preserve_overage=facts.preserve_overage_at_reset,
            by_hand=False,
            usage_period=usage_period,
        )
        for end in usage_period.occurrences(opened, until if at is None else at):
            yield end, automatic  # where `at` is an end too, what follows takes its place
        if at is not None:
            usage_period = _anchored(facts, usage_period, at)
            preserve = all(
                facts.preserve_overage_at_reset
                if it.preserve_overage is None
                else it.preserve_overage
                for it in facts.resets
                if it.effective_at == at
            )
            yield (
                at,
                PeriodStart(preserve_overage=preserve, by_hand=True, usage_period=usage_period),
            )
            opened = at


def _anchored(facts: Facts, usage_period: Recurrence, at: datetime) -> Recurrence:
    """The recurrence in force after the resets by hand at an instant, if there are any."""
    moves = any(it.effective_at == at and not it.retain_anchor for it in facts.resets)
    return replace(usage_period, anchor=at) if moves else usage_period


def _check_fit(facts: Facts, snapshot: Snapshot) -> None:
    # Grants may begin before usage is measured; nothing else of theirs is known to the snapshot.
    in_force = [grant.id for grant in facts.burn_order if grant.counts_at(snapshot.at)]
    if in_force != [holding.grant_id for holding in snapshot.holdings]:
        raise Conflict("the snapshot is out of date: other grants are in force at its instant")
