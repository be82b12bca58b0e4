"""What other contexts report becomes events: the one entry to notifications.

Reporting the same again writes nothing: each event has a key of what it tells, and the database
holds it unique. So a report may be repeated, come late, or be made by two at once.
"""

from collections.abc import Callable, Sequence

from tollgate.core.clock import Clock
from tollgate.customers.api_customers_v1 import open_customers
from tollgate.customers.api_v1 import open_subjects
from tollgate.limits.api_features_v1 import open_features
from tollgate.notify.balance import Balance, EntitlementReset, InvoiceChange
from tollgate.notify.describe import Describer
from tollgate.notify.doorbell import open_doorbell
from tollgate.notify.event_store import EventStore
from tollgate.notify.new_event import NewEvent, new_event
from tollgate.notify.payload import members_of_balance
from tollgate.notify.rule import Kind, Rule
from tollgate.notify.rule_store import RuleStore
from tollgate.notify.threshold import Level, reached
from tollgate.platform.database import open_database
from tollgate.platform.parts import Parts


def open_reporter(parts: Parts) -> "Reporter":
    """Writes events into the control plane."""
    database = parts.get(open_database)
    describer = Describer(
        parts.get(open_features), parts.get(open_customers), parts.get(open_subjects)
    )
    return Reporter(
        RuleStore(database, parts.clock),
        EventStore(database, to_log=parts.settings.notify_log),
        describer,
        parts.clock,
        parts.get(open_doorbell).ring,
    )


def _nobody_hears() -> None:
    """A process without a worker: the schedule delivers."""


class Reporter:
    """Writes the events that reports give rise to, with their deliveries, all or none."""

    def __init__(
        self,
        rules: RuleStore,
        events: EventStore,
        describer: Describer,
        clock: Clock,
        ring: Callable[[], None] = _nobody_hears,
    ) -> None:
        self._rules = rules
        self._events = events
        self._describer = describer
        self._clock = clock
        self._ring = ring

    def report_balance(self, balance: Balance) -> tuple[str, ...]:
        """Writes an event for every level that is newly reached; gives their ids."""
        return self.report_balances([balance])

    def report_balances(self, balances: Sequence[Balance]) -> tuple[str, ...]:
        """The same for many balances of one namespace, in one transaction."""
        if not balances:
            return ()
        (namespace,) = {balance.namespace for balance in balances}
        rules = self._rules.in_force(namespace, Kind.BALANCE_THRESHOLD)
        hits = {
            balance.once_key(rule.id, level): (rule, balance, level)
            for balance in balances
            for rule in rules
            if rule.is_about(balance.feature)
            for level in reached(rule.levels, balance.figures)
        }
        # Most of what is reached was told before: only the rest is worth a payload.
        known = self._events.known(list(hits))
        fresh = [
            self._of_balance(*hit, once_key)
            for once_key, hit in hits.items()
            if once_key not in known
        ]
        return self._write(fresh)

    def report_resets(self, resets: Sequence[EntitlementReset]) -> tuple[str, ...]:
        """Entitlements of a namespace were reset: writes an event for every rule of resets.

        A rule tells what happened since it came into force; gives the ids of the events.
        """
        if not resets:
            return ()
        (namespace,) = {reset.balance.namespace for reset in resets}
        rules = self._rules.in_force(namespace, Kind.ENTITLEMENT_RESET)
        hits = {
            reset.balance.reset_key(rule.id): (rule, reset.balance)
            for reset in resets
            for rule in rules
            if rule.is_about(reset.balance.feature) and reset.happened_at >= rule.enabled_at
        }
        known = self._events.known(list(hits))
        fresh = [
            self._of_balance(rule, balance, None, once_key)
            for once_key, (rule, balance) in hits.items()
            if once_key not in known
        ]
        return self._write(fresh)

    def report_invoice(self, change: InvoiceChange) -> tuple[str, ...]:
        """An invoice was created or updated: writes an event for every rule of that."""
        now = self._clock.now()
        fresh = [
            new_event(rule, change.invoice, None, change.once_key(rule.id), now)
            for rule in self._rules.in_force(change.namespace, change.kind)
        ]
        return self._write(fresh)

    def _of_balance(
        self, rule: Rule, balance: Balance, level: Level | None, once_key: str
    ) -> NewEvent:
        data = members_of_balance(balance, self._describer.describe(balance), level)
        return new_event(rule, data, balance, once_key, self._clock.now())

    def _write(self, fresh: Sequence[NewEvent]) -> tuple[str, ...]:
        written = self._events.write(fresh) if fresh else ()
        if written:
            self._ring()
        return written
