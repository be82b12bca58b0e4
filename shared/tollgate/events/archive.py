"""Use case: copy the log's records into object storage, each once.

Order of writes: the file, its entry in the manifest, then the log may forget. How far archiving has
come is what the manifest says, never what the log or a consumer group remembers. Where a file ends
follows from the records alone, so a writer that starts over makes the same file again.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from tollgate import __version__
from tollgate.core.clock import Clock, datetime_from_us
from tollgate.core.errors import PermanentFault, TollgateError
from tollgate.events.archive_chain import RECORDS, Chain, Entry, partition_folder, put_file
from tollgate.events.archive_file import pack
from tollgate.events.record import events_in
from tollgate.platform.event_log import ARCHIVE, EventLog, StoredRecord
from tollgate.platform.objects import Objects, require_conditional

_log = logging.getLogger(__name__)
_READ_BYTES = 8 << 20
_FILE_BYTES_MAX = 128 << 20
_GRACE_US = 2_000_000
_IDLE_SECONDS = 0.5
_BACKOFF_SECONDS_FIRST = 0.2
_BACKOFF_SECONDS_MAX = 10.0
OnArchived = Callable[[int, int, int], None]
"""Told generation, partition and the last offset archived."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveLimits:
    """Where a file ends.

    Attributes:
        events_max: events in a file (it holds whole records, so one record more at most).
        slot_us: a file ends where the append time passes a multiple of this, which divides a day.
    """

    events_max: int
    slot_us: int


@dataclass(slots=True, kw_only=True)
class ArchiveProgress:
    """What an archiver has done since it started; read by `/metrics`.

    Attributes:
        events, files, bytes: archived by this process.
        gaps: rows of offsets that the log had forgotten.
        failures: tries that failed and were repeated.
        frontier: last offset archived.
        ready: whether the manifest was read.
        last_failure: what the last failed try met; "" once something was archived.
        stopped: it will not pass by itself; a person has to look.
    """

    events: int = 0
    files: int = 0
    bytes: int = 0
    gaps: int = 0
    failures: int = 0
    frontier: int = -1
    ready: bool = False
    last_failure: str = ""
    stopped: bool = False


def require_same_log(log: EventLog, partition: int, objects: Objects, frontier: int) -> None:
    """Makes sure that the log has what is archived: else offsets would mean two records each.

    Args:
        log: to be archived.
        partition: of it.
        objects: where the archive is.
        frontier: last offset that it has.

    Raises:
        Transient: the log is away.
        PermanentFault: the log ends before.
    """
    end = log.end(partition)
    if frontier > end:
        raise PermanentFault(
            f"partition {partition}: the archive in {objects.place} has records up to offset"
            f" {frontier}, the log ends at {end}: it is the archive of another log, or of this one"
            " before something was lost. Load what it has first (tollgate replay), or name another"
            " place"
        )


