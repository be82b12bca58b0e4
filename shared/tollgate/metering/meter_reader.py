"""Reads meters for a call: from SQL, or while that is away from the last known state.

What was answered from the last known state says how old it is, in the header `Tollgate-Meters-Age`.
What can't be answered from it exactly, such as that there is no such meter, stays a 503.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from tollgate.core.errors import NotFound, Transient
from tollgate.customers.store import SubjectStore
from tollgate.metering.last_known import LastKnown
from tollgate.metering.meter import Meter
from tollgate.metering.meter_memory import open_meter_memory
from tollgate.metering.store import MeterListing, MeterStore
from tollgate.platform.api import Call
from tollgate.platform.database import open_database
from tollgate.platform.parts import Parts

AGE_HEADER = "Tollgate-Meters-Age"
AGE_DOCUMENT: Mapping[str, Any] = {
    "responses": {
        "200": {
            "headers": {
                AGE_HEADER: {
                    "description": "Only while the control plane is away: how many seconds ago the "
                    "meters were read that this answer is made with.",
                    "schema": {"type": "integer", "minimum": 0},
                }
            }
        }
    }
}
"""Laid over the operations that may answer so."""
Answer = TypeVar("Answer")


def open_meters(parts: Parts) -> MeterStore:
    """The meters of the control plane."""
    memory = parts.get(open_meter_memory)
    return MeterStore(
        parts.get(open_database), parts.clock, None if memory is None else memory.note
    )


class MeterReader:
    """The reading part of `MeterStore`, for one call."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._store = call.parts.get(open_meters)

    def get(self, namespace: str, id_or_slug: str) -> Meter:
        """As `MeterStore.get`."""
        return self._ask(
            lambda: self._store.get(namespace, id_or_slug),
            lambda known: known.find(namespace, id_or_slug),
        )

    def get_by_id(self, namespace: str, meter_id: str) -> Meter:
        """As `MeterStore.get_by_id`."""
        meter = self.get(namespace, meter_id)
        if meter.id != meter_id.upper():
            raise NotFound(f"there is no meter {meter_id}")
        return meter

    def list(self, namespace: str, listing: MeterListing) -> tuple[Meter, ...]:
        """As `MeterStore.list`."""
        return self._ask(
            lambda: self._store.list(namespace, listing),
            lambda known: known.list(namespace, listing),
        )

    def count(self, namespace: str, listing: MeterListing) -> int:
        """As `MeterStore.count`."""
        return self._ask(
            lambda: self._store.count(namespace, listing),
            lambda known: known.count(namespace, listing),
        )

    def live_of_event_types(
        self, namespace: str, event_types: Collection[str]
    ) -> tuple[Meter, ...]:
        """As `MeterStore.live_of_event_types`."""
        return self._ask(
            lambda: self._store.live_of_event_types(namespace, event_types),
            lambda known: known.of_event_types(namespace, event_types),
        )

    def display_names(self, namespace: str, keys: Collection[str]) -> dict[str, str]:
        """Display names of the subjects that have one."""
        parts = self._call.parts

        def stored() -> dict[str, str]:
            subjects = SubjectStore(parts.get(open_database), parts.clock)
            found = subjects.list(namespace, sorted(set(keys)))
            return {each.key: each.display_name for each in found if each.display_name}

        return self._ask(stored, lambda known: known.names_of(namespace, keys))

    def _ask(self, sql: Callable[[], Answer], last: Callable[[LastKnown], Answer | None]) -> Answer:
        try:
            return sql()
        except Transient:
            memory = self._call.parts.get(open_meter_memory)
            if memory is None or memory.state is None:
                raise
            state = memory.state
            answer = last(state)
            if answer is None:
                raise
            self._call.answer_headers[AGE_HEADER] = str(memory.age_seconds(state))
            return answer
