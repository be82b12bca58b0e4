"""Gap filling: a row also for windows in which nothing counted.

A sum or a count of nothing is 0; nothing has no average, least, greatest or latest value.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal

from tollgate.core.clock import us_from_datetime
from tollgate.metering.meter import Aggregation
from tollgate.metering.question import CUSTOMER, SUBJECT, MeterQuery, QueryRow, RowKey
from tollgate.metering.window import Windows, zone

_ZERO = frozenset((Aggregation.SUM, Aggregation.COUNT, Aggregation.UNIQUE_COUNT))


def filled(
    aggregation: Aggregation, asked: MeterQuery, rows: Sequence[QueryRow], rows_max: int
) -> Iterator[QueryRow]:
    """The rows with those that are missing, in the same order; at most one more than `rows_max`.

    Windows are those that overlap [start, end) of the question; where it is open, those from the
    first to the last row. Groups are those that have any row, and the subjects or customers that
    were asked for where only they are grouped by.
    """
    known = {row.key(asked): row for row in rows}
    groups = _groups(asked, rows)
    is_gap = aggregation not in _ZERO
    count = 0
    for number, start, end in _windows(asked, rows):
        for group in groups:
            count += 1
            if count > rows_max + 1:
                return
            yield known.get(RowKey(number, group)) or _empty(
                asked, group, start, end, is_gap=is_gap
            )


def _windows(
    asked: MeterQuery, rows: Sequence[QueryRow]
) -> Iterable[tuple[int, datetime, datetime]]:
    starts = [asked.start] if asked.start else [row.start for row in rows]
    ends = [asked.end] if asked.end else [row.end for row in rows]
    if not starts or not ends:
        return
    low, high = min(starts), max(ends)
    if asked.window is None:
        yield 0, low, high
        return
    for start, end in Windows(
        size=asked.window, zone=zone(asked.time_zone), low=low, high=high
    ).tile():
        yield us_from_datetime(start), start, end


def _groups(asked: MeterQuery, rows: Iterable[QueryRow]) -> list[tuple[str, ...]]:
    names = tuple(dict.fromkeys(asked.group_by))
    found = {row.key(asked).groups for row in rows}
    if not names:
        found.add(())
    elif names == (SUBJECT,) and asked.subjects is not None:
        found |= {(subject,) for subject in asked.subjects}
    elif names == (CUSTOMER,) and asked.customers is not None:
        found |= {(customer,) for customer in asked.customers}
    return sorted(found)


def _empty(
    asked: MeterQuery, group: tuple[str, ...], start: datetime, end: datetime, *, is_gap: bool
) -> QueryRow:
    dimensions = dict(zip(dict.fromkeys(asked.group_by), group, strict=True))
    return QueryRow(
        value=Decimal(0),
        start=start,
        end=end,
        subject=dimensions.pop(SUBJECT, None),
        customer_id=dimensions.pop(CUSTOMER, None) or None,
        dimensions=dimensions,
        is_gap=is_gap,
    )
