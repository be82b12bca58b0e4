"""Rows of `events` by the full keys of their events.

A filter on ids names the pieces of the table that may hold one, so this costs little for a few keys
and a scan of the ids for thousands.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from tollgate.platform.clickhouse import DATABASE, ClickHouse

Key = tuple[str, str, str]
"""Namespace, source, id."""
PositionTuple = tuple[int, int, int, int]
# A bound value is a form field of at most 128 KiB (`http_max_field_value_size`), quotes included.
_IDS_BYTES_MAX: Final = 48 << 10
_ID_BYTES_MORE: Final = 4
OF_PIECE: Final = "namespace IN {namespaces:Array(String)} AND id IN {ids:Array(String)}"
"""SQL: rows of the keys of a piece, with some of other keys among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """What the store has of an event.

    Attributes:
        key: namespace, source and id.
        appended_us: when its record was appended.
        time_us: event time if the client gave it, else None.
        content: type, subject, media type, schema, extensions, data.
    """

    key: Key
    appended_us: int
    time_us: int | None
    content: tuple[str, ...]


def find_events(clickhouse: ClickHouse, keys: Iterable[Key]) -> dict[PositionTuple, StoredEvent]:
    """All stored events of the keys, by position.

    Raises:
        Transient: ClickHouse is away.
    """
    wanted = set(keys)
    found = {}
    for piece in pieces_of(wanted):
        rows = clickhouse.query(
            "SELECT log_generation, log_partition, log_offset, log_index, namespace, source, id,"
            " toUnixTimestamp64Micro(appended_at), toUnixTimestamp64Micro(time), time_given,"
            " type, subject, datacontenttype, dataschema, extensions, data"
            f" FROM {DATABASE}.events WHERE {OF_PIECE}",
            piece,
        )
        for row in rows:
            key = (row[4], row[5], row[6])
            if key in wanted:
                found[row[0], row[1], row[2], row[3]] = StoredEvent(
                    key=key,
                    appended_us=row[7],
                    time_us=row[8] if row[9] else None,
                    content=tuple(row[10:]),
                )
    return found


def pieces_of(keys: Iterable[Key]) -> Iterator[dict[str, object]]:
    """What `OF_PIECE` binds, query after query, to read the rows of some keys."""
    wanted = set(keys)
    namespaces = sorted({key[0] for key in wanted})
    piece: list[str] = []
    size = 0
    for each in sorted({key[2] for key in wanted}):
        more = len(each.encode()) + _ID_BYTES_MORE
        if piece and size + more > _IDS_BYTES_MAX:
            yield {"namespaces": namespaces, "ids": piece}
            piece, size = [], 0
        piece.append(each)
        size += more
    if piece:
        yield {"namespaces": namespaces, "ids": piece}
