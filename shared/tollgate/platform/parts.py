"""The parts that functions share: opened when first asked for, closed together.

In the embedded world every function of the process gets the same `Parts`, so there is one engine,
one log, one key index. Nothing is opened at import: the functions-framework command forks after
import.
"""

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from tollgate.core.clock import Clock, SystemClock
from tollgate.core.errors import PermanentFault
from tollgate.platform.event_log import ARCHIVE, LOADER, EventLog, Layouts, OneLayout
from tollgate.platform.settings import Settings

if TYPE_CHECKING:
    from tollgate.platform.clickhouse import ClickHouse

_log = logging.getLogger(__name__)
_SQLITE_LOG = "log.sqlite"
Made = TypeVar("Made")


class Parts:
    """Settings, clock, and whatever was opened with them."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.clock: Clock = clock or SystemClock()
        self._made: dict[Callable[[Any], object], object] = {}
        self._closers: list[Callable[[], None]] = []
        self._lock = threading.RLock()

    def get(self, make: Callable[["Parts"], Made]) -> Made:
        """What `make(parts)` gave the first time."""
        with self._lock:
            if make not in self._made:
                self._made[make] = make(self)
            return self._made[make]  # type: ignore[return-value]  # the key made it

    def has(self, make: Callable[["Parts"], object]) -> bool:
        """Whether it was made already."""
        return make in self._made

    def on_close(self, closer: Callable[[], None]) -> None:
        """Runs `closer` at the end, last registered first."""
        with self._lock:
            self._closers.append(closer)

    def close(self) -> None:
        """Closes all; a closer that fails does not keep the others from running."""
        while self._closers:
            try:
                self._closers.pop()()
            except Exception:  # noqa: BLE001 -- the process ends; the others must still be closed
                _log.exception("closing failed")


def open_clickhouse(parts: Parts) -> "ClickHouse":
    """The analytics store of the settings."""
    # Its client takes a quarter of a second to import: ingest does without it.
    from tollgate.platform.clickhouse import ClickHouse

    settings = parts.settings
    if settings.clickhouse_url:
        clickhouse = ClickHouse(
            url=settings.clickhouse_url, query_seconds_max=settings.query_seconds_max
        )
    else:
        clickhouse = ClickHouse(path=settings.clickhouse_path)
    parts.on_close(clickhouse.close)
    return clickhouse


def open_log(parts: Parts) -> EventLog:
    """The newest generation of the event log, as it was when first asked for.

    Raises:
        Transient: the log is away.
        PermanentFault: the URL names no log that this build knows, or one without a layout.
    """
    layouts = parts.get(open_layouts)
    return layouts.open(layouts.newest())


def has_embedded_log(settings: Settings) -> bool:
    """Whether the data folder holds an event log, of today's form or the one before."""
    return settings.log_path.exists() or (settings.data / _SQLITE_LOG).exists()


def open_layouts(parts: Parts) -> Layouts:
    """All generations of the event log of the settings. Kafka is not asked yet.

    Raises:
        Transient: another process has the folder of the embedded log, or the disk refuses.
        PermanentFault: the URL names no log that this build knows.
    """
    settings = parts.settings
    url = settings.log_url
    if url.startswith("kafka://"):
        # Its client takes 50 ms to import, and the embedded world does without it.
        from tollgate.platform.kafka_layouts import KafkaLayouts

        layouts = KafkaLayouts(settings, parts.clock)
        parts.on_close(layouts.close)
        return layouts
    if url and not url.startswith("file:///"):
        raise PermanentFault(f"TOLLGATE_LOG_URL: {url.split(':', 1)[0]!r} is not a known event log")
    from pathlib import Path

    from tollgate.platform.segment_log import SegmentLog
    from tollgate.platform.segment_move import move_sqlite_log

    folder = Path(url.removeprefix("file://")) if url else settings.log_path
    if not url and move_sqlite_log(settings.data / _SQLITE_LOG, folder):
        _log.info("the event log was moved from SQLite into its folder")
    readers = (LOADER, ARCHIVE) if settings.objects_url else (LOADER,)
    log = SegmentLog(folder, parts.clock, readers=readers)
    parts.on_close(log.close)
    return OneLayout(log)
