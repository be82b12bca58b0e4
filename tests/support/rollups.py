"""Rollups in the test's own process: real stores, built slice by slice."""

from datetime import timedelta
from typing import Any

from tests.support.loading import SetClock
from tollgate.metering.meter import Meter
from tollgate.metering.roll_up import RollUp, RollupLimits
from tollgate.metering.rollup_reader import RollupReader
from tollgate.metering.rollup_store import RollupStore
from tollgate.platform.clickhouse import ClickHouse
from tollgate.platform.sql import Database


class House:
    """A manifest and who builds for it."""

    def __init__(self, clickhouse: ClickHouse, database: Database) -> None:
        self.clickhouse = clickhouse
        self.database = database
        self.clock = SetClock()
        self.meters: list[Meter] = []
        self.store = RollupStore(database, self.clock)

    def roll_up(
        self,
        *,
        events_max: int = 1_000_000,
        first_tier_cells: int = 10_000,
        stores: Any = None,
    ) -> RollUp:
        """One process's; `stores` are used in place of the house's."""
        limits = RollupLimits(
            events_max=events_max,
            events_min=0,
            grace=timedelta(0),
            first_tier_cells=first_tier_cells,
        )
        used = stores or self
        return RollUp(used.clickhouse, used.store, lambda: self.meters, self.clock, limits)

    def reader(self) -> RollupReader:
        """A new one, that has seen nothing yet."""
        return RollupReader(self.clickhouse, self.store)
