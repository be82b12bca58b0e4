"""What is built before queries are measured."""

import threading
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from typing import Final

from tollgate.core.clock import SystemClock
from tollgate.metering.meter import Meter
from tollgate.metering.roll_up import RollUp, RollupLimits
from tollgate.metering.rollup_reader import RollupReader
from tollgate.metering.rollup_store import RollupStore
from tollgate.platform.clickhouse import ClickHouse
from tollgate.platform.sql import Database, migrate

_NEVER: Final = threading.Event()


class Rollups:
    """The manifest of a folder's rollups, which stands beside the engine's folder."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        assert clickhouse.path is not None
        url = f"sqlite:///{clickhouse.path}.rollups.sqlite"
        migrate(url)
        self._clickhouse = clickhouse
        self._database = Database(url)
        self._store = RollupStore(self._database, SystemClock())

    def build(self, meters: Sequence[Meter]) -> None:
        """Build and merge, as the function does, by as many threads as there are processors."""
        roll_up = self._roll_up(meters)
        roll_up.build(_NEVER)
        roll_up.compact(_NEVER)
        # Nobody reads what was merged: it would only be counted among the bytes.
        roll_up.drop()

    def add(self, meters: Sequence[Meter]) -> None:
        """Build what is new and merge nothing: queries read it from then on."""
        self._roll_up(meters).build(_NEVER)

    def _roll_up(self, meters: Sequence[Meter]) -> RollUp:
        limits = RollupLimits(threads=2, events_min=0, grace=timedelta(0))
        return RollUp(self._clickhouse, self._store, lambda: meters, SystemClock(), limits)

    def reader(self) -> RollupReader:
        """What queries ask."""
        return RollupReader(self._clickhouse, self._store)

    def close(self) -> None:
        """Close the manifest."""
        self._database.dispose()


def build_rollups(clickhouse: ClickHouse, meters: Sequence[Meter]) -> None:
    """Build what queries of the meters read beside events."""
    with closing(Rollups(clickhouse)) as rollups:
        rollups.build(meters)
