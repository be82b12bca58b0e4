"""Copies that take requests: ingest on a loop of its own, and what appends corrections."""

import json
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from tests.schedules.clocks import WorldClock
from tests.schedules.edges import CopyLog, CopyStore, Edge
from tests.schedules.truth import Item
from tests.schedules.turns import StepLoop, Turn
from tollgate.core.errors import TollgateError, Transient
from tollgate.events.correction import Action
from tollgate.events.correction_request import Item as Asked
from tollgate.events.correction_request import correct
from tollgate.events.ingest import Accepted, Ingest, IngestLimits
from tollgate.events.position import Token
from tollgate.platform.event_log import EventLog, OneLayout
from tollgate.platform.parts import Parts, open_clickhouse, open_layouts
from tollgate.platform.settings import Settings

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

    @property
    def idle(self) -> bool:
        """Whether it has nothing that it would still send to the log."""
        return not self.loop.runnable and not self._ingest.pending_bytes

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
    """Takes corrections as the API does: one process, a thread for each request."""

    def __init__(self, edge: Edge, store: CopyStore, log: CopyLog, clock: WorldClock) -> None:
        self.edge = edge
        self.asked: list[Heard] = []
        self._parts = Parts(Settings(), clock)
        self._parts._made |= {open_clickhouse: store, open_layouts: OneLayout(log)}

    def send(self, action: Action, name: str, items: Sequence[Item], heard: Heard) -> Turn:
        """Sends a request; `heard` gets its answer unless the copy ends before."""
        self.asked.append(heard)

        def work() -> None:
            outcome: Token | Exception
            try:
                asked = [_correction(action, name, item) for item in items]
                outcome = correct(self._parts, items[0].key[0], "me", asked).token
            except TollgateError as problem:
                outcome = problem
            self.asked.remove(heard)
            heard(outcome)

        turn = Turn(f"{self.edge.copy.name} {name}", work)
        self.edge.copy.turns.append(turn)
        return turn

    def end(self) -> list[Heard]:
        """The process is gone; gives whoever waits for an answer of it."""
        asked, self.asked = self.asked, []
        return asked


def _correction(action: Action, name: str, item: Item) -> Asked:
    _, source, event_id = item.key
    event = _event_json(item).encode() if action == "amend" else b""
    return Asked(
        action=action, source=source, id=event_id, reason="because", correction=name, event=event
    )
