"""The embedded event log: a folder of segment files, one partition, one process.

One thread makes every append: it takes all that waits and writes it with one system call that
returns when it is on disk. A second one gives back what was released and prepares the files to
come, so that no append waits for either.
"""

import itertools
import logging
import queue
import threading
from collections.abc import Collection, Sequence
from pathlib import Path

from tollgate.core.clock import Clock
from tollgate.core.errors import Transient
from tollgate.platform.disk import Disk
from tollgate.platform.event_log import LOADER, Done, StoredRecord
from tollgate.platform.segment import FRAME_BYTES
from tollgate.platform.segment_store import SegmentStore, Sizes

_log = logging.getLogger(__name__)
_WRITE_BYTES_MAX = 8 << 20
_RELEASE_PAUSE_SECONDS = 0.1
_RETRY_SECONDS = 1
_TURN_SECONDS = 0.002  # tidy: allow-float -- a wait


class _Submission:
    """Records that are acknowledged together; `begin_after` instead of any: skip offsets."""

    __slots__ = ("begin_after", "done", "size", "values")

    def __init__(self, values: Sequence[bytes], done: Done, begin_after: int | None = None) -> None:
        self.values = values
        self.done = done
        self.size = sum(map(len, values))
        self.begin_after = begin_after


class SegmentLog:
    """An `EventLog` on a folder of segment files."""

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        *,
        disk: Disk | None = None,
        sizes: Sizes | None = None,
        readers: Collection[str] = (LOADER,),
    ) -> None:
        """Opens or creates the folder and starts the threads.

        Args:
            folder: where its files are.
            clock: for the times of appending.
            disk: what writes.
            sizes: of the files.
            readers: who must have released a record before it is given back.

        Raises:
            Transient: another process has the folder, or it can't be read or written now.
            PermanentFault: acknowledged records are damaged or missing.
        """
        self._store = SegmentStore(folder, disk or Disk(), sizes or Sizes())
        self._clock = clock
        self._jobs: queue.SimpleQueue[_Submission | None] = queue.SimpleQueue()
        self._idle = False
        self._begun = threading.Lock()
        self._grown = threading.Condition()
        self._waiters = 0
        self._closed = False
        # Each has one writer: the appending thread, the tending thread.
        self._appended_bytes = self._store.backlog_start
        self._released_bytes = 0
        self._released_by = dict.fromkeys(readers, -1)
        self._release_through = -1
        self._wanted = threading.Event()
        self._threads = [
            threading.Thread(target=self._write_loop, name="log-writer", daemon=True),
            threading.Thread(target=self._tend_loop, name="log-tender", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def generation(self) -> int:
        """Number of the layout."""
        return self._store.generation

    @property
    def partitions(self) -> int:
        """Always 1: one row of segments, one order."""
        return 1

    @property
    def path(self) -> Path:
        """The folder."""
        return self._store.folder

    def submit(self, partition: int, values: Sequence[bytes], done: Done) -> None:
        """See `EventLog.submit`. After a crash the first of them may be there without the rest.

        Gives the appending thread its turn if that has nothing to do: 0.06 ms, 2 ms at most. Else
        it would wait for the interpreter's lock and a processor until the caller has nothing to do,
        0.6 ms with a busy event loop, and the disk with it.
        """
        assert partition == 0
        assert values
        if self._closed:
            done(Transient("the event log is closed"))
            return
        idle, self._idle = self._idle, False
        if idle:
            self._begun.acquire(blocking=False)
        self._jobs.put(_Submission(values, done))
        if idle:
            self._begun.acquire(timeout=_TURN_SECONDS)

    def read(self, partition: int, after: int, bytes_max: int) -> list[StoredRecord]:
        """See `EventLog.read`. Any number of threads; what was released is passed over."""
        assert partition == 0
        if self._closed:
            raise Transient("the event log is closed")
        try:
            return self._store.read(after, bytes_max)
        except OSError as problem:
            raise Transient(f"event log: {problem}") from problem

    def wait(
        self, partition: int, after: int, seconds: float
    ) -> bool:  # tidy: allow-float -- a wait
        """See `EventLog.wait`."""
        assert partition == 0
        with self._grown:
            self._waiters += 1
            try:
                return self._grown.wait_for(
                    lambda: self._store.end > after or self._closed, seconds
                )
            finally:
                self._waiters -= 1

    def end(self, partition: int) -> int:
        """See `EventLog.end`."""
        assert partition == 0
        return self._store.end

    def begin_after(self, partition: int, offset: int) -> None:
        """See `EventLog.begin_after`."""
        assert partition == 0
        answers: queue.SimpleQueue[int | Exception] = queue.SimpleQueue()
        if self._closed:
            raise Transient("the event log is closed")
        self._jobs.put(_Submission((), answers.put, begin_after=offset))
        outcome = answers.get()
        if isinstance(outcome, Exception):
            raise outcome

    def released(self, partition: int) -> int:
        """See `EventLog.released`."""
        assert partition == 0
        return self._store.released

    def release(self, partition: int, through: int, reader: str = LOADER) -> None:
        """See `EventLog.release`. The tending thread does it."""
        assert partition == 0
        if reader in self._released_by:
            self._released_by[reader] = max(through, self._released_by[reader])
        through = min(*self._released_by.values(), self._store.end)
        if through > max(self._release_through, self._store.released):
            self._release_through = through
            self._wanted.set()

    def backlog_bytes(self) -> int:
        """See `EventLog.backlog_bytes`."""
        return self._appended_bytes - self._released_bytes

    def refusal(self) -> str:
        """See `EventLog.refusal`. What bounds this log is its size: `backlog_bytes`."""
        return ""

    def copy_to(self, target: Path) -> None:
        """A consistent copy, in a new folder, of what is not released, while appends go on.

        Raises:
            OSError: there is no room, or the disk refuses.
        """
        self._store.copy_to(target)

    def close(self) -> None:
        """See `EventLog.close`."""
        if self._closed:
            return
        self._closed = True
        self._jobs.put(None)
        self._wanted.set()
        for thread in self._threads:
            thread.join()
        while not self._jobs.empty():
            late = self._jobs.get()
            if late is not None:
                _answer(late, Transient("the event log is closed"))
        with self._grown:
            self._grown.notify_all()
        self._store.close()

    def _write_loop(self) -> None:
        jobs = self._jobs
        while True:
            self._idle = jobs.empty()
            batch = [jobs.get()]
            while not jobs.empty():
                batch.append(jobs.get())
            if self._begun.locked():
                # Whoever gave us the turn goes on when the write has let go of the interpreter.
                self._begun.release()
            at = 0
            while at < len(batch):
                job = batch[at]
                if job is None:
                    return
                if job.begin_after is not None:
                    self._skip(job, job.begin_after)
                    at += 1
                    continue
                group = self._group(batch, at)
                self._append(group)
                at += len(group)

    def _group(self, batch: Sequence[_Submission | None], start: int) -> list[_Submission]:
        """The submissions from `start` on that one write takes: at least one."""
        group: list[_Submission] = []
        room = min(self._store.room(), _WRITE_BYTES_MAX)
        for job in itertools.islice(batch, start, None):
            if job is None or job.begin_after is not None:
                break
            room -= job.size + FRAME_BYTES * len(job.values)
            if group and room < 0:
                break
            group.append(job)
        return group

    def _append(self, group: list[_Submission]) -> None:
        store = self._store
        values = group[0].values
        if len(group) > 1:
            values = list(itertools.chain.from_iterable(job.values for job in group))
        appended_us = max(self._clock.now_us(), store.last_appended_us)
        last = store.end
        try:
            store.append(values, itertools.repeat(appended_us))
        except OSError as problem:
            _log.warning("event log refused an append", extra={"problem": str(problem)})
            for job in group:
                _answer(job, Transient(f"event log: {problem}", retry_after_seconds=2))
            return
        for job in group:
            self._appended_bytes += job.size
        if self._waiters:
            with self._grown:
                self._grown.notify_all()
        for job in group:
            last += len(job.values)
            _answer(job, last)
        active = store.segments[-1]
        if active.used * 2 >= active.limit and not self._wanted.is_set():
            self._wanted.set()

    def _skip(self, job: _Submission, offset: int) -> None:
        try:
            self._store.begin_after(offset)
        except OSError as problem:
            _answer(job, Transient(f"event log: {problem}", retry_after_seconds=2))
            return
        with self._grown:
            self._grown.notify_all()
        _answer(job, self._store.end)

    def _tend_loop(self) -> None:
        pause = threading.Event()
        while True:
            self._wanted.wait()
            self._wanted.clear()
            ending = self._closed
            try:
                self._forget()
                if ending:
                    return
                self._store.prepare_spare()
                # Releases that come close together share a write of the state.
                seconds: float = _RELEASE_PAUSE_SECONDS  # tidy: allow-float -- a pause
            except OSError as problem:
                _log.warning("event log could not be tended", extra={"problem": str(problem)})
                if ending:
                    return
                seconds = _RETRY_SECONDS
                self._wanted.set()
            pause.wait(seconds)

    def _forget(self) -> None:
        through, released = self._release_through, self._store.released
        if through > released:
            freed = self._store.value_bytes(released + 1, through)
            self._store.release(through)
            self._released_bytes += freed
        self._store.drop_released()


def _answer(job: _Submission, outcome: int | Exception) -> None:
    try:
        job.done(outcome)
    except Exception:  # noqa: BLE001 -- the writer serves others too: a listener that fails must not end it
        _log.exception("whoever waited for an append failed")
