"""Group commit: what arrives while a flush is on its way becomes the next record.

One flush is outstanding per partition, so a slow log makes records larger, not queues longer. All
of it runs on one event loop; only the log's answer comes from another thread.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import TypeVar

from tollgate.core.errors import Transient
from tollgate.events.record import EVENT_BYTES, RECORD_BYTES, REQUEST_BYTES, Group, encode_record
from tollgate.platform.event_log import Done, EventLog

_log = logging.getLogger(__name__)
BEHIND = "the event log is behind; nothing of this request was stored"


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
        self._waiting: list[tuple[Group, Done]] = []
        self._flying: list[Done] = []
        self._drains: list[asyncio.Future[None]] = []
        self._scheduled = False
        self.pending_bytes = 0
        self._flying_bytes = 0
        self.flushes = 0

    def has_room(self, size: int) -> bool:
        """Whether so many more bytes may wait; a queue that is empty takes any size."""
        return not self.pending_bytes or self.pending_bytes + size <= self._pending_bytes_max

    def append(self, group: Group) -> asyncio.Future[int]:
        """As `submit`; the future gives the offset of the last record once all are on disk.

        Raises:
            Transient: too much waits already; nothing was queued.
        """
        future: asyncio.Future[int] = self._loop.create_future()
        self.submit(group, lambda outcome: settle(future, outcome))
        return future

    def submit(self, group: Group, done: Done) -> None:
        """Queues events; `done` gets the outcome on this loop, as from `EventLog.submit`.

        Raises:
            Transient: too much waits already; nothing was queued.
        """
        size = group.size
        if not self.has_room(size):
            raise Transient(BEHIND)
        self.pending_bytes += size
        self._waiting.append((group, done))
        if not self._scheduled and not self._flying:
            # Every request of this turn of the loop shares the record.
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        self._flying = [done for _, done in waiting]
        self._flying_bytes = self.pending_bytes
        self.flushes += 1
        groups = [group for group, _ in waiting]
        whole = self.pending_bytes + RECORD_BYTES <= self._record_bytes_max
        try:
            records = [groups] if whole else pack(groups, self._record_bytes_max)
            values = [encode_record(record) for record in records]
            self._log.submit(self._partition, values, self._answered)
        except Exception as problem:  # noqa: BLE001 -- whoever waits must get an answer
            _log.exception("a flush failed")
            outcome = Transient(f"the events could not be given to the log: {problem!r}")
            self._loop.call_soon(self._settle, outcome)

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
        for done in flying:
            try:
                done(outcome)
            except Exception:  # noqa: BLE001 -- the others must still have theirs
                _log.exception("an answer failed")
        if not self._flying and not self._waiting:
            for drain in self._drains:
                settle(drain, None)
            self._drains.clear()

    async def drain(self) -> None:
        """Waits until nothing is queued or on its way."""
        if self._flying or self._waiting:
            self._drains.append(self._loop.create_future())
            await self._drains[-1]


Given = TypeVar("Given")


def settle(future: asyncio.Future[Given], outcome: Given | Exception) -> None:
    """Gives a future its result, or its exception, unless nobody waits for it any more."""
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def pack(groups: Sequence[Group], bytes_max: int) -> list[list[Group]]:
    """Splits events, in order, into records of at most `bytes_max`; a larger event stands alone."""
    records: list[list[Group]] = [[]]
    room = bytes_max - RECORD_BYTES
    for group in groups:
        start = 0
        room -= REQUEST_BYTES
        for at, event in enumerate(group.events):
            size = EVENT_BYTES + len(event.line)
            if size > room and (start < at or records[-1]):
                if start < at:
                    records[-1].append(_part(group, start, at))
                records.append([])
                start, room = at, bytes_max - RECORD_BYTES - REQUEST_BYTES
            room -= size
        records[-1].append(_part(group, start, len(group.events)))
    return records


def _part(group: Group, start: int, end: int) -> Group:
    return Group(group.namespace, group.received_us, group.events[start:end])
