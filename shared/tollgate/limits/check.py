"""Use case: whether a customer may use features now, from what is in memory."""

import asyncio
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from time import monotonic_ns

from tollgate.core.clock import Clock
from tollgate.core.decimals import EXACT
from tollgate.core.errors import Transient
from tollgate.events.position import Token, covers
from tollgate.limits.account import Account, Book
from tollgate.limits.balance import Balance
from tollgate.limits.entitlement import StaticEntitlement
from tollgate.limits.entitlement_record import EntitlementKind
from tollgate.limits.facts_store import FactsStore
from tollgate.limits.limit_rule import Budget, FailureMode, budgets_of
from tollgate.limits.limit_rule_store import LimitRuleStore
from tollgate.limits.limit_state import LimitState
from tollgate.limits.projection import Projection
from tollgate.limits.reservation_store import ReservationStore
from tollgate.limits.reservation_work import Standing

_ZERO = Decimal(0)
_BELIEVED_NS = 300_000_000_000
_BUDGETS_BELIEVED_NS = 1_000_000_000
_NAMES_MAX = 100_000
_LOOK_SECONDS = 0.02
_LOOKS_AT_ONCE = 4
_LOAD_SECONDS = 3
_LOOK_AGAIN_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether one limit allows an amount.

    Attributes:
        scope: which part of the feature's usage; () is all of the customer's.
        kind: of the entitlement; None: there is none.
        allowed: whether so much may be used.
        reason: why not; "" if it may.
        amount: that was asked for.
        config: of a static entitlement.
        balance: of a metered one, before what is held; None: it is not known.
        held: by reservations, settled ones included whose usage is not in the balance.
        available: what is left beyond that; below zero if settlements went beyond.
        is_soft: the limit allows more than it has.
        known_at: when usage was last looked at. vector: the positions that are in the balance.
        failure_mode: which one decided; None: usage is known well enough.
        open_cap: what the failure mode allows beyond.
    """

    account: Account
    kind: EntitlementKind | None
    allowed: bool
    reason: str = ""
    amount: Decimal
    config: str | None = None
    balance: Balance | None = None
    held: Decimal = _ZERO
    available: Decimal = _ZERO
    is_soft: bool = False
    known_at: datetime | None = None
    vector: Token | None = None
    failure_mode: FailureMode | None = None
    open_cap: Decimal = _ZERO


class Holds:
    """What is held of accounts, as this process last heard."""

    def __init__(self, store: ReservationStore) -> None:
        self._store = store
        self._books: dict[Account, Book] = {}
        self._since_us = 0

    def book(self, account: Account) -> Book:
        """Of one account."""
        return self._books.get(account, _NOTHING)

    def note(self, standings: Iterable[Standing]) -> None:
        """Takes what a decision of this process left."""
        for each in standings:
            self._books[each.account] = each.book

    def follow(self) -> None:
        """Takes what others have decided.

        Raises:
            Transient: SQL is away.
        """
        found, last = self._store.books(max(0, self._since_us - 5_000_000))
        self._since_us = last
        self._books.update(found)

    def unseen(self) -> list[Account]:
        """Accounts with settled amounts whose usage had not come."""
        return [key for key, book in list(self._books.items()) if book.unseen]


_NOTHING = Book()


class Checking:
    """Answers checks of one process."""

    def __init__(
        self,
        projection: Projection,
        holds: Holds,
        rules: LimitRuleStore,
        facts: FactsStore,
        clock: Clock,
    ) -> None:
        self._projection = projection
        self._holds = holds
        self._rules = rules
        self._facts = facts
        self._clock = clock
        self._loads = ThreadPoolExecutor(1, "limits-load")
        self._looks = ThreadPoolExecutor(_LOOKS_AT_ONCE, "limits-look")
        self._waiting: set[Account] = set()
        self._loading: asyncio.Future[frozenset[str]] | None = None
        self._lock = threading.Lock()
        self._names: dict[tuple[str, str], tuple[int, str]] = {}
        self._budgets: dict[tuple[str, str, str], tuple[int, Sequence[Budget]]] = {}
        self._spent: dict[str, Decimal] = {}
        self._look_again_ns = 0

    def stop(self) -> None:
        """Ends the thread that reads."""
        self._loads.shutdown(wait=False, cancel_futures=True)
        self._looks.shutdown(wait=False, cancel_futures=True)

    async def customer_id(self, namespace: str, name: str) -> str:
        """A customer's id, by id or key; a key is believed for five minutes.

        Raises:
            NotFound: there is none.
        """
        known = self._names.get((namespace, name))
        if known is not None and monotonic_ns() - known[0] < _BELIEVED_NS:
            return known[1]
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(
                self._looks, self._facts.customer_id, namespace, name
            )
        except Transient:
            if known is None:
                raise
            return known[1]
        if len(self._names) > _NAMES_MAX:
            self._names.clear()
        self._names[namespace, name] = (monotonic_ns(), found)
        return found

    def forget(self, namespace: str, name: str) -> None:
        """Looks a customer's name up anew when it is asked for next."""
        self._names.pop((namespace, name), None)

    async def accounts(
        self, namespace: str, customer_id: str, feature_key: str, scope: Mapping[str, str]
    ) -> list[Account]:
        """All limits that usage of a feature has to pass: the customer's, then its budgets."""
        whole = Account(namespace=namespace, customer_id=customer_id, feature_key=feature_key)
        if not scope:
            return [whole]
        key = (namespace, customer_id, feature_key)
        known = self._budgets.get(key)
        if known is None or monotonic_ns() - known[0] > _BUDGETS_BELIEVED_NS:
            loop = asyncio.get_running_loop()
            try:
                found = await loop.run_in_executor(
                    self._looks,
                    lambda: self._rules.budgets(namespace, [(customer_id, feature_key)]),
                )
            except Transient:
                if known is None:
                    raise
            else:
                known = (monotonic_ns(), found.get((customer_id, feature_key), ()))
                if len(self._budgets) > _NAMES_MAX:
                    self._budgets.clear()
                self._budgets[key] = known
        assert known is not None
        scopes = sorted(budgets_of(known[1], scope), key=lambda each: (len(each), each))
        return [whole, *(replace(whole, scope=each) for each in scopes)]

    async def check(self, amounts: Mapping[Account, Decimal]) -> list[Verdict]:
        """Verdicts on amounts of accounts, in their order.

        Raises:
            Transient: a limit is not known, a store is away, and it fails closed.
        """
        unknown: frozenset[str] = frozenset()
        away: Transient | None = None
        try:
            unknown = await self.know(amounts)
        except Transient as problem:
            away = problem
        now = self._clock.now()
        return [
            self._verdict(account, amount, now, unknown, away)
            for account, amount in amounts.items()
        ]

    async def know(self, accounts: Iterable[Account]) -> frozenset[str]:
        """Reads limits that are not in memory, and looks at usage first if nobody did lately.

        Returns:
            ids of the accounts that are no limits.

        Raises:
            Transient: a store is away.
        """
        missing = [each for each in accounts if not self._is_known(each)]
        if missing or self._may_look():
            return await self._load(missing)
        return frozenset()

    async def reach(self, position: Token, wait_ms: int) -> None:
        """Waits until usage up to a position is known.

        Raises:
            Transient: it takes longer than that, or a store is away.
        """
        loop = asyncio.get_running_loop()
        until = monotonic_ns() + wait_ms * 1_000_000
        while not covers(self._projection.vector, position):
            if monotonic_ns() > until:
                raise Transient(f"position {position} is not loaded after {wait_ms} ms; ask again")
            ticked = loop.run_in_executor(self._loads, self._projection.tick)
            try:
                await asyncio.wait_for(asyncio.shield(ticked), _LOAD_SECONDS)
            except TimeoutError:
                raise Transient("the usage store does not answer; ask again") from None
            if not covers(self._projection.vector, position):
                await asyncio.sleep(_LOOK_SECONDS)

    def _is_known(self, account: Account) -> bool:
        with self._projection.lock:
            state = self._projection.state(account)
            return state is not None and state.holds(self._clock.now())

    def _may_look(self) -> bool:
        """Whether usage has to be looked at first, and was not tried a moment ago."""
        now_ns = monotonic_ns()
        if not self._projection.is_old(self._clock.now()) or now_ns < self._look_again_ns:
            return False
        self._look_again_ns = now_ns + _LOOK_AGAIN_NS
        return True

    async def _load(self, accounts: Collection[Account]) -> frozenset[str]:
        """Reads limits; all that are asked for while others are read are read together."""
        loop = asyncio.get_running_loop()
        with self._lock:
            self._waiting.update(accounts)
            if self._loading is None:
                self._loading = asyncio.ensure_future(
                    loop.run_in_executor(self._loads, self._load_waiting)
                )
            mine = self._loading
        try:
            return await asyncio.wait_for(asyncio.shield(mine), _LOAD_SECONDS)
        except TimeoutError:
            raise Transient("the usage store does not answer; ask again") from None

    def _load_waiting(self) -> frozenset[str]:
        with self._lock:  # what comes from here on is for the next
            waiting, self._waiting, self._loading = self._waiting, set(), None
        return self._projection.refresh(waiting)

    def _verdict(
        self,
        account: Account,
        amount: Decimal,
        now: datetime,
        unknown: frozenset[str],
        away: Transient | None,
    ) -> Verdict:
        projection = self._projection
        policy = projection.policy(account)
        is_stale = projection.is_stale(account, now)
        with projection.lock:
            state = projection.state(account)
            if state is None or not state.definition.is_active(now):
                if account.id in unknown or away is None:
                    return Verdict(
                        account=account,
                        kind=None,
                        allowed=False,
                        reason="no_entitlement",
                        amount=amount,
                    )
                if policy.failure_mode is FailureMode.OPEN:
                    return self._open(account, amount, policy.open_cap)
                raise away
            balance = state.balance(now)
            found = self._of_state(state, amount, balance)
        if balance is None or not is_stale:
            self._spent.pop(account.id, None)
            return found
        return self._failing(found, policy.failure_mode, policy.open_cap)

    def _of_state(self, state: LimitState, amount: Decimal, balance: Balance | None) -> Verdict:
        definition = state.definition
        kept = definition.record.definition
        kind = EntitlementKind.BOOLEAN
        if isinstance(kept, StaticEntitlement):
            kind = EntitlementKind.STATIC
        if balance is None:
            config = kept.config if isinstance(kept, StaticEntitlement) else None
            return Verdict(
                account=definition.account, kind=kind, allowed=True, amount=amount, config=config
            )
        book = self._holds.book(definition.account)
        held = EXACT.add(book.held, book.unseen)
        available = EXACT.subtract(balance.remaining, held)
        allowed = definition.is_soft or _is_enough(available, amount)
        return Verdict(
            account=definition.account,
            kind=EntitlementKind.METERED,
            allowed=allowed,
            reason="" if allowed else "usage_limit_reached",
            amount=amount,
            balance=balance,
            held=held,
            available=available,
            is_soft=definition.is_soft,
            known_at=self._projection.known_at,
            vector=self._projection.vector,
        )

    def _failing(self, found: Verdict, mode: FailureMode, cap: Decimal) -> Verdict:
        """The verdict while usage is not known well enough."""
        if mode is FailureMode.CLOSED:
            return replace(found, allowed=False, reason="usage_unknown", failure_mode=mode)
        beyond = cap if mode is FailureMode.OPEN else _ZERO
        spent = self._spent.get(found.account.id, _ZERO)
        left = EXACT.subtract(EXACT.add(max(found.available, _ZERO), beyond), spent)
        allowed = found.is_soft or _is_enough(left, found.amount)
        if allowed:
            self._spent[found.account.id] = EXACT.add(spent, found.amount)
        return replace(
            found,
            allowed=allowed,
            reason="" if allowed else "usage_limit_reached",
            failure_mode=mode,
            open_cap=beyond,
        )

    def _open(self, account: Account, amount: Decimal, cap: Decimal) -> Verdict:
        """A limit of which nothing is known, that fails open."""
        spent = self._spent.get(account.id, _ZERO)
        left = EXACT.subtract(cap, spent)
        allowed = _is_enough(left, amount)
        if allowed:
            self._spent[account.id] = EXACT.add(spent, amount)
        return Verdict(
            account=account,
            kind=None,
            allowed=allowed,
            reason="" if allowed else "usage_unknown",
            amount=amount,
            failure_mode=FailureMode.OPEN,
            open_cap=cap,
        )


def _is_enough(left: Decimal, amount: Decimal) -> bool:
    """Whether an amount may be used of what is left; of no amount in particular: anything."""
    return left >= amount if amount else left > 0
