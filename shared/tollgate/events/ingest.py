"""Use case: take the events of one request, all or none, and answer once they are on disk."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from urllib.parse import unquote_to_bytes

import msgspec

from tollgate.core.clock import Clock
from tollgate.core.errors import Fault, InvalidInput, TooLarge, Transient, Unsupported
from tollgate.events.event import (
    Arrival,
    NeedsCare,
    decode_envelopes,
    encode_all,
    is_plain,
)
from tollgate.events.faults import (
    Outcome,
    event_id,
    has_more_events,
    read_event,
    split_batch,
)
from tollgate.events.flush import BEHIND, Flusher, settle
from tollgate.events.identity import partitions_of
from tollgate.events.position import Token
from tollgate.events.record import EVENT_BYTES, RECORD_BYTES, REQUEST_BYTES, Encoded, Group
from tollgate.platform.event_log import EventLog

_BATCH = "application/cloudevents-batch+json"
_SINGLE = "application/cloudevents+json"
_PLAIN = "application/json"
_SPACE = b" \t\r\n"
_BACKLOG_RETRY_SECONDS = 5
_COMMAS_MAX = 500_000
_EVENT_BYTES_MIN = len('{"id":"i","source":"s","type":"t","subject":"u"}')
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestLimits:
    """Bounds of one request and of what may wait.

    Attributes:
        event_bytes_max: one event as the log keeps it.
        batch_events_max: events in one request.
        record_bytes_max: one record of the log.
        pending_bytes_max: events waiting for the log in memory, per partition.
        log_bytes_max: records stored and not yet loaded.
    """

    event_bytes_max: int
    batch_events_max: int
    record_bytes_max: int
    pending_bytes_max: int
    log_bytes_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What became of a request.

    Attributes:
        count: events stored.
        token: position up to which they stand.
        rejected: faults of events that were not stored (partial requests only).
        rejected_ids: by index, the ids of those events.
    """

    count: int
    token: Token | None
    rejected: tuple[Fault, ...]
    rejected_ids: Mapping[int, str] = field(default_factory=dict)


