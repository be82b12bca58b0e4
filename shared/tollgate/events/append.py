"""Use case: put one event into the log from a thread, as ingest does from its loop."""

import queue

from tollgate.core.errors import InvalidInput, Transient
from tollgate.events.event import Arrival
from tollgate.events.faults import read_event
from tollgate.events.identity import partitions_of
from tollgate.events.position import Token
from tollgate.events.record import (
    EVENT_BYTES,
    RECORD_BYTES,
    REQUEST_BYTES,
    Encoded,
    Group,
    encode_record,
)
from tollgate.platform.parts import Parts, open_layouts

_SECONDS = 30


def append_event(parts: Parts, namespace: str, raw: bytes) -> Token:
    """Stores a structured event.

    Args:
        parts: of the process.
        namespace: whose event.
        raw: the CloudEvent as JSON.

    Returns:
        where it stands, once it is on disk.

    Raises:
        InvalidInput: every fault of the event.
        Transient: the log is away or full; the event may be stored and will then count once.
    """
    settings, layouts = parts.settings, parts.get(open_layouts)
    room = settings.record_bytes_max - RECORD_BYTES - REQUEST_BYTES - EVENT_BYTES
    arrival = Arrival(
        namespace=namespace,
        received_us=parts.clock.now_us(),
        event_bytes_max=min(settings.event_bytes_max, max(1, room)),
    )
    event = read_event(raw, arrival, None)
    if not isinstance(event, Encoded):
        raise InvalidInput(event)
    log = layouts.open(layouts.newest())
    if refusal := log.refusal():
        raise Transient(refusal)
    if log.backlog_bytes() > settings.log_bytes_max:
        raise Transient("loading or archiving is behind and the event log is full")
    (partition,) = partitions_of([event.key_hash], log.partitions)
    record = encode_record([Group(namespace, arrival.received_us, [event])])
    outcomes: queue.SimpleQueue[int | Exception] = queue.SimpleQueue()
    log.submit(partition, [record], outcomes.put)
    try:
        outcome = outcomes.get(timeout=_SECONDS)
    except queue.Empty:
        raise Transient("the event log did not answer in time") from None
    if isinstance(outcome, Exception):
        raise outcome
    return Token(generation=log.generation, offsets={partition: outcome})
