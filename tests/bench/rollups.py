"""What is built before queries are measured."""

from collections.abc import Sequence

from tollgate.metering.meter import Meter
from tollgate.platform.clickhouse import ClickHouse


def build_rollups(clickhouse: ClickHouse, meters: Sequence[Meter]) -> None:
    """Build what queries of the meters read beside events. Today they read events alone."""
    del clickhouse, meters
