"""Claims that stand in ClickHouse: who holds the keys that the filters named.

`event_keys` has one partition per append day, sorted by key. A key is read from one small piece of
every part it is looked for in, so what a lookup costs is keys times parts: each key is looked for
on the days that the filters name, which is one in most cases.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from tollgate.events.batch import Line
from tollgate.events.rebuild import partition_of_day
from tollgate.events.stored_events import PositionTuple
from tollgate.platform.clickhouse import DATABASE, ClickHouse

# A bound value is a form field of at most 128 KiB (`http_max_field_value_size`); a key takes 21.
_KEYS_MAX: Final = 5000
# A SELECT of its own costs some 3 ms, a key looked for in the parts of every day half of one each.
_KEYS_OF_OWN_SELECT: Final = 8
_SELECTS_MAX: Final = 16
_COLUMNS: Final = (
    "key, digest, log_generation, log_partition, log_offset, log_index, toUInt16(appended_on)"
)


class Claim(msgspec.Struct, frozen=True, gc=False):
    """An event that holds a key.

    Attributes:
        position: where it stands.
        day: when its record was appended, in days since 1970: the claim's start.
        digest: `digest_of` its line.
        line: its line, if it stands in the batch; None if it was stored before.
        appended_us: when its record was appended, if it stands in the batch; else -1.
    """

    position: PositionTuple
    day: int
    digest: int
    line: Line | None = None
    appended_us: int = -1


def stored_claims(
    clickhouse: ClickHouse, wanted: Mapping[int, Sequence[int]]
) -> dict[int, list[Claim]]:
    """Claims of the wanted keys by number, each key's in the order of their positions.

    Args:
        clickhouse: where `event_keys` stands.
        wanted: by append day (days since 1970), numbers of keys (`dedupe.numbers_of`).

    Returns:
        what was found; claims of other days may be among them, and of keys that share a number.

    Raises:
        Transient: ClickHouse is away.
    """
    claims: dict[int, set[Claim]] = {}
    lookups = list(_lookups(wanted))
    for start in range(0, len(lookups), _SELECTS_MAX):
        some = lookups[start : start + _SELECTS_MAX]
        # Redelivered rows are alike until they are merged: a set holds them once.
        for row in _read(clickhouse, some):
            claims.setdefault(row[0], set()).add(_claim_of(row))
    return {key: sorted(found, key=lambda claim: claim.position) for key, found in claims.items()}


def _lookups(wanted: Mapping[int, Sequence[int]]) -> Iterator[tuple[list[str], list[int]]]:
    """(names of table partitions, keys) of each SELECT: days with few keys share theirs."""
    shared_days: list[str] = []
    shared_keys: set[int] = set()
    for day, numbers in wanted.items():
        keys = set(numbers)
        if 0 < len(keys) < _KEYS_OF_OWN_SELECT:
            shared_days.append(partition_of_day(day))
            shared_keys |= keys
        else:
            yield from _pieces([partition_of_day(day)], keys)
    yield from _pieces(shared_days, shared_keys)


def _pieces(days: list[str], keys: set[int]) -> Iterator[tuple[list[str], list[int]]]:
    ordered = sorted(keys)
    for start in range(0, len(ordered), _KEYS_MAX):
        yield days, ordered[start : start + _KEYS_MAX]


def _read(
    clickhouse: ClickHouse, lookups: Sequence[tuple[list[str], list[int]]]
) -> Sequence[Sequence[Any]]:
    parameters: dict[str, object] = {}
    selects = []
    for number, (days, keys) in enumerate(lookups):
        parameters[f"days{number}"], parameters[f"keys{number}"] = days, keys
        selects.append(
            f"SELECT {_COLUMNS} FROM {DATABASE}.event_keys"
            f" WHERE _partition_id IN {{days{number}:Array(String)}}"
            f" AND key IN {{keys{number}:Array(UInt64)}}"
        )
    return clickhouse.query(" UNION ALL ".join(selects), parameters)


def _claim_of(row: Sequence[Any]) -> Claim:
    return Claim((row[2], row[3], row[4], row[5]), row[6], row[1])
