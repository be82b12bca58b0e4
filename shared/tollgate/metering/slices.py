"""Slices of the log: how far one run of the rollups goes, so that each is bounded in memory."""

from dataclasses import dataclass

from tollgate.events.facts import after
from tollgate.events.position import Token
from tollgate.metering.statement import at_sql
from tollgate.platform.clickhouse import DATABASE, UNCOMPILED, ClickHouse


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Facts beyond one vector and up to another.

    Attributes:
        start: None: the beginning of all.
        end: of the ledger.
        is_last: whether the ledger ended there.
        events: about how many it has, corrections included, if it is the last; else more.
        oldest_us: when the first of its records was appended.
        appended: SQL, a condition on `appended_at` that all of its records meet.
    """

    start: Token | None
    end: Token
    is_last: bool
    events: int
    oldest_us: int
    appended: str


def next_slice(clickhouse: ClickHouse, start: Token | None, events_max: int) -> Slice | None:
    """The next slice of the ledger; None: nothing came since.

    Args:
        clickhouse: the store.
        start: where the last one ended.
        events_max: about how many events and corrections; at least one record of each partition.

    Raises:
        Transient: ClickHouse is away.
    """
    beyond = "true" if start is None else after(start)
    sizes = clickhouse.query(
        "SELECT log_generation, toUInt64(sum(accepted) + sum(corrections)), count(),"
        " uniqExact(log_partition), toUnixTimestamp64Micro(min(appended_at)),"
        " toUnixTimestamp64Micro(max(appended_at))"
        f" FROM {DATABASE}.ledger WHERE {beyond} GROUP BY log_generation ORDER BY log_generation",
        settings=UNCOMPILED,
    )
    # Older generations are wholly below a vector: it ends in the first one that is too much.
    left, generation, times = events_max, 0, []
    for number, size, rows, _, low, high in sizes:
        generation = int(number)
        if size + rows > left or number == sizes[-1][0]:
            break
        left -= size + rows
        times += [low, high]
    if not sizes:
        return None
    partitions = next(row[3] for row in sizes if row[0] == generation)
    ends = _ends(clickhouse, beyond, generation, max(1, left // partitions))
    known = dict(start.offsets) if start is not None and start.generation == generation else {}
    times += [each for _, _, low, high, _ in ends for each in (low, high)]
    return Slice(
        start=start,
        end=Token(generation=generation, offsets=known | {row[0]: row[1] for row in ends}),
        is_last=generation == sizes[-1][0] and all(last == whole for _, last, _, _, whole in ends),
        events=sum(int(row[1]) for row in sizes),
        oldest_us=min(times),
        appended=f"appended_at BETWEEN {at_sql(min(times))} AND {at_sql(max(times))}",
    )


def _ends(
    clickhouse: ClickHouse, beyond: str, generation: int, share: int
) -> list[tuple[int, int, int, int, int]]:
    """How far each partition of a generation goes with about `share` events beyond a vector.

    Of each: its number, last offset, earliest and latest time of appending, last offset of all.
    """
    rows = clickhouse.query(
        "SELECT log_partition, maxIf(log_offset, taken), minIf(appended_us, taken),"
        " maxIf(appended_us, taken), max(log_offset)"
        " FROM (SELECT log_partition, log_offset, appended_us,"
        " sum(size) OVER (PARTITION BY log_partition ORDER BY log_offset) - size"
        " < {share:UInt64} AS taken"
        " FROM (SELECT log_partition, log_offset,"
        " any(toUnixTimestamp64Micro(appended_at)) AS appended_us,"
        " toUInt64(greatest(1, sum(accepted) + sum(corrections))) AS size"
        f" FROM {DATABASE}.ledger FINAL WHERE {beyond}"
        " AND log_generation = {generation:UInt32}"
        " GROUP BY log_partition, log_offset)) GROUP BY log_partition",
        {"share": share, "generation": generation},
        UNCOMPILED,
    )
    return [(int(row[0]), int(row[1]), int(row[2]), int(row[3]), int(row[4])) for row in rows]
