"""The partitions that this process loads: a loader and a thread for each.

Partitions come and go as the group of loaders shares them out. A generation is loaded only once
every partition of the generations before it is: its log takes no more records then, so its end is
final, and a key is always claimed by the event that came first.
"""

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic

from tollgate.core.errors import PermanentFault, TollgateError
from tollgate.events.ledger import (
    Frontier,
    Partition,
    read_frontiers_after,
    read_newest_generation,
)
from tollgate.events.load import Loader
from tollgate.events.load_progress import LoadProgress
from tollgate.platform.clickhouse import ClickHouse
from tollgate.platform.event_log import EventLog, Layouts

_log = logging.getLogger(__name__)
_OLDER_SECONDS = 0.5
_NICER, _NICE_MAX = 5, 19
REVOKE_SECONDS = 10
"""How long a partition that another loader wants may finish its batch."""
NewLoader = Callable[[EventLog, int], Loader]


@dataclass(slots=True, kw_only=True)
class Worker:
    """What loads one partition.

    Attributes:
        partition: which one.
        before: who had it in this process and may still write its last batch.
        loader: once everything older is loaded.
        waits_for: which older partition comes first; "" once it may begin.
        problem: why the last try to begin failed.
        finished: whether its generation was loaded to the end before; nothing is left to do.
    """

    partition: Partition
    before: "Worker | None"
    stop: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None
    loader: Loader | None = None
    waits_for: str = ""
    problem: str = ""
    finished: bool = False

    @property
    def waits(self) -> bool:
        """Whether there is something to load, and it can't yet, or not at the moment."""
        if self.loader is None:
            return not self.finished
        return not self.loader.progress.ready

    def unreadiness(self) -> str:
        """Why it neither loads nor knows what to wait for; "" otherwise."""
        if self.loader is None:
            return "" if self.waits_for or self.finished else self.problem or "reading the ledger"
        progress = self.loader.progress
        return "" if progress.ready else progress.last_failure or "reading the ledger"

    def join(self, seconds: float | None = None) -> bool:  # tidy: allow-float -- a wait
        """Waits for the end of the thread; whether it came."""
        if self.thread is not None:
            self.thread.join(seconds)
        return self.thread is None or not self.thread.is_alive()


