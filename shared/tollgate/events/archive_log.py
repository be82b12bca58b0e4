"""The archive read as a log: what a loader needs to load it again."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence

from tollgate.core.errors import PermanentFault
from tollgate.events.archive_chain import Entry
from tollgate.events.archive_reader import ArchiveReader
from tollgate.platform.event_log import LOADER, Done, StoredRecord


class ArchiveLog:
    """An `EventLog` of one generation that ends where the archive does. It takes no records.

    The file after the one at hand is fetched and taken apart meanwhile.
    """

    def __init__(
        self,
        reader: ArchiveReader,
        generation: int,
        entries: Mapping[int, Sequence[Entry]],
        until_us: int | None = None,
    ) -> None:
        """Reads nothing yet.

        Args:
            reader: reads the files; closed by whoever made it.
            generation: which one.
            entries: by partition what the manifest says of the files to read, in order.
            until_us: records appended from then on are left out; None: all are read.
        """
        self._reader = reader
        self._generation = generation
        self._entries = entries
        self._ends = {p: [entry.last for entry in of_one] for p, of_one in entries.items()}
        self._until_us = until_us
        self._at_hand: tuple[int, int, list[StoredRecord]] = (-1, -1, [])
        self._ahead: tuple[int, int, Callable[[], list[StoredRecord]]] | None = None

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
        ends = self._ends.get(partition, [])
        for number in range(bisect_right(ends, after), len(ends)):
            records = self._file(partition, number)
            first = bisect_right(records, after, key=lambda record: record.offset)
            if first == len(records):
                if self._is_over(partition, number):
                    return []
                continue
            found: list[StoredRecord] = []
            size = 0
            for record in records[first:]:
                size += len(record.value)
                if found and size > bytes_max:
                    break
                found.append(record)
            return found
        return []

    def _is_over(self, partition: int, number: int) -> bool:
        """Whether a file had records that are left out: so are all that follow."""
        last = self._entries[partition][number].appended[1]
        return self._until_us is not None and last >= self._until_us

    def _file(self, partition: int, number: int) -> list[StoredRecord]:
        if self._at_hand[:2] != (partition, number):
            of_one = self._entries[partition]
            ahead, self._ahead = self._ahead, None
            if ahead is None or ahead[:2] != (partition, number):
                ahead = (partition, number, self._reader.begin(of_one[number]))
            if number + 1 < len(of_one):
                self._ahead = (partition, number + 1, self._reader.begin(of_one[number + 1]))
            # A file that can't be read now is begun anew.
            self._at_hand = (-1, -1, [])
            self._at_hand = (partition, number, self._kept(of_one[number], ahead[2]()))
        return self._at_hand[2]

    def _kept(self, entry: Entry, records: list[StoredRecord]) -> list[StoredRecord]:
        """Without what is left out."""
        until_us = self._until_us
        if until_us is None or entry.appended[1] < until_us:
            return records
        over = (n for n, each in enumerate(records) if each.appended_us >= until_us)
        return records[: next(over, len(records))]

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
        left = self._entries.get(partition, ())[bisect_left(ends, offset + 1) :]
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
