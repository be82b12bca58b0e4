"""A simulator of the event log: what a broker or a disk keeps when every process of ours is gone.

It keeps the contract of `EventLog` and no more than that: an append whose answer is lost may have
happened, in part, or happen later. What is between an `EventLog` and its caller (threads, faults,
crashes) is in `edges`.
"""

from collections.abc import Sequence
from typing import Protocol

from tests.schedules.clocks import WorldClock
from tollgate.core.errors import PermanentFault
from tollgate.platform.event_log import LOADER, StoredRecord


class Records(Protocol):
    """What keeps records: the simulator, or a real log."""

    embedded: bool
    """Whether records are given back once they are loaded, and one process has the log."""

    @property
    def generation(self) -> int: ...

    @property
    def partitions(self) -> int: ...

    @property
    def history(self) -> Sequence[Sequence[StoredRecord]]:
        """By partition every record ever stored, also those given back."""
        ...

    def append(self, partition: int, values: Sequence[bytes]) -> int:
        """Stores records and gives the offset of the last."""
        ...

    def read(self, partition: int, after: int, bytes_max: int) -> list[StoredRecord]: ...

    def end(self, partition: int) -> int: ...

    def released(self, partition: int) -> int: ...

    def release(self, partition: int, through: int, reader: str) -> None: ...

    def restart(self) -> None:
        """The process that has the log ends and begins: readers must say again how far they are."""
        ...

    def expire(self, partition: int, through: int) -> None:
        """Retention deletes what is loaded and old, if the log has any."""
        ...

    def backlog_bytes(self) -> int: ...

    def close(self) -> None: ...


class SimulatedRecords:
    """Records in memory.

    Args:
        generation: of the layout.
        partitions: of the layout.
        clock: of the broker, or of the process that has the log.
        embedded: times never fall and offsets have no holes; else as on Kafka: milliseconds, which
            may fall when a leader changes, and offsets that no record has.
        readers: who must have released a record before an embedded log forgets it.
    """

    def __init__(
        self,
        generation: int,
        partitions: int,
        clock: WorldClock,
        *,
        embedded: bool,
        readers: Sequence[str] = (LOADER,),
    ) -> None:
        self.embedded = embedded
        self._generation = generation
        self._clock = clock
        self._history: list[list[StoredRecord]] = [[] for _ in range(partitions)]
        self._ends = [-1] * partitions
        self._released = [-1] * partitions
        # Of the one partition of an embedded log.
        self._released_by = dict.fromkeys(readers, -1)

    @property
    def generation(self) -> int:
        return self._generation

    @property
    def partitions(self) -> int:
        return len(self._history)

    @property
    def history(self) -> Sequence[Sequence[StoredRecord]]:
        return self._history

    def append(self, partition: int, values: Sequence[bytes]) -> int:
        kept = self._history[partition]
        now = self._clock.now_us()
        last = kept[-1].appended_us if kept else 0
        now = max(now, last) if self.embedded else now // 1000 * 1000
        for value in values:
            self._ends[partition] += 1
            kept.append(
                StoredRecord(offset=self._ends[partition], appended_us=now, value=bytes(value))
            )
        return self._ends[partition]

    def skip(self, partition: int) -> None:
        """Gives an offset to a record of the log's own, as transactions and marks take them."""
        if not self.embedded:
            self._ends[partition] += 1

    def read(self, partition: int, after: int, bytes_max: int) -> list[StoredRecord]:
        if after > self._ends[partition]:
            raise PermanentFault(f"offset {after} is beyond the end")
        if after < self._released[partition]:
            if not self.embedded:
                raise PermanentFault(f"records after offset {after} are gone unread")
            after = self._released[partition]
        found: list[StoredRecord] = []
        size = 0
        for record in self._history[partition]:
            if record.offset > after:
                size += len(record.value)
                if found and size > bytes_max:
                    break
                found.append(record)
        return found

    def end(self, partition: int) -> int:
        kept = self._history[partition]
        return kept[-1].offset if kept else -1

    def released(self, partition: int) -> int:
        return self._released[partition]

    def release(self, partition: int, through: int, reader: str) -> None:
        if self.embedded and reader in self._released_by:
            self._released_by[reader] = max(through, self._released_by[reader])
            self._forget(partition, min(self._released_by.values()))

    def restart(self) -> None:
        self._released_by = dict.fromkeys(self._released_by, -1)

    def expire(self, partition: int, through: int) -> None:
        if not self.embedded:
            self._forget(partition, through)

    def _forget(self, partition: int, through: int) -> None:
        through = min(through, self._ends[partition])
        self._released[partition] = max(self._released[partition], through)

    def backlog_bytes(self) -> int:
        if not self.embedded:
            return 0
        return sum(
            len(record.value)
            for partition, records in enumerate(self._history)
            for record in records
            if record.offset > self._released[partition]
        )

    def close(self) -> None:
        """Nothing is held."""
