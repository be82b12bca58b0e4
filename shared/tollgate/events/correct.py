"""The loader's part of corrections: what each does to its key.

Like every decision of the loader it depends only on the log before it: rows at or after the batch
are left out of what is read, so a batch may be loaded twice.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from tollgate.events.batch import DEAD, Batch
from tollgate.events.correction import (
    CorrectionLine,
    Place,
    Version,
    decode_correction,
    place_from_text,
)
from tollgate.events.event import column_time
from tollgate.events.key_state import (
    NOWHERE,
    Applied,
    Done,
    KeyState,
    Timed,
    apply_correction,
    state_of,
)
from tollgate.events.record import LINE_COLUMNS
from tollgate.events.rows import EVENT_COLUMNS, instant_text
from tollgate.events.stored_events import OF_PIECE, Key, pieces_of
from tollgate.platform.clickhouse import DATABASE, ClickHouse

AMENDMENT_COLUMNS: Final = (*EVENT_COLUMNS, "amendment")
_PLACE: Final = ("generation", "partition", "offset", "index")
CORRECTION_COLUMNS: Final = (
    *("namespace", "source", "id", "key_hash", "correction", "operation", "action", "effect"),
    *("reason", "actor", "content", "target"),
    *(f"superseded_{name}" for name in (*_PLACE, "type", "subject", "time")),
    *(f"applied_{name}" for name in _PLACE),
    *(f"log_{name}" for name in _PLACE),
    *("received_at", "appended_at"),
)
# A bound value is a form field of at most 128 KiB (`http_max_field_value_size`); a key takes 35.
_KEYS_MAX: Final = 3000
_OWN: Final = ", ".join(f"log_{name}" for name in _PLACE)
_APPLIED: Final = ", ".join(f"applied_{name}" for name in _PLACE)
_SUPERSEDED: Final = ", ".join(f"superseded_{name}" for name in _PLACE)
_encode = msgspec.json.Encoder().encode


def decide_corrections(batch: Batch, clickhouse: ClickHouse) -> list[Timed]:
    """What the corrections of a batch do, in order.

    Lines that can't be read become dead letters and do nothing.

    Raises:
        Transient: ClickHouse is away; nothing was decided, call again.
    """
    lines = _readable(batch)
    if not lines:
        return []
    begin: Place = (batch.generation, batch.partition, batch.records[0].offset, 0)
    keys: dict[Key, tuple[str, bool]] = {}
    for line in lines.values():
        # Of a key of which only named versions are voided the events are not read: which of them
        # were ended before is known without.
        needs = line.action == "amend" or not line.target
        keys[line.key] = (line.key_hash, needs or keys.get(line.key, ("", False))[1])
    states = read_states(clickhouse, keys, begin)
    return [
        Timed(
            apply_correction(states[line.key], line, batch.position(number)),
            appended_us=batch.appended_us(number),
            received_us=int(batch.received_us[number]),
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


def read_states(
    clickhouse: ClickHouse, keys: Mapping[Key, tuple[str, bool]], begin: Place | None = None
) -> dict[Key, KeyState]:
    """The states of keys just before a place.

    Args:
        clickhouse: the store.
        keys: with the hash of each, and whether its versions are wanted too.
        begin: the place; None: after all that is loaded.

    Raises:
        Transient: ClickHouse is away.
    """
    wanted = [key for key, (_, needs) in keys.items() if needs]
    versions = _read_versions(clickhouse, wanted, begin)
    done = _read_done(clickhouse, sorted({hashed for hashed, _ in keys.values()}), begin)
    states = {}
    for key in keys:
        rows = versions.get(key, [])
        states[key] = state_of(
            [version for version, is_amendment in rows if not is_amendment],
            [version for version, is_amendment in rows if is_amendment],
            done.get(key, []),
        )
    return states


def _chunks(hashes: Sequence[str]) -> Iterable[dict[str, object]]:
    for start in range(0, len(hashes), _KEYS_MAX):
        yield {"hashes": hashes[start : start + _KEYS_MAX]}


def _read_versions(
    clickhouse: ClickHouse, keys: Iterable[Key], begin: Place | None
) -> dict[Key, list[tuple[Version, bool]]]:
    """By key: versions, and whether each is an amendment. Keys of other names may be among them."""
    found: dict[Key, list[tuple[Version, bool]]] = {}
    for piece in pieces_of(keys):
        rows = clickhouse.query(
            f"SELECT DISTINCT namespace, source, id, {_OWN}, type, subject,"
            f" toUnixTimestamp64Micro(time), amendment FROM {DATABASE}.events WHERE {OF_PIECE}",
            piece,
        )
        for row in rows:
            place: Place = (row[3], row[4], row[5], row[6])
            if begin is None or place < begin:
                version = Version(
                    place=place, type=row[7], subject=row[8], time=column_time(row[9])
                )
                found.setdefault((row[0], row[1], row[2]), []).append((version, bool(row[10])))
    return found


def _read_done(
    clickhouse: ClickHouse, hashes: Sequence[str], begin: Place | None
) -> dict[Key, list[Done]]:
    found: dict[Key, list[Done]] = {}
    for keys in _chunks(hashes):
        rows = clickhouse.query(
            f"SELECT DISTINCT namespace, source, id, {_OWN}, {_APPLIED}, toString(action),"
            f" toString(effect), operation, correction, content, {_SUPERSEDED}, target"
            f" FROM {DATABASE}.event_corrections WHERE key_hash IN {{hashes:Array(UUID)}}",
            keys,
        )
        for row in rows:
            done = Done(
                place=(row[3], row[4], row[5], row[6]),
                since=(row[7], row[8], row[9], row[10]),
                action=row[11],
                effect=row[12],
                operation=row[13],
                correction=row[14],
                content=row[15],
                superseded=(row[16], row[17], row[18], row[19]),
                target=place_from_text(row[20]) if row[20] else None,
            )
            if begin is None or (done.place < begin and done.since < begin):
                found.setdefault((row[0], row[1], row[2]), []).append(done)
    return found


def correction_rows(applied: Iterable[Timed]) -> bytes:
    """Rows of `event_corrections`."""
    rows = []
    for each, appended_us, received_us in applied:
        line, old = each.line, each.superseded
        replaced = (
            (*NOWHERE, "", "", "0.000000")
            if old is None
            else (*old.place, old.type, old.subject, old.time)
        )
        rows.append(
            (
                *(line.namespace, line.source, line.id, line.key_hash),
                *(line.correction, line.operation, line.action, each.effect),
                *(line.reason, line.actor, line.content, line.target),
                *replaced,
                *each.since,
                *each.place,
                *(instant_text(received_us), instant_text(appended_us)),
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
