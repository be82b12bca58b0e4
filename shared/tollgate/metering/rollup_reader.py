"""What rollups a query may read: those that the manifest names and the store really has.

SQL and ClickHouse are backed up, restored and moved apart from each other. So a manifest is
believed only if every segment that it names is there, row for row, and the ledger has the records
that it ends at. If anything is in doubt, or SQL is away, queries read events.
"""

import threading
from collections.abc import Iterable
from time import monotonic

from tollgate.core.errors import Transient
from tollgate.events.position import Token
from tollgate.metering.meter import Meter
from tollgate.metering.rollup import Rollups, Segment, digest_of
from tollgate.metering.rollup_store import RollupStore
from tollgate.platform.clickhouse import DATABASE, ClickHouse
from tollgate.platform.database import open_database
from tollgate.platform.parts import Parts, open_clickhouse

TABLES = ("rollup_cells", "rollup_replaced")
_BELIEVED_SECONDS = 5


class RollupReader:
    """Answers for all queries of a process, from any thread."""

    def __init__(self, clickhouse: ClickHouse, store: RollupStore) -> None:
        self._clickhouse = clickhouse
        self._store = store
        self._lock = threading.Lock()
        self._believed: dict[object, float] = {}  # tidy: allow-float -- until when, monotonic

    def rollups(self, meter: Meter) -> Rollups | None:
        """What is ready of a meter; None: nothing that may be read.

        Raises:
            Transient: ClickHouse is away.
        """
        try:
            found = self._store.rollups(meter.id, digest_of(meter))
        except Transient:
            return None
        if found is None or not found.ready or found.vector is None:
            return None
        return found if self._is_there(found.vector, found.segments) else None

    def _is_there(self, vector: Token, segments: Iterable[Segment]) -> bool:
        """Looks, if it was not just looked."""
        key, now = (str(vector), tuple(each.id for each in segments)), monotonic()
        with self._lock:
            if self._believed.get(key, 0) > now:
                return True
        if not is_there(self._clickhouse, [vector], segments):
            return False
        with self._lock:
            self._believed = {k: until for k, until in self._believed.items() if until > now}
            self._believed[key] = now + _BELIEVED_SECONDS
        return True


def is_there(clickhouse: ClickHouse, vectors: Iterable[Token], segments: Iterable[Segment]) -> bool:
    """Whether the store has all rows of segments, and its ledger the ends of vectors.

    Raises:
        Transient: ClickHouse is away.
    """
    ends = {(v.generation, p, offset) for v in vectors for p, offset in v.offsets.items()}
    if ends:
        found = clickhouse.query(
            "SELECT uniqExact(log_generation, log_partition, log_offset)"
            f" FROM {DATABASE}.ledger WHERE "
            + " OR ".join(
                f"(log_generation = {generation} AND log_partition = {partition}"
                f" AND log_offset = {offset})"
                for generation, partition, offset in ends
            )
        )
        if found[0][0] != len(ends):
            return False
    rows = stored_rows(clickhouse)
    return all(rows.get(each.id, 0) == each.cells for each in segments)


def stored_rows(clickhouse: ClickHouse) -> dict[int, int]:
    """How many rows the store has of each segment.

    Raises:
        Transient: ClickHouse is away.
    """
    rows = clickhouse.query(
        "SELECT partition, toUInt64(sum(rows)) FROM system.parts WHERE active"
        " AND database = {database:String} AND table IN {tables:Array(String)} GROUP BY partition",
        {"database": DATABASE, "tables": list(TABLES)},
    )
    return {int(row[0]): int(row[1]) for row in rows}


def open_rollup_store(parts: Parts) -> RollupStore:
    """The manifest that all of a process share."""
    return RollupStore(parts.get(open_database), parts.clock)


def open_rollup_reader(parts: Parts) -> RollupReader:
    """The reader that all queries of a process share."""
    return RollupReader(parts.get(open_clickhouse), parts.get(open_rollup_store))
