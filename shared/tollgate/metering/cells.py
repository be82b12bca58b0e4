"""The SQL that makes cells: of events of a slice, anew where corrections came, and of other cells.

Whatever is read of an event is read by the expressions of `aggregation.py`, as queries do.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from tollgate.events.facts import after, counting, within
from tollgate.metering.aggregation import DOCUMENT, Value
from tollgate.metering.meter import Aggregation, Meter
from tollgate.metering.rollup import DAY_MINUTES, MINUTE, Level, Segment, dimension_names, levels_of
from tollgate.metering.slices import Slice
from tollgate.metering.statement import ORDER, nullable_dimension
from tollgate.platform.clickhouse import DATABASE
from tollgate.platform.filters import Parameters

_NO_TEXT = "''"
_NO_BITS = "toUInt64(0) AS bits"
_ARRAY = "CAST([{}] AS Array(LowCardinality(String)))"
KEY = ("level", "subject", "minute", "dimensions", "absent")
_SPAN_MINUTES = 23_040
_SPAN = f"intDiv(minute, {_SPAN_MINUTES})"
"""Days that stand together in the order of the table."""
_HEAD = ("segment", "definition", *KEY, "first_minute", "last_minute")


@dataclass(frozen=True, slots=True, kw_only=True)
class Insert:
    """One INSERT with what it binds."""

    sql: str
    parameters: dict[str, object]


class CellsOfEvents:
    """The inserts of one definition in one run."""

    def __init__(self, meter: Meter, definition: int, segment: int, part: Slice) -> None:
        self._meter = meter
        self._definition = definition
        self._segment = segment
        self._slice = part
        self._value = Value(aggregation=meter.aggregation, path=meter.value_path())
        self._bound = Parameters("p")
        self._namespace = self._bound.bind(meter.namespace)
        self._event_type = self._bound.bind(meter.event_type)
        paths = meter.dimension_paths()
        self._paths = [paths[name] for name in dimension_names(meter)]

    @property
    def _parameters(self) -> dict[str, object]:
        found = dict(self._bound.values) | self._value.parameters()
        for number, path in enumerate(self._paths):
            found |= path.parameters(f"d{number}")
        return found

    def replaced(self) -> Insert:
        """The windows that corrections of the slice touch, of facts from before it."""
        touched = (
            f"namespace = {self._namespace} AND superseded_type = {self._event_type}"
            f" AND {dirty(self._slice)}"
        )
        selects = [
            f"SELECT DISTINCT {self._segment}, {self._definition}, {level.number},"
            f" {'superseded_subject' if level.by_subject else _NO_TEXT},"
            f" {level.minute_sql('superseded_time')}"
            f" FROM {DATABASE}.event_corrections WHERE {touched}"
            for level in levels_of(self._meter)
        ]
        sql = (
            f"INSERT INTO {DATABASE}.rollup_replaced (segment, definition, level, subject, minute)"
            f" {' UNION ALL '.join(selects)}"
        )
        return Insert(sql=sql, parameters=self._parameters)

    def cells(self, *, corrected: bool, dirty: bool) -> Insert:
        """The cells of the slice's facts, and all anew of windows that `replaced` has named.

        Events are read once for all levels: reading them again for each took twice as long.

        Args:
            corrected: whether any event of this type was ever superseded.
            dirty: whether `replaced` has named any.
        """
        columns = ", ".join([*_HEAD, *self._value.cell_columns()])
        number = len(self._paths)
        texts = ", ".join(f"text_{each}" for each in range(number))
        keys = ["level", "subject_", "minute_", *(f"text_{each}" for each in range(number)), "bits"]
        sql = (
            f"INSERT INTO {DATABASE}.rollup_cells ({columns})"
            f" SELECT toUInt64({self._segment}), toUInt64({self._definition}), level, subject_,"
            f" minute_, {_ARRAY.format(texts)}, bits,"
            " toUInt16(min(at_ - minute_)), toUInt16(max(at_ - minute_)),"
            f" {', '.join(self._value.cell_of_events())}"
            f" FROM ({self._measurements(corrected=corrected, dirty=dirty)})"
            f" GROUP BY {', '.join(keys)}"
        )
        return Insert(sql=sql, parameters=self._parameters)

    def _measurements(self, *, corrected: bool, dirty: bool) -> str:
        """SELECT of each event that counts, once for every level, with the key of its cell."""
        levels = levels_of(self._meter)
        by_subject = _numbers(level for level in levels if level.by_subject)
        by_dimensions = f"level IN ({_numbers(each for each in levels if each.by_dimensions)})"
        periods = ", ".join(
            f"level = {each.number}, {each.minutes}" for each in levels if not each.is_month
        )
        month_start = f"at_ - positiveModulo(at_, {DAY_MINUTES}) - (day_ - 1) * {DAY_MINUTES}"
        window_start = f"at_ - positiveModulo(at_, multiIf({periods}, 1))"
        if months := _numbers(each for each in levels if each.is_month):
            window_start = f"if(level IN ({months}), {month_start}, {window_start})"
        names = [f"dimension_{number}" for number in range(len(self._paths))]
        keys = [
            "level",
            f"if(level IN ({by_subject}), subject, '') AS subject_",
            f"toInt32({window_start}) AS minute_",
            *(
                f"if({by_dimensions}, ifNull({name}, ''), '') AS text_{number}"
                for number, name in enumerate(names)
            ),
            f"if({by_dimensions}, {_bits(names)}, toUInt64(0)) AS bits" if names else _NO_BITS,
        ]
        wanted = "fresh"
        if dirty:
            wanted = f"(fresh OR (level, subject_, minute_) IN ({self._named()}))"
        return (
            f"SELECT {', '.join(keys)}, at_, {ORDER}, {self._value.column()}"
            f" FROM (SELECT subject, at_, day_, fresh, {', '.join([*names, ORDER])},"
            f" {self._value.columns()} FROM ({self._events(corrected=corrected, dirty=dirty)}))"
            f" ARRAY JOIN CAST([{_numbers(levels)}] AS Array(UInt8)) AS level"
            f" WHERE {self._value.counted()} AND {wanted}"
        )

    def _events(self, *, corrected: bool, dirty: bool) -> str:
        """SELECT of the facts that cells are made of."""
        part = self._slice
        dimensions = [
            f"{nullable_dimension(path, f'd{number}')} AS dimension_{number}"
            for number, path in enumerate(self._paths)
        ]
        new = part.appended if part.start is None else f"{part.appended} AND {after(part.start)}"
        parts = [f"namespace = {self._namespace}", f"type = {self._event_type}", within(part.end)]
        if corrected:
            parts.append(counting(self._namespace, self._event_type, part.end))
        if self._meter.event_from is not None:
            parts.append(f"time >= {self._bound.bind(self._meter.event_from)}")
        if dirty:
            named = " OR ".join(self._named_times())
            parts.append(f"({new} OR {named})")
        else:
            parts.append(new)
        needs_document = self._value.path is not None or dimensions
        document = [f"{DOCUMENT} AS document"] if needs_document else []
        fresh = new if dirty else "true"
        return (
            f"SELECT subject, {MINUTE.minute_sql('time')} AS at_,"
            f" toInt32(toDayOfMonth(time)) AS day_, {fresh} AS fresh,"
            f" {', '.join([ORDER, *document, *dimensions])}"
            f" FROM {DATABASE}.events FINAL WHERE {' AND '.join(parts)}"
        )

    def _named_times(self) -> Iterator[str]:
        """SQL conditions: an event is in a window that `replaced` has named."""
        for level in levels_of(self._meter):
            key = level.minute_sql("time")
            columns = "subject, minute" if level.by_subject else "minute"
            key = f"(subject, {key})" if level.by_subject else key
            yield f"{key} IN ({self._named(columns)} AND level = {level.number})"

    def _named(self, columns: str = "level, subject, minute") -> str:
        return (
            f"SELECT {columns} FROM {DATABASE}.rollup_replaced"
            f" WHERE segment = {self._segment} AND definition = {self._definition}"
        )


def _numbers(levels: Iterable[Level]) -> str:
    return ", ".join(str(level.number) for level in levels)


def _bits(names: Iterable[str]) -> str:
    """SQL: bit n says that the n-th of these is absent."""
    return " + ".join(
        f"if(isNull({name}), toUInt64({1 << number}), toUInt64(0))"
        for number, name in enumerate(names)
    )


def dirty(part: Slice) -> str:
    """SQL: corrections in a slice that supersede facts from before it."""
    if part.start is None:
        return "false"
    return (
        f"superseded_generation > 0 AND {within(part.start, 'superseded')}"
        f" AND {after(part.start, 'applied')} AND {within(part.end, 'applied')}"
    )


def sizes_of_spans(merged: Collection[Segment], definitions: Iterable[int]) -> str:
    """SELECT of how many cells several segments have: definition, level, span of days, number."""
    return (
        f"SELECT definition, level, {_SPAN} AS span, count() FROM {DATABASE}.rollup_cells"
        f" WHERE {_inside(merged, definitions)}"
        " GROUP BY definition, level, span ORDER BY definition, level, span"
    )


def pieces(sizes: Iterable[tuple[int, int, int, int]], cells_max: int) -> Iterator[str]:
    """SQL conditions that part cells into pieces, none with many more than `cells_max`.

    No window is in two of them.

    Args:
        sizes: what `sizes_of_spans` gave.
        cells_max: about how many cells a statement may hold in memory.
    """
    open_piece: list[str] = []
    filled = 0
    for definition, level, span, count in sizes:
        first = span * _SPAN_MINUTES
        here = (
            f"(definition = {definition} AND level = {level}"
            f" AND minute >= {first} AND minute < {first + _SPAN_MINUTES})"
        )
        parts = -(-count // cells_max)
        if parts > 1:
            yield from (
                f"{here} AND cityHash64(subject, minute) % {parts} = {each}"
                for each in range(parts)
            )
            continue
        if filled + count > cells_max and open_piece:
            yield f"({' OR '.join(open_piece)})"
            open_piece, filled = [], 0
        open_piece.append(here)
        filled += count
    if open_piece:
        yield f"({' OR '.join(open_piece)})"


def cells_of_cells(
    merged: Collection[Segment],
    into: int,
    of: Aggregation,
    definitions: Iterable[int],
    piece: str = "true",
) -> str:
    """The INSERT that makes one segment's cells of those of several, replaced ones left out.

    Args:
        merged: neighbours, in the order of their sequences.
        into: the new segment.
        of: the aggregation of the definitions.
        definitions: whose cells are kept.
        piece: SQL: only of these.
    """
    value = Value(aggregation=of, path=None)
    key = ", ".join(("definition", *KEY))
    columns = ", ".join([*_HEAD, *value.cell_columns()])
    where = " AND ".join([_inside(merged, definitions), piece, *_not_replaced(list(merged))])
    return (
        f"INSERT INTO {DATABASE}.rollup_cells ({columns})"
        f" SELECT toUInt64({into}), {key}, min(first_minute), max(last_minute),"
        f" {', '.join(value.cell_of_cells())}"
        f" FROM {DATABASE}.rollup_cells WHERE {where}"
        f" GROUP BY {key}"
    )


def replaced_of_replaced(merged: Collection[Segment], into: int, definitions: Iterable[int]) -> str:
    """The INSERT that keeps what several segments replace in those before all of them."""
    return (
        f"INSERT INTO {DATABASE}.rollup_replaced (segment, definition, level, subject, minute)"
        f" SELECT DISTINCT toUInt64({into}), definition, level, subject, minute"
        f" FROM {DATABASE}.rollup_replaced WHERE {_inside(merged, definitions)}"
    )


def _inside(merged: Iterable[Segment], definitions: Iterable[int]) -> str:
    segments = ", ".join(str(each.id) for each in merged)
    return f"segment IN ({segments}) AND definition IN ({', '.join(map(str, definitions))})"


def _not_replaced(merged: list[Segment]) -> Iterator[str]:
    window = "definition, level, subject, minute"
    for number, later in enumerate(merged):
        if later.replacing and number:
            earlier = ", ".join(str(each.id) for each in merged[:number])
            yield (
                f"NOT (segment IN ({earlier}) AND ({window}) IN"
                f" (SELECT {window} FROM {DATABASE}.rollup_replaced WHERE segment = {later.id}))"
            )
