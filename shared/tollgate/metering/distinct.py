"""Distinct subjects and dimension values of a meter's events."""

from datetime import datetime

from tollgate.core.errors import NotFound
from tollgate.events.facts import counting, has_corrections
from tollgate.metering.aggregation import DOCUMENT
from tollgate.metering.filters import Parameters
from tollgate.metering.meter import Meter
from tollgate.platform.clickhouse import DATABASE, ClickHouse

VALUES_MAX = 10_000
Period = tuple[datetime | None, datetime | None]


def distinct_subjects(
    clickhouse: ClickHouse, meter: Meter, start: datetime | None, end: datetime | None
) -> list[str]:
    """Subjects with events of the meter's type in [start, end), in order, at most `VALUES_MAX`."""
    bound = Parameters("p")
    conditions = _conditions(clickhouse, meter, (start, end), bound)
    rows = clickhouse.query(
        f"SELECT DISTINCT subject FROM {DATABASE}.events"
        f" WHERE {conditions} ORDER BY subject LIMIT {VALUES_MAX}",
        bound.values,
    )
    return [row[0] for row in rows]


def distinct_dimension_values(
    clickhouse: ClickHouse, meter: Meter, name: str, period: Period
) -> list[str]:
    """Values of a dimension in a period, in order, at most `VALUES_MAX`; absent ones left out.

    Raises:
        NotFound: the meter has no such dimension.
    """
    path = meter.dimension_paths().get(name)
    if path is None:
        raise NotFound(f"meter {meter.slug} has no dimension of that name")
    bound = Parameters("p")
    rows = clickhouse.query(
        f"SELECT DISTINCT {path.call('JSONExtractString', 'document', 'd')} AS value"
        f" FROM (SELECT {DOCUMENT} AS document FROM {DATABASE}.events"
        f" WHERE {_conditions(clickhouse, meter, period, bound)})"
        f" WHERE value != '' ORDER BY value LIMIT {VALUES_MAX}",
        bound.values | path.parameters("d"),
    )
    return [row[0] for row in rows]


def _conditions(clickhouse: ClickHouse, meter: Meter, period: Period, bound: Parameters) -> str:
    start, end = period
    namespace, event_type = bound.bind(meter.namespace), bound.bind(meter.event_type)
    parts = [f"namespace = {namespace}", f"type = {event_type}"]
    if has_corrections(clickhouse, meter.namespace, meter.event_type):
        parts.append(counting(namespace, event_type))
    low = max(filter(None, (start, meter.event_from)), default=None)
    if low is not None:
        parts.append(f"time >= {bound.bind(low)}")
    if end is not None:
        parts.append(f"time < {bound.bind(end)}")
    return " AND ".join(parts)
