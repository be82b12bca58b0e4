"""Balances the slow way: hour by hour and unit by unit, over whole numbers.

Shares nothing with the engine but the facts. Every hour it looks at every fact; every unit of usage
looks for a grant of its own.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tests.support.limits import hour
from tollgate.limits.grant import Grant
from tollgate.limits.plan import Facts
from tollgate.limits.usage_kind import UsageKind


@dataclass
class Purse:
    """A grant in force: what it holds, and what this period took from it since it was filled."""

    grant: Grant
    holds: int
    took: int = 0

    def rank(self) -> tuple[int, datetime, datetime, str]:
        expires_at = self.grant.expires_at or hour(1_000_000)
        return self.grant.priority, expires_at, self.grant.created_at, self.grant.id


@dataclass
class Naive:
    """The state at an hour.

    `uncovered` is overage, below zero what was given back and no grant took; `spent` is what this
    period took from grants.
    """

    known: Facts
    purses: list[Purse] = field(default_factory=list)
    uncovered: int = 0
    usage: int = 0
    pending: int = 0
    spent: int = 0
    anchor: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.anchor = self.known.usage_period.anchor

    def at(self, until: int, usage: dict[int, int]) -> "Naive":
        """Lives through all hours up to one."""
        self.open(0)
        self.purses = [
            Purse(it, int(it.amount)) for it in self.known.grants if it.counts_at(hour(0))
        ]
        for number in range(until):
            self.use(usage.get(number, 0))
            self.pass_hour(number + 1)
        self.settle()
        return self

    def use(self, amount: int) -> None:
        self.pending += amount
        self.usage += amount

    def settle(self) -> None:
        """Spends one unit at a time, or gives one back at a time."""
        owed, self.pending, self.uncovered = self.uncovered + self.pending, 0, 0
        self.purses.sort(key=Purse.rank)
        for _ in range(owed):
            purse = next((it for it in self.purses if it.holds), None)
            if purse is None:
                self.uncovered += 1
            else:
                purse.holds -= 1
                purse.took += 1
                self.spent += 1
        for _ in range(-owed):
            purse = next((it for it in reversed(self.purses) if it.took), None)
            if purse is None:
                self.uncovered -= 1
            else:
                purse.holds += 1
                purse.took -= 1
                self.spent -= 1

    def pass_hour(self, number: int) -> None:
        now = hour(number)
        leaving = [it for it in self.purses if not it.grant.counts_at(now)]
        ends_period = self.ends_period(number)
        filled = [
            it.grant.id for it in self.purses if it not in leaving and self.recurs(it.grant, number)
        ]
        coming = [it for it in self.known.grants if it.effective_at == now and it.counts_at(now)]
        if not (leaving or ends_period or filled or coming):
            return
        self.settle()
        self.purses = [it for it in self.purses if it not in leaving]
        if ends_period:
            self.reset(number)
        for purse in self.purses:
            if purse.grant.id in filled:
                purse.holds, purse.took = max(purse.holds, int(purse.grant.amount)), 0
        self.purses += [Purse(it, int(it.amount)) for it in coming]
        self.settle()

    def reset(self, number: int) -> None:
        for purse in self.purses:
            low, high = int(purse.grant.min_rollover), int(purse.grant.max_rollover)
            purse.holds, purse.took = min(high, max(purse.holds, low)), 0
        asked = [it for it in self.known.resets if it.effective_at == hour(number)]
        default = self.known.preserve_overage_at_reset
        said = [it.preserve_overage for it in asked] or [None]
        if self.uncovered < 0 or not all(default if it is None else it for it in said):
            self.uncovered = 0
        self.usage = self.spent = 0
        self.open(number)

    def open(self, number: int) -> None:
        for it in self.known.resets:
            if it.effective_at == hour(number) and not it.retain_anchor:
                self.anchor = hour(number)

    def ends_period(self, number: int) -> bool:
        by_hand = any(it.effective_at == hour(number) for it in self.known.resets)
        length = self.known.usage_period.interval.elapsed
        return by_hand or (hour(number) - self.anchor) % length == timedelta(0)

    @staticmethod
    def recurs(grant: Grant, number: int) -> bool:
        if grant.recurrence is None:
            return False
        passed = hour(number) - grant.recurrence.anchor
        return passed % grant.recurrence.interval.elapsed == timedelta(0)


@dataclass
class NaiveLevel:
    """The same for a level: capacity instead of balance, covered anew."""

    known: Facts

    def at(self, until: int, usage: dict[int, int]) -> tuple[dict[str, int], int]:
        """What is left of each grant, and what none covers."""
        assert self.known.kind is UsageKind.LEVEL
        capacity = Naive(self.known).at(until, {})
        begun = max(it for it in range(until + 1) if it == 0 or self.opens(it))
        levels = [usage[it] for it in sorted(usage) if begun <= it < until]
        capacity.use(levels[-1] if levels else 0)
        capacity.settle()
        return {it.grant.id: it.holds for it in capacity.purses}, capacity.uncovered

    def opens(self, number: int) -> bool:
        watcher = Naive(self.known)
        opened = False
        for at in range(number + 1):
            opened = at > 0 and watcher.ends_period(at)
            watcher.open(at)
        return opened
