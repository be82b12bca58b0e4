"""The projection: balances of the limits that are asked for, kept in memory.

A limit is read once, at a vector of the log; from then on what is loaded is added, stretch by
stretch, for all limits at once. So a decision costs no query, and what it knows is the usage up to
one vector. Corrections, and whatever can't be added, are read anew. All of it can be dropped.
"""

import logging
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from tollgate.core.clock import Clock, us_from_datetime
from tollgate.core.decimals import EXACT
from tollgate.customers.customer_store import CustomerStore
from tollgate.events.as_of import vector_now
from tollgate.events.facts import has_corrections
from tollgate.events.position import NOTHING, Token
from tollgate.limits.account import Account, Supply
from tollgate.limits.balance import Balance
from tollgate.limits.entitlement_record import EntitlementRecord
from tollgate.limits.entitlement_store import EntitlementStore
from tollgate.limits.limit_index import LimitIndex, Question
from tollgate.limits.limit_reader import LimitReader
from tollgate.limits.limit_rule import FailureMode, Policy
from tollgate.limits.limit_rule_store import LimitRuleStore
from tollgate.limits.limit_state import LimitState
from tollgate.limits.owners import Owners
from tollgate.limits.risen import Risen
from tollgate.metering.deltas import (
    corrected_subjects,
    first_touched,
    later_touched,
    read_deltas,
)
from tollgate.metering.query import ledger_tail
from tollgate.metering.statement import Tail
from tollgate.platform.clickhouse import ClickHouse

_log = logging.getLogger(__name__)
_MINUTE = timedelta(minutes=1)
_BACK = timedelta(seconds=5)
_CHANGES_MAX = 10_000
_LIMITS_MAX = 200_000
_LOOKED_BACK = timedelta(minutes=1)
_SKEW = timedelta(seconds=1)
_IDLE_AFTER = timedelta(minutes=1)
_OLD_AFTER = timedelta(seconds=2)
_JUST_NOW = timedelta(milliseconds=100)
_PAUSE_SECONDS = 0.0002
_DEFAULT = Policy()


