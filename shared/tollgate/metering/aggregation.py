"""The seven aggregations as SQL: what a value is, and how values become one quantity.

Values are Decimal(38, 18), sums Decimal(76, 18). A value is a JSON number, or a string that follows
JSON's number grammar, with at most 20 digits before and 18 after the point; anything else does not
count and shows up as the event's validation error. UNIQUE_COUNT takes strings and numbers by their
text. The engine is the only reader of `data`; `data_exact` holds numbers that doubles would change.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tollgate.core.decimals import SCALE
from tollgate.metering.jsonpath import JsonPath
from tollgate.metering.meter import Aggregation

DOCUMENT = "if(data_exact != '', data_exact, data)"
"""The payload to read values from."""
_COMMON = r"^-?(0|[1-9][0-9]{0,19})(\\.[0-9]{1,18})?$"
_LOOSE = r"^-?(0|[1-9][0-9]{0,37})(\\.[0-9]{1,38})?([eE][+-]?[0-9]{1,2})?$"
_GRAMMAR = r"^-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?$"
# 38 digits after the point are read exactly, so a digit below the 18th is seen, never rounded away.
_FRACTION = r"length(extract({t}, '\\.([0-9]+)')) + toUInt8OrZero(extract({t}, '[eE]-([0-9]+)'))"
_PLAIN = "raw >= '-' AND raw < ':' AND length(raw) <= 19 AND position(raw, 'e') = 0"
_BOUND = "toDecimal256('100000000000000000000', 38)"
LATEST_ORDER = (
    *("time", "received_at", "log_index"),
    *("log_generation", "log_partition", "log_offset"),
)
"""Columns of `events` whose greatest values are the latest event's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """How to read one meter's value.

    Attributes:
        aggregation: of the meter.
        path: where the value stands; None for COUNT.
        prefix: trusted start of the bound parameters' names.
    """

    aggregation: Aggregation
    path: JsonPath | None
    prefix: str = "value"

    def parameters(self) -> dict[str, object]:
        """What the expressions bind."""
        return self.path.parameters(self.prefix) if self.path else {}

    def sql(self) -> str:
        """SQL for the value as text, of the column `document`; '' where there is none."""
        if self.path is None:
            return "''"
        if self.aggregation is Aggregation.UNIQUE_COUNT:
            return self.path.call("JSONExtractRaw", "document", self.prefix)
        return self.path.call("JSONExtractString", "document", self.prefix)

    def columns(self) -> str:
        """SQL of the columns that the other expressions read, over the column `document`.

        `number` is what `number_sql` says of the value's text. A JSON number of at most 19
        characters without exponent has it all said by its first character, which saves three
        regular expressions a row; only what is left pays for them.
        """
        match self.aggregation:
            case Aggregation.COUNT:
                return "'' AS text, NULL AS number"
            case Aggregation.UNIQUE_COUNT:
                return f"{self.sql()} AS text, NULL AS number"
            case _:
                assert self.path is not None
                raw = self.path.call("JSONExtractRaw", "document", self.prefix)
                return (
                    f"{raw} AS raw, if({_PLAIN}, toDecimal128OrNull(raw, {SCALE}),"
                    f" {number_sql(self.sql())}) AS number"
                )

    def column(self) -> str:
        """The one of these columns that a value is read from."""
        return "text" if self.aggregation in _OF_TEXT else "number"

    @property
    def counts_uniques(self) -> bool:
        """Whether values are counted once each."""
        return self.aggregation is Aggregation.UNIQUE_COUNT

    def cell_columns(self) -> tuple[str, ...]:
        """The columns of a cell that this aggregation fills."""
        return _CELLS[self.aggregation]

    def cell_of_event(self) -> list[str]:
        """SQL of a cell of one event that counts, over the columns of `columns`, with names."""
        return [f"{_EVENT[name]} AS {name}" for name in self.cell_columns()]

    def cell_of_events(self) -> list[str]:
        """SQL of a cell of all events of a group, over the columns of `columns`, with names."""
        return [f"{_summed(name, _EVENT)} AS {name}" for name in self.cell_columns()]

    def cell_of_cells(self) -> list[str]:
        """SQL of a cell of all cells of a group, in the order of `cell_columns`."""
        return [_summed(name, _ITSELF) for name in self.cell_columns()]

    def merged(self) -> str:
        """SQL of the quantity of all cells of a group.

        AVG gives the pair (sum, count): a quotient is rounded once, in Python.
        """
        match self.aggregation:
            case Aggregation.COUNT:
                return "sum(events)"
            case Aggregation.SUM:
                return "sum(total)"
            case Aggregation.AVG:
                return "tuple(sum(total), sum(events))"
            case Aggregation.MIN:
                return "min(least)"
            case Aggregation.MAX:
                return "max(greatest)"
            case Aggregation.UNIQUE_COUNT:
                return "uniqExactArray(uniques)"
            case Aggregation.LATEST:
                return _summed("latest", _ITSELF)

    def counted(self) -> str:
        """SQL of whether a row counts, over the columns of `columns`."""
        match self.aggregation:
            case Aggregation.COUNT:
                return "true"
            case Aggregation.UNIQUE_COUNT:
                return COUNTS_UNIQUE
            case _:
                return "isNotNull(number)"


_LATEST = (
    *("latest", "latest_at", "latest_received_at", "latest_index"),
    *("latest_generation", "latest_partition", "latest_offset"),
)
_CELLS: dict[Aggregation, tuple[str, ...]] = {
    Aggregation.COUNT: ("events",),
    Aggregation.SUM: ("total",),
    Aggregation.AVG: ("total", "events"),
    Aggregation.MIN: ("least",),
    Aggregation.MAX: ("greatest",),
    Aggregation.UNIQUE_COUNT: ("uniques",),
    Aggregation.LATEST: _LATEST,
}
"""What a cell of `rollup_cells` holds, by aggregation."""
_OF_TEXT = frozenset((Aggregation.COUNT, Aggregation.UNIQUE_COUNT))
COUNTS_UNIQUE = "match(text, '^[\"0-9-]')"
"""Raw JSON that is a string or a number."""
UNQUOTED = "if(startsWith(text, '\"'), substring(text, 2, length(text) - 2), text)"
"""A string's raw text without quotes, so that 7 and "7" are one value."""
_NUMBER = "assumeNotNull(number)"
_EVENT = {
    "events": "toUInt64(1)",
    "total": f"toDecimal256({_NUMBER}, 18)",
    "least": _NUMBER,
    "greatest": _NUMBER,
    "uniques": f"[reinterpretAsUInt128(sipHash128({UNQUOTED}))]",
    "latest": _NUMBER,
    **dict(zip(_LATEST[1:], LATEST_ORDER, strict=True)),
}
"""SQL of each of these for one event."""
_ITSELF = {name: name for name in _EVENT}
_SUMS = {
    "events": "sum",
    "total": "sum",
    "least": "min",
    "greatest": "max",
    "uniques": "groupUniqArrayArray",
}


