"""What was last read of the control plane for queries: meters, and what subjects are called."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

import msgspec

from tollgate.metering.meter import Meter
from tollgate.metering.store import MeterListing


@dataclass(frozen=True, slots=True, kw_only=True)
class LastKnown:
    """One state, whole.

    Attributes:
        meters: the live ones of every namespace, by id.
        names: display names of live subjects, by namespace and key; None: not kept.
        read_at: an instant before the reading began.
    """

    meters: Mapping[str, Meter]
    names: Mapping[str, Mapping[str, str]] | None
    read_at: datetime

    def live(self, namespace: str) -> list[Meter]:
        """Every live meter, by slug."""
        found = (meter for meter in self.meters.values() if meter.namespace == namespace)
        return sorted(found, key=lambda meter: meter.slug)

    def find(self, namespace: str, id_or_slug: str) -> Meter | None:
        """As `MeterStore.get`. None: there was none then; there may be one now."""
        by_id = self.meters.get(id_or_slug.upper())
        if by_id is not None and by_id.namespace == namespace:
            return by_id
        of_namespace = (m for m in self.meters.values() if m.namespace == namespace)
        return next((meter for meter in of_namespace if meter.slug == id_or_slug), None)

    def of_event_types(self, namespace: str, event_types: Collection[str]) -> tuple[Meter, ...]:
        """As `MeterStore.live_of_event_types`."""
        return tuple(m for m in self.live(namespace) if m.event_type in event_types)

    def list(self, namespace: str, listing: MeterListing) -> tuple[Meter, ...] | None:
        """As `MeterStore.list`; None for what only SQL can say."""
        if not _is_answerable(listing):
            return None
        found = sorted(self.live(namespace), key=lambda m: m.id, reverse=listing.descending)
        orders = ((listing.order_by, listing.descending), *listing.then_by)
        for order, descending in reversed(orders):
            # Code points sort as the C collation sorts UTF-8.
            found.sort(key=lambda m, name=order.value: getattr(m, name), reverse=descending)  # type: ignore[misc]
        first = (listing.page - 1) * listing.page_size
        return tuple(found[first : first + listing.page_size])

    def count(self, namespace: str, listing: MeterListing) -> int | None:
        """As `MeterStore.count`; None for what only SQL can say."""
        return len(self.live(namespace)) if _is_answerable(listing) else None

    def names_of(self, namespace: str, keys: Iterable[str]) -> dict[str, str] | None:
        """Display names of those subjects that have one; None: not kept."""
        if self.names is None:
            return None
        known = self.names.get(namespace, {})
        return {key: known[key] for key in keys if key in known}

    def with_meter(self, meter: Meter) -> "LastKnown":
        """The same after a change of one meter."""
        meters = {**self.meters, meter.id: meter}
        if meter.deleted_at is not None:
            del meters[meter.id]
        return replace(self, meters=meters)


def _is_answerable(listing: MeterListing) -> bool:
    return not listing.include_deleted and not listing.filters


class _Content(msgspec.Struct, frozen=True):
    meters: tuple[Meter, ...]
    names: dict[str, dict[str, str]] | None


def encode_last_known(state: LastKnown) -> bytes:
    """JSON of a state without its instant; the same state gives the same bytes."""
    meters = tuple(sorted(state.meters.values(), key=lambda meter: meter.id))
    names = None
    if state.names is not None:
        names = {n: dict(sorted(found.items())) for n, found in sorted(state.names.items())}
    return msgspec.json.encode(_Content(meters, names))


def decode_last_known(content: bytes, read_at: datetime) -> LastKnown:
    """The state of what `encode_last_known` wrote.

    Raises:
        ValueError: it is something else.
    """
    found = msgspec.json.decode(content, type=_Content)
    return LastKnown(
        meters={meter.id: meter for meter in found.meters}, names=found.names, read_at=read_at
    )
