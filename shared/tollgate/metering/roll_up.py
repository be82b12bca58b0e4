"""Use case: rollups follow the ledger, slice by slice, and stay few in number.

May be killed anywhere, run twice or by two processes at once: see `rollup_store`. Nothing here
depends on a clock but when what is dead is dropped.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby

from tollgate.core.clock import Clock
from tollgate.core.errors import Conflict
from tollgate.events.facts import after, has_corrections, within
from tollgate.events.position import Token
from tollgate.metering.cells import (
    CellsOfEvents,
    cells_of_cells,
    dirty,
    pieces,
    replaced_of_replaced,
    sizes_of_spans,
)
from tollgate.metering.meter import Aggregation, Meter
from tollgate.metering.rollup import Segment, digest_of
from tollgate.metering.rollup_reader import TABLES, is_there, stored_rows
from tollgate.metering.rollup_store import Definition, Extent, RollupStore, Written
from tollgate.metering.slices import Slice, next_slice
from tollgate.platform.clickhouse import BACKGROUND, DATABASE, ClickHouse

_log = logging.getLogger(__name__)
MERGED_MIN = 4
"""So many segments of about one size become one."""
_WRITING_MAX = timedelta(hours=1)
Key = tuple[str, str]
"""Namespace and event type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RollupLimits:
    """What a run may cost.

    Attributes:
        events_max: events in one slice.
        events_min: fewer wait for more, since each segment costs queries about a millisecond.
        wait: but no longer than this.
        memory_bytes_max: of one statement; beyond, it works on disk.
        merged_cells_max: about how many cells one statement merges.
        threads: of one statement.
        grace: how long a dead segment stays for queries that read it.
        first_tier_cells: segments of up to so many cells are of one size; of the next, 4 times.
    """

    events_max: int = 4_000_000
    events_min: int = 100_000
    wait: timedelta = timedelta(minutes=10)
    memory_bytes_max: int = 1 << 30
    merged_cells_max: int = 1_000_000
    threads: int = 1
    grace: timedelta = timedelta(minutes=15)
    first_tier_cells: int = 200_000


