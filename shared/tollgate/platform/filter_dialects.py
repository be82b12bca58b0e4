"""The wire's dialects of filters, read from plain JSON values into the tree of `filters.py`.

- v1 and v2, `FilterString`, `FilterTime`, `FilterIDExact`: operators with `$`, nested by `$and` and
  `$or`; several in one object all hold; null is absent. An object without any, an empty `$and` and
  an empty `$nin` hold always, an empty `$or` and an empty `$in` never.
- v3 query, `StringFieldFilter`, `StringFieldFilterExact`, `ULIDFieldFilter`, `DateTimeFieldFilter`:
  one text is `eq`; several operators all hold; `oeq` and `ocontains` take any of the texts between
  commas, blanks around them cut; `exists` is `true` or `false`.
- v3 bodies, `QueryFilterString`, `QueryFilterStringMapItem`: at most one operator in an object, as
  the contract says; `exists` only in the outermost one.

Every fault is reported at once, with the path of the offending member.
"""

from dataclasses import replace

from tollgate.core.errors import InvalidInput
from tollgate.platform.filter_reader import VALUES_MAX, Dialect, Leaf, Reader, Text, Value
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

# What the v3 contract allows in one list.
LIST_ITEMS_MAX = 100
BRANCHES_MAX = 10


def parse_filter_string(value: object, path: str) -> Filter:
    """A `FilterString` of v1 and v2. Raises InvalidInput with every fault under `path`."""
    return _read(value, path, _V1_STRING)


def parse_filter_time(value: object, path: str) -> Filter:
    """A `FilterTime` of v1 and v2. Raises InvalidInput with every fault under `path`."""
    return _read(value, path, _V1_TIME)


def parse_filter_id_exact(value: object, path: str) -> Filter:
    """A `FilterIDExact` of v1 and v2. Raises InvalidInput with every fault under `path`."""
    return _read(value, path, _V1_ID)


def parse_string_field(value: object, path: str) -> Filter:
    """A v3 `StringFieldFilter`. Raises InvalidInput with every fault under `path`."""
    return _read(value, path, _V3_STRING)


def parse_string_exact_field(value: object, path: str) -> Filter:
    """A v3 `StringFieldFilterExact`. Raises InvalidInput with every fault under `path`."""
    return _read(value, path, _V3_STRING_EXACT)


def parse_ulid_field(value: object, path: str) -> Filter:
    """A v3 `ULIDFieldFilter`. Raises InvalidInput with every fault under `path`."""
    return _read(value, path, _V3_ULID)


def parse_datetime_field(value: object, path: str) -> Filter:
    """A v3 `DateTimeFieldFilter`. Raises InvalidInput with every fault under `path`."""
    return _read(value, path, _V3_TIME)


def parse_query_filter(value: object, path: str) -> Filter:
    """A `QueryFilterString` of v3 bodies. Raises InvalidInput with every fault under `path`."""
    return _read(value, path, _V3_QUERY)


def parse_query_filter_map_item(value: object, path: str) -> Filter:
    """A `QueryFilterStringMapItem` of v3 bodies. Raises InvalidInput, every fault under `path`."""
    return _read(value, path, _V3_QUERY_MAP_ITEM)


def _read(value: object, path: str, dialect: Dialect) -> Filter:
    reader = Reader()
    found = reader.read(value, path, dialect, depth=1)
    if reader.faults or found is None:
        raise InvalidInput(tuple(reader.faults))
    return found


def _and(filters: tuple[Filter, ...]) -> Filter:
    return And(filters=filters)


def _or(filters: tuple[Filter, ...]) -> Filter:
    return Or(filters=filters)


def _compare(operator: Operator, read: Value) -> Leaf:
    def leaf(reader: Reader, value: object, path: str) -> Filter | None:
        found = read(reader, value, path)
        return None if found is None else Comparison(operator=operator, value=found)

    return leaf


def _member(read: Text, *, negated: bool = False, empty: bool = False, count_max: int) -> Leaf:
    def leaf(reader: Reader, value: object, path: str) -> Filter | None:
        items = reader.items(value, path, count_max, empty)
        found = [read(reader, item, f"{path}[{index}]") for index, item in enumerate(items)]
        return Membership(values=tuple(item for item in found if item is not None), negated=negated)

    return leaf


def _any_of_commas(read: Text) -> Leaf:
    def leaf(reader: Reader, value: object, path: str) -> Filter | None:
        return Membership(values=tuple(reader.comma_separated(value, path, read)), negated=False)

    return leaf


def _contains_any(reader: Reader, value: object, path: str) -> Filter | None:
    texts = reader.comma_separated(value, path, Reader.text)
    return Or(filters=tuple(contains(text) for text in texts))


