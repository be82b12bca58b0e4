"""The ledger: what became of every record, and how far loading has come.

A record's rows are written after its events and keys. The frontier of a partition is the highest
offset in the ledger: a loader starts right after it and writes in order, so nothing below is
    missing.
"""

import threading
from collections.abc import Mapping
from time import monotonic

from tollgate.events.position import Token
from tollgate.platform.clickhouse import DATABASE, ClickHouse
from tollgate.platform.parts import Parts, open_clickhouse

_POLL_SECONDS_FIRST = 0.02
_POLL_SECONDS_MAX = 0.25


class Frontier:
    """How far each partition is loaded: known at once from a loader in this process, else asked."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._clickhouse = clickhouse
        self._changed = threading.Condition()
        self._known: dict[tuple[int, int], int] = {}
        self._published: set[tuple[int, int]] = set()

    def publish(self, generation: int, partition: int, offset: int) -> None:
        """A loader in this process has come this far."""
        with self._changed:
            key = (generation, partition)
            self._published.add(key)
            self._known[key] = max(offset, self._known.get(key, -1))
            self._changed.notify_all()

    def known(self) -> Mapping[tuple[int, int], int]:
        """The last offsets heard of, by generation and partition."""
        with self._changed:
            return dict(self._known)

    def wait(self, token: Token, milliseconds: int) -> bool:
        """Waits until all that the token names is loaded; False when the time is over."""
        until = monotonic() + milliseconds / 1000
        pause = _POLL_SECONDS_FIRST
        with self._changed:
            while not self._covers(token):
                left = until - monotonic()
                if left <= 0:
                    return False
                if not self._changed.wait(min(pause, left)):
                    pause = min(pause * 2, _POLL_SECONDS_MAX)
                    self._ask(token)
        return True

    def _covers(self, token: Token) -> bool:
        known = self._known
        return all(
            known.get((token.generation, partition), -1) >= offset
            or max((g for g, _ in known), default=0) > token.generation
            for partition, offset in token.offsets.items()
        )

    def _ask(self, token: Token) -> None:
        for partition in token.offsets:
            if (token.generation, partition) in self._published:
                continue  # a loader of this process says it as soon as it is so
            offset = read_frontier(self._clickhouse, token.generation, partition)
            key = (token.generation, partition)
            self._known[key] = max(offset, self._known.get(key, -1))


def read_last_written(clickhouse: ClickHouse, generation: int, partition: int) -> int:
    """The last offset that any event carries, whether or not the ledger knows it; -1 if none.

    Reads a whole column: only for a log that was lost.
    """
    rows = clickhouse.query(
        f"SELECT toInt64(max(log_offset)), count() FROM {DATABASE}.events"
        " WHERE log_generation = {generation:UInt32} AND log_partition = {partition:UInt16}",
        {"generation": generation, "partition": partition},
    )
    return int(rows[0][0]) if rows and rows[0][1] else -1


def open_frontier(parts: Parts) -> Frontier:
    """The frontier that loaders and queries of this process share."""
    return Frontier(parts.get(open_clickhouse))


def read_frontier(clickhouse: ClickHouse, generation: int, partition: int) -> int:
    """The last offset that the ledger holds; -1 if none.

    Raises:
        Transient: ClickHouse is away.
    """
    rows = clickhouse.query(
        f"SELECT toInt64(max(log_offset)), count() FROM {DATABASE}.ledger"
        " WHERE log_generation = {generation:UInt32} AND log_partition = {partition:UInt16}",
        {"generation": generation, "partition": partition},
    )
    return int(rows[0][0]) if rows and rows[0][1] else -1