class Ingest:
    """Takes requests. Belongs to one event loop."""

    def __init__(self, log: EventLog, clock: Clock, limits: IngestLimits) -> None:
        self._log = log
        self._clock = clock
        self._limits = limits
        self._flushers = [
            Flusher(
                log,
                partition,
                record_bytes_max=limits.record_bytes_max,
                pending_bytes_max=limits.pending_bytes_max,
            )
            for partition in range(log.partitions)
        ]
        self.accepted = 0
        self.rejected = 0

    @property
    def pending_bytes(self) -> int:
        """Bytes of events that wait for the log."""
        return sum(flusher.pending_bytes for flusher in self._flushers)

    async def take(
        self, namespace: str, media_type: str, body: bytes, *, partial: bool = False
    ) -> Accepted:
        """Stores the events of a structured or batched request.

        Args:
            namespace: whose they are.
            media_type: of the body, without parameters, lower case.
            body: JSON, unpacked.
            partial: store the good events of a batch even if others are bad.

        Raises:
            InvalidInput: some event is wrong and `partial` is off; nothing was stored.
            Unsupported: no media type of events.
            TooLarge: too many events; nothing was stored.
            Transient: any part may be stored and will then count; sending again is exact.
        """
        batch = _is_batch(media_type, body)
        most = self._limits.batch_events_max
        if batch and _is_crowded(body, most) and has_more_events(body, most):
            # Before they are taken apart: 16 MiB of `[0,0,...` would become a gigabyte of objects.
            raise self._too_many(f"more than {most}")
        arrival = self._arrival(namespace)
        plain = is_plain(body)
        if not plain and not body.isascii():
            _check_utf8(body)
        outcomes: Sequence[Outcome] = ()
        raws: Sequence[bytes] = ()
        try:
            envelopes = decode_envelopes(body, batch)
            if len(envelopes) <= most:
                outcomes = encode_all(envelopes, arrival, plain=plain)
            count = len(envelopes)
        except (msgspec.DecodeError, NeedsCare, RecursionError):
            raws = split_batch(body) if batch else [body]
            count = len(raws)
            if count <= most:
                outcomes = [
                    read_event(raw, arrival, index if batch else None)
                    for index, raw in enumerate(raws)
                ]
        if count > most:
            raise self._too_many(str(count))
        accepted = await self._store(arrival, outcomes, partial=partial)
        if accepted.rejected:
            indexes = {fault.index or 0 for fault in accepted.rejected}
            return replace(accepted, rejected_ids={i: event_id(raws[i]) for i in indexes})
        return accepted

    def take_at_once(
        self, namespace: str, body: bytes, done: Callable[[Token | Exception], None], *, batch: bool
    ) -> bool:
        """Takes a request in which nothing needs a closer look, without a task of its own.

        Args:
            namespace: whose it is.
            body: JSON, unpacked.
            done: gets the position once the events are on disk, or why nothing is known.
            batch: whether the body is a batch.

        Returns:
            whether it was taken. If not, nothing was done or counted: `take` decides.
        """
        if not is_plain(body):
            return False
        arrival = self._arrival(namespace)
        try:
            envelopes = decode_envelopes(body, batch)
            if not envelopes or len(envelopes) > self._limits.batch_events_max or self._is_full():
                return False
            events = encode_all(envelopes, arrival, plain=True)
        except (msgspec.DecodeError, NeedsCare, RecursionError):
            return False
        groups = self._split(arrival, events)
        if not self._has_room(groups):
            return False
        count, generation = len(events), self._log.generation

        def stored(outcome: dict[int, int] | Exception) -> None:
            if isinstance(outcome, Exception):
                done(outcome)
                return
            self.accepted += count
            done(Token(generation=generation, offsets=outcome))

        self._submit(groups, stored)
        return True

    def _is_full(self) -> bool:
        return self._log.backlog_bytes() > self._limits.log_bytes_max

    async def take_binary(
        self, namespace: str, attributes: Mapping[str, bytes], content_type: str, body: bytes
    ) -> Accepted:
        """Stores one event in CloudEvents' binary mode: attributes in headers, data in the body.

        Args:
            namespace: whose it is.
            attributes: by name, as the headers have them (CloudEvents HTTP binding 1.0.2, 3.1.3.2).
            content_type: of the body.
            body: JSON, unpacked, or nothing.

        Errors as in `take`.
        """
        if not body.isascii():
            _check_utf8(body)
        members: dict[str, object] = {**_header_texts(attributes)}
        if content_type:
            members["datacontenttype"] = content_type
        if "time" in members and not members["time"]:
            del members["time"]
        data = body.strip(_SPACE)
        if data:
            try:
                members["data"] = msgspec.json.decode(data, type=msgspec.Raw)
            except (msgspec.DecodeError, RecursionError) as problem:
                fault = Fault(field="data", code="invalid_json", message=f"is not JSON: {problem}")
                raise InvalidInput((fault,)) from None
        raw = msgspec.json.encode(members)
        arrival = self._arrival(namespace)
        return await self._store(arrival, [read_event(raw, arrival, None)], partial=False)

    async def drain(self) -> None:
        """Waits for what is on its way to the log."""
        for flusher in self._flushers:
            await flusher.drain()

    def _arrival(self, namespace: str) -> Arrival:
        room = self._limits.record_bytes_max - RECORD_BYTES - REQUEST_BYTES - EVENT_BYTES
        return Arrival(
            namespace=namespace,
            received_us=self._clock.now_us(),
            event_bytes_max=min(self._limits.event_bytes_max, max(1, room)),
        )

    def _too_many(self, count: str) -> TooLarge:
        return TooLarge(
            f"{count} events in a request, at most {self._limits.batch_events_max} are taken: "
            "send several requests, or raise TOLLGATE_BATCH_EVENTS_MAX"
        )

    async def _store(
        self, arrival: Arrival, outcomes: Sequence[Outcome], *, partial: bool
    ) -> Accepted:
        events = [o for o in outcomes if isinstance(o, Encoded)]
        faults: tuple[Fault, ...] = ()
        if len(events) != len(outcomes):
            faults = tuple(f for o in outcomes if not isinstance(o, Encoded) for f in o)
            self.rejected += len(outcomes) - len(events)
            if not partial:
                raise InvalidInput(faults)
        if not events:
            return Accepted(count=0, token=None, rejected=faults)
        if self._is_full():
            raise Transient(
                "loading or archiving is behind and the event log is full; nothing of this request"
                " was stored",
                retry_after_seconds=_BACKLOG_RETRY_SECONDS,
            )
        offsets = await self._append(arrival, events)
        self.accepted += len(events)
        token = Token(generation=self._log.generation, offsets=offsets)
        return Accepted(count=len(events), token=token, rejected=faults)

    async def _append(self, arrival: Arrival, events: Sequence[Encoded]) -> dict[int, int]:
        groups = self._split(arrival, events)
        if not self._has_room(groups):
            # Before any of them is queued: the answer says that nothing was stored.
            raise Transient(BEHIND)
        future: asyncio.Future[dict[int, int]] = asyncio.get_running_loop().create_future()
        self._submit(groups, lambda outcome: settle(future, outcome))
        return await future

    def _split(self, arrival: Arrival, events: Sequence[Encoded]) -> dict[int, Group]:
        namespace, received_us = arrival.namespace, arrival.received_us
        partitions = len(self._flushers)
        if partitions == 1:
            return {0: Group(namespace, received_us, events)}
        split: dict[int, list[Encoded]] = {}
        owners = partitions_of([event.key_hash for event in events], partitions)
        for partition, event in zip(owners, events, strict=True):
            if partition in split:
                split[partition].append(event)
            else:
                split[partition] = [event]
        return {p: Group(namespace, received_us, part) for p, part in split.items()}

    def _has_room(self, groups: Mapping[int, Group]) -> bool:
        return all(self._flushers[p].has_room(group.size) for p, group in groups.items())

    def _submit(
        self, groups: Mapping[int, Group], done: Callable[[dict[int, int] | Exception], None]
    ) -> None:
        """Queues all; `done` gets the last offset by partition once every partition has answered.

        Or why nothing is known: the first failure.
        """
        offsets: dict[int, int] = {}
        failures: list[Exception] = []

        def answered(partition: int, outcome: int | Exception) -> None:
            if isinstance(outcome, Exception):
                failures.append(outcome)
            else:
                offsets[partition] = outcome
            if len(offsets) + len(failures) == len(groups):
                done(failures[0] if failures else offsets)

        for partition, group in groups.items():
            self._flushers[partition].submit(group, partial(answered, partition))


