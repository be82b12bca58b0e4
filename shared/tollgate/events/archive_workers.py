"""The partitions that this process archives: an archiver and a thread for each."""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from time import monotonic

from tollgate.core.errors import TollgateError
from tollgate.events.archive import ArchiveProgress, Archiver
from tollgate.events.archive_ledger import LedgerArchiver
from tollgate.events.ledger import Partition
from tollgate.platform.event_log import EventLog, Layouts

_log = logging.getLogger(__name__)
REVOKE_SECONDS = 10
_RETRY_SECONDS = 0.5
_LEDGER_SECONDS = 2
NewArchiver = Callable[[EventLog, int], Archiver]
NewLedgerArchiver = Callable[[Partition], LedgerArchiver]


@dataclass(slots=True, kw_only=True)
class ArchiveWorker:
    """What archives one partition.

    Attributes:
        partition: which one.
        ledger: archives its ledger; used by the one thread that does so for all.
        archiver: once its log is open.
        problem: why the last try to begin failed.
    """

    partition: Partition
    ledger: LedgerArchiver
    stop: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None
    archiver: Archiver | None = None
    problem: str = ""

    def unreadiness(self) -> str:
        """Why it does not know yet how far the archive goes; "" once it does."""
        if self.archiver is None:
            return self.problem or "opening the log"
        progress = self.archiver.progress
        return "" if progress.ready else progress.last_failure or "reading the manifest"


class ArchiveWorkers:
    """Starts, stops and counts workers. The owner of a group's partitions, or of all there are."""

    def __init__(
        self, layouts: Layouts, new_archiver: NewArchiver, new_ledger: NewLedgerArchiver
    ) -> None:
        self._layouts = layouts
        self._new_archiver = new_archiver
        self._new_ledger = new_ledger
        self._lock = threading.Lock()
        self._workers: dict[Partition, ArchiveWorker] = {}
        self._past = ArchiveProgress()
        self._stop = threading.Event()
        self._ledger_thread: threading.Thread | None = None
        self.ledger_failures = 0

    def start(self) -> None:
        """Begins to archive the ledger of what is ours."""
        self._ledger_thread = threading.Thread(
            target=self._archive_ledger, name="archive-ledger", daemon=True
        )
        self._ledger_thread.start()

    def assigned(self, partitions: Sequence[Partition]) -> None:
        """Starts to archive partitions; those that are archived already go on."""
        with self._lock:
            for key in partitions:
                if key in self._workers:
                    continue
                worker = ArchiveWorker(partition=key, ledger=self._new_ledger(key))
                worker.thread = threading.Thread(
                    target=self._work,
                    args=(worker,),
                    name=f"archive-{key[0]}-{key[1]}",
                    daemon=True,
                )
                self._workers[key] = worker
                worker.thread.start()

    def revoked(self, partitions: Iterable[Partition]) -> None:
        """Ends the archiving of partitions once their files at hand are stored, in bounded time.

        One that takes longer gives way to what the next owner stores, or that to it.
        """
        self._dismiss(partitions, REVOKE_SECONDS)

    def lost(self, partitions: Iterable[Partition]) -> None:
        """Ends the archiving of partitions that others have already, without waiting."""
        self._dismiss(partitions, 0)

    def stop(self) -> None:
        """Lets files at hand be stored, in bounded time, and ends all threads."""
        self._stop.set()
        self._dismiss([worker.partition for worker in self.workers()], REVOKE_SECONDS)
        if self._ledger_thread is not None:
            self._ledger_thread.join(REVOKE_SECONDS)

    def _dismiss(self, partitions: Iterable[Partition], seconds: int) -> None:
        with self._lock:
            leaving = [w for key in partitions if (w := self._workers.pop(key, None))]
        for worker in leaving:
            worker.stop.set()
        until = monotonic() + seconds
        for worker in leaving:
            if worker.thread is not None:
                worker.thread.join(max(0, until - monotonic()))
        with self._lock:
            self._past = _sum([self._past, *(w.archiver.progress for w in leaving if w.archiver)])

    def workers(self) -> list[ArchiveWorker]:
        """Those at work, by partition."""
        with self._lock:
            return [self._workers[key] for key in sorted(self._workers)]

    def total(self) -> ArchiveProgress:
        """Counts of all that was archived here. Never falls."""
        with self._lock:
            working = self._workers.values()
            return _sum([self._past, *(w.archiver.progress for w in working if w.archiver)])

    def _work(self, worker: ArchiveWorker) -> None:
        generation, partition = worker.partition
        while not worker.stop.is_set():
            try:
                worker.archiver = self._new_archiver(self._layouts.open(generation), partition)
                break
            except (TollgateError, OSError) as problem:
                worker.problem = str(problem)
                worker.stop.wait(_RETRY_SECONDS)
        if worker.archiver is not None:
            worker.archiver.run(worker.stop)

    def _archive_ledger(self) -> None:
        while not self._stop.wait(_LEDGER_SECONDS):
            self.archive_ledger()

    def archive_ledger(self) -> None:
        """Archives what is due of the ledger, for all that is ours."""
        for worker in self.workers():
            try:
                while worker.archiver is not None and not self._stop.is_set():
                    if worker.ledger.step(worker.archiver.progress.frontier) is None:
                        break
            except Exception as problem:  # noqa: BLE001 -- records are archived all the same; it is tried again
                self.ledger_failures += 1
                _log.warning(
                    "the ledger could not be archived and will be tried again",
                    extra={"partition": worker.partition, "problem": repr(problem)},
                    exc_info=not isinstance(problem, TollgateError | OSError),
                )


def _sum(progresses: Iterable[ArchiveProgress]) -> ArchiveProgress:
    total = ArchiveProgress()
    for each in progresses:
        total.events += each.events
        total.files += each.files
        total.bytes += each.bytes
        total.gaps += each.gaps
        total.failures += each.failures
    return total
