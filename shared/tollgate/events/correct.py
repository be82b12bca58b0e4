"""The loader's part of corrections: what each does to its key, and voids that wait for an event.

Like every decision of the loader it depends only on the log before it: rows at or after the batch
are left out of what is read, so a batch may be loaded twice.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from tollgate.events.batch import DEAD, STORED, Batch
from tollgate.events.correction import (
    NOWHERE,
    Applied,
    CorrectionLine,
    KeyState,
    Place,
    Version,
    apply_correction,
    decode_correction,
    end_waiting,
)
from tollgate.events.event import column_time
from tollgate.events.record import LINE_COLUMNS
from tollgate.events.rows import EVENT_COLUMNS, instant_text
from tollgate.events.stored_events import OF_PIECE, Key, pieces_of
from tollgate.platform.clickhouse import DATABASE, ClickHouse

AMENDMENT_COLUMNS: Final = (*EVENT_COLUMNS, "amendment")
_SUPERSEDED: Final = tuple(
    f"superseded_{name}"
    for name in ("generation", "partition", "offset", "index", "type", "subject", "time")
)
_PLACE: Final = ("generation", "partition", "offset", "index")
CORRECTION_COLUMNS: Final = (
    *("namespace", "source", "id", "key_hash", "correction", "operation", "action", "effect"),
    *("reason", "actor"),
    *_SUPERSEDED,
    *(f"applied_{name}" for name in _PLACE),
    *(f"log_{name}" for name in _PLACE),
    *("received_at", "appended_at"),
)
# A bound value is a form field of at most 128 KiB (`http_max_field_value_size`); a key takes 35.
_KEYS_MAX: Final = 3000
_OWN: Final = "log_generation, log_partition, log_offset, log_index"
_APPLIED: Final = "applied_generation, applied_partition, applied_offset, applied_index"
_ELSEWHERE: Final = (
    "(log_generation != {generation:UInt32} OR log_partition = {partition:UInt16})"
    " AND NOT (log_generation = {generation:UInt32} AND log_offset > {frontier:Int64})"
)
_BEYOND: Final = (
    "applied_generation = {generation:UInt32} AND applied_partition = {partition:UInt16}"
    " AND applied_offset > {frontier:Int64}"
)
_encode = msgspec.json.Encoder().encode


class Waiting:
    """Voids of one partition that wait for their events, as far as it is loaded."""

    def __init__(self) -> None:
        self._held: dict[bytes, list[tuple[CorrectionLine, Place, int]]] = {}

    def read(self, clickhouse: ClickHouse, generation: int, partition: int, frontier: int) -> None:
        """Finds them again.

        Raises:
            Transient: ClickHouse is away.
        """
        self._held.clear()
        rows = clickhouse.query(
            f"SELECT {_OWN}, any(correction), any(operation), any(reason), any(actor),"
            " any(namespace), any(source), any(id), lower(hex(any(key_hash))),"
            " toUnixTimestamp64Micro(any(received_at)), toUnixTimestamp64Micro(any(appended_at))"
            f" FROM {DATABASE}.event_corrections WHERE action = 'void' AND {_ELSEWHERE}"
            f" GROUP BY {_OWN} HAVING countIf(effect = 'waiting') > 0"
            f" AND countIf(effect = 'applied' AND NOT ({_BEYOND})) = 0 ORDER BY {_OWN}",
            {"generation": generation, "partition": partition, "frontier": frontier},
        )
        for row in rows:
            place: Place = (row[0], row[1], row[2], row[3])
            self._hold(_waiting_line(row), place, row[13])

    def meet(self, batch: Batch) -> list[tuple[Applied, int]]:
        """What waiting voids did to events of a batch, with the append times of the voids."""
        if not self._held:
            return []
        wanted = np.array([np.frombuffer(key, np.uint64) for key in self._held])
        near = np.isin(batch.keys[:, 0], wanted[:, 0]) & (batch.outcome == STORED)
        found: list[tuple[Applied, int]] = []
        ended: set[Place] = set()
        for number in np.flatnonzero(near).tolist():
            line = batch.line(number)
            held = [
                (void, place, appended_us)
                for void, place, appended_us in self._held.get(batch.keys[number].tobytes(), ())
                if void.key == (line.namespace, line.source, line.id) and place not in ended
            ]
            event = Version(
                place=batch.position(number), type=line.type, subject=line.subject, time=line.time
            )
            times = {place: appended_us for _, place, appended_us in held}
            for applied in end_waiting([(void, place) for void, place, _ in held], event):
                ended.add(applied.place)
                found.append((applied, times[applied.place]))
        return found

    def note(self, applied: Iterable[tuple[Applied, int]]) -> None:
        """Takes in what is written: voids that wait from now on, and those that met their event."""
        for each, appended_us in applied:
            if each.effect == "waiting":
                self._hold(each.line, each.place, appended_us)
                continue
            key = bytes.fromhex(each.line.key_hash)
            if key in self._held:
                left = [held for held in self._held[key] if held[1] != each.place]
                self._held[key] = left
                if not left:
                    del self._held[key]

    def _hold(self, line: CorrectionLine, place: Place, appended_us: int) -> None:
        held = self._held.setdefault(bytes.fromhex(line.key_hash), [])
        if all(known[1] != place for known in held):
            held.append((line, place, appended_us))


def _waiting_line(row: Sequence[Any]) -> CorrectionLine:
    correction, operation, reason, actor, namespace, source, event_id, key, received_us = row[4:13]
    received = column_time(received_us)
    return CorrectionLine(
        row[3],
        *(correction, operation, "void", reason, actor, namespace, source, event_id),
        *(received, 0, received, key),
        *[""] * 7,
    )


def decide_corrections(batch: Batch, clickhouse: ClickHouse) -> list[tuple[Applied, int]]:
    """What the corrections of a batch do, in order, with their append times.

    Lines that can't be read become dead letters and do nothing.

    Raises:
        Transient: ClickHouse is away; nothing was decided, call again.
    """
    lines = _readable(batch)
    if not lines:
        return []
    begin: Place = (batch.generation, batch.partition, batch.records[0].offset, 0)
    states = _states(clickhouse, {line.key: line.key_hash for line in lines.values()}, begin)
    return [
        (
            apply_correction(states.setdefault(line.key, KeyState()), line, batch.position(number)),
            batch.appended_us(number),
        )
        for number, line in lines.items()
    ]


def _readable(batch: Batch) -> dict[int, CorrectionLine]:
    found = {}
    for number in range(len(batch)):
        if batch.outcome[number] == DEAD:
            continue
        try:
            found[number] = decode_correction(batch.text(number))
        except msgspec.DecodeError as problem:
            batch.bury(number, "unreadable_line", str(problem))
    return found


def _states(clickhouse: ClickHouse, hashes: Mapping[Key, str], begin: Place) -> dict[Key, KeyState]:
    """The state of each key just before a place; keys of other names may be among them."""
    corrections: dict[Key, list[Done]] = {}
    ordered = sorted(hashes.values())
    for start in range(0, len(ordered), _KEYS_MAX):
        keys = {"hashes": ordered[start : start + _KEYS_MAX]}
        corrections |= _read_corrections(clickhouse, keys, begin)
    return {
        key: _state_of(rows, corrections.get(key, []))
        for key, rows in _read_versions(clickhouse, hashes, begin).items()
    }


def _read_versions(
    clickhouse: ClickHouse, keys: Iterable[Key], begin: Place
) -> dict[Key, dict[Place, tuple[Version, bool]]]:
    """By key and place: the version, and whether it is an amendment."""
    rows: list[Sequence[Any]] = []
    for piece in pieces_of(keys):
        rows += clickhouse.query(
            f"SELECT namespace, source, id, {_OWN}, type, subject, toUnixTimestamp64Micro(time),"
            f" amendment FROM {DATABASE}.events WHERE {OF_PIECE}",
            piece,
        )
    found: dict[Key, dict[Place, tuple[Version, bool]]] = {}
    for row in rows:
        place: Place = (row[3], row[4], row[5], row[6])
        if place < begin:
            version = Version(place=place, type=row[7], subject=row[8], time=column_time(row[9]))
            found.setdefault((row[0], row[1], row[2]), {})[place] = (version, bool(row[10]))
    return found


Done = tuple[Place, str, Place]
"""Where an applied correction stands, what it does, and since when."""


def _read_corrections(
    clickhouse: ClickHouse, keys: dict[str, list[str]], begin: Place
) -> dict[Key, list[Done]]:
    rows = clickhouse.query(
        f"SELECT DISTINCT namespace, source, id, {_OWN}, toString(action), {_APPLIED}"
        f" FROM {DATABASE}.event_corrections"
        " WHERE key_hash IN {hashes:Array(UUID)} AND effect = 'applied'",
        keys,
    )
    found: dict[Key, list[Done]] = {}
    for row in rows:
        place: Place = (row[3], row[4], row[5], row[6])
        since: Place = (row[8], row[9], row[10], row[11])
        if place < begin and since < begin:
            found.setdefault((row[0], row[1], row[2]), []).append((place, row[7], since))
    return found


def _state_of(rows: dict[Place, tuple[Version, bool]], corrections: list[Done]) -> KeyState:
    claims = [place for place, (_, is_amendment) in rows.items() if not is_amendment]
    if not claims:
        return KeyState()
    claim = rows[max(claims)][0]
    state = KeyState(claim=claim, current=claim)
    for place, action, since in sorted(corrections, key=lambda done: (done[2], done[0])):
        # A void that waited stands before the event, and holds from it on.
        if since >= claim.place:
            state.current = rows[place][0] if action == "amend" else None
    return state


def correction_rows(applied: Iterable[tuple[Applied, int]]) -> bytes:
    """Rows of `event_corrections`."""
    rows = []
    for each, appended_us in applied:
        line, old = each.line, each.superseded
        key = (line.namespace, line.source, line.id, line.key_hash)
        replaced = (
            (*NOWHERE, "", "", "0.000000")
            if old is None
            else (*old.place, old.type, old.subject, old.time)
        )
        rows.append(
            (
                *key,
                *(line.correction, line.operation, line.action, each.effect),
                *(line.reason, line.actor),
                *replaced,
                *each.since,
                *each.place,
                *(line.received_at, instant_text(appended_us)),
            )
        )
    return b"".join(_encode(row) + b"\n" for row in rows)


def amendment_row(applied: Applied, appended_us: int) -> bytes:
    """The row of `arrivals` that counts from an amendment on."""
    generation, partition, offset, _ = applied.place
    event = applied.line.event
    members = tuple(getattr(event, name) for name in LINE_COLUMNS)
    row = (generation, partition, offset, instant_text(appended_us), *members, 1)
    return _encode(row) + b"\n"
