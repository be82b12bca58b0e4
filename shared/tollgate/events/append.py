"""Use case: put events or corrections into the log from a thread, as ingest does from its loop."""

import queue
from collections.abc import Sequence

from tollgate.core.errors import Fault, InvalidInput, Transient
from tollgate.events.event import Arrival
from tollgate.events.faults import read_event
from tollgate.events.identity import partitions_of
from tollgate.events.position import Token
from tollgate.events.record import (
    EVENT_BYTES,
    RECORD_BYTES,
    REQUEST_BYTES,
    VERSION,
    Encoded,
    Group,
    encode_record,
)
from tollgate.platform.parts import Parts, open_layouts

_SECONDS = 30


def arrival_of(parts: Parts, namespace: str, spare_bytes: int = 0) -> Arrival:
    """What events of one request share.

    Args:
        parts: of the process.
        namespace: whose events.
        spare_bytes: what a line takes besides the event's.
    """
    settings = parts.settings
    room = settings.record_bytes_max - RECORD_BYTES - REQUEST_BYTES - EVENT_BYTES - spare_bytes
    return Arrival(
        namespace=namespace,
        received_us=parts.clock.now_us(),
        event_bytes_max=min(settings.event_bytes_max, max(1, room)),
    )


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
    arrival = arrival_of(parts, namespace)
    event = read_event(raw, arrival, None)
    if not isinstance(event, Encoded):
        raise InvalidInput(event)
    return append_lines(parts, arrival, [event], VERSION)


def append_events(
    parts: Parts, namespace: str, raws: Sequence[bytes]
) -> tuple[tuple[Fault, ...], ...]:
    """Stores structured events, all that can be.

    Args:
        parts: of the process.
        namespace: whose events.
        raws: the CloudEvents as JSON.

    Returns:
        the faults of each, in their order. Those without any are on disk.

    Raises:
        Transient: the log is away or full; any of them may be stored and will then count once.
    """
    arrival = arrival_of(parts, namespace)
    outcomes = [read_event(raw, arrival, None) for raw in raws]
    lines = [each for each in outcomes if isinstance(each, Encoded)]
    if lines:
        append_lines(parts, arrival, lines, VERSION)
    return tuple(() if isinstance(each, Encoded) else each for each in outcomes)


def append_lines(parts: Parts, arrival: Arrival, lines: Sequence[Encoded], version: int) -> Token:
    """Stores lines, those of a partition in order.

    Args:
        parts: of the process.
        arrival: of the request.
        lines: events or corrections, at least one.
        version: of the records, which of the two.

    Returns:
        where the last of each partition stands, once all are on disk.

    Raises:
        Transient: the log is away or full; any of them may be stored.
    """
    layouts = parts.get(open_layouts)
    log = layouts.open(layouts.newest())
    if refusal := log.refusal():
        raise Transient(refusal)
    if log.backlog_bytes() > parts.settings.log_bytes_max:
        raise Transient("loading or archiving is behind and the event log is full")
    split: dict[int, list[Encoded]] = {}
    owners = partitions_of([line.key_hash for line in lines], log.partitions)
    for partition, line in zip(owners, lines, strict=True):
        split.setdefault(partition, []).append(line)
    outcomes: queue.SimpleQueue[tuple[int, int | Exception]] = queue.SimpleQueue()
    most = parts.settings.record_bytes_max
    for partition, some in split.items():
        records = [
            encode_record([Group(arrival.namespace, arrival.received_us, piece)], version)
            for piece in _pieces(some, most)
        ]

        def done(outcome: int | Exception, partition: int = partition) -> None:
            outcomes.put((partition, outcome))

        log.submit(partition, records, done)
    offsets: dict[int, int] = {}
    while len(offsets) < len(split):
        try:
            partition, outcome = outcomes.get(timeout=_SECONDS)
        except queue.Empty:
            raise Transient("the event log did not answer in time") from None
        if isinstance(outcome, Exception):
            raise outcome
        offsets[partition] = outcome
    return Token(generation=log.generation, offsets=offsets)


def _pieces(lines: Sequence[Encoded], bytes_max: int) -> list[list[Encoded]]:
    """Lines in pieces that each fit into a record."""
    pieces: list[list[Encoded]] = [[]]
    size = room = RECORD_BYTES + REQUEST_BYTES
    for line in lines:
        grown = len(line.line) + EVENT_BYTES
        if pieces[-1] and size + grown > bytes_max:
            pieces.append([])
            size = room
        pieces[-1].append(line)
        size += grown
    return pieces
