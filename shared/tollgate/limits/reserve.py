"""Use case: reservations of all who ask at once, decided together.

While one transaction is under way, what comes waits; then all of it is the next one. So a hot
customer costs one lock and one commit for everybody, and a slow database makes groups larger.
"""

import asyncio
import logging
import threading
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic_ns
from typing import Protocol

from tollgate.core.errors import NotFound, TollgateError, Transient
from tollgate.limits.account import Account, Behind, Supply
from tollgate.limits.reservation import Hold, Reservation
from tollgate.limits.reservation_store import ReservationStore
from tollgate.limits.reservation_work import Ask, Decision, Outcome

_log = logging.getLogger(__name__)
_GROUP_MAX = 256
_WAITING_MAX = 10_000
_BEHIND_NS = 2_000_000_000
_PAUSE_SECONDS = 0.02
_REFRESH_SECONDS = 2


_Waiting = tuple[Ask, int, "asyncio.Future[Decision]"]
"""What is asked, since when (nanoseconds), and who waits for the answer."""


class Supplies(Protocol):
    """What is known of limits."""

    def supply_of(self, account: Account) -> Supply | None:
        """What a limit offers, at once; None: it is not known, or not up to now."""
        ...

    def refresh(self, accounts: Iterable[Account]) -> frozenset[str]:
        """Reads anew what is known of accounts.

        Returns:
            ids of those that are no limits.

        Raises:
            Transient: a store is away; what was known stays.
        """
        ...


class Reserving:
    """The queue of one process."""

    def __init__(self, store: ReservationStore, supplies: Supplies) -> None:
        self._store = store
        self._supplies = supplies
        self._lock = threading.Condition()
        self._waiting: list[_Waiting] = []
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._reads = ThreadPoolExecutor(1, "reserving-read")
        self._refreshing: Future[frozenset[str]] | None = None
        self.transactions = 0

    def start(self) -> None:
        """Starts the thread that decides."""
        self._thread = threading.Thread(target=self._run, name="reserving", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Decides what waits, and ends."""
        with self._lock:
            self._stopping = True
            self._lock.notify()
        if self._thread is not None:
            self._thread.join()
        self._reads.shutdown(wait=False, cancel_futures=True)

    async def ask(self, ask: Ask) -> Decision:
        """What becomes of an ask.

        Raises:
            TollgateError: as `ReservationStore.decide`; Transient: too many wait, or the limit
                can't be read now.
        """
        future: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()
        with self._lock:
            if self._stopping or len(self._waiting) >= _WAITING_MAX:
                raise Transient("too many reservations wait; nothing was held")
            self._waiting.append((ask, monotonic_ns(), future))
            self._lock.notify()
        return await future

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._waiting and not self._stopping:
                    self._lock.wait()
                group = self._waiting[:_GROUP_MAX]
                del self._waiting[:_GROUP_MAX]
            if not group:
                return
            try:
                again = self._decide(group)
            except Exception as problem:  # noqa: BLE001 -- whoever waits must get an answer
                _log.exception("a group of reservations failed")
                fault = Transient(f"the reservation could not be decided: {problem!r}")
                _tell([(future, fault) for _, _, future in group])
                again = []
            if again:
                with self._lock:
                    self._waiting[:0] = again

    def _decide(
        self,
        group: list[_Waiting],
    ) -> list[_Waiting]:
        """Answers all that can be answered; gives those whose supplies have to be read first."""
        outcomes: list[Outcome]
        self.transactions += 1
        try:
            outcomes = self._store.decide([ask for ask, _, _ in group], self._supplies.supply_of)
        except TollgateError as refused:
            outcomes = [refused] * len(group)
        answers: list[tuple[asyncio.Future[Decision], Decision | TollgateError]] = []
        again = []
        for (ask, since, future), outcome in zip(group, outcomes, strict=True):
            if not isinstance(outcome, Behind):
                answers.append((future, outcome))
            elif monotonic_ns() - since > _BEHIND_NS:
                answers.append((future, Transient("usage is not known up to now; nothing changed")))
            else:
                again.append((ask, since, future))
        _tell(answers)
        if again:
            again = self._refreshed(again)
        return again

    def _refreshed(self, asks: list[_Waiting]) -> list[_Waiting]:
        """Reads the supplies of asks anew; answers those that can't have any."""
        concerned = {hold.account for ask, _, _ in asks for hold in _holds(ask)}
        try:
            unknown = self._refresh(concerned)
        except TollgateError as refused:
            _tell([(future, refused) for _, _, future in asks])
            return []
        left, answers = [], []
        for ask, since, future in asks:
            lacking = [
                each.account
                for each in _holds(ask)
                if each.account.id in unknown or self._supplies.supply_of(each.account) is None
            ]
            if lacking:
                answers.append((future, no_limit(lacking[0])))
            else:
                left.append((ask, since, future))
        _tell(answers)
        threading.Event().wait(_PAUSE_SECONDS)
        return left

    def _refresh(self, accounts: Collection[Account]) -> frozenset[str]:
        """As `Supplies.refresh`, but a store that hangs holds up nobody else."""
        if self._refreshing is not None and not self._refreshing.done():
            raise Transient("the usage store does not answer; nothing was held")
        self._refreshing = self._reads.submit(self._supplies.refresh, accounts)
        try:
            return self._refreshing.result(_REFRESH_SECONDS)
        except TimeoutError:
            raise Transient("the usage store does not answer; nothing was held") from None


def no_limit(account: Account) -> NotFound:
    """What is answered of a feature that a customer may not use at all."""
    return NotFound(f"the customer has no metered entitlement to {account.feature_key}")


def _holds(ask: Ask) -> tuple[Hold, ...]:
    return ask.holds if isinstance(ask, Reservation) else ()


def _tell(
    answers: Sequence[tuple[asyncio.Future[Decision], Decision | TollgateError]],
) -> None:
    """Gives futures of any loop their results, one wake-up a loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[int]] = {}
    for number, (future, _) in enumerate(answers):
        by_loop.setdefault(future.get_loop(), []).append(number)
    for loop, numbers in by_loop.items():

        def give(numbers: list[int] = numbers) -> None:
            for number in numbers:
                future, outcome = answers[number]
                if future.done():
                    continue
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)

        try:
            loop.call_soon_threadsafe(give)
        except RuntimeError:
            _log.warning("reservations were decided after the loop ended")
