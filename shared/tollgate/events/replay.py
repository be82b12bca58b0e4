"""Use case: load the archive again, through the loader itself, and prove that the result is right.

The target is empty, or holds what an earlier run has loaded: its ledger says how far that came. In
the end every total is compared with the archived ledger. Times of loading come from there too, so
that `asOf` answers as it did.
"""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from tollgate.core.errors import Conflict
from tollgate.events.archive_batch import ArchivedBatch, open_archived
from tollgate.events.archive_chain import RECORDS, Chain, Entry, partitions_of
from tollgate.events.archive_file import ArchivedFile
from tollgate.events.archive_ledger import ArchivedTimes
from tollgate.events.archive_log import ArchiveLog
from tollgate.events.batch import Batch
from tollgate.events.ledger import Frontier, Partition
from tollgate.events.load import DAY_US, Loader
from tollgate.events.load_progress import LoadLimits
from tollgate.events.rows import LEDGER_COLUMNS, instant_text, ledger_rows
from tollgate.platform.clickhouse import DATABASE, ClickHouse
from tollgate.platform.objects import Objects
from tollgate.platform.parts import Parts, open_clickhouse

_EVENTS_MAX = 250_000
_WHOLE_RECORDS_MAX = 200
_ANY_NUMBER = 1 << 62
_OFFSET, _NAMESPACE, _HOUR = (
    LEDGER_COLUMNS.index(name) for name in ("log_offset", "namespace", "received_hour")
)
_encode = msgspec.json.Encoder().encode
_decode_lines = msgspec.json.Decoder(list[int | str]).decode_lines
OnLoaded = Callable[[int], None]
"""Told how many events more are loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """What was appended in [since, until), in microseconds since the epoch; None: without bound."""

    since_us: int | None = None
    until_us: int | None = None

    def has(self, appended_us: int) -> bool:
        """Whether a record that was appended then is in it."""
        return (self.since_us is None or appended_us >= self.since_us) and (
            self.until_us is None or appended_us < self.until_us
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be loaded.

    Attributes:
        period: what is asked for.
        lead_us: records are loaded from then on, so that keys claimed before the period are known.
        files: by generation and partition, in order.
        gaps: what the archive says it never had, within all that.
    """

    period: Period
    lead_us: int
    files: Mapping[Partition, list[Entry]]
    gaps: list[Entry] = field(default_factory=list)

    @property
    def events(self) -> int:
        """How many events the files have."""
        return sum(entry.rows for of_one in self.files.values() for entry in of_one)


def make_plan(objects: Objects, period: Period, window_us: int) -> Plan:
    """Reads the manifest.

    Args:
        objects: where the archive is.
        period: what is asked for.
        window_us: how long a key is claimed; 0: for ever.

    Raises:
        Transient: object storage is away.
        PermanentFault: the manifest has holes or can't be read.
        Conflict: there is no archive, or nothing of that period in it.
    """
    since = period.since_us
    lead_us = 0 if since is None or window_us == 0 else max(0, since - window_us)
    files: dict[Partition, list[Entry]] = {}
    gaps: list[Entry] = []
    for key in partitions_of(objects, RECORDS):
        of_one: list[Entry] = []
        for entry in Chain(objects, RECORDS, *key).entries():
            if entry.is_gap:
                gaps.append(entry)
            elif entry.appended[1] >= lead_us and (
                period.until_us is None or entry.appended[0] < period.until_us
            ):
                of_one.append(entry)
        if of_one:
            files[key] = of_one
    if not files:
        raise Conflict(f"the archive in {objects.place} has no records to replay")
    return Plan(period=period, lead_us=lead_us, files=files, gaps=gaps)