class Archiver:
    """Archives one partition. `run` belongs to one thread; copies of it elsewhere do no harm."""

    def __init__(
        self,
        *,
        log: EventLog,
        partition: int,
        objects: Objects,
        limits: ArchiveLimits,
        clock: Clock,
    ) -> None:
        self._log = log
        self._partition = partition
        self._objects = objects
        self._limits = limits
        self._clock = clock
        self._chain = Chain(objects, RECORDS, log.generation, partition)
        self._read: deque[StoredRecord] = deque()
        self._read_through = -1
        # The file at hand, its events and its bytes.
        self._file: list[StoredRecord] = []
        self._events = self._size = 0
        self.progress = ArchiveProgress()
        self.on_archived: OnArchived | None = None

    def prepare(self) -> None:
        """Finds out how far the archive goes.

        Raises:
            Transient: object storage or the log is away.
            PermanentFault: the archive is of another log, or the store overwrites objects.
        """
        require_conditional(self._objects)
        require_same_log(self._log, self._partition, self._objects, self._chain.look())
        while (released := self._log.released(self._partition)) > self._chain.frontier:
            self._note_gap(released)
        self._start_after(self._chain.frontier)
        self.progress.frontier = self._chain.frontier
        self._release()
        self.progress.ready = True

    def _note_gap(self, released: int) -> None:
        """Says in the manifest that records are gone: nothing can bring them back from the log."""
        begin = self._chain.frontier + 1
        entry = self._chain.append(
            Entry(
                kind=RECORDS,
                generation=self._log.generation,
                partition=self._partition,
                begin=begin,
                last=released,
                made_us=self._clock.now_us(),
                version=__version__,
            )
        )
        if entry.is_gap:
            self.progress.gaps += 1
            _log.error(
                "the log had forgotten records before they were archived",
                extra={"partition": self._partition, "first": begin, "last": entry.last},
            )

    def run(self, stop: threading.Event) -> None:
        """Archives until `stop` is set. Failures are logged and repeated with backoff.

        What is gathered by then and makes no whole file yet stays in the log.
        """
        pause = _BACKOFF_SECONDS_FIRST
        while not stop.is_set():
            try:
                if not self.progress.ready:
                    self.prepare()
                if records := self.gather():
                    self.archive(records)
                    pause = _BACKOFF_SECONDS_FIRST
            except Exception as problem:  # noqa: BLE001 -- a thread that ends would archive nothing more
                progress = self.progress
                progress.failures += 1
                progress.last_failure = str(problem) or repr(problem)
                progress.stopped = isinstance(problem, PermanentFault)
                _log.warning(
                    "archiving failed and will be tried again",
                    extra={"partition": self._partition, "problem": repr(problem)},
                    exc_info=not isinstance(problem, TollgateError | OSError),
                )
                # Start over from the manifest: it alone says what was archived.
                progress.ready = False
                stop.wait(pause)
                pause = min(pause * 2, _BACKOFF_SECONDS_MAX)

    def gather(self) -> list[StoredRecord]:
        """The records of the next file; [] if it can't be said yet where that ends."""
        while True:
            while self._read:
                if self._file and self._ends_before(self._read[0]):
                    return self._cut()
                record = self._read.popleft()
                self._file.append(record)
                self._events += events_in(record.value)
                self._size += len(record.value)
            records = self._log.read(self._partition, self._read_through, _READ_BYTES)
            if records:
                self._read.extend(records)
                self._read_through = records[-1].offset
            elif self._file and self._is_over(self._file[0]):
                return self._cut()
            elif not self._log.wait(self._partition, self._read_through, _IDLE_SECONDS):
                return []

    def _cut(self) -> list[StoredRecord]:
        file, self._file = self._file, []
        self._events = self._size = 0
        return file

    def _ends_before(self, record: StoredRecord) -> bool:
        """Whether the file at hand ends before a record: what follows does not matter."""
        limits = self._limits
        return (
            record.appended_us // limits.slot_us > self._file[0].appended_us // limits.slot_us
            or self._events + events_in(record.value) > limits.events_max
            or self._size + len(record.value) > _FILE_BYTES_MAX
        )

    def _is_over(self, first: StoredRecord) -> bool:
        """Whether the time is over that a file with this record covers."""
        slot = self._limits.slot_us
        return self._clock.now_us() >= (first.appended_us // slot + 1) * slot + _GRACE_US

    def archive(self, records: list[StoredRecord]) -> Entry:
        """Stores one file and its entry. May run again after any failure.

        Raises:
            Transient: object storage is away; either may be stored.
        """
        standing = self._chain.at(self._chain.frontier + 1)
        if standing is None:
            entry = self._entry(records)
            standing = self._chain.append(entry)
            if standing.file == entry.file:
                progress = self.progress
                progress.events += entry.rows
                progress.bytes += entry.size
                progress.files += 1
        else:
            self._chain.adopt(standing)
        if standing.last != records[-1].offset:
            # Another writer was faster and saw more of the log, or less.
            self._start_after(standing.last)
        self._go_on(standing)
        return standing

    def _entry(self, records: list[StoredRecord]) -> Entry:
        generation, partition = self._log.generation, self._partition
        packed = pack(generation, partition, records)
        first, last = records[0], records[-1]
        day = datetime_from_us(first.appended_us).date()
        name = (
            f"{RECORDS}/{partition_folder(generation, partition)}/day={day}"
            f"/{first.offset}-{last.offset}.parquet"
        )
        appended = [each.appended_us for each in records]
        return Entry(
            kind=RECORDS,
            generation=generation,
            partition=partition,
            begin=self._chain.frontier + 1,
            last=last.offset,
            file=put_file(self._objects, name, packed.data),
            size=len(packed.data),
            sha256=sha256(packed.data).hexdigest(),
            content=packed.content,
            rows=packed.rows,
            records=packed.records,
            appended=(min(appended), max(appended)),
            received=packed.received,
            times=packed.times,
            namespaces=packed.namespaces,
            made_us=self._clock.now_us(),
            version=__version__,
        )

    def _go_on(self, entry: Entry) -> None:
        """After an entry, be it ours or another's."""
        self.progress.frontier = entry.last
        self.progress.last_failure, self.progress.stopped = "", False
        self._release()

    def _start_after(self, offset: int) -> None:
        """Forgets what is at hand: the next file begins after this offset."""
        self._read.clear()
        self._cut()
        self._read_through = offset

    def _release(self) -> None:
        frontier = self._chain.frontier
        self._log.release(self._partition, frontier, ARCHIVE)
        if self.on_archived is not None:
            self.on_archived(self._log.generation, self._partition, frontier)
