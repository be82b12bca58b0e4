"""Logs as JSON lines with the trace they belong to, and metrics for Prometheus."""

import logging
import re
import sys
from collections.abc import Iterable
from contextvars import ContextVar
from datetime import UTC, datetime

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest

trace_context: ContextVar[str] = ContextVar("trace_context", default="")
"""The `traceparent` header of the request at hand (https://www.w3.org/TR/trace-context/)."""
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, trace, and the record's extras."""

    def format(self, record: logging.LogRecord) -> str:
        """Formats a record; what JSON does not know is shown as text."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if match := _TRACEPARENT.fullmatch(trace_context.get()):
            line["trace_id"], line["span_id"] = match[1], match[2]
        line |= {k: v for k, v in record.__dict__.items() if k not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


def configure_logs(level: str) -> None:
    """Sends all logs to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("clickhouse_connect").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def counter(name: str, text: str, values: Iterable[tuple[dict[str, str], int]]) -> Metric:
    """A counter family: one sample per label set. `name` without `_total`."""
    samples = list(values)
    family = CounterMetricFamily(name, text, labels=sorted(samples[0][0]) if samples else ())
    for labels, value in samples:
        family.add_metric([labels[k] for k in sorted(labels)], value)
    return family


def gauge(name: str, text: str, value: int | float) -> Metric:  # tidy: allow-float -- seconds
    """A gauge with one sample."""
    return GaugeMetricFamily(name, text, value=value)


class _Once:
    """Lets the library's exposition read metrics that were just collected."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def exposition(metrics: Iterable[Metric]) -> bytes:
    """Prometheus' text format, version 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(metrics))
    return generate_latest(registry)
