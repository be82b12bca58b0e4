"""The tables of ClickHouse, as the product's migrations make and change them.

What can't be read here is an error: a migration of another kind needs a look at the simulator.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

from tollgate.platform.clickhouse_schema import read_migrations, render


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column: its type without what is said of its storage, and its default."""

    name: str
    type: str
    default: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table.

    Attributes:
        name: of it.
        columns: in order.
        order: rows that are alike in these replace each other; (): rows do not.
        keeps: whether it keeps rows; if not, only views take them.
    """

    name: str
    columns: tuple[Column, ...]
    order: tuple[str, ...]
    keeps: bool

    def column(self, name: str) -> Column:
        """The column of a name."""
        return next(each for each in self.columns if each.name == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """All tables, and the names of the views that fill them."""

    tables: Mapping[str, Table]
    views: frozenset[str]


_TABLE = re.compile(
    r"CREATE TABLE (?:IF NOT EXISTS )?\w+\.(\w+)\s+\((.*?)\n\)\s*ENGINE = ([\w()]+)(.*)", re.DOTALL
)
_COLUMN = re.compile(
    r"(\w+)(?: ([A-Z]\w*(?:\((?:[^()]|\([^()]*\))*\))?))?(?: DEFAULT (.+?))?(?: CODEC\(.*)?"
)
_ALTER = re.compile(r"ALTER TABLE \w+\.(\w+)\s+(.*)", re.DOTALL)
_CLAUSE = re.compile(r"(ADD|MODIFY|DROP) COLUMN (?:IF (?:NOT )?EXISTS )?(.*)", re.DOTALL)
_VIEW = re.compile(r"CREATE MATERIALIZED VIEW \w+\.(\w+)")
_DROPPED = re.compile(r"DROP (?:VIEW|TABLE) IF EXISTS \w+\.(\w+)")
_ORDER = re.compile(r"ORDER BY \(?([\w,\s]+)\)?")
_UNSEEN = re.compile(r"(INSERT INTO|ADD INDEX|DROP INDEX|MATERIALIZE INDEX|MODIFY QUERY)\b")


def _column(text: str, before: Column | None = None) -> Column:
    found = _COLUMN.fullmatch(re.sub(r"\s+(AFTER|FIRST)\b.*", "", text.strip().rstrip(",")))
    assert found is not None, f"the simulator can't read the column {text!r}"
    kind = found[2] or (before.type if before else "")
    return Column(name=found[1], type=kind, default=found[3] or (before.default if before else ""))


def _made(statement: re.Match[str]) -> Table:
    lines = [line.strip() for line in statement[2].splitlines()]
    kept = [line for line in lines if line and not line.startswith(("INDEX", "--"))]
    ordered = _ORDER.search(statement[4])
    replacing = ordered is not None and "Replacing" in statement[3]
    return Table(
        name=statement[1],
        columns=tuple(map(_column, kept)),
        order=tuple(re.findall(r"\w+", ordered[1])) if ordered and replacing else (),
        keeps=statement[3] != "Null",
    )


def _altered(table: Table, clauses: str) -> Table:
    for clause in re.split(r",\s*\n\s*", clauses):
        columns = {each.name: each for each in table.columns}
        found = _CLAUSE.match(clause.strip())
        if found is None:
            assert _UNSEEN.match(clause.strip()), f"the simulator can't read {clause!r}"
            continue
        name = found[2].split()[0]
        if found[1] == "DROP":
            del columns[name]
        else:
            columns[name] = _column(found[2], columns.get(name))
        table = replace(table, columns=tuple(columns.values()))
    return table


@cache
def schema() -> Schema:
    """What all migrations make."""
    tables: dict[str, Table] = {}
    views: set[str] = set()
    for statement in (s.rstrip("; \n") for m in read_migrations() for s in render(m.template)):
        if made := _TABLE.match(statement):
            tables[made[1]] = _made(made)
        elif altered := _ALTER.match(statement):
            if altered[1] in tables:
                tables[altered[1]] = _altered(tables[altered[1]], altered[2])
        elif view := _VIEW.match(statement):
            views.add(view[1])
        elif dropped := _DROPPED.match(statement):
            tables.pop(dropped[1], None)
            views.discard(dropped[1])
        else:
            assert _UNSEEN.match(statement), f"the simulator can't read {statement!r}"
    return Schema(tables=tables, views=frozenset(views))
