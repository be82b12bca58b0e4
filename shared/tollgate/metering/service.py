"""The service of `functions/usage`: every operation of meters, events, ledger and access keys."""

import asyncio
import importlib
import logging
from collections.abc import Iterable, Sequence
from datetime import timedelta

from prometheus_client.core import Metric

from tollgate.core.errors import TollgateError, Transient
from tollgate.metering.meter_memory import open_meter_memory
from tollgate.metering.meter_reader import open_meters
from tollgate.metering.meters_file import FileMeter, read_meters, upsert
from tollgate.metering.progress import QueryProgressStore
from tollgate.platform.access import DEFAULT_NAMESPACE
from tollgate.platform.api import ApiService, Operation
from tollgate.platform.database import open_database
from tollgate.platform.parts import Parts
from tollgate.platform.telemetry import gauge

_PROGRESS_KEPT = timedelta(hours=1)
_TAKE_AGAIN_SECONDS = 1
_log = logging.getLogger(__name__)
_MODULES = (
    "tollgate.metering.api_v1",
    "tollgate.metering.api_query_v1",
    "tollgate.metering.api_v3",
    "tollgate.metering.api_events_v1",
    "tollgate.metering.api_events_v3",
    "tollgate.events.api_v1",
    "tollgate.events.api_dead_letters",
    "tollgate.events.api_seals",
    "tollgate.metering.api_adjustments",
    "tollgate.events.api_corrections",
    "tollgate.metering.api_backfills",
    "tollgate.events.api_debug",
    "tollgate.events.api_backup",
    "tollgate.platform.api_keys",
)


def usage_operations() -> tuple[Operation, ...]:
    """All operations that the usage function serves."""
    found: list[Operation] = []
    for name in _MODULES:
        found += importlib.import_module(name).OPERATIONS
    return tuple(found)


class UsageService(ApiService):
    """Serves the operations, after the meters file was taken in."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts, usage_operations())
        self._taking: asyncio.Task[None] | None = None
        self._refused = ""

    async def start(self) -> None:
        """Takes in the meters file; while SQL is away, goes on trying.

        Raises:
            InvalidInput: the file's faults, each with its line.
        """
        await super().start()
        memory = await asyncio.to_thread(self._parts.get, open_meter_memory)
        if memory is not None:
            await asyncio.to_thread(memory.begin)
        path = self._parts.settings.meters
        if path is None:
            return
        wanted = await asyncio.to_thread(read_meters, path)
        try:
            await asyncio.to_thread(self._take, wanted)
        except Transient as away:
            _log.warning("the meters file waits: SQL is away", extra={"problem": away.detail})
            self._taking = asyncio.create_task(self._keep_taking(wanted))

    async def _keep_taking(self, wanted: Sequence[FileMeter]) -> None:
        while True:
            await asyncio.sleep(_TAKE_AGAIN_SECONDS)
            try:
                await asyncio.to_thread(self._take, wanted)
            except Transient:
                continue
            except TollgateError as refusal:
                self._refused = refusal.detail
                _log.error("the meters file is refused", extra={"problem": refusal.detail})
            else:
                _log.info("the meters file was taken in")
            return

    def _take(self, wanted: Sequence[FileMeter]) -> None:
        upsert(self._parts.get(open_meters), DEFAULT_NAMESPACE, wanted)

    async def stop(self) -> None:
        """Waits for handlers that still run."""
        if self._taking is not None:
            self._taking.cancel()
        await super().stop()

    def unreadiness(self) -> str:
        """Ready once keys are known, unless SQL holds other meters than the file may make them."""
        return self._refused or super().unreadiness()

    def metrics(self) -> Iterable[Metric]:
        """How old the last known meters are, where SQL can be away."""
        memory = self._parts.get(open_meter_memory)
        if memory is None or memory.state is None:
            return ()
        text = "How long ago the meters were read that are used while the control plane is away."
        age = memory.age_seconds(memory.state)
        return (gauge("tollgate_meters_age_seconds", text, age),)

    async def tend(self) -> None:
        """Forgets the progress of queries that ended long ago."""
        await asyncio.to_thread(self._forget_progress)

    def _forget_progress(self) -> None:
        store = QueryProgressStore(self._parts.get(open_database), self._parts.clock)
        store.delete_before(self._parts.clock.now() - _PROGRESS_KEPT)
