"""The port of the event log: what a folder of files and Kafka both give.

A log has partitions; a partition is a row of records with ascending offsets from 0. A record is
opaque bytes here. One contract suite (`tests/contract/test_event_log.py`) holds every
implementation to this.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tollgate.core.errors import PermanentFault

LOADER, ARCHIVE = "load", "archive"
"""Who reads the log to its end; a record that one of them still needs is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    """A record as read back.

    Attributes:
        offset: its place in the partition.
        appended_us: when the log took it, microseconds since the epoch; does not fall with the
            offset. (Kafka says it in milliseconds, and by the clock of the partition's leader:
            there it may fall by as much as two brokers' clocks differ, when the leader changes.)
        value: the bytes.
    """

    offset: int
    appended_us: int
    value: bytes


Done = Callable[[int | Exception], None]
"""Called once per submission, from any thread: the last offset written, or why nothing is known."""


class EventLog(Protocol):
    """A durable, ordered log of records."""

    @property
    def generation(self) -> int:
        """Number of the layout (partitions are fixed within one)."""
        ...

    @property
    def partitions(self) -> int:
        """How many partitions the layout has."""
        ...

    def submit(self, partition: int, values: Sequence[bytes], done: Done) -> None:
        """Appends records side by side, in order, and calls `done` once all are on disk.

        Args:
            partition: which one.
            values: records, in order; none is empty.
            done: gets the offset of the last record; or a `Transient` when the log can't say that
                all are stored. Any of them may be then, and may still become so. (The embedded log
                keeps a row of them from the first on, if any; Kafka has no such promise without
                transactions.)
        """
        ...

    def read(self, partition: int, after: int, bytes_max: int) -> list[StoredRecord]:
        """Records with an offset greater than `after`, in order, at least one if there is one.

        Stops before the record that would pass `bytes_max`. A partition is read by one thread at
        a time at full speed; other threads are served from readers of their own.

        Raises:
            Transient: the log is away.
            PermanentFault: records after `after` are gone unread, or `after` is beyond the end.
        """
        ...

    def wait(
        self, partition: int, after: int, seconds: float
    ) -> bool:  # tidy: allow-float -- a wait
        """Blocks until a record after `after` may be there, or the time is over."""
        ...

    def end(self, partition: int) -> int:
        """Offset of the last record ever appended, -1 before the first."""
        ...

    def released(self, partition: int) -> int:
        """Up to which offset records were given back, -1 if none was."""
        ...

    def release(self, partition: int, through: int, reader: str = LOADER) -> None:
        """Says that a reader needs no record up to an offset any more. Returns at once.

        What no reader needs the log may forget, now or later.
        """
        ...

    def begin_after(self, partition: int, offset: int) -> None:
        """Makes the next record come after `offset`: for a log younger than the ledger.

        Offsets are never used twice, even if the log was lost and made anew.

        Raises:
            PermanentFault: this log can't skip offsets.
        """
        ...

    def backlog_bytes(self) -> int:
        """Bytes of records not yet released, over all partitions; may lag a little behind.

        0 on Kafka, where time alone decides what is kept.
        """
        ...

    def refusal(self) -> str:
        """Why nothing more should be appended now, for people; "" if nothing speaks against it.

        Known at once: it is found out in the background, from the first call on.
        """
        ...

    def close(self) -> None:
        """Finishes what was submitted and lets go of files and connections."""
        ...


class Layouts(Protocol):
    """The generations of a log: each a layout of partitions, each an `EventLog` of its own.

    Records are appended to the newest; one that is not the newest takes no more.
    """

    def generations(self) -> list[int]:
        """All that can be read, oldest first; [] before the first was created.

        Raises:
            Transient: the log is away.
        """
        ...

    def newest(self) -> int:
        """The one that takes records.

        Raises:
            Transient: the log is away.
            PermanentFault: none was created.
        """
        ...

    def open(self, generation: int) -> EventLog:
        """The log of one generation, shared by all who ask; closed with the parts.

        Raises:
            Transient: the log is away.
            PermanentFault: there is no such generation.
        """
        ...

    def verify(self, generation: int) -> None:
        """Makes sure that an acknowledgement of this generation means what it promises.

        Raises:
            Transient: the log is away, or closes the generation just now.
            PermanentFault: its settings would lose events; the message names all that do.
        """
        ...

    def watch(self, listener: Callable[[int], None]) -> None:
        """Calls `listener(generation)`, from any thread, whenever another one is the newest."""
        ...


class OneLayout:
    """The `Layouts` of a log that has one for ever."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def generations(self) -> list[int]:
        """See `Layouts`."""
        return [self._log.generation]

    def newest(self) -> int:
        """See `Layouts`."""
        return self._log.generation

    def open(self, generation: int) -> EventLog:
        """See `Layouts`."""
        if generation != self._log.generation:
            raise PermanentFault(f"the event log has no generation {generation}")
        return self._log

    def verify(self, generation: int) -> None:
        """See `Layouts`. A file has no settings that could be wrong."""

    def watch(self, listener: Callable[[int], None]) -> None:
        """See `Layouts`. The listener is never called."""
