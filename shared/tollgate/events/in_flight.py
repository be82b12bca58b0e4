"""Use case: which events the log holds that are not loaded yet, by their hour of receipt."""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from tollgate.core.clock import datetime_from_us
from tollgate.events.balance import PartitionFrontier
from tollgate.events.imbalance import EVERYBODY
from tollgate.events.record import (
    CORRECTIONS_VERSION,
    CorruptRecord,
    UnknownVersion,
    decode_record,
)
from tollgate.platform.event_log import EventLog, StoredRecord

_HOUR_US = 3_600_000_000
BYTES_MAX = 8 << 20
"""Records of one partition that are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """Events that wait for the loader.

    Attributes:
        hours: how many, by the hour of receipt.
        complete: whether these are all.
    """

    hours: Mapping[datetime, int]
    complete: bool


def read_in_flight(
    log: EventLog, frontiers: Sequence[PartitionFrontier], namespace: str
) -> InFlight:
    """Counts the events of a namespace in the oldest records that wait.

    Raises:
        Transient: the log is away.
    """
    behind = [f for f in frontiers if f.records_in_flight]
    hours: Counter[datetime] = Counter()
    complete = True
    if not behind:
        return InFlight(hours=hours, complete=complete)
    # A thread of its own: a reader that fetches ahead goes with the thread that it belongs to.
    with ThreadPoolExecutor(1, "in-flight") as pool:
        for each in behind:
            read = pool.submit(log.read, each.partition, each.loaded_through, BYTES_MAX).result()
            records = [record for record in read if record.offset <= each.log_end]
            complete = complete and bool(records) and records[-1].offset >= each.log_end
            for record in records:
                hours += _events_of(record, namespace)
    return InFlight(hours=hours, complete=complete)


def _events_of(record: StoredRecord, namespace: str) -> Counter[datetime]:
    try:
        decoded = decode_record(record.value)
    except (CorruptRecord, UnknownVersion):
        # One dead letter of nobody.
        hour = datetime_from_us(record.appended_us // _HOUR_US * _HOUR_US)
        return Counter({hour: 1}) if namespace == EVERYBODY else Counter()
    found: Counter[datetime] = Counter()
    if decoded.version != CORRECTIONS_VERSION:
        for received_us, count, name in decoded.requests:
            if decoded.namespaces[name] == namespace:
                found[datetime_from_us(received_us // _HOUR_US * _HOUR_US)] += count
    return found
