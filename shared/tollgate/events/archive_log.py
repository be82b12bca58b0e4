"""The archive read as a log: what a loader needs to load it again."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from tollgate.core.errors import PermanentFault
from tollgate.events.archive_chain import Entry, get_file
from tollgate.events.archive_file import ArchivedFile
from tollgate.platform.event_log import LOADER, Done, StoredRecord
from tollgate.platform.objects import Objects

_LOOK_BYTES = 4096
At = tuple[int, int]
"""A partition, and the number of a file of it."""


class ArchiveLog:
    """An `EventLog` of one generation that ends where the archive does. It takes no records.

    The file after the one at hand is fetched meanwhile.
    """

    def __init__(
        self,
        objects: Objects,
        generation: int,
        entries: Mapping[int, Sequence[Entry]],
        until_us: int | None = None,
    ) -> None:
        """Reads nothing yet.

        Args:
            objects: where the archive is.
            generation: which one.
            entries: by partition what the manifest says of the files to read, in order.
            until_us: records appended from then on are left out; None: all are read.
        """
        self._objects = objects
        self._generation = generation
        self._entries = entries
        self._ends = {p: [entry.last for entry in of_one] for p, of_one in entries.items()}
        self._until_us = until_us
        self._pool = ThreadPoolExecutor(1, "archive-reader")
        self._at_hand: tuple[At, ArchivedFile] | None = None
        self._ahead: tuple[At, Future[ArchivedFile]] | None = None

    @property
    def generation(self) -> int:
        """See `EventLog.generation`."""
        return self._generation

    @property
    def partitions(self) -> int:
        """See `EventLog.partitions`: as many as the archive knows."""
        return max(self._entries, default=-1) + 1

    def read(self, partition: int, after: int, bytes_max: int) -> list[StoredRecord]:
        """See `EventLog.read`. By one thread.

        Raises:
            Transient: object storage is away.
            PermanentFault: a file is gone or damaged.
        """
        found = self.file_after(partition, after)
        if found is None:
            return []
        file, first, end = found
        records = file.records(first, first + 1 if bytes_max <= _LOOK_BYTES else end)
        size = 0
        for number, record in enumerate(records):
            size += len(record.value)
            if number and size > bytes_max:
                return records[:number]
        return records

    def file_after(self, partition: int, after: int) -> tuple[ArchivedFile, int, int] | None:
        """The file that goes on after an offset: which of its records come next, up to which.

        None if nothing comes after it. Errors as in `read`.
        """
        ends = self._ends.get(partition, [])
        for number in range(bisect_right(ends, after), len(ends)):
            file = self._file((partition, number))
            first, end = int(np.searchsorted(file.offsets, after, side="right")), len(file)
            if self._until_us is not None:
                over = np.flatnonzero(file.appended_us >= self._until_us)
                end = int(over[0]) if len(over) else end
            if first < end:
                return file, first, end
            if end < len(file):
                return None
        return None

    def _file(self, at: At) -> ArchivedFile:
        if self._at_hand is None or self._at_hand[0] != at:
            partition, number = at
            ahead, self._ahead = self._ahead, None
            self._at_hand = None
            of_one = self._entries[partition]
            wanted = ahead[1] if ahead is not None and ahead[0] == at else self._begin(at)
            if number + 1 < len(of_one):
                following = (partition, number + 1)
                self._ahead = (following, self._begin(following))
            self._at_hand = (at, wanted.result())
        return self._at_hand[1]

    def _begin(self, at: At) -> "Future[ArchivedFile]":
        entry = self._entries[at[0]][at[1]]
        return self._pool.submit(lambda: ArchivedFile(get_file(self._objects, entry)))

    def wait(
        self, partition: int, after: int, seconds: float
    ) -> bool:  # tidy: allow-float -- a wait
        """See `EventLog.wait`: nothing new ever comes."""
        del seconds
        return bool(self.read(partition, after, 1))

    def end(self, partition: int) -> int:
        """See `EventLog.end`."""
        ends = self._ends.get(partition)
        return ends[-1] if ends else -1

    def events_after(self, partition: int, offset: int) -> int:
        """About how many events stand in the files after an offset."""
        ends = self._ends.get(partition, [])
        left = self._entries.get(partition, ())[bisect_right(ends, offset) :]
        return sum(entry.rows for entry in left)

    def released(self, partition: int) -> int:
        """See `EventLog.released`: what is not in the archive is no reason to stop."""
        del partition
        return -1

    def release(self, partition: int, through: int, reader: str = LOADER) -> None:
        """See `EventLog.release`. Nothing is ever forgotten."""

    def submit(self, partition: int, values: Sequence[bytes], done: Done) -> None:
        """See `EventLog.submit`."""
        del partition, values
        done(PermanentFault("the archive takes no records"))

    def begin_after(self, partition: int, offset: int) -> None:
        """See `EventLog.begin_after`."""
        del partition, offset
        raise PermanentFault("the archive takes no records")

    def backlog_bytes(self) -> int:
        """See `EventLog.backlog_bytes`."""
        return 0

    def refusal(self) -> str:
        """See `EventLog.refusal`."""
        return "the archive takes no records"

    def close(self) -> None:
        """See `EventLog.close`."""
        self._pool.shutdown(cancel_futures=True)
