"""Use case: does the ledger balance, and how far has loading come.

Conservation: in every hour of receipt accepted = stored + duplicate + conflict + dead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tollgate.core.clock import datetime_from_us
from tollgate.events.ledger import read_frontier
from tollgate.platform.clickhouse import DATABASE, ClickHouse
from tollgate.platform.event_log import EventLog

_FIGURES = ("accepted", "stored", "duplicate", "conflict", "dead", "corrections")
_SUMS = ", ".join(f"sum({name})" for name in _FIGURES)
_PERIOD = "received_hour >= {start:DateTime('UTC')} AND received_hour < {end:DateTime('UTC')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What became of events. All are counts; corrections are no events and counted apart."""

    accepted: int
    stored: int
    duplicate: int
    conflict: int
    dead: int
    corrections: int

    @property
    def balanced(self) -> bool:
        """Whether every accepted event is accounted for."""
        return self.accepted == self.stored + self.duplicate + self.conflict + self.dead


NO_TALLY = Tally(accepted=0, stored=0, duplicate=0, conflict=0, dead=0, corrections=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionFrontier:
    """How far one partition is loaded.

    Attributes:
        generation, partition: which one.
        loaded_through: last offset in the ledger; -1: none.
        log_end: last offset in the log; -1: none.
        oldest_waiting_at: when the first record was appended that is not loaded; None: none waits.
    """

    generation: int
    partition: int
    loaded_through: int
    log_end: int
    oldest_waiting_at: datetime | None

    @property
    def records_in_flight(self) -> int:
        """Records in the log and not yet loaded."""
        return max(0, self.log_end - self.loaded_through)


def read_tallies(
    clickhouse: ClickHouse, namespace: str, start: datetime, end: datetime
) -> tuple[tuple[datetime, Tally], ...]:
    """The ledger of a namespace by hour of receipt, for the hours that begin in [start, end).

    Raises:
        Transient: ClickHouse is away.
    """
    rows = clickhouse.query(
        f"SELECT toUnixTimestamp(received_hour), {_SUMS} FROM {DATABASE}.ledger FINAL"
        f" WHERE namespace = {{namespace:String}} AND {_PERIOD}"
        " GROUP BY received_hour ORDER BY received_hour",
        {"namespace": namespace, "start": start, "end": end},
    )
    return tuple((datetime_from_us(row[0] * 1_000_000), _tally(row[1:])) for row in rows)


def read_total(clickhouse: ClickHouse, start: datetime, end: datetime) -> Tally:
    """The ledger of all namespaces, of the hours of receipt that begin in [start, end).

    Raises:
        Transient: ClickHouse is away.
    """
    (row,) = clickhouse.query(
        f"SELECT {_SUMS} FROM {DATABASE}.ledger FINAL WHERE {_PERIOD}",
        {"start": start, "end": end},
    )
    return _tally(row)


def _tally(row: Sequence[int]) -> Tally:
    return Tally(**dict(zip(_FIGURES, map(int, row), strict=True)))


def total(tallies: Sequence[Tally]) -> Tally:
    """The sum of tallies."""
    return Tally(**{name: sum(getattr(t, name) for t in tallies) for name in _FIGURES})


def read_frontiers(clickhouse: ClickHouse, log: EventLog) -> tuple[PartitionFrontier, ...]:
    """How far every partition of the log is loaded.

    Raises:
        Transient: ClickHouse or the log is away.
    """
    found = []
    for partition in range(log.partitions):
        loaded = read_frontier(clickhouse, log.generation, partition)
        waiting = log.read(partition, loaded, bytes_max=1)
        found.append(
            PartitionFrontier(
                generation=log.generation,
                partition=partition,
                loaded_through=loaded,
                log_end=log.end(partition),
                oldest_waiting_at=datetime_from_us(waiting[0].appended_us) if waiting else None,
            )
        )
    return tuple(found)
