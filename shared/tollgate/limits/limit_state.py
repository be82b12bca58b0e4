"""Limits as one process knows them: a definition, a running balance, and how far usage is in it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from tollgate.core.clock import us_from_datetime
from tollgate.events.position import Token
from tollgate.limits.account import Account, Supply
from tollgate.limits.balance import Balance
from tollgate.limits.entitlement import IssueAfterReset
from tollgate.limits.entitlement_record import EntitlementRecord, usage_period_at
from tollgate.limits.facts_store import Known, Metering
from tollgate.limits.limit_rule import Budget
from tollgate.limits.plan import Facts, Plan, plan
from tollgate.limits.running_balance import RunningBalance, begin
from tollgate.limits.usage_kind import UsageKind
from tollgate.platform.filters import And, Comparison, Filter, Operator

_MICROSECOND = timedelta(microseconds=1)


Amount = tuple[datetime, datetime, Decimal]
"""Usage that happened in [start, end)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitDefinition:
    """What a limit is.

    Attributes:
        account: which limit.
        record: the entitlement that it is, or is a part of.
        metering: what its usage is counted by; None: it is not metered.
        facts: what its balance follows from; of a budget its grant, and the entitlement's resets.
        filters: which usage counts.
        version: of a limit that changed the later is greater.
    """

    account: Account
    record: EntitlementRecord
    metering: Metering | None
    facts: Facts | None
    filters: Mapping[str, Filter]
    version: int

    @property
    def is_soft(self) -> bool:
        """Whether it allows more than it has; a budget never does."""
        if self.metering is None or self.account.scope:
            return False
        return self.metering.entitlement.is_soft_limit

    def is_active(self, at: datetime) -> bool:
        """Whether it holds at an instant."""
        return self.record.definition.is_active(at)


def definition_of(account: Account, known: Known, budget: Budget | None) -> LimitDefinition:
    """The limit of an account.

    Args:
        account: which.
        known: the entitlement.
        budget: what the account's scope is limited to; None: the account is the whole limit.
    """
    record, metering = known.record, known.metering
    version = us_from_datetime(record.definition.created_at) + record.version
    facts: Facts | None = None
    filters: dict[str, Filter] = {}
    if metering is not None:
        facts, filters = metering.facts, dict(metering.feature.filters)
    if budget is not None:
        assert metering is not None
        assert facts is not None
        version += us_from_datetime(budget.created_at)
        own = replace(metering.entitlement, issue_after_reset=IssueAfterReset(amount=budget.amount))
        grant = own.default_grant(budget.id)
        facts = replace(
            facts, grants=() if grant is None else (grant,), preserve_overage_at_reset=False
        )
        for name, value in account.scope:
            equal = Comparison(operator=Operator.EQUAL, value=value)
            filters[name] = _both(filters.get(name), equal)
    return LimitDefinition(
        account=account,
        record=record,
        metering=metering,
        facts=facts,
        filters=filters,
        version=version,
    )


def _both(known: Filter | None, also: Filter) -> Filter:
    return also if known is None else And(filters=(known, also))


class LimitState:
    """A limit in memory. Whoever reads or changes it holds the projection's lock.

    Attributes:
        asked_at_us: when it was last asked for.
        read_at: when its definition was read.
        added_through: the vector up to which usage was added last; None: none was.
    """

    def __init__(
        self,
        definition: LimitDefinition,
        running: RunningBalance | None,
        read_at: datetime,
        latest: datetime | None = None,
    ) -> None:
        """Begins.

        Args:
            definition: what it is.
            running: its balance, with all usage of the present phase; None: it is not metered.
            read_at: when its definition was read.
            latest: the latest time of usage that is dated then or later; None: there is none.
        """
        self.definition = definition
        self.asked_at_us = 0
        self.read_at = read_at
        self.added_through: Token | None = None
        self._running = running
        self._balance: Balance | None = None
        self._later_until: datetime | None = None
        self._ends_at: datetime | None = None
        if latest is not None:
            self.note_later(latest)
            if running is not None and latest >= running.valid_until:
                # Usage of the next phase is known already, but not read.
                self._ends_at = running.valid_until

    def holds(self, now: datetime) -> bool:
        """Whether the limit holds, and its usage is what was read and added."""
        is_known = self._ends_at is None or now < self._ends_at
        return is_known and self.definition.is_active(now)

    def note_later(self, latest: datetime) -> None:
        """Usage may have been added that is dated up to an instant to come."""
        until = latest + _MICROSECOND
        if self._later_until is None or until > self._later_until:
            self._later_until = until

    def present_balance(self, now: datetime) -> Balance | None:
        """The balance by usage up to an instant; None: that can't be told from what is added."""
        is_later = self._later_until is not None and now < self._later_until
        if self._running is None or is_later or not self.holds(now):
            return None
        balance = self.balance(now)
        if balance is None or now < self._running.begins_at:
            return None
        return replace(balance, at=now)

    @property
    def adds_up(self) -> bool:
        """Whether usage can be added."""
        facts = self.definition.facts
        return facts is not None and facts.kind is UsageKind.FLOW

    def add(self, amounts: Iterable[Amount] | None, through: Token) -> bool:
        """Adds usage up to a vector; False: all has to be read anew.

        Args:
            amounts: what it rises by; None: that can't be told.
            through: all usage up to there is in it then.
        """
        if amounts is None:
            return False
        self._balance, running = None, self._running
        is_whole = running is None or all(running.add(*each) for each in amounts)
        if is_whole:
            self.added_through = through
        return is_whole

    def balance(self, now: datetime) -> Balance | None:
        """The balance, of an instant since which nothing changed; None: it is not metered."""
        if self._running is None:
            return None
        if self._balance is None or now >= self._running.valid_until:
            self._balance = self._running.balance(now)
        return self._balance

    def supply(self, now: datetime, vector: Token) -> Supply | None:
        """What it offers; None: it does not hold, or is not metered."""
        definition, balance = self.definition, self.balance(now)
        if balance is None or self._running is None or not self.holds(now):
            return None
        until = self._running.valid_until
        ends = definition.record.definition.active_to
        return Supply(
            remaining=balance.remaining,
            is_soft=definition.is_soft,
            vector=vector,
            version=definition.version,
            valid_until_us=us_from_datetime(until if ends is None else min(until, ends)),
        )


def present_plan(definition: LimitDefinition, now: datetime) -> Plan:
    """The phases of a metered limit up to the end of the one that an instant is in."""
    assert definition.facts is not None
    assert definition.metering is not None
    facts = definition.facts
    period, _ = usage_period_at(definition.metering.entitlement, facts.resets, now)
    whole = plan(facts, period.end)
    place = next(number for number, phase in enumerate(whole.phases) if now < phase.end)
    phases = whole.phases[: place + 1]
    return replace(whole, until=phases[-1].end, phases=phases)


def running_from(planned: Plan, usages: list[Decimal]) -> RunningBalance:
    """The running balance of a limit whose usage was read, as `present_plan` asks for it."""
    return begin(planned.facts, planned.phases[-1].start, usages[:-1], usages[-1])
