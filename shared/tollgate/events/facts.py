"""Which rows of `events` count: conditions in SQL for all who read quantities out of them.

A row stops counting when a correction supersedes it. What was known at a vector of the log are the
rows up to it, less those that corrections up to it superseded.
"""

from tollgate.events.position import Token
from tollgate.platform.clickhouse import DATABASE, ClickHouse

POSITION = "log_generation, log_partition, log_offset, log_index"
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
    """SQL: a row of `events` is not superseded.

    Args:
        namespace: trusted SQL, the placeholder of the only one that is read.
        event_type: the same; None: events of all types are read.
        vector: as of which vector; None: as of now.
    """
    known = f" AND {within(vector, 'applied')}" if vector is not None else ""
    of_type = f" AND superseded_type = {event_type}" if event_type is not None else ""
    return (
        f"({POSITION}) NOT IN (SELECT {_SUPERSEDED} FROM {DATABASE}.event_corrections"
        f" WHERE namespace = {namespace}{of_type} AND superseded_generation > 0{known})"
    )


def has_corrections(clickhouse: ClickHouse, namespace: str, event_type: str | None = None) -> bool:
    """Whether any event of a type was ever superseded: most types need no look at corrections.

    Args:
        clickhouse: the store.
        namespace: whose events.
        event_type: which; None: any.

    Raises:
        Transient: ClickHouse is away.
    """
    of_type = " AND superseded_type = {type:String}" if event_type is not None else ""
    rows = clickhouse.query(
        f"SELECT 1 FROM {DATABASE}.event_corrections WHERE namespace = {{namespace:String}}"
        f"{of_type} AND superseded_generation > 0 LIMIT 1",
        {"namespace": namespace, "type": event_type or ""},
    )
    return bool(rows)
