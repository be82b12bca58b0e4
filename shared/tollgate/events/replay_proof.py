"""The end of a replay: every total of what was loaded beside the archived ledger's."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tollgate.events.archive_chain import LEDGER, Chain
from tollgate.events.archive_ledger import ledger_files
from tollgate.events.ledger import Partition
from tollgate.events.replay import Period, Plan
from tollgate.platform.clickhouse import DATABASE, ClickHouse
from tollgate.platform.objects import Objects

TOTALS = ("accepted", "stored", "duplicate", "conflict", "dead", "corrections")
_SECOND_US = 1_000_000
_EVER_US = 1 << 62
Hour = tuple[str, int]
"""A namespace and an hour of receipt, in seconds since the epoch."""
Totals = dict[Hour, dict[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A total that is not what the archive says."""

    namespace: str
    hour: int
    name: str
    archived: int
    replayed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What the comparison has found.

    Attributes:
        hours: how many pairs of namespace and hour were compared.
        totals: sums over all of them, of the archive.
        differences: those that differ.
        uncompared: records that are loaded and whose ledger was not archived yet.
    """

    hours: int
    totals: Mapping[str, int]
    differences: list[Difference]
    uncompared: int


def prove(clickhouse: ClickHouse, objects: Objects, plan: Plan) -> Proof:
    """Compares, for what was appended in the period, as far as the ledger is archived.

    Raises:
        Transient: a store is away.
        PermanentFault: the archive is damaged.
    """
    ends = {key: Chain(objects, LEDGER, *key).look() for key in plan.files}
    archived: Totals = defaultdict(lambda: dict.fromkeys(TOTALS, 0))
    for key in ends:
        _add_archived(archived, objects, key, plan.period)
    replayed = _replayed(clickhouse, ends, plan.period)
    nothing = dict.fromkeys(TOTALS, 0)
    differences = [
        Difference(namespace=namespace, hour=hour, name=name, archived=one, replayed=other)
        for namespace, hour in sorted(archived.keys() | replayed.keys())
        for name in TOTALS
        if (one := archived.get((namespace, hour), nothing)[name])
        != (other := replayed.get((namespace, hour), nothing)[name])
    ]
    return Proof(
        hours=len(archived),
        totals={name: sum(each[name] for each in archived.values()) for name in TOTALS},
        differences=differences,
        uncompared=_uncompared(clickhouse, ends),
    )


def _add_archived(totals: Totals, objects: Objects, key: Partition, period: Period) -> None:
    since_us, until_us = period.since_us or 0, period.until_us or _EVER_US
    for entry, rows in ledger_files(objects, *key):
        if entry.appended[1] < since_us or entry.appended[0] >= until_us:
            continue
        appended = rows.numbers("appended_at")
        chosen = (appended >= since_us) & (appended < until_us)
        hours = (rows.numbers("received_hour") // _SECOND_US)[chosen]
        names = np.array(rows.texts("namespace"), dtype=object)[chosen]
        # An archive that is older than a column had none of what it counts.
        counts = [
            rows.numbers(name).astype(np.int64)[chosen]
            if name in rows.names
            else np.zeros(len(hours), np.int64)
            for name in TOTALS
        ]
        for namespace, hour, *values in zip(
            names.tolist(), hours.tolist(), *(each.tolist() for each in counts), strict=True
        ):
            total = totals[namespace, hour]
            for name, value in zip(TOTALS, values, strict=True):
                total[name] += value


def _replayed(clickhouse: ClickHouse, ends: Mapping[Partition, int], period: Period) -> Totals:
    sums = ", ".join(f"sum({name})" for name in TOTALS)
    rows = clickhouse.query(
        f"SELECT namespace, toInt64(toUnixTimestamp(received_hour)), {sums}"
        f" FROM {DATABASE}.ledger FINAL WHERE ({_within(ends)})"
        " AND toUnixTimestamp64Micro(appended_at) >= {since:Int64}"
        " AND toUnixTimestamp64Micro(appended_at) < {until:Int64}"
        " GROUP BY namespace, received_hour",
        {"since": period.since_us or 0, "until": period.until_us or _EVER_US},
    )
    return {
        (str(row[0]), int(row[1])): dict(zip(TOTALS, map(int, row[2:]), strict=True))
        for row in rows
    }


def _uncompared(clickhouse: ClickHouse, ends: Mapping[Partition, int]) -> int:
    ((count,),) = clickhouse.query(
        "SELECT uniqExact(log_generation, log_partition, log_offset)"
        f" FROM {DATABASE}.ledger WHERE NOT ({_within(ends)})"
    )
    return int(count)


def _within(ends: Mapping[Partition, int]) -> str:
    return " OR ".join(
        f"(log_generation = {generation} AND log_partition = {partition}"
        f" AND toInt64(log_offset) <= {end})"
        for (generation, partition), end in sorted(ends.items())
    )
