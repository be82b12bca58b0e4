"""The burn-down: usage, phase by phase, taken from grants in their order.

Within a phase only the sum of usage since the last boundary decides, never the way to it. A sum
above zero is burned in burn order, and what no grant covers is overage. A sum below zero is given
back in reverse burn order, to each grant what this period's usage took from it since its balance
was last set; what no grant can take stays as overage below zero, and later usage uses it up first.
So at every instant, over any stretch without a reset, for a flow or distinct counts:

    overage at the start + usage = burned + overage at the end

A level is covered anew at each instant by what the grants hold, and burns none of it.

All arithmetic is exact (`tollgate.core.decimals`).
"""

from bisect import insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, localcontext
from enum import StrEnum

from tollgate.core.decimals import EXACT
from tollgate.limits.balance import Balance
from tollgate.limits.grant import Grant
from tollgate.limits.plan import Boundary, PeriodStart, Phase, Plan
from tollgate.limits.snapshot import Holding, Snapshot
from tollgate.limits.usage_kind import UsageKind

_ZERO = Decimal(0)


class EndReason(StrEnum):
    """Why a segment ends."""

    GRANT_EXPIRY = "GRANT_EXPIRY"
    GRANT_VOID = "GRANT_VOID"
    PERIOD_END = "PERIOD_END"
    RESET = "RESET"
    RECURRENCE = "RECURRENCE"
    GRANT_START = "GRANT_START"
    CUT = "CUT"


