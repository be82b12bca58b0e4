"""The service of `functions/usage`: every operation of meters, events, subjects and access keys."""

import asyncio
import importlib
import logging
from datetime import timedelta

from tollgate.metering.api_v1 import open_meters
from tollgate.metering.meters_file import read_meters, upsert
from tollgate.metering.progress import QueryProgressStore
from tollgate.platform.access import DEFAULT_NAMESPACE
from tollgate.platform.api import ApiService, Operation
from tollgate.platform.database import open_database
from tollgate.platform.parts import Parts

_PROGRESS_KEPT = timedelta(hours=1)
_log = logging.getLogger(__name__)
_MODULES = (
    "tollgate.metering.api_v1",
    "tollgate.metering.api_v3",
    "tollgate.metering.api_events_v1",
    "tollgate.metering.api_events_v3",
    "tollgate.events.api_v1",
    "tollgate.events.api_debug",
    "tollgate.events.api_backup",
    "tollgate.customers.api_v1",
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

    async def start(self) -> None:
        """Takes in the meters file.

        Raises:
            InvalidInput: the file's faults, each with its line.
        """
        await super().start()
        path = self._parts.settings.meters
        if path is not None:
            await asyncio.to_thread(self._take_meters)

    async def tend(self) -> None:
        """Forgets the progress of queries that ended long ago."""
        await asyncio.to_thread(self._forget_progress)

    def _forget_progress(self) -> None:
        store = QueryProgressStore(self._parts.get(open_database), self._parts.clock)
        store.delete_before(self._parts.clock.now() - _PROGRESS_KEPT)

    def _take_meters(self) -> None:
        path = self._parts.settings.meters
        assert path is not None
        upsert(self._parts.get(open_meters), DEFAULT_NAMESPACE, read_meters(path))
