"""HTTP of ingest, straight on ASGI: the hot path has no framework in between.

Answers: v1 204 and v3 202 after the durable ack, with the position token; `?partial=true` 200 with
what was rejected; 400, 401, 403, 413, 415 as problems; 503 when the outcome is unknown.
"""

from collections.abc import Iterable
from urllib.parse import parse_qs

import msgspec
from prometheus_client.core import Metric

from tollgate.core.errors import Fault, InvalidInput
from tollgate.events.ingest import Accepted, Ingest, IngestLimits
from tollgate.events.position import HEADER
from tollgate.platform.access import KeyIndex, Scope
from tollgate.platform.application import send_reply
from tollgate.platform.body import Receive, Send, header, read_body
from tollgate.platform.body import Scope as Request
from tollgate.platform.keys import open_keys
from tollgate.platform.parts import Parts, open_log
from tollgate.platform.telemetry import counter, gauge

_POSITION = HEADER.lower().encode()
_JSON = b"application/json"
_TRUE = frozenset(("true", "1"))


class IngestService:
    """The service of `functions/ingest`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._keys: KeyIndex = parts.get(open_keys)
        self._body_bytes_max = parts.settings.body_bytes_max
        self._ingest: Ingest | None = None

    async def start(self) -> None:
        """Opens the log."""
        settings = self._parts.settings
        self._ingest = Ingest(
            self._parts.get(open_log),
            self._parts.clock,
            IngestLimits(
                event_bytes_max=settings.event_bytes_max,
                batch_events_max=settings.batch_events_max,
                record_bytes_max=settings.record_bytes_max,
                pending_bytes_max=settings.pending_bytes_max,
                log_bytes_max=settings.log_bytes_max,
            ),
        )

    async def stop(self) -> None:
        """Waits for the log."""
        if self._ingest is not None:
            await self._ingest.drain()

    async def tend(self) -> None:
        """Nothing is scheduled."""

    def unreadiness(self) -> str:
        """Ready once started: a log that is away is answered with 503 per request."""
        return ""

    def metrics(self) -> Iterable[Metric]:
        """Events taken and refused, and what waits."""
        ingest, log = self._ingest, self._parts.get(open_log)
        if ingest is None:
            return ()
        return (
            counter(
                "tollgate_ingest_events",
                "Events by answer: accepted means on disk.",
                [
                    ({"answer": "accepted"}, ingest.accepted),
                    ({"answer": "rejected"}, ingest.rejected),
                ],
            ),
            gauge(
                "tollgate_ingest_pending_bytes", "Events waiting for the log.", ingest.pending_bytes
            ),
            gauge("tollgate_log_backlog_bytes", "Records not yet released.", log.backlog_bytes()),
        )

    async def __call__(self, scope: Request, receive: Receive, send: Send) -> None:
        """Takes one request."""
        ingest = self._ingest
        assert ingest is not None
        access = self._keys.check(header(scope, b"authorization"), self._parts.clock)
        if Scope.INGEST not in access.scopes:
            access.require(Scope.INGEST)
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
