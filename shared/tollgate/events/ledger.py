"""The ledger: what became of every record, and how far loading has come.

A record's rows are written after its events and keys. The frontier of a partition is the highest
offset in the ledger: a loader starts right after it and writes in order, so no record below is
missing. Offsets themselves may have holes (a log gives some to records of its own): only offsets
of records are ever compared.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic

from tollgate.events.position import Token
from tollgate.platform.clickhouse import DATABASE, ClickHouse
from tollgate.platform.parts import Parts, open_clickhouse

_POLL_SECONDS_FIRST = 0.02
_MENDED_RECORDS = 20_000
_POLL_SECONDS_MAX = 0.25
Partition = tuple[int, int]
"""A generation of the log and a partition of it."""
Listener = Callable[[int, int, int], None]


class Frontier:
    """How far each partition is loaded: known at once from a loader in this process, else asked.

    All that wait share one poll of the ledger: one of them asks for all, with no lock held.
    """

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._clickhouse = clickhouse
        self._changed = threading.Condition()
        self._known: dict[Partition, int] = {}
        self._claimed: set[Partition] = set()
        self._listeners: list[Listener] = []
        self._wanted: list[Mapping[Partition, int]] = []
        self._asking = False
        self._answers = 0
        self._answered = monotonic()

    def subscribe(self, listener: Listener) -> None:
        """Calls `listener(generation, partition, offset)` whenever a loader here has come far."""
        with self._changed:
            self._listeners.append(listener)

    def claim(self, generation: int, partition: int) -> None:
        """A loader of this process has the partition and publishes: the ledger is not asked."""
        with self._changed:
            self._claimed.add((generation, partition))

    def withdraw(self, generation: int, partition: int) -> None:
        """No loader of this process has the partition any more: from now on the ledger is asked."""
        with self._changed:
            self._claimed.discard((generation, partition))
            self._changed.notify_all()

    def publish(self, generation: int, partition: int, offset: int) -> None:
        """The ledger has a partition up to an offset. May come late, from a loader dismissed."""
        with self._changed:
            key = (generation, partition)
            self._known[key] = max(offset, self._known.get(key, -1))
            self._changed.notify_all()
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener(generation, partition, offset)

    def known(self) -> Mapping[Partition, int]:
        """The last offsets heard of."""
        with self._changed:
            return dict(self._known)

    def wait(self, token: Token, milliseconds: int) -> bool:
        """Waits until all that the token names is loaded; False when the time is over.

        Raises:
            Transient: ClickHouse is away.
        """
        wanted = {(token.generation, p): offset for p, offset in token.offsets.items()}
        return self.reach(wanted, milliseconds)

    def reach(self, wanted: Mapping[Partition, int], milliseconds: int) -> bool:
        """Waits until every partition is loaded up to an offset; False when the time is over.

        Raises:
            Transient: ClickHouse is away.
        """
        until = monotonic() + milliseconds / 1000
        pause, heard = _POLL_SECONDS_FIRST, self._answers
        began = monotonic()
        with self._waiting(wanted):
            while True:
                with self._changed:
                    if self._covers(wanted):
                        return True
                    now = monotonic()
                    if now >= until:
                        return False
                    if heard != self._answers:
                        pause, heard = min(pause * 2, _POLL_SECONDS_MAX), self._answers
                    unheard = self._unheard()
                    if self._asking or not unheard:
                        # Who asks wakes the others; so does a loader of this process.
                        self._changed.wait(until - now)
                        continue
                    due = max(began, self._answered) + pause
                    if now < due:
                        self._changed.wait(min(until, due) - now)
                        continue
                    self._asking = True
                self._ask(unheard)

    @contextmanager
    def _waiting(self, wanted: Mapping[Partition, int]) -> Iterator[None]:
        with self._changed:
            self._wanted.append(wanted)
        try:
            yield
        finally:
            with self._changed:
                self._wanted = [each for each in self._wanted if each is not wanted]

    def _covers(self, wanted: Mapping[Partition, int]) -> bool:
        # A generation is loaded only once those before it are: one record of it says so.
        newest = max((g for (g, _), offset in self._known.items() if offset >= 0), default=0)
        return all(
            newest > key[0] or self._known.get(key, -1) >= offset for key, offset in wanted.items()
        )

    def _unheard(self) -> dict[Partition, int | None]:
        """What waiters want and no loader of this process tells, with the last offset known."""
        return {
            key: self._known.get(key)
            for wanted in self._wanted
            for key, offset in wanted.items()
            if key not in self._claimed and self._known.get(key, -1) < offset
        }

    def _ask(self, unheard: Mapping[Partition, int | None]) -> None:
        found: dict[Partition, int] = {}
        try:
            found = read_frontiers_after(self._clickhouse, unheard)
        finally:
            with self._changed:
                for key, offset in found.items():
                    self._known[key] = max(offset, self._known.get(key, -1))
                self._asking = False
                self._answers += 1
                self._answered = monotonic()
                self._changed.notify_all()


def read_last_written(clickhouse: ClickHouse, generation: int, partition: int) -> int:
    """The last offset that any row carries, whether or not the ledger knows it; -1 if none.

    Reads whole columns: only for a log that was lost.
    """
    last = -1
    for table in ("events", "event_corrections", "event_outcomes"):
        ((offset, count),) = clickhouse.query(
            f"SELECT toInt64(max(log_offset)), count() FROM {DATABASE}.{table}"
            " WHERE log_generation = {generation:UInt32} AND log_partition = {partition:UInt16}",
            {"generation": generation, "partition": partition},
        )
        last = max(last, int(offset)) if count else last
    return last


def mend_commits(clickhouse: ClickHouse, generation: int, partition: int) -> None:
    """Puts the last of the ledger's commit times into `ledger_commits` that a crash took from it.

    Again, it changes nothing: what is there is there with the same time.

    Raises:
        Transient: ClickHouse is away.
    """
    columns = "log_generation, log_partition, log_offset, stored_at"
    clickhouse.command(
        f"INSERT INTO {DATABASE}.ledger_commits"
        " SELECT log_generation, log_partition, max(log_offset), stored_at FROM ("
        f"SELECT {columns} FROM {DATABASE}.ledger WHERE log_generation = {{generation:UInt32}}"
        " AND log_partition = {partition:UInt16}"
        f" ORDER BY log_offset DESC LIMIT {_MENDED_RECORDS})"
        " WHERE (log_generation, log_partition, stored_at) NOT IN"
        f" (SELECT log_generation, log_partition, stored_at FROM {DATABASE}.ledger_commits"
        " WHERE log_generation = {generation:UInt32} AND log_partition = {partition:UInt16})"
        " GROUP BY log_generation, log_partition, stored_at",
        {"generation": generation, "partition": partition},
    )


def open_frontier(parts: Parts) -> Frontier:
    """The frontier that loaders and queries of this process share."""
    return Frontier(parts.get(open_clickhouse))


def read_frontier(clickhouse: ClickHouse, generation: int, partition: int) -> int:
    """The last offset that the ledger holds; -1 if none. Reads the end of the table's order only.

    Raises:
        Transient: ClickHouse is away.
    """
    rows = clickhouse.query(
        f"SELECT log_offset FROM {DATABASE}.ledger"
        " WHERE log_generation = {generation:UInt32} AND log_partition = {partition:UInt16}"
        " ORDER BY log_offset DESC LIMIT 1",
        {"generation": generation, "partition": partition},
    )
    return int(rows[0][0]) if rows else -1


def read_frontiers_after(
    clickhouse: ClickHouse, known: Mapping[Partition, int | None]
) -> dict[Partition, int]:
    """The last offsets that the ledger holds, of several partitions at once.

    Args:
        clickhouse: the store.
        known: an offset that is certainly in the ledger, -1 before the first, or None if nothing
            is known yet. One query reads only what came after.

    Raises:
        Transient: ClickHouse is away.
    """
    found = {key: read_frontier(clickhouse, *key) for key, at in known.items() if at is None}
    after = {key: offset for key, offset in known.items() if offset is not None}
    if after:
        found |= after
        beyond = " OR ".join(
            f"(log_generation = {generation} AND log_partition = {partition}"
            f" AND log_offset >= {offset + 1})"
            for (generation, partition), offset in after.items()
        )
        rows = clickhouse.query(
            f"SELECT log_generation, log_partition, toInt64(max(log_offset)) FROM {DATABASE}.ledger"
            f" WHERE {beyond} GROUP BY log_generation, log_partition"
        )
        found |= {(int(row[0]), int(row[1])): int(row[2]) for row in rows}
    return found


def read_newest_generation(clickhouse: ClickHouse) -> int:
    """The newest generation that the ledger has a record of; 0 if there is none.

    Those before it are loaded: a generation is begun only then.

    Raises:
        Transient: ClickHouse is away.
    """
    rows = clickhouse.query(
        f"SELECT log_generation FROM {DATABASE}.ledger ORDER BY log_generation DESC LIMIT 1"
    )
    return int(rows[0][0]) if rows else 0


def appended_us(clickhouse: ClickHouse, partition: Partition, offset: int) -> int | None:
    """When a record was appended, in microseconds, by the ledger; None: it does not have it.

    Raises:
        Transient: ClickHouse is away.
    """
    rows = clickhouse.query(
        f"SELECT toUnixTimestamp64Micro(appended_at) FROM {DATABASE}.ledger"
        " WHERE log_generation = {generation:UInt32} AND log_partition = {partition:UInt16}"
        " AND log_offset = {offset:Int64} LIMIT 1",
        {"generation": partition[0], "partition": partition[1], "offset": offset},
    )
    return int(rows[0][0]) if rows else None


def dead_since(clickhouse: ClickHouse, partition: Partition, since_us: int) -> int:
    """How many dead letters there are of records appended since.

    Raises:
        Transient: ClickHouse is away.
    """
    ((dead,),) = clickhouse.query(
        f"SELECT sum(dead) FROM {DATABASE}.ledger FINAL"
        " WHERE log_generation = {generation:UInt32} AND log_partition = {partition:UInt16}"
        " AND appended_at >= fromUnixTimestamp64Micro({since:Int64}, 'UTC')",
        {"generation": partition[0], "partition": partition[1], "since": since_us},
    )
    return int(dead)
