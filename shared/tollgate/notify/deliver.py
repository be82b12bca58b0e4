"""Delivers what is due: claims, sends many at a time, writes down what came of each.

At least once: a worker that dies between the answer and writing it down lets another send again,
with the same `webhook-id`. The order of events is not kept.
"""

import asyncio
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from tollgate.core.clock import Clock
from tollgate.notify.delivery import judge
from tollgate.notify.outbox_store import Claim, OutboxStore
from tollgate.notify.retry import JITTER_PERMILLE_MAX
from tollgate.notify.send import SECONDS_MAX, Sender

IN_FLIGHT_MAX = 32
_MARGIN = timedelta(seconds=SECONDS_MAX)


@dataclass(slots=True, kw_only=True)
class Deliveries:
    """How many attempts succeeded, failed, and were given up because their lease ended."""

    succeeded: int = 0
    failed: int = 0
    lost: int = 0


def jitter() -> int:
    """Some permille."""
    return secrets.randbelow(JITTER_PERMILLE_MAX + 1)


class Deliverer:
    """One worker; any number of them may work on the same deliveries."""

    def __init__(
        self,
        outbox: OutboxStore,
        sender: Sender,
        clock: Clock,
        jitter_permille: Callable[[], int] = jitter,
    ) -> None:
        self._outbox = outbox
        self._sender = sender
        self._clock = clock
        self._jitter = jitter_permille

    def deliver(self, stop: threading.Event) -> Deliveries:
        """Sends until nothing is due that nobody else has, or `stop` is set.

        Blocks; what is on its way when it is stopped is awaited.

        Raises:
            Transient: the control plane is away. What was sent meanwhile may be sent again.
        """
        return asyncio.run(self._deliver(stop))

    async def _deliver(self, stop: threading.Event) -> Deliveries:
        counts = Deliveries()
        sending: set[asyncio.Task[None]] = set()
        try:
            while True:
                room = 0 if stop.is_set() else IN_FLIGHT_MAX - len(sending)
                if room:
                    for claim in await asyncio.to_thread(self._outbox.claim, room):
                        sending.add(asyncio.create_task(self._send(claim, counts)))
                if not sending:
                    return counts
                done, sending = await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            if sending:
                await asyncio.gather(*sending, return_exceptions=True)

    async def _send(self, claim: Claim, counts: Deliveries) -> None:
        if self._clock.now() + _MARGIN > claim.leased_until:
            # This process stood still: another may have it by the time that it is sent.
            counts.lost += 1
            return
        attempt = await self._sender.send(claim)
        verdict = judge(attempt, claim.tries, self._clock.now(), self._jitter())
        if not await asyncio.to_thread(self._outbox.end, claim, attempt, verdict):
            counts.lost += 1
        elif attempt.succeeded:
            counts.succeeded += 1
        else:
            counts.failed += 1
