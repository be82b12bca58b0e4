"""Distinct subjects and dimension values of a meter's events."""

from dataclasses import dataclass
from datetime import datetime

from tollgate.core.errors import NotFound
from tollgate.events.facts import UNCORRECTED, counting, has_corrections, within
from tollgate.events.position import Token
from tollgate.metering.aggregation import DOCUMENT
from tollgate.metering.meter import Meter
from tollgate.platform.clickhouse import DATABASE, ClickHouse
from tollgate.platform.filters import Parameters

VALUES_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Of which events.

    Attributes:
        start, end: half-open period; None is open.
        as_of: only what was known at this vector of the log; None: all that is known now.
    """

    start: datetime | None
    end: datetime | None
    as_of: Token | None = None


def distinct_subjects(clickhouse: ClickHouse, meter: Meter, asked: Asked) -> list[str]:
    """Subjects with events of the meter's type, in order, at most `VALUES_MAX`."""
    bound = Parameters("p")
    conditions = _conditions(clickhouse, meter, asked, bound)
    rows = clickhouse.query(
        f"SELECT DISTINCT subject FROM {DATABASE}.events"
        f" WHERE {conditions} ORDER BY subject LIMIT {VALUES_MAX}",
        bound.values,
    )
    return [row[0] for row in rows]


def distinct_dimension_values(
    clickhouse: ClickHouse, meter: Meter, name: str, asked: Asked
) -> list[str]:
    """Values of a dimension, in order, at most `VALUES_MAX`; absent ones left out.

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
        f" WHERE {_conditions(clickhouse, meter, asked, bound)})"
        f" WHERE value != '' ORDER BY value LIMIT {VALUES_MAX}",
        bound.values | path.parameters("d"),
    )
    return [row[0] for row in rows]


def _conditions(clickhouse: ClickHouse, meter: Meter, asked: Asked, bound: Parameters) -> str:
    namespace, event_type = bound.bind(meter.namespace), bound.bind(meter.event_type)
    parts = [f"namespace = {namespace}", f"type = {event_type}"]
    corrected = has_corrections(clickhouse, meter.namespace, meter.event_type)
    parts.append(counting(namespace, event_type, asked.as_of) if corrected else UNCORRECTED)
    if asked.as_of is not None:
        parts.append(within(asked.as_of))
    low = max(filter(None, (asked.start, meter.event_from)), default=None)
    if low is not None:
        parts.append(f"time >= {bound.bind(low)}")
    if asked.end is not None:
        parts.append(f"time < {bound.bind(asked.end)}")
    return " AND ".join(parts)