def _contains(*, negated: bool) -> Leaf:
    def leaf(reader: Reader, value: object, path: str) -> Filter | None:
        text = reader.text(value, path)
        return None if text is None else contains(text, negated=negated)

    return leaf


def _match(*, ignore_case: bool, negated: bool) -> Leaf:
    def leaf(reader: Reader, value: object, path: str) -> Filter | None:
        pattern = reader.text(value, path)
        if pattern is None:
            return None
        if (len(pattern) - len(pattern.rstrip("\\"))) % 2:
            reader.fault(path, "invalid_pattern", "must not end with a lone backslash")
            return None
        return Match(pattern=pattern, ignore_case=ignore_case, negated=negated)

    return leaf


def _exists(reader: Reader, value: object, path: str) -> Filter | None:
    if isinstance(value, bool):
        return Presence(present=value)
    reader.fault(path, "wrong_type", "must be true or false")
    return None


def _exists_as_text(reader: Reader, value: object, path: str) -> Filter | None:
    if value in ("true", "false"):
        return Presence(present=value == "true")
    reader.fault(path, "wrong_type", "must be true or false")
    return None


def _ordered(read: Value, mark: str = "") -> dict[str, Leaf]:
    return {
        f"{mark}gt": _compare(Operator.GREATER, read),
        f"{mark}gte": _compare(Operator.GREATER_OR_EQUAL, read),
        f"{mark}lt": _compare(Operator.LESS, read),
        f"{mark}lte": _compare(Operator.LESS_OR_EQUAL, read),
    }


def _exact(read: Text) -> dict[str, Leaf]:
    return {
        "eq": _compare(Operator.EQUAL, read),
        "neq": _compare(Operator.NOT_EQUAL, read),
        "oeq": _any_of_commas(read),
    }


_V1_STRING = Dialect(
    leaves={
        "$eq": _compare(Operator.EQUAL, Reader.text),
        "$ne": _compare(Operator.NOT_EQUAL, Reader.text),
        "$in": _member(Reader.text, empty=True, count_max=VALUES_MAX),
        "$nin": _member(Reader.text, empty=True, count_max=VALUES_MAX, negated=True),
        "$like": _match(ignore_case=False, negated=False),
        "$nlike": _match(ignore_case=False, negated=True),
        "$ilike": _match(ignore_case=True, negated=False),
        "$nilike": _match(ignore_case=True, negated=True),
        **_ordered(Reader.text, "$"),
    },
    branches={"$and": _and, "$or": _or},
    null_is_absent=True,
    empty_lists=True,
)
_V1_TIME = Dialect(
    leaves=_ordered(Reader.instant, "$"),
    branches={"$and": _and, "$or": _or},
    null_is_absent=True,
    empty_lists=True,
)
_V1_ID = Dialect(
    leaves={"$in": _member(Reader.ulid, empty=True, count_max=VALUES_MAX)},
    branches={},
    null_is_absent=True,
)
_V3_STRING = Dialect(
    leaves={
        **_exact(Reader.text),
        "contains": _contains(negated=False),
        "ocontains": _contains_any,
        **_ordered(Reader.text),
        "exists": _exists_as_text,
    },
    branches={},
    plain=_compare(Operator.EQUAL, Reader.text),
    bracketed=True,
)
_V3_STRING_EXACT = Dialect(
    leaves=_exact(Reader.text),
    branches={},
    plain=_compare(Operator.EQUAL, Reader.text),
    bracketed=True,
)
_V3_ULID = Dialect(
    leaves=_exact(Reader.ulid),
    branches={},
    plain=_compare(Operator.EQUAL, Reader.ulid),
    bracketed=True,
)
_V3_TIME = Dialect(
    leaves={"eq": _compare(Operator.EQUAL, Reader.instant), **_ordered(Reader.instant)},
    branches={},
    plain=_compare(Operator.EQUAL, Reader.instant),
    bracketed=True,
)
_V3_QUERY = Dialect(
    leaves={
        "eq": _compare(Operator.EQUAL, Reader.text),
        "neq": _compare(Operator.NOT_EQUAL, Reader.text),
        "in": _member(Reader.text, count_max=LIST_ITEMS_MAX),
        "nin": _member(Reader.text, count_max=LIST_ITEMS_MAX, negated=True),
        "contains": _contains(negated=False),
        "ncontains": _contains(negated=True),
    },
    branches={"and": _and, "or": _or},
    exclusive=True,
    branches_max=BRANCHES_MAX,
)
_V3_QUERY_MAP_ITEM = replace(
    _V3_QUERY, leaves={"exists": _exists, **_V3_QUERY.leaves}, inside=_V3_QUERY
)
