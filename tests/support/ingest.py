"""Ingest over HTTP as a client sees it: valid events, requests, and what answers say."""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import httpx

from tests.support.server import Server
from tollgate.core.ids import new_ulid
from tollgate.events.position import HEADER, parse_token

V1, V3 = "/api/v1/events", "/api/v3/openmeter/events"
ONE = "application/cloudevents+json"
MANY = "application/cloudevents-batch+json"
PLAIN = "application/json"


def event(**members: Any) -> dict[str, Any]:
    """A valid event with an id that no other test has."""
    head = {"id": new_ulid(), "source": "ingest-api", "type": "ingest-api", "subject": "acme"}
    return {"specversion": "1.0"} | head | members


def post(
    server: Server,
    body: Any,
    media_type: str | None = ONE,
    path: str = V1,
    headers: Mapping[str, str] | None = None,
) -> httpx.Response:
    """Sends bytes or text as they are, and anything else as JSON."""
    content = body if isinstance(body, bytes | str) else json.dumps(body)
    kind = {} if media_type is None else {"content-type": media_type}
    return server.http.post(path, content=content, headers=kind | dict(headers or {}))


def kept(server: Server, answer: httpx.Response, source: str, event_id: str) -> dict[str, Any]:
    """The event as the product shows it once loaded, its numbers digit for digit."""
    assert answer.status_code in (200, 202, 204), answer.text
    parse_token(answer.headers[HEADER])
    found = server.http.get(
        "/api/v1/events/lookup",
        params={"source": source, "id": event_id},
        headers={HEADER: answer.headers[HEADER]},
    )
    assert found.status_code == 200, found.text
    body = json.loads(found.content, parse_float=Decimal, parse_int=Decimal)
    assert body["state"] == "stored"
    shown: dict[str, Any] = body["event"]
    return shown


def faults(answer: httpx.Response) -> set[tuple[str, str]]:
    """Place and code of every fault of a v1 problem."""
    problem(answer, 400)
    errors = answer.json()["extensions"]["validationErrors"]
    return {(error["field"], error["code"]) for error in errors}


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """A problem body, whose content type has no charset: a published client reads nothing else."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "instance"} <= body.keys()
    assert body["status"] == status
    return body
