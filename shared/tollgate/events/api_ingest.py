"""HTTP of ingest, straight on ASGI: the hot path has no framework in between.

Answers: v1 204 and v3 202 after the durable ack, with the position token; `?partial=true` 200 with
what was rejected; 400, 401, 403, 413, 415 as problems; 503 when the outcome is unknown.
"""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from urllib.parse import parse_qs

import msgspec
from prometheus_client.core import Metric

from tollgate.core.errors import Fault, InvalidInput, TollgateError, Transient
from tollgate.events.ingest import Accepted, Ingest, IngestLimits
from tollgate.events.position import HEADER, Token
from tollgate.platform.access import KeyIndex, Scope
from tollgate.platform.application import send_reply
from tollgate.platform.body import Receive, Send, header, read_body
from tollgate.platform.body import Scope as Request
from tollgate.platform.direct import Answer, Headers, Taker
from tollgate.platform.event_log import EventLog
from tollgate.platform.keys import open_keys
from tollgate.platform.parts import Parts, open_layouts
from tollgate.platform.telemetry import counter, gauge

_log = logging.getLogger(__name__)
_OPEN_AGAIN_SECONDS = 0.5
_REFUSED_RETRY_SECONDS = 30
_AWAY = "the event log can't be reached; nothing of this request was stored"
_POSITION = HEADER.lower().encode()
_JSON = b"application/json"
_AT_ONCE: dict[bytes | None, bool] = {
    b"application/cloudevents+json": False,
    b"application/cloudevents-batch+json": True,
}
"""Whether the body of a media type is a batch; parameters and other spellings take the long way."""
_V1_STATUS = b"HTTP/1.1 204 No Content\r\n"
_V3_STATUS = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n"
_TRUE = frozenset(("true", "1"))