def _summed(name: str, columns: Mapping[str, str]) -> str:
    """SQL of a column of the cell that all of a group make together."""
    if name in _SUMS:
        return f"{_SUMS[name]}({columns[name]})"
    order = f"tuple({', '.join(columns[each] for each in _LATEST[1:])})"
    if name == "latest":
        return f"argMax({columns[name]}, {order})"
    return f"tupleElement(max({order}), {_LATEST.index(name)})"


def number_sql(text: str) -> str:
    """SQL that reads a text as Nullable(Decimal(38, 18)): NULL unless it is exactly that."""
    fraction = _FRACTION.format(t=text)
    wide = f"toDecimal256OrNull({text}, 38)"
    inside = f"abs({wide}) < {_BOUND} AND toDecimal256({wide}, 18) = {wide}"
    loose = f"match({text}, '{_LOOSE}') AND {fraction} <= 38"
    return (
        f"if(match({text}, '{_COMMON}'), toDecimal128OrNull({text}, 18),"
        f" if({loose}, if({inside}, accurateCastOrNull({wide}, 'Decimal(38, 18)'), NULL), NULL))"
    )


def fault_sql(*, unique: bool) -> str:
    """SQL that names why a value does not count; '' if it does.

    Over the columns `text` (by `Value.sql`), `number` (by `number_sql`), `kind` (the `JSONType` as
    text) and `present` (`JSONHas`).

    Args:
        unique: the meter is a UNIQUE_COUNT, which takes texts too.
    """
    absent = "not present, 'missing', kind = 'Null', 'null'"
    if unique:
        return f"multiIf({COUNTS_UNIQUE}, '', {absent}, 'unsupported')"
    return (
        f"multiIf(isNotNull(number), '', {absent},"
        " kind IN ('Bool', 'Object', 'Array'), 'unsupported',"
        f" match(text, '{_GRAMMAR}'), 'too_many_digits', 'not_a_number')"
    )
