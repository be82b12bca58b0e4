"""Use case: which corrections there are, newest first, and what each did."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tollgate.core.clock import datetime_from_us
from tollgate.events.correction import Action
from tollgate.events.identity import key_hash, key_prefix
from tollgate.events.key_state import Effect
from tollgate.events.position import Position
from tollgate.platform.clickhouse import DATABASE, ClickHouse

_POSITION = "log_generation, log_partition, log_offset, log_index"
_COLUMNS = (
    f"{_POSITION}, source, id, correction, operation, toString(action), toString(effect), reason,"
    " actor, superseded_generation, superseded_partition, superseded_offset, superseded_index,"
    " applied_generation, applied_partition, applied_offset, applied_index,"
    " toUnixTimestamp64Micro(received_at), toUnixTimestamp64Micro(appended_at)"
)
_NEWEST = ", ".join(f"{name} DESC" for name in ("appended_at", *_POSITION.split(", ")))


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedCorrection:
    """A correction and what it did.

    Attributes:
        position: where it stands.
        source, id: of the event.
        correction, operation, action, effect, reason, actor: as it says.
        superseded: the version that stopped counting; None if none did.
        since: from where on it holds.
        received_at, appended_at: when it came.
    """

    position: Position
    source: str
    id: str
    correction: str
    operation: str
    action: Action
    effect: Effect
    reason: str
    actor: str
    superseded: Position | None
    since: Position
    received_at: datetime
    appended_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectionListing:
    """Which corrections are asked for.

    Attributes:
        namespace: whose.
        start, end: half-open period of receipt; None is open.
        key: source and id of one event.
        operation: name of the operation that they are part of.
        after: append time and position of the last one of the page before.
        limit: how many at most.
    """

    namespace: str
    start: datetime | None = None
    end: datetime | None = None
    key: tuple[str, str] | None = None
    operation: str | None = None
    after: tuple[int, Position] | None = None
    limit: int = 100


def list_corrections(
    clickhouse: ClickHouse, asked: CorrectionListing
) -> tuple[ListedCorrection, ...]:
    """One page; one more than asked if there is a next page.

    Raises:
        Transient: ClickHouse is away.
    """
    # An event of a backfill that waits for its close is no correction that anybody asked for.
    conditions = ["namespace = {namespace:String}", "action != 'hold'"]
    values: dict[str, object] = {"namespace": asked.namespace}
    if asked.start is not None:
        conditions.append("received_at >= {start:DateTime64(6, 'UTC')}")
        values["start"] = asked.start
    if asked.end is not None:
        conditions.append("received_at < {end:DateTime64(6, 'UTC')}")
        values["end"] = asked.end
    if asked.key is not None:
        conditions.append("key_hash = {key:UUID} AND source = {source:String} AND id = {id:String}")
        hashed = key_hash(key_prefix(asked.namespace), *asked.key)
        values |= {"key": hashed.hex(), "source": asked.key[0], "id": asked.key[1]}
    if asked.operation is not None:
        conditions.append("operation = {operation:String}")
        values["operation"] = asked.operation
    if asked.after is not None:
        appended_us, place = asked.after
        before = "fromUnixTimestamp64Micro({appended:Int64}, 'UTC')"
        conditions.append(
            f"appended_at <= {before} AND (appended_at, {_POSITION}) < ({before},"
            " {generation:UInt32}, {partition:UInt16}, {offset:UInt64}, {index:UInt32})"
        )
        values |= {
            "appended": appended_us,
            "generation": place.generation,
            "partition": place.partition,
            "offset": place.offset,
            "index": place.index,
        }
    rows = clickhouse.query(
        # Of a void that has waited there are two rows: what it did at last is what is shown.
        f"SELECT {_COLUMNS} FROM {DATABASE}.event_corrections WHERE {' AND '.join(conditions)}"
        f" ORDER BY {_NEWEST}, effect = 'waiting' LIMIT 1 BY {_POSITION} LIMIT {asked.limit + 1}",
        values,
    )
    return tuple(map(_listed, rows))


def _listed(row: Sequence[Any]) -> ListedCorrection:
    superseded = _place(row[12:16])
    return ListedCorrection(
        position=_place(row[0:4]),
        source=row[4],
        id=row[5],
        correction=row[6],
        operation=row[7],
        action=row[8],
        effect=row[9],
        reason=row[10],
        actor=row[11],
        superseded=superseded if superseded.generation else None,
        since=_place(row[16:20]),
        received_at=datetime_from_us(row[20]),
        appended_at=datetime_from_us(row[21]),
    )


def _place(row: Sequence[Any]) -> Position:
    return Position(generation=row[0], partition=row[1], offset=row[2], index=row[3])
