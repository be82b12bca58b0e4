"""Use case: move records from the log into ClickHouse, each event counted once.

Order of writes: arrivals, which two views split into events and keys; outcomes; ledger; then the
log may forget. Every row carries its position and every decision depends only on the log before it,
so whatever is written twice (a crash between two writes, a second loader) is the same row twice and
counts once.
"""

import logging
import threading
from collections import deque
from collections.abc import Sequence
from time import monotonic

import numpy as np
import numpy.typing as npt

from tollgate.core.clock import Clock
from tollgate.core.errors import PermanentFault, TollgateError
from tollgate.events.batch import DEAD, OUTCOMES, STORED, Batch, open_batch
from tollgate.events.claims import Window, decide
from tollgate.events.correct import (
    AMENDMENT_COLUMNS,
    CORRECTION_COLUMNS,
    amendment_row,
    correction_rows,
    decide_corrections,
)
from tollgate.events.correction import Place
from tollgate.events.dedupe import SeenKeys
from tollgate.events.hold import Waiting
from tollgate.events.key_state import Timed
from tollgate.events.ledger import (
    Frontier,
    appended_us,
    dead_since,
    mend_commits,
    read_frontier,
    read_frontiers_after,
)
from tollgate.events.load_progress import LoadLimits, LoadProgress
from tollgate.events.rebuild import Stopped, drop_keys_before, rebuild
from tollgate.events.record import CORRECTIONS_VERSION, events_in, holds_corrections
from tollgate.events.rows import (
    EVENT_COLUMNS,
    LEDGER_COLUMNS,
    OUTCOME_COLUMNS,
    event_rows,
    ledger_rows,
    outcome_rows,
)
from tollgate.platform.clickhouse import BadRows, ClickHouse
from tollgate.platform.event_log import EventLog, StoredRecord

_log = logging.getLogger(__name__)
DAY_US = 86_400_000_000
_READ_BYTES = 32 << 20
_BATCH_BYTES_MAX = 64 << 20
_HOUR_US = 3_600_000_000
_IDLE_SECONDS = 0.5
_BACKOFF_SECONDS_FIRST, _BACKOFF_SECONDS_MAX = 0.1, 5.0
# A batch costs the store some milliseconds whatever it holds: writing should take a fifth of the
# time at most.
_GATHER_PER_WRITE = 4


