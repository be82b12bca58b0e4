"""The doorbell: a loader that sleeps outside of the group until someone rings.

A ring says nothing but "look": what is loaded is whatever stands in the log. So rings need no
order, may be repeated, and all that come while a round runs share the next one.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic

from tollgate.core.errors import TollgateError, Transient
from tollgate.events.ledger import Frontier, Partition
from tollgate.events.load_workers import LoadWorkers
from tollgate.platform.kafka_group import GroupMember

_log = logging.getLogger(__name__)
_SLICE_MS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long the doorbell waits.

    Attributes:
        ring_seconds: for all that stood in the log at a ring to be loaded; beyond: 503.
        idle_seconds: for another ring, before the group is left.
    """

    ring_seconds: int
    idle_seconds: int


class Doorbell:
    """Joins the group when rung, leaves it when nobody rings any more."""

    def __init__(
        self, member: GroupMember, workers: LoadWorkers, frontier: Frontier, patience: Patience
    ) -> None:
        self._member = member
        self._workers = workers
        self._frontier = frontier
        self._patience = patience
        self._rung = asyncio.Event()
        self._next: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._closing = threading.Event()
        self._task = asyncio.create_task(self._answer_rings())

    async def ring(self) -> None:
        """Returns once all that stands in the log now is in the ledger.

        Raises:
            Transient: that took too long, or a store is away; loading may go on. Ring again.
        """
        turn = self._next
        self._rung.set()
        try:
            # A round that runs began before this ring: this ring waits for the next one.
            async with asyncio.timeout(self._patience.ring_seconds):
                await asyncio.shield(turn)
        except TimeoutError:
            raise _unfinished(self._patience.ring_seconds) from None

    async def close(self) -> None:
        """Leaves the group, with the batches at hand written."""
        self._closing.set()
        self._rung.set()
        await self._task

    async def _answer_rings(self) -> None:
        idle: int | None = None
        while True:
            try:
                async with asyncio.timeout(idle):
                    await self._rung.wait()
            except TimeoutError:
                await asyncio.to_thread(self._member.stop)
                idle = None
                continue
            if self._closing.is_set():
                break
            idle = self._patience.idle_seconds
            self._rung.clear()
            turn, self._next = self._next, asyncio.get_running_loop().create_future()
            # Whoever rang may have gone: a failure that nobody hears is no defect.
            turn.add_done_callback(lambda done: done.cancelled() or done.exception())
            try:
                await self._round()
            except TollgateError as problem:
                turn.set_exception(problem)
            except Exception as problem:  # noqa: BLE001 -- the bell must ring again after a defect
                _log.exception("a round of loading failed")
                turn.set_exception(Transient(repr(problem)))
            else:
                turn.set_result(None)
        with contextlib.suppress(asyncio.InvalidStateError):
            self._next.set_exception(Transient("the server ends; ring again"))
            self._next.exception()
        await asyncio.to_thread(self._member.stop)

    async def _round(self) -> None:
        self._member.start()
        await asyncio.to_thread(self._load_all)

    def _load_all(self) -> None:
        # In slices, so that the end of the process need not wait for all of it.
        until = monotonic() + self._patience.ring_seconds
        problem: Transient | None = None
        wanted: Mapping[Partition, int] | None = None
        while monotonic() < until and not self._closing.is_set():
            try:
                wanted = self._workers.ends() if wanted is None else wanted
                if self._frontier.reach(wanted, _SLICE_MS):
                    return
            except Transient as away:
                # The loaders try again as well: answering now would only make the bell ring more.
                problem = away
                self._closing.wait(_SLICE_MS / 1000)
        reasons = [reason for worker in self._workers.workers() if (reason := worker.unreadiness())]
        raise problem or _unfinished(self._patience.ring_seconds, *reasons[:1])


def _unfinished(seconds: int, reason: str = "") -> Transient:
    said = f" ({reason})" if reason else ""
    return Transient(f"what stands in the log was not loaded within {seconds} s{said}; ring again")
