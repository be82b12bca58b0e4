"""Event logs in tests: appending and reading in one line, and a clock that can be set."""

import queue
from collections.abc import Sequence
from datetime import datetime

from tollgate.core.clock import datetime_from_us
from tollgate.platform.event_log import EventLog, StoredRecord

PARTITION = 0


def append(log: EventLog, *values: bytes, partition: int = PARTITION) -> int:
    """The last offset, once the records are on disk."""
    answers: queue.SimpleQueue[int | Exception] = queue.SimpleQueue()
    log.submit(partition, values, answers.put)
    answer = answers.get(timeout=20)
    if isinstance(answer, Exception):
        raise answer
    return answer


def read_all(log: EventLog, after: int = -1, partition: int = PARTITION) -> list[StoredRecord]:
    """Every record after an offset."""
    records: list[StoredRecord] = []
    while found := log.read(partition, records[-1].offset if records else after, 1 << 30):
        records += found
    return records


def values_of(records: Sequence[StoredRecord]) -> list[bytes]:
    """Their bytes."""
    return [record.value for record in records]


class SetClock:
    """A clock that stands where the test puts it."""

    def __init__(self, now_us: int) -> None:
        self.us = now_us

    def now_us(self) -> int:
        return self.us

    def now(self) -> datetime:
        return datetime_from_us(self.us)
