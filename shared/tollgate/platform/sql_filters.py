"""The tree of `filters.py` as conditions in SQL, alike in SQLite and PostgreSQL."""

import re

import sqlalchemy as sa

from tollgate.platform.filters import And, Comparison, Filter, Match, Membership, Or, Presence

# Elsewhere than before % and _ a backslash in a pattern is itself; SQL would swallow it.
_BACKSLASH = re.compile(r"\\([%_\\])?")


def sql_condition(
    column: sa.ColumnElement[str], asked: Filter, *, nullable: bool = False
) -> sa.ColumnElement[bool]:
    """A filter as a condition. Case is ignored for ASCII only.

    Args:
        column: what it is about, a text or a time.
        asked: the filter.
        nullable: the column is a text that may be NULL, which is absence.
    """
    text = sa.func.coalesce(column, "") if nullable else column
    match asked:
        case Comparison(operator=operator, value=value):
            return text.op(operator.value, is_comparison=True, return_type=sa.Boolean())(value)
        case Membership(values=values, negated=negated):
            return text.not_in(values) if negated else text.in_(values)
        case Match(pattern=pattern, ignore_case=ignore_case, negated=negated):
            strict = _BACKSLASH.sub(lambda each: each[0] if each[1] else "\\\\", pattern)
            like = text.ilike if ignore_case else text.like
            found = like(strict, escape="\\")
            return sa.not_(found) if negated else found
        case Presence(present=present):
            return column.is_not(None) if present else column.is_(None)
        case And(filters=filters):
            parts = [sql_condition(column, each, nullable=nullable) for each in filters]
            return sa.and_(sa.true(), *parts)
        case Or(filters=filters):
            parts = [sql_condition(column, each, nullable=nullable) for each in filters]
            return sa.or_(sa.false(), *parts)