class RollUp:
    """Builds, merges and drops segments. One run at a time belongs to one thread."""

    def __init__(
        self,
        clickhouse: ClickHouse,
        store: RollupStore,
        live_meters: Callable[[], Iterable[Meter]],
        clock: Clock,
        limits: RollupLimits,
    ) -> None:
        self._clickhouse = clickhouse
        self._store = store
        self._live_meters = live_meters
        self._clock = clock
        self._limits = limits

    def build(self, stop: threading.Event) -> int:
        """Brings all definitions to where the ledger is, or as far as there is time.

        Returns:
            the number of slices that were built.

        Raises:
            Transient: SQL or ClickHouse is away; what was named by then stays.
            Conflict: another process builds.
        """
        meters = {(each.id, digest_of(each)): each for each in self._live_meters()}
        wanted = [(meter.namespace, *key) for key, meter in meters.items()]
        self._store.keep(wanted)
        self._require_believable()
        count = 0
        while not stop.is_set() and self._build_slices(meters):
            count += 1
        return count

    def _require_believable(self) -> None:
        """Starts over where the store is not the one that the manifest speaks of."""
        vectors = [each.vector for each in self._store.definitions() if each.vector is not None]
        if is_there(self._clickhouse, vectors, self._store.live()):
            return
        _log.warning("rollups are built anew: the store has others than the manifest names")
        wanted = [(d.namespace, d.meter_id, d.digest) for d in self._store.definitions()]
        self._store.start_over()
        self._store.keep(wanted)

    def _build_slices(self, meters: Mapping[tuple[str, str], Meter]) -> bool:
        """Moves all definitions by one slice; tells whether any moved that is not at the end."""
        definitions = [d for d in self._store.definitions() if (d.meter_id, d.digest) in meters]
        more = False
        for vector, group in _by_vector(definitions):
            part = next_slice(self._clickhouse, vector, self._limits.events_max)
            if part is None:
                waiting = [each for each in group if not each.ready]
                if waiting and vector is not None:
                    self._store.advance(waiting, vector, None, ready=True)
                continue
            if part.events < self._limits.events_min and all(each.ready for each in group):
                age_us = self._clock.now_us() - part.oldest_us
                if age_us < self._limits.wait // timedelta(microseconds=1):
                    continue
            of_meter = {each.id: meters[each.meter_id, each.digest] for each in group}
            written = self._write(part, of_meter)
            self._store.advance(group, part.end, written, ready=part.is_last)
            more = more or not part.is_last
        return more

    def _write(self, part: Slice, meters: Mapping[int, Meter]) -> Written | None:
        """Writes the cells of a slice into a new segment; None if there are none."""
        touched = self._touched(part)
        dirty_types = self._dirty(part)
        chosen = {
            number: meter
            for number, meter in meters.items()
            if (meter.namespace, meter.event_type) in touched | dirty_types
        }
        if not chosen:
            return None
        segment = self._store.begin()
        replacing = set()
        for number, meter in chosen.items():
            statements = CellsOfEvents(meter, number, segment, part)
            is_dirty = (meter.namespace, meter.event_type) in dirty_types
            if is_dirty:
                replaced = statements.replaced()
                self._run(replaced.sql, replaced.parameters)
                replacing.add(number)
            cells = statements.cells(
                corrected=has_corrections(self._clickhouse, meter.namespace, meter.event_type),
                dirty=is_dirty,
            )
            self._run(cells.sql, cells.parameters)
        return self._written(segment, frozenset(replacing))

    def _written(self, segment: int, replacing: frozenset[int]) -> Written | None:
        rows = self._clickhouse.query(
            "SELECT definition, toInt64(min(minute + first_minute)),"
            " toInt64(max(minute + last_minute))"
            f" FROM {DATABASE}.rollup_cells WHERE segment = {segment} GROUP BY definition"
        )
        extents: dict[int, Extent] = {int(row[0]): (int(row[1]), int(row[2])) for row in rows}
        cells = stored_rows(self._clickhouse).get(segment, 0)
        if not cells:
            return None
        return Written(segment=segment, cells=cells, replacing=replacing, extents=extents)

    def _touched(self, part: Slice) -> set[Key]:
        """Event types that have facts in a slice."""
        new = "true" if part.start is None else after(part.start)
        rows = self._clickhouse.query(
            f"SELECT DISTINCT toString(namespace), toString(type) FROM {DATABASE}.events"
            f" WHERE {part.appended} AND {new} AND {within(part.end)}"
        )
        return {(row[0], row[1]) for row in rows}

    def _dirty(self, part: Slice) -> set[Key]:
        """Event types of which a slice supersedes facts from before it."""
        if part.start is None:
            return set()
        rows = self._clickhouse.query(
            "SELECT DISTINCT toString(namespace), toString(superseded_type)"
            f" FROM {DATABASE}.event_corrections WHERE {part.appended} AND {dirty(part)}"
        )
        return {(row[0], row[1]) for row in rows}

    def _run(self, sql: str, parameters: Mapping[str, object] | None = None) -> None:
        limits = self._limits
        settings = (
            f"max_threads = {limits.threads}, max_insert_threads = 1,"
            f" max_bytes_before_external_group_by = {limits.memory_bytes_max // 2},"
            " do_not_merge_across_partitions_select_final = 1, insert_deduplicate = 0,"
            " optimize_move_to_prewhere_if_final = 1,"
            " compile_expressions = 0, compile_aggregate_expressions = 0,"
            f" os_thread_priority = {BACKGROUND['os_thread_priority']}"
        )
        self._clickhouse.command(f"{sql} SETTINGS {settings}", parameters)

    def compact(self, stop: threading.Event) -> int:
        """Merges neighbours of about one size until there are few.

        Returns:
            the number of merges.

        Raises:
            Transient: SQL or ClickHouse is away. Conflict: another process merges.
        """
        meters = {(each.id, digest_of(each)): each for each in self._live_meters()}
        count = 0
        while not stop.is_set():
            live = self._store.live()
            merged = to_merge(live, self._limits.first_tier_cells)
            if not merged:
                break
            definitions = {
                each.id: meters[each.meter_id, each.digest].aggregation
                for each in self._store.definitions()
                if (each.meter_id, each.digest) in meters
            }
            self._store.replace(
                merged, self._merge(merged, definitions, first=merged[0] == live[0])
            )
            count += 1
        return count

    def _merge(
        self, merged: Sequence[Segment], definitions: Mapping[int, Aggregation], *, first: bool
    ) -> Written | None:
        segment = self._store.begin()
        for aggregation in Aggregation:
            chosen = [each for each, of in definitions.items() if of is aggregation]
            if not chosen:
                continue
            sizes = self._clickhouse.query(sizes_of_spans(merged, chosen))
            counts = [(int(d), int(level), int(span), int(n)) for d, level, span, n in sizes]
            for piece in pieces(counts, self._limits.merged_cells_max):
                self._run(cells_of_cells(merged, segment, aggregation, chosen, piece))
        replacing: frozenset[int] = frozenset()
        if not first and any(each.replacing for each in merged) and definitions:
            self._run(replaced_of_replaced(merged, segment, definitions))
            rows = self._clickhouse.query(
                f"SELECT DISTINCT definition FROM {DATABASE}.rollup_replaced"
                f" WHERE segment = {segment}"
            )
            replacing = frozenset(int(row[0]) for row in rows)
        return self._written(segment, replacing)

    def drop(self) -> int:
        """Drops what nobody reads any more.

        Returns:
            the number of segments dropped.

        Raises:
            Transient: SQL or ClickHouse is away.
        """
        now = self._clock.now()
        # In this order: what is announced after the look is not taken for unknown.
        stored = stored_rows(self._clickhouse)
        self._store.give_up(now - _WRITING_MAX)
        dead = set(self._store.dead(now - self._limits.grace))
        unknown = stored.keys() - self._store.known()
        for segment in sorted(dead | unknown):
            for table in TABLES:
                self._clickhouse.command(f"ALTER TABLE {DATABASE}.{table} DROP PARTITION {segment}")
            self._store.forget(segment)
        return len(dead | unknown)


