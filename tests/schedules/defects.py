"""Known bugs, planted between the product and its dependencies: the runner must find each of them.

What the product would do wrong is done to what passes by, so that the product stays as it is.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.schedules.archiving import SimulatedObjects
from tests.schedules.edges import CopyLog, CopyStore
from tests.schedules.world import NewLog, NewStore
from tollgate.core.errors import Transient
from tollgate.platform.event_log import LOADER, Done, StoredRecord

Rows = Sequence[Sequence[Any]]


def _lines(rows: bytes) -> list[list[Any]]:
    return [json.loads(line) for line in rows.splitlines()]


def _rows(lines: Sequence[Sequence[Any]]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


class LedgerFirst(CopyStore):
    """The ledger is written before the events that it counts."""

    def insert(self, table: str, columns: Sequence[str], rows: bytes) -> None:
        if table == "arrivals" and self.held is None:
            self.held = (columns, rows)
            return
        super().insert(table, columns, rows)
        if table == "ledger" and self.held is not None:
            (held_columns, held), self.held = self.held, None
            super().insert("arrivals", held_columns, held)

    held: tuple[Sequence[str], bytes] | None = None


class EventsDropped(CopyStore):
    """Now and then an insert of events is answered and not done."""

    inserts = 0

    def write(self, table: str, columns: Sequence[str], rows: bytes) -> None:
        EventsDropped.inserts += table == "arrivals"
        if table != "arrivals" or EventsDropped.inserts % 20:
            super().write(table, columns, rows)


class AppliedTwice(CopyStore):
    """Events that are sent again are stored under another position."""

    def insert(self, table: str, columns: Sequence[str], rows: bytes) -> None:
        try:
            super().insert(table, columns, rows)
        except Transient:
            if table == "arrivals":
                moved = [[*line[:2], line[2] + 1000, *line[3:]] for line in _lines(rows)]
                self.store.insert(table, columns, _rows(moved))
            raise


class FailureIgnored(CopyStore):
    """An insert that fails counts as done."""

    def insert(self, table: str, columns: Sequence[str], rows: bytes) -> None:
        try:
            super().insert(table, columns, rows)
        except Transient:
            if table != "arrivals":
                raise


class ClaimsUnseen(CopyStore):
    """Dedupe does not look at what is stored."""

    def query(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> Rows:
        found = super().query(sql, parameters, settings)
        return [] if "_partition_id IN" in sql else found


class FiltersEmpty(CopyStore):
    """A loader that starts knows no keys."""

    def query(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> Rows:
        found = super().query(sql, parameters, settings)
        return [] if sql.startswith("SELECT _partition_id, count()") else found


class VoidsForgotten(CopyStore):
    """A loader that starts does not know which voids wait."""

    def query(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> Rows:
        found = super().query(sql, parameters, settings)
        return [] if "effect = 'waiting'" in sql else found


class VoidTwice(CopyStore):
    """A void takes away another event of the same batch as well."""

    def insert(self, table: str, columns: Sequence[str], rows: bytes) -> None:
        if table == "event_corrections":
            at = {name: number for number, name in enumerate(columns)}
            lines = _lines(rows)
            for line in list(lines):
                if line[at["action"]] == "void" and line[at["effect"]] == "applied":
                    other = list(line)
                    other[at["superseded_index"]] += 1
                    lines.append(other)
            rows = _rows(lines)
        super().insert(table, columns, rows)


class CorrectionsDropped(CopyStore):
    """An amendment is stored and what it replaces goes on counting."""

    def write(self, table: str, columns: Sequence[str], rows: bytes) -> None:
        if table != "event_corrections":
            super().write(table, columns, rows)


class CorrectedBackdated(CopyStore):
    """A correction holds from the begin of the log on: answers of before change."""

    def insert(self, table: str, columns: Sequence[str], rows: bytes) -> None:
        if table == "event_corrections":
            lines = _lines(rows)
            for line in lines:
                line[columns.index("applied_offset")] = 0
            rows = _rows(lines)
        super().insert(table, columns, rows)


class AmendmentClaims(CopyStore):
    """An amendment claims its key anew."""

    def insert(self, table: str, columns: Sequence[str], rows: bytes) -> None:
        if columns[-1] == "amendment":
            rows = _rows([[*line[:-1], 0] for line in _lines(rows)])
        super().insert(table, columns, rows)


class FrontierAhead(CopyStore):
    """A loader that starts takes the events for loaded that some loader has begun to write."""

    def query(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> Rows:
        if sql.startswith("SELECT log_offset FROM tollgate.ledger "):
            sql = sql.replace("tollgate.ledger", "tollgate.events")
        return super().query(sql, parameters, settings)


class WindowShort(CopyStore):
    """Housekeeping drops keys that are still claimed."""

    def query(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> Rows:
        if parameters and "before" in parameters:
            before = parameters["before"]
            assert isinstance(before, int)
            parameters = dict(parameters) | {"before": before + 6 * 86_400_000_000}
        return super().query(sql, parameters, settings)


class OutcomesDropped(CopyStore):
    """What was not stored is counted and not kept."""

    def write(self, table: str, columns: Sequence[str], rows: bytes) -> None:
        if table != "event_outcomes":
            super().write(table, columns, rows)


class LateUnseen(CopyStore):
    """What comes for a sealed hour makes no revision of it."""

    def query(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> Rows:
        found = super().query(sql, parameters, settings)
        return [] if sql.startswith("SELECT namespace, hour, sum(events)") else found


class KeysDeaf(CopyStore):
    """The filters' reader loses the end of an answer and does not notice."""

    def numbers_of(self, found: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        return found[:-1]


class AckedFirst(CopyLog):
    """The log acknowledges before it stores."""

    def submit(self, partition: int, values: Sequence[bytes], done: Done) -> None:
        done(self.records.end(partition) + len(values))
        super().submit(partition, values, lambda _outcome: None)


class FailureAcked(CopyLog):
    """An append that failed is acknowledged."""

    def submit(self, partition: int, values: Sequence[bytes], done: Done) -> None:
        def answered(outcome: int | Exception) -> None:
            done(self.records.end(partition) if isinstance(outcome, Exception) else outcome)

        super().submit(partition, values, answered)


class ReleasedEarly(CopyLog):
    """The log may forget what has been read, not what has been written."""

    def read(self, partition: int, after: int, bytes_max: int) -> list[StoredRecord]:
        found = super().read(partition, after, bytes_max)
        if found and bytes_max > 1:
            self.records.release(partition, found[-1].offset, LOADER)
        return found


class RecordSkipped(CopyLog):
    """A reader that is sent back to an offset begins one record too late."""

    after = -2

    def read(self, partition: int, after: int, bytes_max: int) -> list[StoredRecord]:
        found = super().read(partition, after, bytes_max)
        moved, self.after = after != self.after, found[-1].offset if found else after
        return found[1:] if moved and len(found) > 1 and bytes_max > 1 else found


class ObjectsForgotten(SimulatedObjects):
    """Object storage takes every tenth object and does not keep it."""

    puts = 0

    def put(self, name: str, data: bytes) -> bool:
        self.puts += 1
        return bool(self.puts % 10 == 0) or super().put(name, data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """A planted bug."""

    name: str
    new_objects: Callable[[], SimulatedObjects] = SimulatedObjects
    new_store: NewStore = CopyStore
    new_log: NewLog = CopyLog


_STORES = (
    *(LedgerFirst, EventsDropped, AppliedTwice, FailureIgnored, ClaimsUnseen, FiltersEmpty),
    *(VoidsForgotten, VoidTwice, CorrectionsDropped, CorrectedBackdated, AmendmentClaims),
    *(FrontierAhead, WindowShort, OutcomesDropped, LateUnseen, KeysDeaf),
)
_LOGS = (AckedFirst, FailureAcked, ReleasedEarly, RecordSkipped)
DEFECTS = (
    *(Defect(name=each.__name__, new_store=each) for each in _STORES),
    *(Defect(name=each.__name__, new_log=each) for each in _LOGS),
    Defect(name=ObjectsForgotten.__name__, new_objects=ObjectsForgotten),
)
