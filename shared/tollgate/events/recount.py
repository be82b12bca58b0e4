"""Use case: count again, by position and apart from the loader, what the ledger says.

A range of the log is counted in slices of bounded size: memory does not grow with it. Rows that
stand twice (a batch that was loaded again) count once.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, Final

from tollgate.core.clock import datetime_from_us
from tollgate.core.errors import PermanentFault
from tollgate.events.facts import after, within
from tollgate.events.imbalance import (
    EVERYBODY,
    Counts,
    Difference,
    Imbalance,
    Place,
    Slice,
    compare_counts,
)
from tollgate.events.position import Token
from tollgate.events.record import CorruptRecord, UnknownVersion, decode_record, events_in
from tollgate.platform.clickhouse import BACKGROUND, DATABASE, ClickHouse
from tollgate.platform.event_log import EventLog, StoredRecord

_HOUR_US: Final = 3_600_000_000
_DAY_US: Final = 24 * _HOUR_US
_BLOCK_RECORDS: Final = 1000
SLICE_EVENTS_MAX: Final = 4_000_000
"""Distinct positions are held in memory while they are counted: 16 to 32 bytes each."""
_READ_BYTES: Final = 8 << 20
_LAST_OFFSET: Final = 2**63 - 1
_FINAL: Final[dict[str, object]] = BACKGROUND | {"do_not_merge_across_partitions_select_final": 1}
# An index has 24 bits, an offset 40: a record of 16 M events would be far beyond its own bounds.
_DISTINCT: Final = "uniqExact(bitOr(bitShiftLeft(log_offset, 24), toUInt64(log_index)))"
_RECEIVED: Final = "intDiv(toUnixTimestamp64Micro(received_at), 3600000000)"
_APPENDED: Final = "intDiv(toUnixTimestamp64Micro(appended_at), 3600000000)"


def read_slices(
    clickhouse: ClickHouse, begin: Token, end: Token, events_max: int = SLICE_EVENTS_MAX
) -> list[Slice]:
    """The range (begin, end] in slices, in the order of the log, without a gap between them.

    Args:
        clickhouse: the store.
        begin: where it begins.
        end: the last position.
        events_max: events in a slice; more only where a thousand records hold more.

    Raises:
        Transient: ClickHouse is away.
    """
    rows = clickhouse.query(
        f"SELECT log_generation, log_partition, intDiv(log_offset, {_BLOCK_RECORDS}) AS block,"
        " toInt64(max(log_offset)), sum(accepted) + sum(corrections),"
        " toUnixTimestamp64Micro(min(appended_at)), toUnixTimestamp64Micro(max(appended_at))"
        f" FROM {DATABASE}.ledger WHERE {after(begin)} AND {within(end)}"
        " GROUP BY log_generation, log_partition, block"
        " ORDER BY log_generation, log_partition, block"
    )
    slices: list[Slice] = []
    last: tuple[int, int] | None = None
    offset, size, since_us = -1, 0, 0
    for number, (generation, partition, _, through, events, first_us, last_us) in enumerate(rows):
        if last != (generation, partition):
            last, size, since_us = (generation, partition), 0, first_us
            offset = begin.offsets.get(partition, -1) if generation == begin.generation else -1
        size += events
        following = rows[number + 1] if number + 1 < len(rows) else None
        ends = following is None or (following[0], following[1]) != last
        if ends or size + following[4] > events_max:  # type: ignore[index]  # not None: not ends
            # A generation that has a younger one is loaded whole: nothing may stand behind it.
            whole = ends and generation < end.generation
            slices.append(
                Slice(
                    generation=generation,
                    partition=partition,
                    after=offset,
                    through=_LAST_OFFSET if whole else through,
                    since_us=since_us - _DAY_US,
                    until_us=last_us + _DAY_US,
                )
            )
            offset, size, since_us = through, 0, last_us
    return slices


def recount(clickhouse: ClickHouse, part: Slice) -> tuple[dict[Place, Counts], list[Imbalance]]:
    """Counts a slice.

    Returns:
        what the ledger says of it, and what does not balance (not yet found at any time: `found_at`
        is the hour).

    Raises:
        Transient: ClickHouse is away.
    """
    ledger = _ledger(clickhouse, part)
    events, amendments = _stored(clickhouse, part)
    tables = _uncounted(clickhouse, part, events)
    wrong = compare_counts(ledger, tables, amendments)
    return ledger, [
        _imbalance(namespace, hour, part, differences)
        for (namespace, hour), differences in sorted(wrong.items())
    ]


def _imbalance(
    namespace: str, hour: int, part: Slice, differences: tuple[Difference, ...]
) -> Imbalance:
    begin = datetime_from_us(hour * _HOUR_US)
    return Imbalance(
        namespace=namespace, hour=begin, part=part, differences=differences, found_at=begin
    )


def _where(part: Slice) -> str:
    return (
        f"log_generation = {part.generation} AND log_partition = {part.partition}"
        f" AND log_offset > {part.after} AND log_offset <= {part.through}"
        f" AND appended_at >= fromUnixTimestamp64Micro({max(0, part.since_us)}, 'UTC')"
        f" AND appended_at <= fromUnixTimestamp64Micro({part.until_us}, 'UTC')"
    )


def _ledger(clickhouse: ClickHouse, part: Slice) -> dict[Place, Counts]:
    rows = clickhouse.query(
        "SELECT namespace, intDiv(toUnixTimestamp(received_hour), 3600), sum(accepted),"
        " sum(stored), sum(duplicate), sum(conflict), sum(dead), sum(corrections)"
        f" FROM {DATABASE}.ledger FINAL WHERE {_where(part)} GROUP BY namespace, received_hour",
        settings=_FINAL,
    )
    names = ("accepted", "stored", "duplicate", "conflict", "dead", "corrections")
    return {
        (row[0], int(row[1])): Counts(**dict(zip(names, map(int, row[2:]), strict=True)))
        for row in rows
    }


def _stored(clickhouse: ClickHouse, part: Slice) -> tuple[dict[Place, int], dict[Place, int]]:
    """Events and amendments in `events`.

    An amendment may carry the time at which its event was received first, or that of its
    correction: amendments are compared by the hour of their append.
    """
    rows = clickhouse.query(
        f"SELECT namespace, if(amendment = 1, {_APPENDED}, {_RECEIVED}) AS hour, amendment,"
        f" {_DISTINCT} FROM {DATABASE}.events WHERE {_where(part)}"
        " GROUP BY namespace, hour, amendment",
        settings=BACKGROUND,
    )
    found: tuple[dict[Place, int], dict[Place, int]] = ({}, {})
    for namespace, hour, amendment, count in rows:
        found[int(amendment)][namespace, int(hour)] = int(count)
    return found


def _uncounted(
    clickhouse: ClickHouse, part: Slice, events: dict[Place, int]
) -> dict[Place, Counts]:
    """All that the tables hold of events, outcomes and corrections."""
    outcomes: dict[Place, dict[str, int]] = {p: {"stored": n} for p, n in events.items()}
    for namespace, hour, outcome, count in clickhouse.query(
        f"SELECT namespace, {_RECEIVED} AS hour, toString(outcome), {_DISTINCT}"
        f" FROM {DATABASE}.event_outcomes WHERE {_where(part)} GROUP BY namespace, hour, outcome"
    ):
        outcomes.setdefault((namespace, int(hour)), {})[outcome] = int(count)
    # An event of a backfill that holds itself back is no correction of the log.
    for namespace, hour, corrections in clickhouse.query(
        f"SELECT namespace, {_RECEIVED} AS hour, {_DISTINCT} FROM {DATABASE}.event_corrections"
        f" WHERE {_where(part)} AND action != 'hold' GROUP BY namespace, hour"
    ):
        outcomes.setdefault((namespace, int(hour)), {})["corrections"] = int(corrections)
    for namespace, hour, amended in clickhouse.query(
        f"SELECT namespace, {_APPENDED} AS hour, {_DISTINCT} FROM {DATABASE}.event_corrections"
        f" WHERE {_where(part)} AND action = 'amend' AND effect = 'applied'"
        " GROUP BY namespace, hour"
    ):
        outcomes.setdefault((namespace, int(hour)), {})["amended"] = int(amended)
    return {place: Counts(**counts) for place, counts in outcomes.items()}


class LogCheck:
    """Holds the ledger against the records that the log still has.

    Reads on a thread of its own, whose reader of the log goes with it. Use as a context manager.
    """

    def __init__(
        self, clickhouse: ClickHouse, logs: Mapping[int, EventLog], *, gapless: bool
    ) -> None:
        """Names the parts.

        Args:
            clickhouse: the store.
            logs: the generations of the log that can be read.
            gapless: every offset of this log is a record's, so that of records it gave back the
                ledger must have a row for each offset.
        """
        self._clickhouse = clickhouse
        self._logs = logs
        self._gapless = gapless
        self._pool = ThreadPoolExecutor(1, "recount")

    def __enter__(self) -> "LogCheck":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def check(self, part: Slice) -> list[Imbalance]:
        """Records of a slice that the ledger does not have, or with other counts.

        Of records that the log gave back nothing is known; of a whole generation neither.

        Raises:
            Transient: the log or ClickHouse is away.
        """
        wrong: list[Imbalance] = []
        log = self._logs.get(part.generation)
        if log is None:
            return wrong
        if self._gapless:
            wrong += self._gaps(part)
        for records in self._read(log, part):
            known = self._counts(part, records[0].offset, records[-1].offset)
            for record in records:
                said = known.get(record.offset)
                count = events_in(record.value)
                # What can't be taken apart is one dead letter of nobody, whatever its head says.
                if said is None or (said[0] != count and not said[1]):
                    wrong += _of_record(record, part, count, said[0] if said else 0)
        return wrong

    def _read(self, log: EventLog, part: Slice) -> Iterator[list[StoredRecord]]:
        at = max(part.after, log.released(part.partition))
        end = min(part.through, log.end(part.partition))
        while at < end:
            try:
                read = self._pool.submit(log.read, part.partition, at, _READ_BYTES).result()
            except PermanentFault:
                # Retention may have gone on meanwhile.
                if (released := log.released(part.partition)) <= at:
                    raise
                at = released
                continue
            records = [record for record in read if record.offset <= end]
            if not records:
                return
            yield records
            at = records[-1].offset

    def _counts(self, part: Slice, first: int, last: int) -> dict[int, tuple[int, bool]]:
        """By offset: events and corrections, and whether the record can't be taken apart."""
        rows = self._clickhouse.query(
            "SELECT log_offset, sum(accepted) + sum(corrections), countIf(namespace = '') > 0"
            f" FROM {DATABASE}.ledger FINAL WHERE log_generation = {part.generation}"
            f" AND log_partition = {part.partition} AND log_offset BETWEEN {first} AND {last}"
            " GROUP BY log_offset",
            settings=_FINAL,
        )
        return {int(row[0]): (int(row[1]), bool(row[2])) for row in rows}

    def _gaps(self, part: Slice) -> list[Imbalance]:
        ((count, last, last_us),) = self._clickhouse.query(
            "SELECT uniqExact(log_offset), toInt64(max(log_offset)),"
            f" toUnixTimestamp64Micro(max(appended_at)) FROM {DATABASE}.ledger"
            f" WHERE {_where(part)}"
        )
        expected = int(last) - part.after if count else 0
        if count == expected:
            return []
        off = Difference(what="records", expected=expected, found=int(count))
        return [_imbalance(EVERYBODY, int(last_us) // _HOUR_US, part, (off,))]


def _of_record(record: StoredRecord, part: Slice, count: int, said: int) -> list[Imbalance]:
    """What is off with a record, by whose events are in it and when they came."""
    off = (Difference(what="log", expected=count, found=said),)
    try:
        decoded = decode_record(record.value)
    except (CorruptRecord, UnknownVersion):
        return [_imbalance(EVERYBODY, record.appended_us // _HOUR_US, part, off)]
    places = {
        (decoded.namespaces[name], received_us // _HOUR_US)
        for received_us, _, name in decoded.requests
    }
    return [_imbalance(namespace, hour, part, off) for namespace, hour in sorted(places)]


def merged(found: Sequence[Imbalance], now: datetime) -> list[Imbalance]:
    """One imbalance for each place of a slice, found now; of many records off their sum."""
    places: dict[tuple[str, datetime], dict[str, Difference]] = {}
    for each in found:
        differences = places.setdefault((each.namespace, each.hour), {})
        for one in each.differences:
            before = differences.get(one.what)
            differences[one.what] = Difference(
                what=one.what,
                expected=one.expected + (before.expected if before else 0),
                found=one.found + (before.found if before else 0),
            )
    parts: dict[tuple[str, datetime], Any] = {(e.namespace, e.hour): e.part for e in found}
    return [
        Imbalance(
            namespace=namespace,
            hour=hour,
            part=parts[namespace, hour],
            differences=tuple(differences.values()),
            found_at=now,
        )
        for (namespace, hour), differences in places.items()
    ]