class Loader:
    """Loads one partition. `run` belongs to one thread."""

    def __init__(
        self,
        *,
        log: EventLog,
        partition: int,
        clickhouse: ClickHouse,
        frontier: Frontier,
        limits: LoadLimits,
        clock: Clock,
    ) -> None:
        self._log = log
        self._partition = partition
        self._clickhouse = clickhouse
        self._frontier = frontier
        self._limits = limits
        self._clock = clock
        self._seen = SeenKeys()
        self._waiting = Waiting()
        self._held: deque[StoredRecord] = deque()
        self._read_through = -1
        self._last_us: int | None = None
        self._day = -1
        self._hour = -1
        self._hour_dead = 0
        self._write_ms: float = 0  # tidy: allow-float -- time that the last batch took
        self.progress = LoadProgress()
        self.gate = threading.Lock()

    @property
    def seen(self) -> SeenKeys:
        """The filters of this partition."""
        return self._seen

    def prepare(self, stop: threading.Event | None = None) -> None:
        """Finds out how far loading has come and builds the filters; `stop` ends it.

        Raises:
            Stopped: `stop` was set; the loader is not ready.
            Transient: ClickHouse is away.
            PermanentFault: the log forgot records that the ledger does not have.
        """
        generation = self._log.generation
        mine = (generation, self._partition)
        frontier = read_frontier(self._clickhouse, generation, self._partition)
        released = self._log.released(self._partition)
        if frontier < released:
            raise PermanentFault(
                f"partition {self._partition}: the log gave back records up to offset {released}, "
                f"the ledger ends at {frontier}: rows of ClickHouse are missing. Restore the data "
                "folder from a backup; nothing is loaded before that"
            )
        self._last_us = appended_us(self._clickhouse, mine, frontier)
        window = self._limits.window_us
        since = 0 if window == 0 else max(0, self._oldest_us(frontier) - window - 2 * DAY_US)
        self._seen = rebuild(self._clickhouse, generation, self._partition, since, stop)
        self._waiting.read(self._clickhouse, generation, self._partition, frontier)
        mend_commits(self._clickhouse, generation, self._partition)
        self._hour = self._clock.now_us() // _HOUR_US
        self._hour_dead = dead_since(self._clickhouse, mine, self._hour * _HOUR_US)
        self._held.clear()
        self._read_through = self.progress.frontier = frontier
        self._frontier.publish(generation, self._partition, frontier)
        # A crash may have come between the ledger and the release: without this, a log that is full
        # of loaded records would refuse new ones and never be emptied.
        self._log.release(self._partition, frontier)
        self.progress.ready = self.progress.known = True

    def _oldest_us(self, frontier: int) -> int:
        """Append time that no record not yet loaded is before: windows end there."""
        # With nothing waiting that is the last record's: our clock may be days ahead of the log's.
        waiting = self._log.read(self._partition, frontier, 1)
        now = self._clock.now_us()
        last_us = waiting[0].appended_us if waiting else self._last_us
        return now if last_us is None else min(now, last_us)

    def _require_few_dead(self, batch: Batch) -> None:
        """Raises PermanentFault if a batch would bring more dead letters than an hour may have."""
        most = self._limits.dead_letters_max
        dead = int(np.count_nonzero(batch.outcome == DEAD)) + len(batch.corrupt)
        before = self._hour_dead if self._hour == _hour_of(batch) else 0
        if dead and before + dead > most:
            why = [*(text for _, text in batch.reason.values()), *(c.detail for c in batch.corrupt)]
            raise PermanentFault(
                f"partition {self._partition}: more than {most} dead letters in an hour, nothing"
                f" from offset {batch.records[0].offset} on is loaded before a person has looked:"
                f" {why[-1]}. GET /api/v1/dead-letters shows those before;"
                " TOLLGATE_LOAD_DEAD_LETTERS_MAX is the bound"
            )

    def _oldest_of_all_us(self) -> int:
        """Append time that no record not yet loaded in any partition is before; 0: not known.

        Partitions of older generations are loaded to their ends before this one is begun.
        """
        if self._last_us is None:
            return 0
        everyone = dict.fromkeys((self._log.generation, p) for p in range(self._log.partitions))
        loaded = read_frontiers_after(self._clickhouse, everyone)
        oldest_us = min(self._clock.now_us(), self._last_us)
        for (_, partition), frontier in loaded.items():
            waiting = self._log.read(partition, frontier, 1)
            oldest_us = min(oldest_us, waiting[0].appended_us) if waiting else oldest_us
        return oldest_us

    def run(self, stop: threading.Event) -> None:
        """Loads until `stop` is set; what is gathered by then is written first.

        Failures are logged and repeated with backoff: nothing is skipped, nothing is lost. A defect
        of ours is treated alike: it shows as unreadiness, and an upgrade finds the records waiting.
        """
        pause = _BACKOFF_SECONDS_FIRST
        while not stop.is_set():
            try:
                if not self.progress.ready:
                    with self.gate:
                        self.prepare(stop)
                records = self.gather(stop)
                if records:
                    with self.gate:
                        self.load(records)
                pause = _BACKOFF_SECONDS_FIRST
            except Stopped:
                return
            except Exception as problem:  # noqa: BLE001 -- a thread that ends would load nothing more
                self.progress.failures += 1
                self.progress.last_failure = str(problem) or repr(problem)
                self.progress.stopped = isinstance(problem, PermanentFault)
                _log.warning(
                    "load failed and will be tried again",
                    extra={"partition": self._partition, "problem": repr(problem)},
                    exc_info=not isinstance(problem, TollgateError | OSError),
                )
                # Start over from the ledger: it alone says what was written.
                self.progress.ready = False
                stop.wait(pause)
                pause = min(pause * 2, _BACKOFF_SECONDS_MAX)

    def gather(self, stop: threading.Event) -> list[StoredRecord]:
        """Whole records up to the limits, of one append day and kind; [] if there is nothing yet.

        Once the time is over one more read is made: a backlog gives whole batches, and a steady
        stream can't keep a batch open.
        """
        if not self._held and not self._read_more():
            if not self._log.wait(self._partition, self._read_through, _IDLE_SECONDS):
                return []
            if not self._read_more():
                return []
        # Never negative: a clock that was set back must not make a batch wait.
        age_us = max(0, self._clock.now_us() - self._held[0].appended_us)
        shortest = self._limits.wait_ms
        wait_ms = max(shortest, min(2 * shortest, _GATHER_PER_WRITE * self._write_ms))
        until = monotonic() + (wait_ms - age_us / 1000) / 1000
        batch: list[StoredRecord] = []
        events, size, last_look = 0, 0, False
        day = self._held[0].appended_us // DAY_US
        corrects = holds_corrections(self._held[0].value)
        while True:
            while self._held:
                record = self._held[0]
                count = events_in(record.value)
                if batch and (
                    events + count > self._limits.events_max
                    or size + len(record.value) > _BATCH_BYTES_MAX
                    or record.appended_us // DAY_US != day
                    or holds_corrections(record.value) != corrects
                ):
                    return batch
                batch.append(self._held.popleft())
                events += count
                size += len(record.value)
            if last_look or events >= self._limits.events_max:
                return batch
            left = until - monotonic()
            last_look = left <= 0 or stop.is_set()
            if not self._read_more() and not last_look:
                stop.wait(left)

    def _read_more(self) -> bool:
        records = self._log.read(self._partition, self._read_through, _READ_BYTES)
        if records:
            self._held.extend(records)
            self._read_through = records[-1].offset
        return bool(records)

    def load(self, records: list[StoredRecord]) -> Batch:
        """Writes one batch. May run again after any failure, from the same or other boundaries.

        Raises:
            Transient: ClickHouse is away or refused; any of the writes may have happened.
            PermanentFault: ClickHouse can't read most rows, so it is not the rows that are wrong.
        """
        return self._load(open_batch(self._log.generation, self._partition, records))

    def _load(self, batch: Batch) -> Batch:
        began = monotonic()
        self._require_few_dead(batch)
        is_corrections = batch.kind == CORRECTIONS_VERSION
        corrected = self._load_corrections(batch) if is_corrections else self._load_events(batch)
        if corrected:
            self._clickhouse.insert(
                "event_corrections", CORRECTION_COLUMNS, correction_rows(corrected)
            )
        if others := outcome_rows(batch):
            self._clickhouse.insert("event_outcomes", OUTCOME_COLUMNS, others)
        self._write_ledger(batch)
        self._waiting.note(corrected)
        self._note(batch, monotonic() - began)
        return batch

    def _write_ledger(self, batch: Batch) -> None:
        self._clickhouse.insert("ledger", LEDGER_COLUMNS, ledger_rows(batch))

    def _load_events(self, batch: Batch) -> list[Timed]:
        """Decides and writes events; gives what they met as they came in."""
        written = np.zeros(len(batch), np.bool_)
        dead = -1
        while dead != (dead := int(np.count_nonzero(batch.outcome == DEAD))):
            # A dead letter claims no key, in whichever batch it came: decide again without it.
            decide(batch, self._seen, self._clickhouse, Window(us=self._limits.window_us))
            stored = batch.outcome == STORED
            self._write_events(batch, stored & ~written)
            written |= stored
        return self._waiting.meet(batch)

    def _load_corrections(self, batch: Batch) -> list[Timed]:
        """Decides corrections and writes the amended events; gives what they do."""
        written: set[Place] = set()
        dead = -1
        corrected: list[Timed] = []
        while dead != (dead := int(np.count_nonzero(batch.outcome == DEAD))):
            corrected = decide_corrections(batch, self._clickhouse)
            amended = [
                timed
                for timed in corrected
                if timed.applied.line.action == "amend"
                and timed.applied.effect == "applied"
                and timed.applied.place not in written
            ]
            self._write_amendments(batch, amended)
            written |= {timed.applied.place for timed in amended}
        return corrected

    def _write_amendments(self, batch: Batch, amended: Sequence[Timed]) -> None:
        """Writes amended events; unreadable rows become dead letters."""
        if not amended:
            return
        rows = b"".join(amendment_row(each.applied, each.appended_us) for each in amended)
        try:
            self._clickhouse.insert("arrivals", AMENDMENT_COLUMNS, rows)
        except BadRows as problem:
            if len(amended) == 1:
                batch.bury(batch.number(amended[0].applied.place), "unreadable_row", problem.detail)
                self._require_few_dead(batch)
                return
            middle = len(amended) // 2
            self._write_amendments(batch, amended[:middle])
            self._write_amendments(batch, amended[middle:])

    def _write_events(self, batch: Batch, chosen: npt.NDArray[np.bool_]) -> None:
        """Writes events and, by the engine's views, keys; unreadable rows become dead letters."""
        if not chosen.any():
            return
        try:
            self._insert_events(batch, chosen)
        except BadRows as problem:
            events = np.flatnonzero(chosen)
            if len(events) == 1:
                batch.bury(int(events[0]), "unreadable_row", problem.detail)
                _log.error("dead letter", extra={"position": batch.position(int(events[0]))})
                self._require_few_dead(batch)
                return
            middle = int(events[len(events) // 2])
            before = np.arange(len(chosen)) < middle
            self._write_events(batch, chosen & before)
            self._write_events(batch, chosen & ~before)

    def _insert_events(self, batch: Batch, chosen: npt.NDArray[np.bool_]) -> None:
        rows = b"".join(event_rows(batch, chosen))
        self._clickhouse.insert("arrivals", EVENT_COLUMNS, rows)

    def _note(self, batch: Batch, seconds: float) -> None:  # tidy: allow-float -- time spent
        last = batch.records[-1]
        stored = batch.outcome == STORED
        if batch.kind != CORRECTIONS_VERSION:
            self._seen.add(batch.keys[stored], last.appended_us)
        self._log.release(self._partition, last.offset)
        self._frontier.publish(batch.generation, self._partition, last.offset)
        tally = np.bincount(batch.outcome, minlength=4).tolist()
        if batch.kind == CORRECTIONS_VERSION:
            self.progress.corrections += tally[STORED]
            tally[STORED] = 0
        tally[DEAD] += len(batch.corrupt)
        hour = _hour_of(batch)
        self._hour_dead = tally[DEAD] + (self._hour_dead if hour == self._hour else 0)
        self._hour = hour
        progress = self.progress
        for name, count in zip(OUTCOMES, tally, strict=True):
            progress.counts[name] += count
        progress.batches += 1
        progress.seconds += seconds
        self._write_ms = seconds * 1000
        progress.frontier = last.offset
        self._last_us = last.appended_us
        progress.loaded_through_us = last.appended_us
        progress.last_failure, progress.stopped = "", False

    def tend(self) -> None:
        """Housekeeping: drops filters and key partitions that the dedupe window has left behind."""
        window = self._limits.window_us
        if window == 0:
            return
        margin = window + 2 * DAY_US
        with self.gate:
            self._seen.forget_before(self._oldest_us(self.progress.frontier) - margin)
        # The table is everybody's: whoever is furthest behind decides.
        before = self._oldest_of_all_us() - margin
        if before // DAY_US == self._day:
            return
        drop_keys_before(self._clickhouse, before)
        self._day = before // DAY_US


def _hour_of(batch: Batch) -> int:
    return batch.records[0].appended_us // _HOUR_US