class ReplayLoader(Loader):
    """A loader whose events come in columns, and that knows when a record was loaded first."""

    times: ArchivedTimes

    def load_columns(self, file: ArchivedFile, first: int, end: int) -> Batch:
        """Writes the events of some records, none of which is kept whole. As `load`."""
        place = (self._log.generation, self._partition)
        return self._load(open_archived(place, file, first, end))

    def _insert_events(self, batch: Batch, chosen: npt.NDArray[np.bool_]) -> None:
        if isinstance(batch, ArchivedBatch):
            self._clickhouse.insert_arrow("arrivals", *batch.arrow_rows(chosen))
        else:
            super()._insert_events(batch, chosen)

    def _write_ledger(self, batch: Batch) -> None:
        rows = _decode_lines(ledger_rows(batch))
        known = self.times.through(batch.records[-1].offset)
        now_us = self._clock.now_us()
        timed = []
        for row in rows:
            key = (int(row[_OFFSET]), str(row[_NAMESPACE]), int(row[_HOUR]))
            timed.append(_encode([*row, instant_text(known.pop(key, now_us))]))
        columns = (*LEDGER_COLUMNS, "stored_at")
        self._clickhouse.insert("ledger", columns, b"\n".join(timed) + b"\n")

    def forget_before(self, appended_us: int) -> None:
        """Drops filters of keys that the dedupe window has left behind then."""
        if window := self._limits.window_us:
            self._seen.forget_before(appended_us - window - 2 * DAY_US)


def replay(parts: Parts, objects: Objects, plan: Plan, on_loaded: OnLoaded) -> None:
    """Loads what the plan says; goes on where an earlier run ended.

    Raises:
        Conflict: the target holds something else.
        Transient: a store is away; run it again.
        PermanentFault: the archive is damaged, or ClickHouse refuses.
    """
    clickhouse = parts.get(open_clickhouse)
    require_own(clickhouse, plan)
    window_us = parts.settings.dedupe_window_days * DAY_US
    limits = LoadLimits(
        events_max=_EVENTS_MAX, wait_ms=0, window_us=window_us, dead_letters_max=_ANY_NUMBER
    )
    frontier = Frontier(clickhouse)
    for generation in sorted({generation for generation, _ in plan.files}):
        entries = {p: of_one for (g, p), of_one in plan.files.items() if g == generation}
        with closing(ArchiveLog(objects, generation, entries, plan.period.until_us)) as log:
            for partition in sorted(entries):
                loader = ReplayLoader(
                    log=log,
                    partition=partition,
                    clickhouse=clickhouse,
                    frontier=frontier,
                    limits=limits,
                    clock=parts.clock,
                )
                loader.times = ArchivedTimes(objects, generation, partition)
                load_partition(loader, log, partition, on_loaded)
                if (generation, partition) == max(plan.files):
                    loader.tend()


def load_partition(
    loader: ReplayLoader, log: ArchiveLog, partition: int, on_loaded: OnLoaded
) -> None:
    """Loads all that the log has after what the ledger has. Errors as in `replay`."""
    loader.prepare()
    done = loader.progress.frontier
    total = log.events_after(partition, -1)
    on_loaded(total - log.events_after(partition, done))
    loader.times.begin_after(done)
    while (found := log.file_after(partition, loader.progress.frontier)) is not None:
        file, first, end = found
        while first < end:
            until = run_end(file, first, end)
            if file.rebuildable[first]:
                batch = loader.load_columns(file, first, until)
            else:
                batch = loader.load(file.records(first, until))
            on_loaded(len(batch))
            first = until
        loader.forget_before(int(file.appended_us[end - 1]))


def run_end(file: ArchivedFile, first: int, end: int) -> int:
    """Up to which record one batch goes: bounded, of one day and one kind, in columns or not."""
    following = slice(first, end)
    in_columns = file.rebuildable[first]
    days = file.appended_us[following] // DAY_US
    events = file.starts[first + 1 : end + 1] - file.starts[first]
    others = np.flatnonzero(
        (file.rebuildable[following] != in_columns)
        | (file.corrects[following] != file.corrects[first])
        | (days != days[0])
        | (events > (_EVENTS_MAX if in_columns else _WHOLE_RECORDS_MAX))
    )
    return max(first + 1, first + int(others[0]) if len(others) else end)


def require_own(clickhouse: ClickHouse, plan: Plan) -> None:
    """Makes sure that the target holds nothing that is not of this plan.

    Raises:
        Conflict: it does.
        Transient: ClickHouse is away.
    """
    rows = clickhouse.query(
        "SELECT log_generation, log_partition, toInt64(min(log_offset)), toInt64(max(log_offset))"
        f" FROM {DATABASE}.ledger GROUP BY log_generation, log_partition"
    )
    for generation, partition, first, last in rows:
        files = plan.files.get((generation, partition), [])
        if not files or not files[0].begin <= first <= files[0].last or last > files[-1].last:
            raise Conflict(
                f"the target has records of generation {generation}, partition {partition}, from"
                f" offset {first} to {last}, which are not what this replay begins with: replay"
                " into an empty one"
            )
