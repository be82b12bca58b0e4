"""The port of the event log: what SQLite and Kafka both give.

A log has partitions; a partition is a row of records with ascending offsets from 0. A record is
opaque bytes here. One contract suite (`tests/contract/test_event_log.py`) holds every
implementation to this.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    """A record as read back.

    Attributes:
        offset: its place in the partition.
        appended_us: when the log took it, microseconds since the epoch; never falls with the
            offset.
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
        """Appends records, all or none, and calls `done` once they are on disk.

        Args:
            partition: which one.
            values: records, in order.
            done: gets the offset of the last record; or a `Transient` when the log can't say that
                the records are stored (any of them may be).
        """
        ...

    def read(self, partition: int, after: int, bytes_max: int) -> list[StoredRecord]:
        """Records with an offset greater than `after`, in order, at least one if there is one.

        Stops before the record that would pass `bytes_max`.
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

    def release(self, partition: int, through: int) -> None:
        """Allows the log to forget records up to an offset. Returns at once; may happen later."""
        ...

    def begin_after(self, partition: int, offset: int) -> None:
        """Makes the next record come after `offset`: for a log younger than the ledger.

        Offsets are never used twice, even if the log was lost and made anew.
        """
        ...

    def backlog_bytes(self) -> int:
        """Bytes of records not yet released, over all partitions; may lag a little behind."""
        ...

    def close(self) -> None:
        """Finishes what was submitted and lets go of files and connections."""
        ...
