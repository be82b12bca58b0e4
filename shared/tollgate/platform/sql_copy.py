"""The control plane of one database into another: SQLite to PostgreSQL, when a product grows."""

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from tollgate.core.errors import Conflict, PermanentFault
from tollgate.platform.sql import Database

_OF_MIGRATIONS = "alembic_version"


def copy_control_plane(
    source: Database,
    target: Database,
    tables: Sequence[sa.Table],
    *,
    without: Collection[str] = (),
) -> dict[str, int]:
    """Copies every row of every table, in one transaction. Rows that are there already stay.

    Args:
        source: read only.
        target: migrated to the same schema.
        tables: all that there are, in an order in which rows can be written.
        without: names of tables whose rows are of the moment.

    Returns:
        by table, how many rows it has.

    Raises:
        Conflict: a row of the target is missing in the source, or differs; nothing was written.
        PermanentFault: the source has a table that is not among these; nothing was written.
        Transient: a database is away.
    """
    counts: dict[str, int] = {}
    with source.connect() as reading, target.begin() as writing:
        known = {table.name for table in tables} | {_OF_MIGRATIONS}
        if unknown := set(sa.inspect(reading).get_table_names()) - known:
            raise PermanentFault(f"these tables would be left behind: {', '.join(sorted(unknown))}")
        for table in tables:
            if table.name in without:
                continue
            wanted, found = _rows(reading, table), _rows(writing, table)
            for key, row in found.items():
                if wanted.get(key) != row:
                    what = "differs from" if key in wanted else "is missing in"
                    raise Conflict(
                        f"the target's control plane is in use: the row {'/'.join(map(str, key))}"
                        f" of {table.name} {what} this folder's; migrate into an empty one, before"
                        " its first start"
                    )
            new = [row for key, row in wanted.items() if key not in found]
            if new:
                writing.execute(table.insert(), new)
            counts[table.name] = len(wanted)
    return counts


def _rows(
    connection: sa.Connection, table: sa.Table
) -> dict[tuple[object, ...], dict[str, object]]:
    keys = [column.name for column in table.primary_key]
    rows = [dict(row) for row in connection.execute(sa.select(table)).mappings()]
    return {tuple(row[key] for key in keys): row for row in rows}
