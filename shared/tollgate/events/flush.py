"""Group commit: what arrives while a flush is on its way becomes the next record.

One flush is outstanding per partition, so a slow log makes records larger, not queues longer. All
of it runs on one event loop; only the log's answer comes from another thread.
"""

import asyncio
import logging
from collections.abc import Sequence

from tollgate.core.errors import Transient
from tollgate.events.record import Encoded, encode_record
from tollgate.platform.event_log import EventLog

_log = logging.getLogger(__name__)


class Flusher:
    """Appends events to one partition."""

    def __init__(
        self, log: EventLog, partition: int, *, record_bytes_max: int, pending_bytes_max: int
    ) -> None:
        self._log = log
        self._partition = partition
        self._record_bytes_max = record_bytes_max
        self._pending_bytes_max = pending_bytes_max
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[str, Sequence[Encoded], asyncio.Future[int]]] = []
        self._flying: list[asyncio.Future[int]] = []
        self._scheduled = False
        self.pending_bytes = 0
        self._flying_bytes = 0
        self.flushes = 0

    def append(self, namespace: str, events: Sequence[Encoded]) -> asyncio.Future[int]:
        """Queues events; the future gives the offset of the last record once all are on disk.

        Raises:
            Transient: too much waits already; nothing was queued.
        """
        size = sum(event.size for event in events)
        if self.pending_bytes + size > self._pending_bytes_max and self.pending_bytes:
            raise Transient("the event log is behind; nothing of this request was stored")
        self.pending_bytes += size
        future: asyncio.Future[int] = self._loop.create_future()
        self._waiting.append((namespace, events, future))
        if not self._scheduled and not self._flying:
            # Every request of this turn of the loop shares the record.
            self._scheduled = True
            self._loop.call_soon(self._flush)
        return future

    def _flush(self) -> None:
        self._scheduled = False
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        self._flying = [future for _, _, future in waiting]
        self._flying_bytes = self.pending_bytes
        self.flushes += 1
        groups = [(namespace, events) for namespace, events, _ in waiting]
        whole = self.pending_bytes <= self._record_bytes_max
        records = [groups] if whole else pack(groups, self._record_bytes_max)
        values = [encode_record(record) for record in records]
        self._log.submit(self._partition, values, self._answered)

    def _answered(self, outcome: int | Exception) -> None:
        """Called from the log's thread."""
        try:
            self._loop.call_soon_threadsafe(self._settle, outcome)
        except RuntimeError:
            _log.warning("the log answered after the loop ended")

    def _settle(self, outcome: int | Exception) -> None:
        flying, self._flying = self._flying, []
        self.pending_bytes -= self._flying_bytes
        if self._waiting:
            self._flush()
        for future in flying:
            if future.done():
                continue
            if isinstance(outcome, int):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)

    async def drain(self) -> None:
        """Waits until nothing is queued or on its way."""
        while self._flying or self._waiting:
            await asyncio.wait(self._flying or [f for _, _, f in self._waiting])


def pack(
    groups: Sequence[tuple[str, Sequence[Encoded]]], bytes_max: int
) -> list[list[tuple[str, Sequence[Encoded]]]]:
    """Splits events, in order, into records of at most `bytes_max`; a larger event stands alone."""
    records: list[list[tuple[str, Sequence[Encoded]]]] = [[]]
    room = bytes_max
    for namespace, events in groups:
        start = 0
        for at, event in enumerate(events):
            if event.size > room and (start < at or records[-1]):
                if start < at:
                    records[-1].append((namespace, events[start:at]))
                records.append([])
                start, room = at, bytes_max
            room -= event.size
        records[-1].append((namespace, events[start:]))
    return records
