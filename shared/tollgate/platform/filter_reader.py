"""Reads a filter of any dialect, within bounds, and finds all of its faults.

A filter has at most `NODES_MAX` operators in `DEPTH_MAX` levels and `VALUES_MAX` values of
`TEXT_LENGTH_MAX` characters.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from tollgate.core.errors import Fault
from tollgate.core.reading import shown
from tollgate.core.times import parse_instant
from tollgate.platform.filters import And, Filter

DEPTH_MAX = 8
NODES_MAX = 100
VALUES_MAX = 1000
TEXT_LENGTH_MAX = 1024
COMMA_ITEMS_MAX = 50

# The contract's pattern: either case is accepted, upper case is what is stored.
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}", re.ASCII)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class Reader:
    """One reading of a filter: its faults and how much of its bounds is used up."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.nodes = 0
        self.values = 0

    def fault(self, path: str, code: str, message: str) -> None:
        self.faults.append(Fault(field=path, code=code, message=message))

    def read(self, value: object, path: str, dialect: "Dialect", depth: int) -> Filter | None:
        """A whole filter object, or None after a fault."""
        if isinstance(value, str) and dialect.plain is not None:
            return dialect.plain(self, value, path)
        if not isinstance(value, dict):
            expected = "an object" if dialect.plain is None else "a text or an object"
            self.fault(path, "wrong_type", f"must be {expected}")
            return None
        if depth > DEPTH_MAX:
            self.fault(path, "too_deep", f"filters nest at most {DEPTH_MAX} levels")
            return None
        members = {
            name: inner
            for name, inner in value.items()
            if not (inner is None and dialect.null_is_absent)
        }
        if dialect.exclusive and len(members) > 1:
            self.fault(path, "conflicting_operators", "takes one operator at a time")
            return None
        found = [
            self._operator(name, inner, dialect.place(path, name), dialect, depth)
            for name, inner in members.items()
        ]
        return _all_of([inner for inner in found if inner is not None])

    def _operator(
        self, name: str, value: object, path: str, dialect: "Dialect", depth: int
    ) -> Filter | None:
        self.nodes += 1
        if self.nodes > NODES_MAX:
            if self.nodes == NODES_MAX + 1:
                self.fault(path, "too_large", f"a filter has at most {NODES_MAX} operators")
            return None
        leaf = dialect.leaves.get(name)
        if leaf is not None:
            return leaf(self, value, path)
        if name not in dialect.branches:
            known = ", ".join([*dialect.leaves, *dialect.branches])
            self.fault(path, "unknown_operator", f"is not an operator; use one of {known}")
            return None
        items = self.items(value, path, dialect.branches_max, dialect.empty_lists)
        inside = dialect.inside or dialect
        found = [
            self.read(item, f"{path}[{index}]", inside, depth + 1)
            for index, item in enumerate(items)
        ]
        return dialect.branches[name](tuple(inner for inner in found if inner is not None))

    def items(self, value: object, path: str, count_max: int, empty: bool) -> list[object]:
        """The items of a list; none after a fault."""
        if not isinstance(value, list):
            self.fault(path, "wrong_type", "must be a list")
        elif len(value) > count_max:
            self.fault(path, "too_many_values", f"takes at most {count_max} items")
        elif not value and not empty:
            self.fault(path, "empty_list", "must have at least one item")
        else:
            return value
        return []

    def text(self, value: object, path: str) -> str | None:
        self.values += 1
        if self.values > VALUES_MAX:
            if self.values == VALUES_MAX + 1:
                self.fault(path, "too_large", f"a filter has at most {VALUES_MAX} values")
        elif not isinstance(value, str):
            self.fault(path, "wrong_type", "must be a text")
        elif len(value) > TEXT_LENGTH_MAX:
            self.fault(path, "too_long", f"must have at most {TEXT_LENGTH_MAX} characters")
        elif _LONE_SURROGATE.search(value):
            self.fault(path, "invalid_text", "must not contain lone surrogates")
        else:
            return value
        return None

    def ulid(self, value: object, path: str) -> str | None:
        text = self.text(value, path)
        if text is not None and _ULID.fullmatch(text) is None:
            self.fault(path, "invalid_ulid", "must be a ULID")
            return None
        return None if text is None else text.upper()

    def instant(self, value: object, path: str) -> datetime | None:
        text = self.text(value, path)
        if text is None:
            return None
        try:
            return parse_instant(text)
        except ValueError as wrong:
            self.fault(path, "invalid_time", str(wrong))
            return None

    def comma_separated(self, value: object, path: str, read: "Text") -> list[str]:
        text = self.text(value, path)
        if text is None:
            return []
        items = [item for item in map(str.strip, text.split(",")) if item]
        if not items or len(items) > COMMA_ITEMS_MAX:
            message = f"takes one to {COMMA_ITEMS_MAX} texts with commas between them"
            self.fault(path, "empty_list" if not items else "too_many_values", message)
            return []
        found = [read(self, item, path) for item in items]
        return [item for item in found if item is not None]


Leaf = Callable[[Reader, object, str], Filter | None]
Text = Callable[[Reader, object, str], str | None]
Value = Callable[[Reader, object, str], str | datetime | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What one schema of the contract allows.

    Attributes:
        leaves: how to read the value of each operator that takes values.
        branches: the operators that take a list of filters.
        inside: the dialect of filters in such a list; None is this one.
        plain: how to read one text in place of an object; None does not allow it.
        exclusive: an object has at most one operator.
        null_is_absent: null stands for a member that was left out.
        empty_lists: lists may be empty.
        bracketed: operators are named in brackets, as in a query, in the paths of faults.
        branches_max: how many filters one list holds.
    """

    leaves: Mapping[str, Leaf]
    branches: Mapping[str, Callable[[tuple[Filter, ...]], Filter]]
    inside: "Dialect | None" = None
    plain: Leaf | None = None
    exclusive: bool = False
    null_is_absent: bool = False
    empty_lists: bool = False
    bracketed: bool = False
    branches_max: int = NODES_MAX

    def place(self, path: str, name: str) -> str:
        # Names come from clients: a fault need not repeat all of a long one, and cannot repeat a
        # lone surrogate.
        text = shown(name)
        return f"{path}[{text}]" if self.bracketed else f"{path}.{text}"


def _all_of(filters: list[Filter]) -> Filter:
    return filters[0] if len(filters) == 1 else And(filters=tuple(filters))
