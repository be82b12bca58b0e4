"""v1 of debug metrics: events ingested since midnight UTC, by subject, as OpenMetrics text.

Format: https://prometheus.io/docs/specs/om/open_metrics_spec/, which ends with `# EOF` and names a
counter's family without `_total`.
"""

from datetime import datetime, timedelta

from tollgate.core.errors import Fault, InvalidInput
from tollgate.events.api_position import await_position
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation, Reply
from tollgate.platform.clickhouse import DATABASE, ClickHouse
from tollgate.platform.parts import open_clickhouse

TEXT = "text/plain"
_FAMILY = "openmeter_events"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
# An event is appended after it is received, by a clock that may be a little behind the other.
_CLOCKS_APART = timedelta(hours=1)


def get_debug_metrics(call: Call) -> Reply:
    """Events stored of those received since midnight UTC."""
    await_position(call)
    midnight = call.parts.clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
    limit = call.parts.settings.query_rows_max
    rows = count_by_subject(call.parts.get(open_clickhouse), call.namespace, midnight, limit + 1)
    if len(rows) > limit:
        message = f"more than {limit} subjects had events today (TOLLGATE_QUERY_ROWS_MAX)"
        raise InvalidInput((Fault(field="", code="too_many_rows", message=message),))
    return Reply(body=exposition(rows).encode(), media_type=f"{TEXT}; charset=utf-8")


def count_by_subject(
    clickhouse: ClickHouse, namespace: str, since: datetime, limit: int
) -> list[tuple[str, int]]:
    """Stored events by subject, received from an instant on; in the order of subjects.

    Raises:
        Transient: ClickHouse is away.
    """
    rows = clickhouse.query(
        f"SELECT subject, count() FROM {DATABASE}.events FINAL"
        " WHERE namespace = {namespace:String} AND received_at >= {since:DateTime64(6, 'UTC')}"
        " AND appended_at >= {appended:DateTime64(6, 'UTC')}"
        " GROUP BY subject ORDER BY subject LIMIT {limit:UInt64}",
        {
            "namespace": namespace,
            "since": since,
            "appended": since - _CLOCKS_APART,
            "limit": limit,
        },
        {"do_not_merge_across_partitions_select_final": 1},
    )
    return [(subject, count) for subject, count in rows]


def exposition(rows: list[tuple[str, int]]) -> str:
    """OpenMetrics text of one counter by subject."""
    lines = [
        f"# HELP {_FAMILY} Number of ingested events since midnight UTC",
        f"# TYPE {_FAMILY} counter",
        *(
            f'{_FAMILY}_total{{subject="{subject.translate(_ESCAPES)}"}} {count}'
            for subject, count in rows
        ),
        "# EOF\n",
    ]
    return "\n".join(lines)


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="GET",
        path="/api/v1/debug/metrics",
        operation_id="getDebugMetrics",
        summary="Get event metrics",
        tag="Debug",
        scope=Scope.READ,
        handler=get_debug_metrics,
        other_media=(TEXT,),
    ),
)