class IngestService:
    """The service of `functions/ingest`. Follows the log from one layout to the next."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._keys: KeyIndex = parts.get(open_keys)
        self._body_bytes_max = parts.settings.body_bytes_max
        self._log: EventLog | None = None
        self._ingest: Ingest | None = None
        self._every: list[Ingest] = []
        self._opening: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Opens the newest layout of the log; goes on looking for it if the log is away.

        Raises:
            PermanentFault: there is no layout, or its settings would lose events.
        """
        loop = asyncio.get_running_loop()
        try:
            await self._open_newest()
        except Transient as problem:
            _log.warning("the event log is away", extra={"problem": problem.detail})
            self._follow()

        def changed(_generation: int) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._follow)

        self._parts.get(open_layouts).watch(changed)

    def _follow(self) -> None:
        """Opens the newest layout in the background, however long it takes."""
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._keep_opening())

    async def _keep_opening(self) -> None:
        while True:
            try:
                await self._open_newest()
            except TollgateError as problem:
                _log.warning("can't open the event log", extra={"problem": problem.detail})
            else:
                return
            await asyncio.sleep(_OPEN_AGAIN_SECONDS)

    async def _open_newest(self) -> None:
        log = await asyncio.to_thread(self._newest_log)
        if self._log is not None and self._log.generation == log.generation:
            return
        settings = self._parts.settings
        self._ingest = Ingest(
            log,
            self._parts.clock,
            IngestLimits(
                event_bytes_max=settings.event_bytes_max,
                batch_events_max=settings.batch_events_max,
                record_bytes_max=settings.record_bytes_max,
                pending_bytes_max=settings.pending_bytes_max,
                log_bytes_max=settings.log_bytes_max,
            ),
        )
        self._every.append(self._ingest)
        self._log = log

    def _newest_log(self) -> EventLog:
        layouts = self._parts.get(open_layouts)
        generation = layouts.newest()
        layouts.verify(generation)
        return layouts.open(generation)

    async def stop(self) -> None:
        """Waits for the log."""
        if self._opening is not None:
            self._opening.cancel()
        for ingest in self._every:
            await ingest.drain()

    async def tend(self) -> None:
        """Nothing is scheduled."""

    def unreadiness(self) -> str:
        """Ready once keys are known: a log that is away is answered with 503 per request."""
        return self._keys.unreadiness()

    def metrics(self) -> Iterable[Metric]:
        """Events taken and refused, and what waits."""
        every, log = self._every, self._log
        if log is None:
            return ()
        return (
            counter(
                "tollgate_ingest_events",
                "Events by answer: accepted means on disk.",
                [
                    ({"answer": "accepted"}, sum(each.accepted for each in every)),
                    ({"answer": "rejected"}, sum(each.rejected for each in every)),
                ],
            ),
            gauge(
                "tollgate_ingest_pending_bytes",
                "Events waiting for the log.",
                sum(each.pending_bytes for each in every),
            ),
            gauge("tollgate_log_backlog_bytes", "Records not yet released.", log.backlog_bytes()),
            gauge("tollgate_log_generation", "Layout that takes events.", log.generation),
        )

    def taker(self, path: str, headers: Headers) -> Taker | None:
        """See `Direct`: plain events in structured or batched mode, from who may send them."""
        found = dict(reversed(headers))  # of several the first counts
        batch = _AT_ONCE.get(found.get(b"content-type"))
        if batch is None or b"content-encoding" in found:
            return None
        authorization = found.get(b"authorization")
        status = _V3_STATUS if path.startswith("/api/v3/") else _V1_STATUS

        def take(body: bytes, answer: Answer) -> bool:
            ingest, log = self._ingest, self._log
            if ingest is None or log is None or log.refusal() or len(body) > self._body_bytes_max:
                return False
            try:
                access = self._keys.check(authorization, self._parts.clock)
                access.require(Scope.INGEST)
            except TollgateError:
                return False

            def done(outcome: Token | Exception) -> None:
                if isinstance(outcome, Exception):
                    answer(outcome)
                else:
                    answer(b"%b%b: %b\r\n" % (status, _POSITION, str(outcome).encode()))

            return ingest.take_at_once(access.namespace, body, done, batch=batch)

        return take

    async def __call__(self, scope: Request, receive: Receive, send: Send) -> None:
        """Takes one request."""
        access = self._keys.check(header(scope, b"authorization"), self._parts.clock)
        if Scope.INGEST not in access.scopes:
            access.require(Scope.INGEST)
        ingest, log = self._ingest, self._log
        if ingest is None or log is None:
            raise Transient(_AWAY)
        if refusal := log.refusal():
            raise Transient(
                f"{refusal}; nothing of this request was stored",
                retry_after_seconds=_REFUSED_RETRY_SECONDS,
            )
        content_type = header(scope, b"content-type") or b""
        body = await read_body(scope, receive, self._body_bytes_max)
        partial = bool(scope["query_string"]) and _partial(scope["query_string"])
        media_type = content_type.partition(b";")[0].strip().lower()
        if media_type in (b"", _JSON) or not media_type.startswith(b"application/cloudevents"):
            attributes = _binary_attributes(scope)
            if attributes:
                accepted = await ingest.take_binary(
                    access.namespace, attributes, content_type.decode("latin-1"), body
                )
                await _answer(scope, send, accepted, partial=False)
                return
        accepted = await ingest.take(
            access.namespace, media_type.decode("latin-1"), body, partial=partial
        )
        await _answer(scope, send, accepted, partial=partial)


def _binary_attributes(scope: Request) -> dict[str, bytes]:
    """The `ce-` headers; empty unless the request is in binary mode."""
    found = {
        name[3:].decode("latin-1"): value
        for name, value in scope["headers"]
        if name.startswith(b"ce-")
    }
    return found if "specversion" in found or "id" in found else {}


def _partial(query: bytes) -> bool:
    values = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("partial", [])
    if not values or values[-1] in ("false", "0"):
        return False
    if values[-1] not in _TRUE:
        fault = Fault(field="partial", code="invalid_value", message="must be true or false")
        raise InvalidInput((fault,))
    return True


async def _answer(scope: Request, send: Send, accepted: Accepted, *, partial: bool) -> None:
    headers = []
    if accepted.token is not None:
        headers.append((_POSITION, str(accepted.token).encode()))
    if partial:
        body = msgspec.json.encode(
            {
                "accepted": accepted.count,
                "rejected": [
                    {
                        "index": f.index or 0,
                        "id": accepted.rejected_ids.get(f.index or 0, ""),
                        "field": f.field,
                        "code": f.code,
                        "detail": f.message,
                    }
                    for f in accepted.rejected
                ],
            }
        )
        headers.append((b"content-type", _JSON))
        await send_reply(send, 200, headers, body)
        return
    await send_reply(send, 202 if scope["path"].startswith("/api/v3/") else 204, headers, b"")
