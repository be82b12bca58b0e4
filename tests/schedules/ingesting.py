"""Copies that take requests: ingest on a loop of its own, and what appends corrections."""

import json
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from tests.schedules.clocks import WorldClock
from tests.schedules.edges import CopyLog, Edge
from tests.schedules.truth import Item
from tests.schedules.turns import StepLoop
from tollgate.core.errors import Transient
from tollgate.events.correction import Action, Request, encode_correction, encode_key
from tollgate.events.event import Arrival
from tollgate.events.faults import read_event
from tollgate.events.identity import key_hash, key_prefix, partition_of
from tollgate.events.ingest import Accepted, Ingest, IngestLimits
from tollgate.events.position import Token
from tollgate.events.record import CORRECTIONS_VERSION, Encoded, Group, encode_record
from tollgate.platform.event_log import EventLog

Heard = Callable[[Token | Exception], None]
TYPE, SUBJECT = "use", "someone"
_BATCH = "application/cloudevents-batch+json"


class IngestCopy:
    """`Ingest` of one process."""

    def __init__(self, edge: Edge, log: CopyLog, clock: WorldClock, limits: IngestLimits) -> None:
        self.edge = edge
        self.loop = StepLoop()
        self.asked: list[Heard] = []
        self._taking: list[Coroutine[Any, Any, None]] = []
        as_port: EventLog = log
        self._ingest: Ingest = self.loop.run(lambda: Ingest(as_port, clock, limits))

    @property
    def runnable(self) -> bool:
        return self.edge.copy.alive and self.loop.runnable

    def send(self, items: Sequence[Item], heard: Heard, *, at_once: bool) -> None:
        """Sends a request; `heard` gets its answer unless the copy ends before."""
        body = f"[{','.join(_event_json(item) for item in items)}]".encode()
        self.asked.append(heard)

        def answer(outcome: Token | Exception) -> None:
            if self.edge.copy.alive:
                self.asked.remove(heard)
                heard(outcome)

        def begin() -> None:
            if at_once and self._ingest.take_at_once(namespace, body, answer, batch=True):
                return
            self._taking.append(take())
            self.loop.create_task(self._taking[-1])

        async def take() -> None:
            try:
                accepted: Accepted = await self._ingest.take(namespace, _BATCH, body)
            except Transient as problem:
                answer(problem)
                return
            assert accepted.token is not None
            answer(accepted.token)

        namespace = items[0].key[0]
        self.loop.call_soon(begin)

    def end(self) -> list[Heard]:
        """The process is gone; gives whoever waits for an answer of it."""
        self.loop.end()
        for each in self._taking:
            each.close()
        asked, self.asked = self.asked, []
        return asked


def _event_json(item: Item) -> str:
    _, source, event_id = item.key
    head = {"id": event_id, "source": source, "type": TYPE, "subject": SUBJECT}
    if item.time is not None:
        head["time"] = item.time
    return f'{json.dumps(head)[:-1]},"data":{item.data}}}'


class CorrectionCopy:
    """Appends corrections, as the API does: one request, a record for each partition."""

    def __init__(self, edge: Edge, log: CopyLog, clock: WorldClock) -> None:
        self.edge = edge
        self._log = log
        self._clock = clock

    def send(self, action: Action, number: int, items: Sequence[Item], heard: Heard) -> None:
        """Sends a request; `heard` gets its answer."""
        arrival = Arrival(
            namespace=items[0].key[0], received_us=self._clock.now_us(), event_bytes_max=1 << 20
        )
        split: dict[int, list[Encoded]] = {}
        for item in items:
            line = _correction(arrival, action, f"{number}", item)
            partition = partition_of(line.key_hash, self._log.partitions)
            split.setdefault(partition, []).append(line)
        offsets: dict[int, int] = {}
        failures: list[Exception] = []

        def done(partition: int, outcome: int | Exception) -> None:
            if isinstance(outcome, Exception):
                failures.append(outcome)
            else:
                offsets[partition] = outcome
            if len(offsets) + len(failures) == len(split):
                token = Token(generation=self._log.generation, offsets=offsets)
                heard(failures[0] if failures else token)

        for partition, lines in split.items():
            group = Group(arrival.namespace, arrival.received_us, lines)
            record = encode_record([group], CORRECTIONS_VERSION)
            self._log.submit(partition, [record], partial(done, partition))


def _correction(arrival: Arrival, action: Action, name: str, item: Item) -> Encoded:
    namespace, source, event_id = item.key
    request = Request(
        correction=name, operation="", action=action, reason="because", actor="me", content=""
    )
    if action == "void":
        hashed = key_hash(key_prefix(namespace), source, event_id)
        event = encode_key((namespace, source, event_id), arrival.received_text, hashed)
    else:
        read = read_event(_event_json(item).encode(), arrival, None)
        assert isinstance(read, Encoded)
        event = read
    return encode_correction(request, event)