@dataclass(frozen=True, slots=True)
class End:
    """One thing that happens where a segment ends.

    Attributes:
        reason: what. CUT: nothing but that the asked time ends, or was cut there.
        grant_id: to which grant; None where it is to none.
    """

    reason: EndReason
    grant_id: str | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """What usage did in one phase; balances at the start less `burned` are those at the end.

    Attributes:
        start: first instant inside.
        end: first instant after it.
        usage: in it; of a level the value at its end.
        balances_at_start: of each grant in force, by id, in burn order, after all that happens at
            `start` save that overage is burned from it.
        burned: by grant, without those it left alone; below zero what was given back.
        balances_at_end: before all that happens at `end`.
        overage_at_start: of what went before.
        overage: at the end.
        ends: why it ends, in the order in which it happens.
    """

    start: datetime
    end: datetime
    usage: Decimal
    balances_at_start: Mapping[str, Decimal]
    burned: Mapping[str, Decimal]
    balances_at_end: Mapping[str, Decimal]
    overage_at_start: Decimal
    overage: Decimal
    ends: tuple[End, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BurnDown:
    """What `run` gives.

    Attributes:
        segments: one for each phase of the plan.
        snapshot: the state at the plan's end, to go on from.
        balance: the same for people and decisions.
    """

    segments: tuple[Segment, ...]
    snapshot: Snapshot
    balance: Balance


def run(plan: Plan, usages: Sequence[Decimal]) -> BurnDown:
    """Folds usage into balances.

    Args:
        plan: the phases.
        usages: a quantity for each of the plan's `intervals`, in their order.

    Raises:
        ValueError: more or fewer quantities than phases.
    """
    with localcontext(EXACT):
        fold = _Fold(plan)
        segments = [
            fold.take(phase, quantity) for phase, quantity in zip(plan.phases, usages, strict=True)
        ]
        return BurnDown(segments=tuple(segments), snapshot=fold.snapshot(), balance=fold.balance())


class _Fold:
    """The state while it is folded. Grants are known by their place in the burn order."""

    def __init__(self, plan: Plan) -> None:
        self.grants = plan.facts.burn_order
        self.kind = plan.facts.kind
        self.at = plan.start
        self.held: dict[int, Decimal] = {}
        self.burned: dict[int, Decimal] = {}
        if plan.snapshot is None:
            self._begin(plan)
        else:
            self._go_on(plan.snapshot)
        self.in_force = sorted(self.held)
        self._cover()

    def _begin(self, plan: Plan) -> None:
        for place, grant in enumerate(self.grants):
            if grant.counts_at(plan.start):
                self.held[place] = grant.amount
                self.burned[place] = _ZERO
        self.boundary_at = self.last_reset = plan.start
        self.usage_period = plan.usage_period
        self.brought = self.since = self.usage = self.carried = _ZERO

    def _go_on(self, snapshot: Snapshot) -> None:
        places = {grant.id: place for place, grant in enumerate(self.grants)}
        for holding in snapshot.holdings:
            place = places[holding.grant_id]
            self.held[place] = holding.balance
            self.burned[place] = holding.burned
        self.boundary_at, self.last_reset = snapshot.boundary_at, snapshot.last_reset
        self.usage_period = snapshot.usage_period
        self.brought, self.since = snapshot.overage, snapshot.usage_since_boundary
        self.usage, self.carried = snapshot.usage, snapshot.carried

    def take(self, phase: Phase, quantity: Decimal) -> Segment:
        """Goes through a phase and all that happens at its end."""
        taken, overage = self.taken, self.overage
        if phase.start == self.boundary_at or self.kind is UsageKind.LEVEL:
            taken, overage = {}, self.brought
        usage = self._usage_of(quantity)
        self.since += usage
        self.usage += usage
        self.at = phase.end
        self._cover()
        segment = Segment(
            phase.start,
            phase.end,
            usage,
            self._balances(taken),
            self._burned_beyond(taken),
            self._balances(self.taken),
            overage,
            self.overage,
            self._ends(phase.boundary),
        )
        if phase.boundary is not None:
            self._pass(phase.boundary)
        return segment

    def _usage_of(self, quantity: Decimal) -> Decimal:
        """What the quantity of a phase's interval adds to usage; a level takes its place."""
        match self.kind:
            case UsageKind.FLOW:
                return quantity
            case UsageKind.DISTINCT:
                return quantity - self.usage
            case UsageKind.LEVEL:
                self.since = self.usage = _ZERO
                return quantity

    def _cover(self) -> None:
        """Spreads what usage asks for since the boundary: `taken` by place, and `overage`."""
        rest = self.brought + self.since
        taken: dict[int, Decimal] = {}
        if rest > 0:
            for place in self.in_force:
                held = self.held[place]
                if held >= rest:
                    taken[place] = rest
                    rest = _ZERO
                    break
                if held:
                    taken[place] = held
                    rest -= held
        elif rest < 0:
            for place in reversed(self.in_force):
                burned = self.burned[place]
                if burned >= -rest:
                    taken[place] = rest
                    rest = _ZERO
                    break
                if burned:
                    taken[place] = -burned
                    rest += burned
        self.taken, self.overage = taken, rest

    def _pass(self, boundary: Boundary) -> None:
        """Goes past a boundary, in the order that `tollgate.limits.plan` gives."""
        if self.kind is UsageKind.LEVEL:
            self.brought = _ZERO
        else:
            for place, amount in self.taken.items():
                self.held[place] -= amount
                self.burned[place] += amount
            self.brought, self.since = self.overage, _ZERO
        for place in boundary.ended:
            self.in_force.remove(place)
            del self.held[place], self.burned[place]
        if boundary.period_start is not None:
            self._reset(boundary.period_start)
        for place in boundary.recurred:
            self.held[place] = self.grants[place].after_recurrence(self.held[place])
            self.burned[place] = _ZERO
        for place in boundary.started:
            insort(self.in_force, place)
            self.held[place] = self.grants[place].amount
            self.burned[place] = _ZERO
        self.boundary_at = self.at
        self._cover()

    def _reset(self, start: PeriodStart) -> None:
        for place in self.in_force:
            self.held[place] = self.grants[place].after_reset(self.held[place])
            self.burned[place] = _ZERO
        keeps = start.preserve_overage and self.brought > 0
        self.brought = self.carried = self.brought if keeps else _ZERO
        self.since = self.usage = _ZERO
        self.last_reset = self.at
        self.usage_period = start.usage_period

    def _balances(self, taken: Mapping[int, Decimal]) -> dict[str, Decimal]:
        grants, held = self.grants, self.held
        return {
            grants[place].id: held[place] - taken[place] if place in taken else held[place]
            for place in self.in_force
        }

    def _burned_beyond(self, before: Mapping[int, Decimal]) -> dict[str, Decimal]:
        """What was taken since an earlier moment of the same phase."""
        if not before:
            return {self.grants[place].id: amount for place, amount in self.taken.items()}
        places = sorted({*self.taken, *before})
        changes = ((it, self.taken.get(it, _ZERO) - before.get(it, _ZERO)) for it in places)
        return {self.grants[place].id: change for place, change in changes if change}

    def _ends(self, boundary: Boundary | None) -> tuple[End, ...]:
        if boundary is None:
            return (End(EndReason.CUT),)
        ends = [_ended(self.grants[place]) for place in boundary.ended]
        if boundary.period_start is not None:
            by_hand = boundary.period_start.by_hand
            ends.append(End(EndReason.RESET if by_hand else EndReason.PERIOD_END))
        ends += [End(EndReason.RECURRENCE, self.grants[it].id) for it in boundary.recurred]
        ends += [End(EndReason.GRANT_START, self.grants[it].id) for it in boundary.started]
        return tuple(ends)

    def snapshot(self) -> Snapshot:
        return Snapshot(
            at=self.at,
            boundary_at=self.boundary_at,
            holdings=tuple(
                Holding(
                    grant_id=self.grants[place].id,
                    balance=self.held[place],
                    burned=self.burned[place],
                )
                for place in self.in_force
            ),
            overage=self.brought,
            usage_since_boundary=self.since,
            usage=self.usage,
            carried=self.carried,
            last_reset=self.last_reset,
            usage_period=self.usage_period,
        )

    def balance(self) -> Balance:
        by_grant = self._balances(self.taken)
        remaining = sum(by_grant.values(), _ZERO)
        return Balance(
            at=self.at,
            remaining=remaining,
            usage=self.usage,
            overage=max(self.overage, _ZERO),
            total_available=remaining + self.carried + self.usage - self.overage,
            by_grant=by_grant,
            last_reset=self.last_reset,
            next_reset=self.usage_period.next_after(self.at),
        )


def _ended(grant: Grant) -> End:
    return End(EndReason.GRANT_VOID if grant.is_void_at_end else EndReason.GRANT_EXPIRY, grant.id)
