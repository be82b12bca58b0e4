"""Loading in the test's own process: real engine, real log, records made by hand.

Every `Stage` has a generation and a namespace of its own, so that tests share one engine and never
see each other's rows.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tollgate.core.clock import datetime_from_us
from tollgate.core.errors import Transient
from tollgate.events.batch import Batch
from tollgate.events.correction import (
    Request,
    Version,
    encode_correction,
    encode_key,
    place_text,
)
from tollgate.events.event import Arrival, Attributes, column_time, encode
from tollgate.events.facts import counting, within
from tollgate.events.identity import key_hash, key_prefix
from tollgate.events.ledger import Frontier
from tollgate.events.load import DAY_US, Loader
from tollgate.events.load_progress import LoadLimits
from tollgate.events.position import Token
from tollgate.events.record import (
    CORRECTIONS_VERSION,
    Encoded,
    Group,
    encode_record,
    holds_corrections,
)
from tollgate.platform.clickhouse import DATABASE, ClickHouse
from tollgate.platform.event_log import StoredRecord
from tollgate.platform.segment_log import SegmentLog

NOON_US = 1_793_620_800 * 1_000_000
"""2026-11-02T12:00:00Z, a Monday."""
HOUR_US = 3_600_000_000


class SetClock:
    """A clock that stands where the test puts it."""

    def __init__(self, now_us: int = NOON_US) -> None:
        self.us = now_us

    def now_us(self) -> int:
        return self.us

    def now(self) -> datetime:
        return datetime_from_us(self.us)


class Interruptible(ClickHouse):
    """ClickHouse that can be told to fail at its n-th insert, before or after the write."""

    def __init__(self, *, path: Path | None = None, url: str = "") -> None:
        super().__init__(path=path, url=url)
        self._left = 0
        self._after = False

    def fail_at(self, insert: int, *, after: bool) -> None:
        """The `insert`-th insert from now fails (1 is the next); 0: none does."""
        self._left, self._after = insert, after

    def insert(self, table: str, columns: Sequence[str], rows: bytes) -> None:
        self._interrupted(lambda: super(Interruptible, self).insert(table, columns, rows))

    def insert_arrow(self, table: str, columns: Sequence[str], rows: bytes) -> None:
        self._interrupted(lambda: super(Interruptible, self).insert_arrow(table, columns, rows))

    def _interrupted(self, write: Callable[[], None]) -> None:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise Transient("interrupted before the write")
        write()
        if self._left == 0:
            raise Transient("interrupted after the write")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """An event as a test writes it down. `time_us` None: the client gave none."""

    id: str
    data: str = '{"n":1}'
    time_us: int | None = None
    type: str = "t"
    backfill: str = ""
    subject: str = "u"


@dataclass(frozen=True, slots=True, kw_only=True)
class Correct:
    """A correction as a test writes it down: of `amends` it makes the new content."""

    id: str
    amends: Sent | None = None
    correction: str = ""
    operation: str = ""
    content: str = ""
    target: tuple[int, int] | None = None


class Stage:
    """A log, its loaders, and what they have stored."""

    def __init__(self, clickhouse: Interruptible, log: SegmentLog, namespace: str) -> None:
        self.clickhouse = clickhouse
        self.log = log
        self.namespace = namespace
        self.clock = SetClock()

    def encoded(self, sent: Sent, received_us: int = NOON_US) -> Encoded:
        """The log's form of an event."""
        arrival = Arrival(
            namespace=self.namespace, received_us=received_us, event_bytes_max=1 << 20
        )
        attributes = Attributes(
            id=sent.id,
            source="s",
            type=sent.type,
            subject=sent.subject,
            time_us=sent.time_us,
            datacontenttype="",
            dataschema="",
            extensions=f'{{"tollgatebackfill":"{sent.backfill}"}}' if sent.backfill else "",
        )
        return encode(attributes, sent.data.encode(), arrival)

    def record(self, offset: int, appended_us: int, *events: Sent) -> StoredRecord:
        """A record of the log; server time is the time of appending."""
        lines = [self.encoded(event, appended_us) for event in events]
        value = encode_record([Group(self.namespace, appended_us, lines)])
        return StoredRecord(offset=offset, appended_us=appended_us, value=value)

    def corrections(self, offset: int, appended_us: int, *wanted: Correct) -> StoredRecord:
        """A record of corrections."""
        lines = [self._correction(each, appended_us) for each in wanted]
        value = encode_record([Group(self.namespace, appended_us, lines)], CORRECTIONS_VERSION)
        return StoredRecord(offset=offset, appended_us=appended_us, value=value)

    def _correction(self, wanted: Correct, received_us: int) -> Encoded:
        target = None
        if wanted.target is not None:
            place = (self.log.generation, 0, *wanted.target)
            target = Version(place=place, type="t", subject="u", time=column_time(NOON_US))
        request = Request(
            correction=wanted.correction,
            operation=wanted.operation,
            action="amend" if wanted.amends else "void",
            reason="because",
            actor="tester",
            content=wanted.content,
            target=place_text(target.place) if target else "",
        )
        if wanted.amends is not None:
            return encode_correction(request, self.encoded(wanted.amends, received_us))
        key = (self.namespace, "s", wanted.id)
        hashed = key_hash(key_prefix(self.namespace), "s", wanted.id)
        line = encode_key(key, column_time(received_us), hashed, target)
        return encode_correction(request, line)

    def loader(
        self,
        window_us: int = 0,
        events_max: int = 50_000,
        wait_ms: int = 0,
        dead_letters_max: int = 100,
    ) -> Loader:
        """A loader that has read the ledger."""
        loader = Loader(
            log=self.log,
            partition=0,
            clickhouse=self.clickhouse,
            frontier=Frontier(self.clickhouse),
            limits=LoadLimits(
                events_max=events_max,
                wait_ms=wait_ms,
                window_us=window_us,
                dead_letters_max=dead_letters_max,
            ),
            clock=self.clock,
        )
        loader.prepare()
        return loader

    def _rows(self, sql: str) -> Sequence[Sequence[Any]]:
        return self.clickhouse.query(sql.format(db=DATABASE), {"generation": self.log.generation})

    def stored(self) -> set[tuple[int, int]]:
        """(offset, index) of the events that count."""
        rows = self._rows(
            "SELECT log_offset, log_index FROM {db}.events FINAL"
            " WHERE log_generation = {{generation:UInt32}}"
        )
        found = {(row[0], row[1]) for row in rows}
        assert len(found) == len(rows)
        return found

    def counting(self) -> list[tuple[int, int]]:
        """(offset, index) of the rows that count, in order."""
        rows = self.clickhouse.query(
            f"SELECT log_offset, log_index FROM {DATABASE}.events FINAL WHERE"
            f" namespace = {{namespace:String}} AND {counting('{namespace:String}')}"
            " ORDER BY log_offset, log_index",
            {"namespace": self.namespace},
        )
        return [(row[0], row[1]) for row in rows]

    def counting_through(self, offsets: int) -> list[list[tuple[int, int]]]:
        """The same as of each of the first offsets."""
        asked = []
        for offset in range(offsets):
            vector = Token(generation=self.log.generation, offsets={0: offset})
            conditions = f"{within(vector)} AND {counting('{namespace:String}', vector=vector)}"
            asked.append(
                f"SELECT {offset} AS through, log_offset, log_index FROM {DATABASE}.events FINAL"
                f" WHERE namespace = {{namespace:String}} AND {conditions}"
            )
        rows = self.clickhouse.query(
            f"SELECT * FROM ({' UNION ALL '.join(asked)}) ORDER BY ALL",
            {"namespace": self.namespace},
        )
        found: list[list[tuple[int, int]]] = [[] for _ in range(offsets)]
        for through, offset, index in rows:
            found[through].append((offset, index))
        return found

    def claims(self) -> set[tuple[int, int]]:
        """(offset, index) of the events that claimed a key."""
        rows = self._rows(
            "SELECT DISTINCT log_offset, log_index FROM {db}.event_keys FINAL"
            " WHERE log_generation = {{generation:UInt32}}"
        )
        return {(row[0], row[1]) for row in rows}

    def outcomes(self) -> dict[tuple[int, int], tuple[str, tuple[int, int]]]:
        """By (offset, index): what became of the others, and (offset, index) of the first."""
        rows = self._rows(
            "SELECT log_offset, log_index, toString(outcome), first_offset, first_index"
            " FROM {db}.event_outcomes FINAL WHERE log_generation = {{generation:UInt32}}"
        )
        found = {(row[0], row[1]): (row[2], (row[3], row[4])) for row in rows}
        assert len(found) == len(rows)
        return found

    def dead_letters(self) -> list[tuple[int, int, str, str]]:
        """(offset, index, code, event) of dead letters, in order."""
        return [
            (row[0], row[1], row[2], row[3])
            for row in self._rows(
                "SELECT log_offset, log_index, code, event FROM {db}.event_outcomes FINAL"
                " WHERE log_generation = {{generation:UInt32}} AND outcome = 'dead'"
                " ORDER BY log_offset, log_index"
            )
        ]

    def ledger(self) -> dict[int, tuple[int, ...]]:
        """By offset: accepted, stored, duplicate, conflict, dead."""
        rows = self._rows(
            "SELECT log_offset, sum(accepted), sum(stored), sum(duplicate), sum(conflict),"
            " sum(dead) FROM {db}.ledger FINAL"
            " WHERE log_generation = {{generation:UInt32}} GROUP BY log_offset"
        )
        return {row[0]: tuple(map(int, row[1:])) for row in rows}

    def everything(self) -> Mapping[str, object]:
        """All that loading wrote, to compare before and after."""
        return {
            "stored": self.stored(),
            "claims": self.claims(),
            "outcomes": self.outcomes(),
            "ledger": self.ledger(),
        }


def by_day(records: Sequence[StoredRecord]) -> Iterator[list[StoredRecord]]:
    """Batches as the loader cuts them: at the edges of append days, and by kind."""
    for _, group in itertools.groupby(
        records, lambda record: (record.appended_us // DAY_US, holds_corrections(record.value))
    ):
        yield list(group)


def load_all(loader: Loader, records: Sequence[StoredRecord]) -> list[Batch]:
    """Loads records in as few batches as may be."""
    return [loader.load(batch) for batch in by_day(records)]


NewStage = Callable[..., AbstractContextManager[Stage]]
