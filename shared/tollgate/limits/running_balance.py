"""Running balances: a metered limit's balance, kept by adding what its usage rises by.

Pure. It begins from a state at the start of a phase and the usage of that phase, and gives at
every later instant what folding all usage from the beginning would give. Phases that have ended
stay for a while, so that usage which comes late is put where it belongs.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from tollgate.core.decimals import EXACT
from tollgate.limits.balance import Balance
from tollgate.limits.burn_down import run
from tollgate.limits.plan import Facts, Phase, Plan, plan
from tollgate.limits.snapshot import Snapshot
from tollgate.limits.usage_kind import UsageKind

_KEPT_MAX = 8
_KEPT_FOR = timedelta(minutes=15)
_ZERO = Decimal(0)


@dataclass(slots=True)
class _Stretch:
    """A phase that is known: the state where it begins, where it ends, and its usage."""

    base: Snapshot
    end: datetime
    usage: Decimal


def phase_start(facts: Facts, at: datetime) -> datetime:
    """When the phase began that an instant is in."""
    phases = plan(facts, at).phases
    if not phases:
        return facts.measure_usage_from
    last = phases[-1]
    return last.end if last.boundary is not None else last.start


class RunningBalance:
    """Of one limit. What does not add up (DISTINCT, LEVEL) is set anew instead of added to."""

    def __init__(self, facts: Facts, base: Snapshot, usage: Decimal) -> None:
        """Begins.

        Args:
            facts: of the limit.
            base: the state at the start of the phase.
            usage: of the phase, up to now.
        """
        self._facts = facts
        self._kept = [_Stretch(base, self._end_of_phase(base), usage)]
        self._early: list[tuple[datetime, Decimal]] = []

    @property
    def valid_until(self) -> datetime:
        """First instant at which the balance changes without usage, as far as was looked."""
        return self._kept[-1].end

    @property
    def begins_at(self) -> datetime:
        """When the phase began whose balance was asked for last."""
        return self._kept[-1].base.at

    @property
    def has_early_usage(self) -> bool:
        """Whether usage was added whose time has not come."""
        return bool(self._early)

    def add(self, start: datetime, end: datetime, quantity: Decimal) -> bool:
        """Adds usage that happened in [start, end).

        Returns:
            whether it could be put into one phase that is kept; if not, all has to be read anew.
        """
        last = self._kept[-1]
        if start >= last.end:
            self._early.append((start, quantity))
            return True
        if last.base.at <= start and end <= last.end:
            last.usage = EXACT.add(last.usage, quantity)
            return True
        for number in range(len(self._kept) - 1, -1, -1):
            stretch = self._kept[number]
            if stretch.base.at <= start:
                if end > stretch.end:
                    return False
                stretch.usage = EXACT.add(stretch.usage, quantity)
                self._fold_after(number)
                return True
        return False

    def balance(self, now: datetime) -> Balance:
        """The balance at an instant, which never goes back."""
        while now >= self._kept[-1].end:
            self._advance()
        last = self._kept[-1]
        if now <= last.base.at:
            return run(_until(self._facts, last.base, last.base.at), []).balance
        return run(_until(self._facts, last.base, now), [last.usage]).balance

    def _advance(self) -> None:
        last = self._kept[-1]
        base = self._after(last)
        # Distinct values and levels are of the usage period, not of the phase.
        goes_on = self._facts.kind is not UsageKind.FLOW and base.last_reset == last.base.last_reset
        following = _Stretch(base, self._end_of_phase(base), last.usage if goes_on else _ZERO)
        early, self._early = self._early, []
        self._kept.append(following)
        for at, quantity in early:
            self.add(at, at, quantity)
        oldest = following.base.at - _KEPT_FOR
        while len(self._kept) > _KEPT_MAX or (len(self._kept) > 1 and self._kept[0].end < oldest):
            del self._kept[0]

    def _fold_after(self, number: int) -> None:
        """Makes the states anew that follow a phase."""
        for earlier, later in zip(self._kept[number:], self._kept[number + 1 :], strict=False):
            later.base = self._after(earlier)

    def _after(self, stretch: _Stretch) -> Snapshot:
        whole = plan(self._facts, stretch.end, snapshot=stretch.base)
        return run(whole, [stretch.usage]).snapshot

    def _end_of_phase(self, base: Snapshot) -> datetime:
        """The first boundary after a state."""
        until = base.usage_period.period_at(base.at).end
        return plan(self._facts, until, snapshot=base).phases[0].end


def _until(facts: Facts, base: Snapshot, now: datetime) -> Plan:
    """The plan of a part of a phase."""
    phases = () if now == base.at else (Phase(base.at, now, base.last_reset, None),)
    return Plan(
        facts=facts,
        snapshot=base,
        start=base.at,
        until=now,
        phases=phases,
        usage_period=base.usage_period,
    )


def begin(facts: Facts, start: datetime, usages: list[Decimal], usage: Decimal) -> RunningBalance:
    """A running balance of a limit whose usage was read.

    Args:
        facts: of the limit.
        start: of the present phase, from `phase_start`.
        usages: of each phase before it, as `plan(facts, start).intervals()` asks for.
        usage: of the present phase.
    """
    return RunningBalance(facts, run(plan(facts, start), usages).snapshot, usage)
