"""Use case: what entitlements are worth now, from memory where that says exactly the same.

Definitions are as SQL has them at the moment, usage as the projection knows it: up to one look at
the stores, less than a second ago. What memory can't tell exactly is evaluated as of any instant.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TypeVar

from tollgate.core.errors import TollgateError
from tollgate.events.position import Token, covers
from tollgate.limits.account import Account
from tollgate.limits.check import Checking
from tollgate.limits.entitlement import MeteredEntitlement
from tollgate.limits.entitlement_record import EntitlementRecord
from tollgate.limits.evaluate import limits_at
from tollgate.limits.facts_store import FactsStore
from tollgate.limits.limit import Limit, decide
from tollgate.limits.projection import Projection
from tollgate.limits.usage_reader import UsageReader

Answer = TypeVar("Answer")
_EVALUATED_MAX = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PresentLimits:
    """Decisions, in the order that they were asked for.

    Attributes:
        known_at: usage that was loaded before then is in them; None: no usage matters.
    """

    limits: tuple[Limit, ...]
    known_at: datetime | None


class PresentValues:
    """Of one process.

    Attributes:
        from_memory, from_stores: balances that were taken from there.
    """

    def __init__(
        self,
        checking: Checking,
        projection: Projection,
        facts: FactsStore,
        usage: UsageReader,
        threads: int,
    ) -> None:
        self._checking = checking
        self._projection = projection
        self._facts = facts
        self._usage = usage
        self._pool = ThreadPoolExecutor(threads, "limits-values")
        self._evaluated_at: dict[str, datetime] = {}
        self.from_memory = 0
        self.from_stores = 0

    def stop(self) -> None:
        """Ends the threads that ask stores."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def on_thread(self, work: Callable[[], Answer]) -> Answer:
        """What asks a store, off the loop; what it logs belongs to the caller's trace."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, copy_context().run, work)

    async def limits(
        self,
        records: Sequence[EntitlementRecord],
        now: datetime,
        position: Token | None,
        wait_ms: int,
    ) -> PresentLimits:
        """The decisions for entitlements now.

        Args:
            records: as they are in SQL, of one namespace.
            now: when they were read.
            position: usage up to there is to be in them; it is loaded.
            wait_ms: how long memory may take to know it.

        Raises:
            Transient: a store is away. TooLarge: a balance changed too often.
        """
        metered = [each for each in records if _is_metered(each, now)]
        found: dict[str, Limit] = {}
        known_at: datetime | None = None
        if metered and await self._is_ready(metered, position, wait_ms):
            known_at = self._projection.known_at
            found = {each.id: it for each in metered if (it := self._remembered(each)) is not None}
        rest = [each for each in metered if each.id not in found]
        if rest:
            known_at = (found and known_at) or now
            found |= await self.on_thread(partial(self._evaluated, rest, now))
        self.from_memory += len(metered) - len(rest)
        self.from_stores += len(rest)
        return PresentLimits(
            limits=tuple(found.get(each.id) or decide(each.definition, now) for each in records),
            known_at=known_at,
        )

    async def _is_ready(
        self, metered: Sequence[EntitlementRecord], position: Token | None, wait_ms: int
    ) -> bool:
        """Whether memory knows usage up to a position; what it does not know of them is read."""
        try:
            await self._checking.know([account_of(each) for each in metered])
            if position is not None:
                await self._checking.reach(position, wait_ms)
        except TollgateError:
            return False  # the stores are asked themselves: what they say is the answer
        return position is None or covers(self._projection.vector, position)

    def _remembered(self, record: EntitlementRecord) -> Limit | None:
        evaluated_at, known_at = self._evaluated_at.get(record.id), self._projection.known_at
        if evaluated_at is not None:
            if known_at is None or known_at < evaluated_at:
                return (
                    None  # the stores have said more than memory knows yet: usage never goes back
                )
            self._evaluated_at.pop(record.id, None)
        balance = self._projection.present_balance(record)
        if balance is None or not record.definition.is_active(balance.at):
            return None
        return decide(record.definition, balance.at, balance)

    def _evaluated(self, records: Sequence[EntitlementRecord], now: datetime) -> dict[str, Limit]:
        known = self._facts.of_ids(records[0].namespace, [each.id for each in records])
        limits = limits_at(self._usage, known, now)
        if len(self._evaluated_at) > _EVALUATED_MAX:
            self._evaluated_at.clear()
        self._evaluated_at |= dict.fromkeys((each.id for each in records), self._projection.now())
        return {each.record.id: limit for each, limit in zip(known, limits, strict=True)}


def account_of(record: EntitlementRecord) -> Account:
    """The limit that an entitlement is."""
    return Account(
        namespace=record.namespace,
        customer_id=record.definition.customer_id,
        feature_key=record.definition.feature_key,
    )


def _is_metered(record: EntitlementRecord, now: datetime) -> bool:
    return isinstance(record.definition, MeteredEntitlement) and record.definition.is_active(now)