class Projection:
    """Of one process. Two locks: `_reading` for who reads stores, `_lock` for what is in memory."""

    piece = 64
    """How many limits are added to while nobody can read one."""

    def __init__(
        self,
        clickhouse: ClickHouse,
        reader: LimitReader,
        entitlements: EntitlementStore,
        rules: LimitRuleStore,
        customers: CustomerStore,
        clock: Clock,
    ) -> None:
        self._clickhouse = clickhouse
        self._reader = reader
        self._entitlements = entitlements
        self._rules = rules
        self._owners = Owners(customers, self._mark_customer)
        self._clock = clock
        self._pause = threading.Event()
        self._reading = threading.RLock()
        self._lock = threading.RLock()
        self._index = LimitIndex()
        self._vector = self._adding = NOTHING
        self._known_at: datetime | None = None
        self._changes_at = clock.now() - _LOOKED_BACK
        self._policies: Mapping[tuple[str, str], Policy] = {}
        self._asked_at = clock.now()

    @property
    def vector(self) -> Token:
        """Usage up to here is known."""
        return self._vector

    def _vector_of(self, state: LimitState) -> Token:
        """How far usage is in one limit: further than in others while a stretch is added."""
        return self._adding if state.added_through is self._adding else self._vector

    @property
    def known_at(self) -> datetime | None:
        """When the stores were last looked at; None: never."""
        return self._known_at

    def now(self) -> datetime:
        """By the clock that `known_at` is of."""
        return self._clock.now()

    def __len__(self) -> int:
        return len(self._index)

    def state(self, account: Account) -> LimitState | None:
        """A limit, if it is in memory; for use under `lock`."""
        found = self._index.get(account)
        self._asked_at = self._clock.now()
        if found is not None:
            found.asked_at_us = us_from_datetime(self._asked_at)
        return found

    @property
    def lock(self) -> threading.RLock:
        """Held by whoever reads a state."""
        return self._lock

    def supply_of(self, account: Account) -> Supply | None:
        """As `Supplies.supply_of`."""
        now = self._clock.now()
        with self._lock:
            state = self.state(account)
            supply = None if state is None else state.supply(now, self._vector_of(state))
        if supply is None or not self.is_stale(account, now):
            return supply
        policy = self.policy(account)
        match policy.failure_mode:
            case FailureMode.CLOSED:
                return None
            case FailureMode.OPEN:
                return replace(supply, remaining=EXACT.add(supply.remaining, policy.open_cap))
            case FailureMode.LAST_KNOWN:
                return supply

    def present_balance(self, record: EntitlementRecord) -> Balance | None:
        """The balance of an entitlement now; None: what is in memory can't tell it exactly.

        Args:
            record: as it is in SQL now.
        """
        definition = record.definition
        account = Account(
            namespace=record.namespace,
            customer_id=definition.customer_id,
            feature_key=definition.feature_key,
        )
        with self._lock:
            now = self._clock.now()  # not before any look at usage that was added
            state = self.state(account)
            if state is None or self._index.is_marked(account) or self.is_old(now):
                return None
            if state.definition.record.stamp != record.stamp:
                self._index.mark([state])
                return None
            return state.present_balance(now)

    @property
    def is_followed(self) -> bool:
        """Whether anybody asked lately: else usage is looked at when somebody does."""
        return len(self._index) > 0 and self._clock.now() - self._asked_at < _IDLE_AFTER

    def is_old(self, now: datetime) -> bool:
        """Whether nobody has looked at the stores for a while."""
        return self._known_at is None or now - self._known_at > _OLD_AFTER

    def policy(self, account: Account) -> Policy:
        """How a limit fails."""
        return self._policies.get((account.namespace, account.feature_key), _DEFAULT)

    def is_stale(self, account: Account, now: datetime) -> bool:
        """Whether usage is not known well enough."""
        known_at = self._known_at
        return known_at is None or now - known_at > self.policy(account).stale_after

    def refresh(self, accounts: Iterable[Account]) -> frozenset[str]:
        """As `Supplies.refresh`: reads limits that are not in memory, and what is new of all."""
        wanted = list(accounts)
        with self._reading:
            now = self._clock.now()
            if self._known_at is None or now - self._known_at > _JUST_NOW:
                self.tick()
            with self._lock:
                missing = [each for each in wanted if not self._holds(each, now)]
            return self._read(missing, now) if missing else frozenset()

    def _holds(self, account: Account, now: datetime) -> bool:
        state = self._index.get(account)
        return state is not None and state.holds(now) and not self._index.is_marked(account)

    def _read(self, accounts: Collection[Account], now: datetime) -> frozenset[str]:
        """Reads limits at the vector. Gives the ids of what is no limit at the instant."""
        definitions = self._reader.definitions(accounts, now)
        states = self._reader.states(definitions.values(), now, self._vector)
        unknown = frozenset(each.id for each in accounts) - definitions.keys()
        with self._lock:
            for account_id in unknown:
                self._index.drop(account_id)
            for state in states:
                known = self._index.get(state.definition.account)
                asked_at_us = us_from_datetime(now) if known is None else known.asked_at_us
                state.asked_at_us = asked_at_us
                self._index.keep(state)
        return unknown

    def tick(self) -> None:
        """Adds what was loaded since, and reads anew what changed otherwise.

        Raises:
            Transient: a store is away: what is known stays as it was.
        """
        with self._reading:
            looked_at = self._clock.now()
            self._policies = self._rules.policies()
            self._follow_definitions()
            if self._known_at is None:
                # Nothing was read yet that would have to be added to.
                self._vector = vector_now(self._clickhouse)
            tail = ledger_tail(self._clickhouse, self._vector)
            if tail is not None:
                self._add(tail, looked_at)
            self._read_again(looked_at)
            self._known_at = looked_at
            self._forget_some()

    def _follow_definitions(self) -> None:
        """Marks the limits whose definition changed, or whose usage came to be another's."""
        since, began = self._changes_at - _BACK, self._clock.now()
        with self._lock:
            namespaces, has_budgets = self._index.namespaces, self._index.has_budgets
        self._owners.follow_only(namespaces)
        for namespace in namespaces:
            for moved in self._owners.changed(namespace, since):
                with self._lock:
                    self._index.mark(
                        [
                            state
                            for state in self._index.of(namespace, moved.customer_id)
                            if (metering := state.definition.metering) is not None
                            and metering.attributions != moved.attributions
                        ]
                    )
            for each in self._entitlements.changes(namespace, since, _CHANGES_MAX):
                with self._lock:
                    self._index.mark(
                        [
                            state
                            for state in self._index.of(namespace, each.customer_id)
                            if state.definition.account.feature_key == each.feature_key
                            and state.definition.record.version != each.version
                        ]
                    )
        budgets = self._rules.changed_budgets(since) if has_budgets else {}
        for (namespace, customer, feature), changed_at in budgets.items():
            with self._lock:
                self._index.mark(
                    [
                        state
                        for state in self._index.of(namespace, customer)
                        if state.definition.account.feature_key == feature
                        and state.definition.account.scope
                        and state.read_at < changed_at + _SKEW
                    ]
                )
        self._changes_at = began

    def _add(self, tail: Tail, looked_at: datetime) -> None:
        """Adds a stretch of the log to all limits; where a store fails, to none of them."""
        corrected = self._corrected(tail)
        with self._lock:
            questions = self._index.questions()
        types = {(each.meter.namespace, each.meter.event_type) for each in questions}
        was_corrected = {each: has_corrections(self._clickhouse, *each) for each in types}
        risen = [
            self._risen(
                each, tail, corrected=was_corrected[each.meter.namespace, each.meter.event_type]
            )
            for each in questions
        ]
        later = self._later(tail, looked_at)
        added = [change for each in risen for change in each.changes()]
        with self._lock:
            for customer, event_type in corrected:
                self._index.mark(list(self._index.counting(*customer, event_type)))
            for (namespace, customer_id, event_type), latest in later.items():
                for state in self._index.counting(namespace, customer_id, event_type):
                    state.note_later(latest)
            self._adding = tail.until
        # In pieces, with the interpreter let go between them: a check waits for one at most.
        for start in range(0, len(added), self.piece):
            with self._lock:
                for state, amounts in added[start : start + self.piece]:
                    if not state.add(amounts, tail.until):
                        self._index.mark([state])
            self.give_way()
        with self._lock:
            self._vector = tail.until

    def give_way(self) -> None:
        """Lets others have their turn."""
        self._pause.wait(_PAUSE_SECONDS)

    def _corrected(self, tail: Tail) -> list[tuple[tuple[str, str], str]]:
        """Namespaces with customers, and event types, whose usage corrections changed."""
        with self._lock:
            namespaces = self._index.namespaces
        types: dict[tuple[str, str], list[str]] = {}
        for namespace, event_type, subject in corrected_subjects(self._clickhouse, tail):
            if namespace in namespaces:
                types.setdefault((namespace, subject), []).append(event_type)
        return [
            ((namespace, owner.customer_id), event_type)
            for (namespace, subject), of_subject in types.items()
            for owner in self._owners.of(namespace, {subject}, self._clock.now())[subject]
            for event_type in of_subject
        ]

    def _later(self, tail: Tail, looked_at: datetime) -> dict[tuple[str, str, str], datetime]:
        """The latest time of usage of a stretch of the log that is still to come.

        Returns:
            by namespace, customer and event type.
        """
        found = later_touched(self._clickhouse, tail, looked_at)
        with self._lock:
            namespaces = self._index.namespaces
            if found is None:
                self._index.mark(self._index.oldest(len(self._index)))
        latest: dict[tuple[str, str, str], datetime] = {}
        for namespace in namespaces:
            own = {key[1:]: at for key, at in (found or {}).items() if key[0] == namespace}
            owners = self._owners.of(namespace, {subject for _, subject in own}, looked_at)
            for (event_type, subject), at in own.items():
                for owner in owners[subject]:
                    key = (namespace, owner.customer_id, event_type)
                    latest[key] = max(at, latest.get(key, at))
        return latest

    def _risen(self, question: Question, tail: Tail, *, corrected: bool) -> Risen:
        """Reads what a stretch of the log adds; changes nothing."""
        meter, deltas = question.meter, None
        if question.adds_up:
            deltas = read_deltas(
                self._clickhouse, meter, question.filters, tail, corrected=corrected
            )
        if deltas is None:
            subjects = set(first_touched(self._clickhouse, meter, tail))
        else:
            subjects = {each.subject for each in deltas}
        owners = self._owners.of(meter.namespace, subjects, self._clock.now())
        return Risen(question, deltas, owners)

    def _mark_customer(self, namespace: str, customer_id: str) -> None:
        with self._lock:
            self._index.mark(list(self._index.of(namespace, customer_id)))

    def _read_again(self, now: datetime) -> None:
        """Reads what can't be added to, of limits that were asked for lately."""
        lately = us_from_datetime(now - _LOOKED_BACK)
        with self._lock:
            marked = self._index.marked()
            for state in marked:
                if state.asked_at_us < lately:
                    self._index.drop(state.definition.account.id)
            accounts = [state.definition.account for state in marked if state.asked_at_us >= lately]
        if accounts:
            self._read(accounts, now)

    def _forget_some(self) -> None:
        """Keeps what is in memory bounded: what was not asked for longest goes."""
        with self._lock:
            over = len(self._index) - _LIMITS_MAX
            if over > 0:
                for state in self._index.oldest(over + _LIMITS_MAX // 10):
                    self._index.drop(state.definition.account.id)
