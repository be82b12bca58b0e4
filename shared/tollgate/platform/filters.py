r"""Filters on texts and times, and their SQL with bound values.

The wire's dialects (`filter_dialects.py`) all become this small tree. What its operators mean:

- Texts compare by code points. A value that is absent compares like the empty text; only `exists`
  tells them apart.
- Patterns are SQL's, over the whole text: `%` is any text, `_` any one character; `\%`, `\_` and
  `\\` are these characters themselves, any other backslash is itself.
- `contains` looks for the text itself anywhere, ignoring case; nothing in it is special.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import assert_never


class Operator(StrEnum):
    """How two values compare; the value is SQL."""

    EQUAL = "="
    NOT_EQUAL = "!="
    GREATER = ">"
    GREATER_OR_EQUAL = ">="
    LESS = "<"
    LESS_OR_EQUAL = "<="


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The value compares so with a text, or an aware instant."""

    operator: Operator
    value: str | datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """The text is one of these, or none of them."""

    values: tuple[str, ...]
    negated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The whole text matches a LIKE pattern, or does not."""

    pattern: str
    ignore_case: bool
    negated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """There is a value, or there is none."""

    present: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class And:
    """All of them hold; without any, always."""

    filters: tuple["Filter", ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Or:
    """At least one of them holds; without any, never."""

    filters: tuple["Filter", ...]


Filter = Comparison | Membership | Match | Presence | And | Or


def contains(text: str, *, negated: bool = False) -> Match:
    """A filter for texts in which a text occurs, ignoring case."""
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return Match(pattern=f"%{escaped}%", ignore_case=True, negated=negated)


class Parameters:
    """Hands out a query's parameter names and keeps their values.

    Attributes:
        values: what to bind, by name.
    """

    def __init__(self, prefix: str = "filter") -> None:
        """Begin without parameters.

        Args:
            prefix: trusted start of every name, unique within the query.
        """
        self._prefix = prefix
        self.values: dict[str, object] = {}

    def bind(self, value: str | tuple[str, ...] | datetime) -> str:
        """The placeholder, with its type, of a new parameter."""
        name = f"{self._prefix}_{len(self.values)}"
        match value:
            case str():
                self.values[name] = value
                return f"{{{name}:String}}"
            case tuple():
                self.values[name] = list(value)
                return f"{{{name}:Array(String)}}"
            case datetime():
                # Text, because the driver cuts a datetime to seconds.
                naive = value.astimezone(UTC).replace(tzinfo=None)
                self.values[name] = naive.isoformat(sep=" ", timespec="microseconds")
                return f"{{{name}:DateTime64(6, 'UTC')}}"
            case _:
                assert_never(value)

    def bind_numbers(self, values: Sequence[int], kind: str) -> str:
        """The placeholder of a new array of integers.

        Args:
            values: that fit.
            kind: trusted type of the engine.
        """
        name = f"{self._prefix}_{len(self.values)}"
        self.values[name] = list(values)
        return f"{{{name}:Array({kind})}}"


def to_sql(asked: Filter, column: str, parameters: Parameters, *, nullable: bool = False) -> str:
    """A filter as a condition in parentheses or of one comparison; every value is bound.

    Args:
        asked: the filter.
        column: trusted SQL, an operand of type String, or DateTime64(6, 'UTC') for times.
        parameters: where values are bound.
        nullable: the column is a Nullable(String) in which NULL is absence. Left out for other
            columns so that the table's order can be used to answer.
    """
    text = f"ifNull({column}, '')" if nullable else column
    match asked:
        case Comparison(operator=operator, value=value):
            compared = column if isinstance(value, datetime) else text
            return f"{compared} {operator.value} {parameters.bind(value)}"
        case Membership(values=values, negated=negated):
            return f"{text} {'NOT IN' if negated else 'IN'} {parameters.bind(values)}"
        case Match(pattern=pattern, ignore_case=ignore_case, negated=negated):
            like = "ILIKE" if ignore_case else "LIKE"
            return f"{text} {'NOT ' if negated else ''}{like} {parameters.bind(pattern)}"
        case Presence(present=present):
            return f"{column} IS {'NOT ' if present else ''}NULL"
        case And(filters=filters) | Or(filters=filters):
            parts = [to_sql(inner, column, parameters, nullable=nullable) for inner in filters]
            return _join(parts, every=isinstance(asked, And))
        case _:
            assert_never(asked)


def _join(conditions: list[str], *, every: bool) -> str:
    if not conditions:
        return "true" if every else "false"
    return f"({(' AND ' if every else ' OR ').join(conditions)})"