def _is_batch(media_type: str, body: bytes) -> bool:
    if media_type == _BATCH:
        return True
    if media_type == _SINGLE:
        return False
    if media_type == _PLAIN:
        return body.lstrip(_SPACE)[:1] == b"["
    raise Unsupported(
        f"Content-Type {media_type!r} is not supported; use {_SINGLE}, {_BATCH} or {_PLAIN}"
    )


def _is_crowded(body: bytes, most: int) -> bool:
    """Whether a batch may hold so much that its events are counted before it is decoded."""
    if len(body) < _EVENT_BYTES_MIN * min(most, _COMMAS_MAX // _EVENT_BYTES_MIN):
        return False
    return body.count(b",") > _COMMAS_MAX or body.count(b'"subject"') > most


def _header_texts(attributes: Mapping[str, bytes]) -> dict[str, str]:
    """Header values as texts: quotes taken off, then one round of percent-decoding, then UTF-8."""
    texts: dict[str, str] = {}
    faults: list[Fault] = []
    for name, value in attributes.items():
        quoted = _QUOTED.fullmatch(value)
        plain = _ESCAPED.sub(rb"\1", quoted[1]) if quoted else value
        try:
            texts[name] = unquote_to_bytes(plain).decode()
        except UnicodeDecodeError:
            message = "is not percent-encoded UTF-8"
            faults.append(Fault(field=name, code="invalid_utf8", message=message))
    if faults:
        raise InvalidInput(tuple(faults))
    return texts


def _check_utf8(body: bytes) -> None:
    try:
        body.decode()
    except UnicodeDecodeError as problem:
        fault = Fault(
            field="", code="invalid_utf8", message=f"the body is not UTF-8 at byte {problem.start}"
        )
        raise InvalidInput((fault,)) from None
