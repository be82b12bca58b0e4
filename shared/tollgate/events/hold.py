"""The loader's part of what meets an event as it comes in: voids that waited for it, and holds.

Both are decided by the event's own place in the log and what stands before it.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tollgate.events.backfill import EXTENSION, backfill_of
from tollgate.events.batch import STORED, Batch
from tollgate.events.correction import CorrectionLine, Place, Version, line_of
from tollgate.events.event import column_time
from tollgate.events.key_state import Timed, end_waiting, hold_of
from tollgate.platform.clickhouse import DATABASE, ClickHouse

# As it stands in a line: JSON within a JSON string.
_MARK: Final = b'\\"' + EXTENSION.encode() + b'\\":'
_OWN: Final = "log_generation, log_partition, log_offset, log_index"
_ELSEWHERE: Final = (
    "(log_generation != {generation:UInt32} OR log_partition = {partition:UInt16})"
    " AND NOT (log_generation = {generation:UInt32} AND log_offset > {frontier:Int64})"
)
_BEYOND: Final = (
    "applied_generation = {generation:UInt32} AND applied_partition = {partition:UInt16}"
    " AND applied_offset > {frontier:Int64}"
)


class Waiting:
    """Voids of one partition that wait for their events, as far as it is loaded."""

    def __init__(self) -> None:
        self._held: dict[bytes, list[tuple[CorrectionLine, Place, int, int]]] = {}
        self._wanted: npt.NDArray[np.uint64] | None = None

    def read(self, clickhouse: ClickHouse, generation: int, partition: int, frontier: int) -> None:
        """Finds them again.

        Raises:
            Transient: ClickHouse is away.
        """
        self._held.clear()
        self._wanted = None
        waiting = f"effect = 'waiting' AND {_ELSEWHERE}"
        rows = clickhouse.query(
            f"SELECT {_OWN}, correction, operation, reason, actor, content, namespace, source, id,"
            " lower(hex(key_hash)), toUnixTimestamp64Micro(received_at),"
            f" toUnixTimestamp64Micro(appended_at) FROM {DATABASE}.event_corrections"
            f" WHERE {waiting} AND ({_OWN}) NOT IN"
            f" (SELECT {_OWN} FROM {DATABASE}.event_corrections WHERE action = 'void'"
            f" AND effect != 'waiting' AND NOT ({_BEYOND}) AND ({_OWN}) IN"
            f" (SELECT {_OWN} FROM {DATABASE}.event_corrections WHERE {waiting}))"
            f" ORDER BY {_OWN} LIMIT 1 BY {_OWN}",
            {"generation": generation, "partition": partition, "frontier": frontier},
        )
        for row in rows:
            place: Place = (row[0], row[1], row[2], row[3])
            self._hold(_waiting_line(row), place, row[14], row[13])

    def meet(self, batch: Batch) -> list[Timed]:
        """What events of a batch meet as they come in.

        Waiting voids, and holds; at most one of them takes an event away.
        """
        found: list[Timed] = []
        taken: set[int] = set()
        ended: set[Place] = set()
        for number in self._near(batch):
            line = batch.line(number)
            held = [
                each
                for each in self._held.get(batch.keys[number].tobytes(), ())
                if each[0].key == (line.namespace, line.source, line.id) and each[1] not in ended
            ]
            event = Version(
                place=batch.position(number), type=line.type, subject=line.subject, time=line.time
            )
            times = {place: when for _, place, *when in held}
            for applied in end_waiting([(void, place) for void, place, *_ in held], event):
                ended.add(applied.place)
                taken.add(number)
                found.append(Timed(applied, *times[applied.place]))
        for number, name in holds(batch).items():
            if number not in taken:
                hold = hold_of(batch.line(number), batch.position(number), name)
                received_us = int(batch.received_us[number])
                found.append(Timed(hold, batch.appended_us(number), received_us))
        return found

    def _near(self, batch: Batch) -> list[int]:
        """Stored events that a void may wait for."""
        if not self._held:
            return []
        if self._wanted is None:
            self._wanted = np.array([np.frombuffer(key, np.uint64)[0] for key in self._held])
        near = np.isin(batch.keys[:, 0], self._wanted) & (batch.outcome == STORED)
        found: list[int] = np.flatnonzero(near).tolist()
        return found

    def note(self, applied: Iterable[Timed]) -> None:
        """Takes in what is written: voids that wait from now on, and those that met their event."""
        for each, appended_us, received_us in applied:
            if each.effect == "waiting":
                self._hold(each.line, each.place, appended_us, received_us)
                continue
            key = bytes.fromhex(each.line.key_hash)
            if key in self._held:
                left = [held for held in self._held[key] if held[1] != each.place]
                self._held[key] = left
                if not left:
                    del self._held[key]
                    self._wanted = None

    def _hold(self, line: CorrectionLine, place: Place, appended_us: int, received_us: int) -> None:
        self._wanted = None
        held = self._held.setdefault(bytes.fromhex(line.key_hash), [])
        if all(known[1] != place for known in held):
            held.append((line, place, appended_us, received_us))


def _waiting_line(row: Sequence[Any]) -> CorrectionLine:
    correction, operation, reason, actor, content, namespace, source, event_id, key = row[4:13]
    received = column_time(row[13])
    return line_of(
        (
            *(row[3], correction, operation, "void", reason, actor, content, ""),
            *(namespace, source, event_id, received, 0, received, key),
        )
    )


def holds(batch: Batch) -> dict[int, str]:
    """Stored events of a batch that belong to a backfill, by number, with its name."""
    found = {}
    for place_number, place in enumerate(batch.places):
        # One search through the bytes: events of backfills are rare.
        if _MARK not in place.text:
            continue
        for number in np.flatnonzero(batch.place_of == place_number).tolist():
            if batch.outcome[number] != STORED or _MARK not in batch.text(number):
                continue
            if name := backfill_of(batch.line(number).extensions):
                found[number] = name
    return found