def to_merge(live: Sequence[Segment], first_tier_cells: int) -> Sequence[Segment]:
    """The newest segments that are to become one; none if there are few of each size."""
    for tier in range(64):
        size = first_tier_cells * MERGED_MIN**tier
        small = 0
        for segment in reversed(live):
            if segment.cells > size:
                break
            small += 1
        if small >= MERGED_MIN:
            return live[len(live) - small :]
        if small == len(live):
            break
    return ()


def _by_vector(definitions: Sequence[Definition]) -> list[tuple[Token | None, list[Definition]]]:
    """Definitions by how far they are, those that are furthest first."""

    def place(each: Definition) -> str:
        return "" if each.vector is None else str(each.vector)

    found = [(k, list(g)) for k, g in groupby(sorted(definitions, key=place), key=place)]
    found.sort(key=lambda each: _rank(each[1][0].vector), reverse=True)
    return [(group[0].vector, group) for _, group in found]


def _rank(vector: Token | None) -> tuple[int, int]:
    return (0, 0) if vector is None else (vector.generation, sum(vector.offsets.values()))


def if_alone(run: Callable[[], int]) -> int:
    """Runs it; another process that did the same work first is no fault."""
    try:
        return run()
    except Conflict as other:
        _log.info("rollups: %s", other.detail)
        return 0
