"""Which rows of `events` count: conditions in SQL for all who read quantities out of them.

A row stops counting when a correction supersedes it. What was known at a vector of the log are the
rows up to it, less those that corrections up to it superseded.
"""

from tollgate.events.position import Token
from tollgate.platform.clickhouse import DATABASE, ClickHouse

POSITION = "log_generation, log_partition, log_offset, log_index"
UNCORRECTED = "amendment = 0"
"""SQL: a row of `events` counts, where `has_corrections` says that no more is needed.

An amendment may be written already whose correction is not: until then it does not count.
"""
_SUPERSEDED = "superseded_generation, superseded_partition, superseded_offset, superseded_index"


def within(vector: Token, prefix: str = "log") -> str:
    """SQL: a position is at or before a vector. Generations before the vector's are all within.

    Args:
        vector: of one generation; partitions that it does not name are not within.
        prefix: trusted start of the columns' names.
    """
    inside = " OR ".join(
        f"({prefix}_partition = {partition} AND {prefix}_offset <= {offset})"
        for partition, offset in sorted(vector.offsets.items())
    )
    older = f"{prefix}_generation < {vector.generation}"
    return f"({older} OR ({prefix}_generation = {vector.generation} AND ({inside or 'false'})))"


def after(vector: Token, prefix: str = "log") -> str:
    """SQL: a position is beyond a vector."""
    return f"NOT {within(vector, prefix)}"


def counting(namespace: str, event_type: str | None = None, vector: Token | None = None) -> str:
    """SQL: a row of `events` counts, of a namespace that has corrections.

    Args:
        namespace: trusted SQL, the placeholder of the only one that is read.
        event_type: the same; None: events of all types are read.
        vector: as of which vector, all of it loaded; None: as of now.
    """
    table = f"{DATABASE}.event_corrections WHERE namespace = {namespace}"
    known = f" AND {within(vector, 'applied')}" if vector is not None else ""
    of_type = f" AND superseded_type = {event_type}" if event_type is not None else ""
    in_force = (
        f"({POSITION}) NOT IN"
        f" (SELECT {_SUPERSEDED} FROM {table}{of_type} AND superseded_generation > 0{known})"
    )
    if vector is not None:
        return in_force
    # An amendment is written before what it replaces stops counting: until then it does not count.
    amended = f"SELECT {POSITION} FROM {table} AND action = 'amend' AND effect = 'applied'"
    return f"(amendment = 0 OR ({POSITION}) IN ({amended})) AND {in_force}"


def has_corrections(clickhouse: ClickHouse, namespace: str, event_type: str | None = None) -> bool:
    """Whether `counting` is needed: most types need no look at corrections.

    That is so for a type of which a row was ever superseded, and for all types of a namespace in
    which an event was amended: its type may have changed.

    Args:
        clickhouse: the store.
        namespace: whose events.
        event_type: which; None: any.

    Raises:
        Transient: ClickHouse is away.
    """
    of_type = " AND superseded_type = {type:String}" if event_type is not None else ""
    table = f"{DATABASE}.event_corrections WHERE namespace = {{namespace:String}}"
    rows = clickhouse.query(
        f"SELECT 1 FROM {table}{of_type} AND superseded_generation > 0 LIMIT 1"
        f" UNION ALL SELECT 1 FROM {table} AND action = 'amend' AND effect = 'applied' LIMIT 1",
        {"namespace": namespace, "type": event_type or ""},
    )
    return bool(rows)
