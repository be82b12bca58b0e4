"""Notifications on a real database: stores, reports, and balances that a test sets."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from tests.support.reservations import StandingClock
from tollgate.core.ids import new_ulid
from tollgate.customers.customer_store import CustomerStore
from tollgate.customers.store import SubjectStore
from tollgate.limits.feature_store import FeatureStore
from tollgate.notify.balance import Balance, EntitlementReset
from tollgate.notify.channel import Channel, parse_channel
from tollgate.notify.channel_store import ChannelStore
from tollgate.notify.describe import Describer
from tollgate.notify.event_store import Event, EventListing, EventStore
from tollgate.notify.outbox_store import OutboxStore
from tollgate.notify.report import Reporter
from tollgate.notify.rule import FeatureName, Rule, parse_rule
from tollgate.notify.rule_store import RuleStore, WatchStore
from tollgate.notify.watch import Look
from tollgate.platform.sql import Database

NS = "acme"
MARCH = datetime(2026, 3, 1, tzinfo=UTC)
APRIL = datetime(2026, 4, 1, tzinfo=UTC)
TOKENS = FeatureName(id=new_ulid(), key="tokens")


def balance(usage: str | int = 0, total: str | int = 100, **more: Any) -> Balance:
    """Of an entitlement to tokens, in March."""
    made = Balance(
        namespace=NS,
        entitlement_id="entitlement-1",
        feature=TOKENS,
        customer_id=new_ulid(),
        subject_key="ada",
        period_start=MARCH,
        period_end=APRIL,
        usage=Decimal(usage),
        total=Decimal(total),
        balance=max(Decimal(total) - Decimal(usage), Decimal(0)),
        overage=max(Decimal(usage) - Decimal(total), Decimal(0)),
        has_access=Decimal(usage) < Decimal(total),
        at=MARCH + timedelta(days=9),
        entitlement={"id": "entitlement-1", "type": "metered"},
    )
    return replace(made, **more)


class Office:
    """One process of notifications."""

    def __init__(self, database: Database, clock: StandingClock) -> None:
        self.clock = clock
        self.channels = ChannelStore(database, clock)
        self.rules = RuleStore(database, clock)
        self.watches = WatchStore(database)
        self.events = EventStore(database)
        self.outbox = OutboxStore(database, clock)
        describer = Describer(
            FeatureStore(database, clock),
            CustomerStore(database, clock),
            SubjectStore(database, clock),
        )
        self.reporter = Reporter(self.rules, self.events, describer, clock)

    def channel(self, url: str = "https://example.com/hook", **more: Any) -> Channel:
        """A new channel."""
        members = {"type": "WEBHOOK", "name": "hook", "url": url} | more
        return self.channels.create(NS, parse_channel(members, private_addresses=True))

    def rule(
        self,
        *channels: Channel,
        levels: Iterable[tuple[str, int | str]] = (("usage_percentage", 100),),
        features: Iterable[FeatureName] = (),
        **more: Any,
    ) -> Rule:
        """A new rule."""
        members = {
            "type": "entitlements.balance.threshold",
            "name": "rule",
            "channels": [each.id for each in channels],
            "thresholds": [{"type": name, "value": Decimal(value)} for name, value in levels],
        }
        return self.rules.create(NS, parse_rule(members | more), tuple(features))

    def told(self, **query: Any) -> tuple[Event, ...]:
        """The events that there are, oldest first."""
        return self.events.list(NS, EventListing(**query))[0]


@dataclass
class Account:
    """A metered entitlement with one grant, and the times of what was used."""

    id: str
    granted: int
    expires: datetime | None = None
    feature: FeatureName = TOKENS
    used: list[tuple[datetime, int, int]] = field(default_factory=list)


@dataclass
class MemoryBalances:
    """Balances in memory, by months. A mark says how many events there were, and when it was."""

    accounts: list[Account] = field(default_factory=list)
    loaded: int = 0
    looks: list[tuple[frozenset[FeatureName] | None, str, int]] = field(default_factory=list)

    def use(self, account: Account, at: datetime, quantity: int) -> None:
        """Loads an event, perhaps a late one."""
        self.loaded += 1
        account.used.append((at, quantity, self.loaded))

    def look(
        self, namespace: str, features: frozenset[FeatureName] | None, since: str, at: datetime
    ) -> Look:
        """As the port says."""
        assert namespace == NS
        count, _, then = since.partition("@")
        before = (int(count), datetime.fromisoformat(then)) if since else None
        found = []
        for account in self.accounts:
            if features is None or account.feature in features:
                found += self._moved(account, before, at)
        self.looks.append((features, since, len(found)))
        return Look(balances=found, mark=f"{self.loaded}@{at.isoformat()}")

    def _moved(
        self, account: Account, before: tuple[int, datetime] | None, at: datetime
    ) -> list[Balance]:
        present = _month(at)
        if before is None:
            return [self._balance(account, present, at)]
        loaded, then = before
        periods = {_month(when) for when, _, number in account.used if number > loaded}
        if account.expires is not None and then < account.expires <= at:
            periods.add(present)
        if _month(then) != present:
            periods |= {_month(then), present}
        return [self._balance(account, each, at) for each in sorted(periods) if each <= present]

    def _balance(self, account: Account, start: datetime, at: datetime) -> Balance:
        end = _month(start + timedelta(days=32))
        until = min(at, end - timedelta(microseconds=1))
        usage = sum(n for when, n, _ in account.used if start <= when <= until)
        is_gone = account.expires is not None and account.expires <= until
        total = min(usage, account.granted) if is_gone else account.granted
        return balance(
            usage,
            total,
            entitlement_id=account.id,
            feature=account.feature,
            period_start=start,
            period_end=end,
            at=until,
        )


@dataclass
class MemoryResets:
    """Resets in memory, of the usage period of each balance. Notes since when it was asked."""

    found: list[EntitlementReset] = field(default_factory=list)
    looks: list[datetime] = field(default_factory=list)

    def reset(self, account: str, at: datetime, happened_at: datetime | None = None) -> None:
        """A usage period begins at an instant; it was asked for then, or later."""
        begun = balance(0, entitlement_id=account, period_start=at, at=at)
        self.found.append(EntitlementReset(balance=begun, happened_at=happened_at or at))

    def resets(
        self,
        namespace: str,
        features: frozenset[FeatureName] | None,
        since: datetime,
        at: datetime,
    ) -> list[EntitlementReset]:
        """As the port says."""
        assert (namespace, features) == (NS, None)
        self.looks.append(since)
        return [each for each in self.found if since < each.happened_at <= at]


def _month(instant: datetime) -> datetime:
    return instant.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