class LoadWorkers:
    """Starts, stops and counts workers. The owner of a group's partitions, or of all there are."""

    def __init__(
        self, layouts: Layouts, clickhouse: ClickHouse, frontier: Frontier, new_loader: NewLoader
    ) -> None:
        self._layouts = layouts
        self._clickhouse = clickhouse
        self._frontier = frontier
        self._new_loader = new_loader
        self._lock = threading.Lock()
        self._workers: dict[Partition, Worker] = {}
        self._leaving: list[Worker] = []
        self._loaded_before = 0
        self._past = LoadProgress()

    def assigned(self, partitions: Sequence[Partition]) -> None:
        """Starts to load partitions; those that are loaded already go on."""
        with self._lock:
            for key in partitions:
                if key not in self._workers:
                    before = next((w for w in self._leaving if w.partition == key), None)
                    self._begin(key, before)

    def _begin(self, key: Partition, before: Worker | None) -> None:
        worker = self._workers[key] = Worker(partition=key, before=before)
        worker.thread = threading.Thread(
            target=self._work, args=(worker,), name=f"loader-{key[0]}-{key[1]}", daemon=True
        )
        self._frontier.claim(*key)
        worker.thread.start()

    def revoked(self, partitions: Iterable[Partition]) -> None:
        """Ends the loading of partitions once their batches at hand are written, in bounded time.

        A batch that takes longer is written all the same, beside what the next owner writes: each
        row is the same row then.
        """
        self._dismiss(partitions, REVOKE_SECONDS)

    def lost(self, partitions: Iterable[Partition]) -> None:
        """Ends the loading of partitions that others have already, without waiting."""
        self._dismiss(partitions, 0)

    def stop(self) -> None:
        """Lets every batch at hand be written, however long it takes, and ends all threads."""
        self._dismiss(self.partitions, None)

    def _dismiss(self, partitions: Iterable[Partition], seconds: int | None) -> None:
        with self._lock:
            leaving = [w for key in partitions if (w := self._workers.pop(key, None))]
            self._leaving += leaving
            for worker in leaving:
                worker.stop.set()
        _await_ends(leaving, seconds)
        for worker in leaving:
            self._frontier.withdraw(*worker.partition)
        self._fold()

    @property
    def partitions(self) -> list[Partition]:
        """What is loaded here now."""
        with self._lock:
            return sorted(self._workers)

    def workers(self) -> list[Worker]:
        """Those at work, by partition."""
        with self._lock:
            return [self._workers[key] for key in sorted(self._workers)]

    def total(self) -> LoadProgress:
        """Counts of all that was loaded here, by workers of before as well. Never falls."""
        self._fold()
        with self._lock:
            everyone = (*self._workers.values(), *self._leaving)
            found = [self._past, *(w.loader.progress for w in everyone if w.loader)]
            return _sum(found)

    def _fold(self) -> None:
        """Keeps the counts of workers that have ended, and forgets the workers."""
        with self._lock:
            gone = [w for w in self._leaving if w.join(0)]
            self._leaving = [w for w in self._leaving if w not in gone]
            self._past = _sum([self._past, *(w.loader.progress for w in gone if w.loader)])

    def _work(self, worker: Worker) -> None:
        _give_way()
        # Two threads must not write for one partition out of one process.
        while worker.before is not None and not worker.stop.is_set():
            if worker.before.join(_OLDER_SECONDS):
                worker.before = None
        generation, partition = worker.partition
        while not worker.stop.is_set():
            try:
                worker.waits_for, worker.problem = self._behind(generation), ""
                worker.finished = generation < self._loaded_before
                if not worker.waits_for and not worker.finished:
                    log = self._layouts.open(generation)
                    worker.loader = self._new_loader(log, partition)
                    break
            except (TollgateError, OSError) as problem:
                worker.waits_for, worker.problem = "", str(problem)
                _log.warning(
                    "can't begin to load and will try again",
                    extra={"partition": worker.partition, "problem": repr(problem)},
                )
            worker.stop.wait(_OLDER_SECONDS if not worker.finished else None)
        if worker.loader is not None:
            worker.loader.run(worker.stop)

    def _behind(self, generation: int) -> str:
        """What of the older generations is not loaded yet; "" if all of it is.

        Raises:
            Transient: the log or ClickHouse is away.
        """
        generations = self._look()
        for older in generations:
            if self._loaded_before <= older < generation:
                if waits_for := self._unloaded(older):
                    return waits_for
                self._note_loaded(older + 1)
        return ""

    def _unloaded(self, generation: int) -> str:
        log = self._layouts.open(generation)
        ends = ends_of(log)
        loaded = read_frontiers_after(self._clickhouse, dict.fromkeys(ends))
        for key, end in ends.items():
            # What the log has deleted can't be waited for; its own loader says if it was missed.
            if loaded[key] < end and log.released(key[1]) < end:
                return f"generation {generation} is not loaded: partition {key[1]} ends at {end}"
        return ""

    def _note_loaded(self, generation: int) -> None:
        """All generations before this one are loaded, once and for all."""
        with self._lock:
            self._loaded_before = max(self._loaded_before, generation)

    def _look(self) -> list[int]:
        """All generations; notes which of them the ledger says are loaded."""
        generations = self._layouts.generations()
        newest = read_newest_generation(self._clickhouse)
        if generations and newest > generations[-1]:
            raise PermanentFault(
                f"the ledger has records of generation {newest}, the event log ends with"
                f" generation {generations[-1]}: it is not the log that the ledger is of"
            )
        self._note_loaded(newest)
        return generations

    def retire(self) -> list[Partition]:
        """Ends the loaders of closed generations that are loaded; gives all such partitions.

        Raises:
            Transient: the log or ClickHouse is away.
        """
        self._look()
        with self._lock:
            finished = sorted(key for key in self._workers if key[0] < self._loaded_before)
            done = [w for key in finished if (w := self._workers[key]).loader is not None]
            self._leaving += done
            for worker in done:
                worker.stop.set()
                # The partition is ours still, unless the group takes it meanwhile: without a gap, a
                # worker that has no loader stands in its place.
                self._begin(worker.partition, worker)
        _await_ends(done, REVOKE_SECONDS)
        self._fold()
        return finished

    def ends(self) -> Mapping[Partition, int]:
        """The present ends of all partitions that may not be loaded, here or elsewhere.

        Raises:
            Transient: the log or ClickHouse is away.
        """
        found: dict[Partition, int] = {}
        for generation in self._look():
            if generation >= self._loaded_before:
                found |= ends_of(self._layouts.open(generation))
        return found


def ends_of(log: EventLog) -> dict[Partition, int]:
    """The last offsets of all partitions of a log.

    Raises:
        Transient: the log is away.
    """
    return {(log.generation, p): log.end(p) for p in range(log.partitions)}


def _await_ends(workers: Iterable[Worker], seconds: int | None) -> None:
    """Waits until workers that were told to stop have ended; at most so long, None: for ever."""
    until = None if seconds is None else monotonic() + seconds
    for worker in workers:
        ended = worker.join(None if until is None else max(0, until - monotonic()))
        if not ended and seconds:
            _log.warning("left while a batch is written", extra={"partition": worker.partition})


def _sum(progresses: Iterable[LoadProgress]) -> LoadProgress:
    total = LoadProgress()
    for each in progresses:
        for name, count in each.counts.items():
            total.counts[name] = total.counts.get(name, 0) + count
        total.corrections += each.corrections
        total.batches += each.batches
        total.failures += each.failures
        total.seconds += each.seconds
    return total


def _give_way() -> None:
    """Lets the threads that somebody waits for come before this one, where the system can."""
    if sys.platform == "linux":
        me = threading.get_native_id()
        nice = min(_NICE_MAX, os.getpriority(os.PRIO_PROCESS, me) + _NICER)
        os.setpriority(os.PRIO_PROCESS, me, nice)
