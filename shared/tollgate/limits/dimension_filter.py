"""A condition on a dimension of a feature's meter, and how each version of the wire writes it.

A filter is given back in the version it came in as it was sent, and written anew for the other,
where that one has the words for it: v1 has none for `exists`, v3 none for order and patterns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from tollgate.platform.filter_dialects import (
    BRANCHES_MAX,
    LIST_ITEMS_MAX,
    parse_filter_string,
    parse_query_filter_map_item,
)
from tollgate.platform.filters import (
    And,
    Comparison,
    Filter,
    Match,
    Membership,
    Operator,
    Or,
    Presence,
    contains,
)

_V1_OPERATORS = {
    Operator.EQUAL: "$eq",
    Operator.NOT_EQUAL: "$ne",
    Operator.GREATER: "$gt",
    Operator.GREATER_OR_EQUAL: "$gte",
    Operator.LESS: "$lt",
    Operator.LESS_OR_EQUAL: "$lte",
}
_V3_OPERATORS = {Operator.EQUAL: "eq", Operator.NOT_EQUAL: "neq"}
Written = dict[str, object]


class FilterDialect(StrEnum):
    """Whose words a filter was sent in."""

    V1 = "v1"
    V3 = "v3"


@dataclass(frozen=True, slots=True, kw_only=True)
class DimensionFilter:
    """A condition.

    Attributes:
        asked: what must hold.
        dialect, sent: how a client wrote it, as JSON's plain values.
    """

    asked: Filter
    dialect: FilterDialect
    sent: Mapping[str, object]

    def equal_to(self) -> str | None:
        """The one text that the dimension must be, if the filter says no more than that."""
        match self.asked:
            case Comparison(operator=Operator.EQUAL, value=str(text)):
                return text
            case _:
                return None

    def in_v1(self) -> Mapping[str, object] | None:
        """As a `FilterString`; None: v1 cannot say it."""
        return self.sent if self.dialect is FilterDialect.V1 else _v1(self.asked)

    def in_v3(self) -> Mapping[str, object] | None:
        """As a `QueryFilterStringMapItem`; None: v3 cannot say it."""
        return self.sent if self.dialect is FilterDialect.V3 else _v3(self.asked)


def filter_from_v1(sent: object, path: str) -> DimensionFilter:
    """Reads a `FilterString`. Raises InvalidInput with every fault under `path`."""
    asked = parse_filter_string(sent, path)
    return DimensionFilter(asked=asked, dialect=FilterDialect.V1, sent=_object(sent))


def filter_from_v3(sent: object, path: str) -> DimensionFilter:
    """Reads a `QueryFilterStringMapItem`. Raises InvalidInput with every fault under `path`."""
    asked = parse_query_filter_map_item(sent, path)
    return DimensionFilter(asked=asked, dialect=FilterDialect.V3, sent=_object(sent))


def stored_from_filter(found: DimensionFilter) -> dict[str, object]:
    """A filter as it is stored."""
    return {"dialect": found.dialect.value, "sent": dict(found.sent)}


def filter_from_stored(stored: Mapping[str, object]) -> DimensionFilter:
    """A stored filter."""
    match FilterDialect(str(stored["dialect"])):
        case FilterDialect.V1:
            return filter_from_v1(stored["sent"], "")
        case FilterDialect.V3:
            return filter_from_v3(stored["sent"], "")


def _object(sent: object) -> Mapping[str, object]:
    """What was sent, without v1's nulls, which stand for nothing."""
    cleaned = _without_nulls(sent)
    assert isinstance(cleaned, dict)
    return cleaned


def _without_nulls(value: object) -> object:
    match value:
        case dict():
            return {k: _without_nulls(inner) for k, inner in value.items() if inner is not None}
        case list():
            return [_without_nulls(inner) for inner in value]
        case _:
            return value


def _v1(asked: Filter) -> Written | None:
    match asked:
        case Comparison(operator=operator, value=value):
            return {_V1_OPERATORS[operator]: value}
        case Membership(values=values, negated=negated):
            return {"$nin" if negated else "$in": list(values)}
        case Match(pattern=pattern, ignore_case=ignore_case, negated=negated):
            return {f"${'n' if negated else ''}{'i' if ignore_case else ''}like": pattern}
        case Presence():
            return None
        case And(filters=filters):
            parts = [_v1(each) for each in filters]
            return _joined("$and", parts) if parts else {}
        case Or(filters=filters):
            return _joined("$or", [_v1(each) for each in filters])
        case _:
            assert_never(asked)


def _v3(asked: Filter) -> Written | None:
    match asked:
        case Comparison(operator=operator, value=value):
            return {_V3_OPERATORS[operator]: value} if operator in _V3_OPERATORS else None
        case Membership(values=values, negated=negated):
            fits = 1 <= len(values) <= LIST_ITEMS_MAX
            return {"nin" if negated else "in": list(values)} if fits else None
        case Match(negated=negated):
            text = _contained(asked)
            return None if text is None else {"ncontains" if negated else "contains": text}
        case Presence(present=present):
            return {"exists": present}
        case And(filters=()):
            return {}
        case And(filters=filters) | Or(filters=filters):
            parts = [_v3(each) for each in filters]
            name = "and" if isinstance(asked, And) else "or"
            return _joined(name, parts) if 1 <= len(parts) <= BRANCHES_MAX else None
        case _:
            assert_never(asked)


def _joined(name: str, parts: Sequence[Written | None]) -> Written | None:
    return None if None in parts else {name: list(parts)}


def _contained(asked: Match) -> str | None:
    """The text that a pattern looks for anywhere, ignoring case; None: it looks for more."""
    text = asked.pattern[1:-1]
    for special in ("%", "_", "\\"):
        text = text.replace(f"\\{special}", special)
    return text if contains(text, negated=asked.negated) == asked else None
