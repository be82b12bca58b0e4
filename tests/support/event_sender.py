"""Sends events of its own to a running product, and lists them in every version of the wire."""

import json
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import httpx

from tests.support.contract import checked
from tests.support.positions import joined
from tests.support.server import Server
from tollgate.core.times import format_instant

V1, V2, V3 = "/api/v1/events", "/api/v2/events", "/api/v3/openmeter/events"
POSITION = "Tollgate-Position"
NOW = datetime.now(UTC).replace(microsecond=0)
Event = dict[str, Any]
_numbers = count()


def ago(**duration: int) -> str:
    return format_instant(NOW - timedelta(**duration))


class Sender:
    """Sends events under a source and subject of its own and lists them once they are loaded."""

    def __init__(self, server: Server, headers: dict[str, str] | None = None) -> None:
        self.http = server.http
        self.name = f"list-{next(_numbers)}"
        self._headers = headers or {}
        self._position: dict[str, str] = {}

    def event(self, event_id: str, **members: Any) -> Event:
        return {
            "specversion": "1.0",
            "id": event_id,
            "source": self.name,
            "type": "unmetered",
            "subject": self.name,
        } | members

    def send(self, *events: Event) -> None:
        self.send_text(json.dumps(events))

    def send_text(self, body: str) -> None:
        media_type = "application/cloudevents-batch+json"
        headers = self._headers | {"Content-Type": media_type}
        answer = self.http.post(V1, content=body.encode(), headers=headers)
        assert answer.status_code == 204, answer.text
        # Each request has its own partitions: all that was sent is waited for.
        before = self._position.get(POSITION, "")
        self._position = {POSITION: joined(before, answer.headers[POSITION])}

    def get(self, path: str, **parameters: Any) -> httpx.Response:
        # `page__size` is the contract's `page[size]`.
        split = {name: name.split("__") for name in parameters}
        params = {
            split[name][0] + "".join(f"[{key}]" for key in split[name][1:]): value
            for name, value in parameters.items()
        }
        return self.http.get(path, params=params, headers=self._headers | self._position)

    def v1(self, **parameters: Any) -> list[Any]:
        answer = checked("v1", "listEvents", self.get(V1, **{"subject": self.name} | parameters))
        assert answer.status_code == 200, answer.text
        items: list[Any] = answer.json()
        return items

    def v2(self, wanted: dict[str, Any] | None = None, **parameters: Any) -> dict[str, Any]:
        text = json.dumps({"source": {"$eq": self.name}} | (wanted or {}))
        answer = checked("v1", "listEventsV2", self.get(V2, filter=text, **parameters))
        assert answer.status_code == 200, answer.text
        page: dict[str, Any] = answer.json()
        return page

    def v3(self, **parameters: Any) -> dict[str, Any]:
        own = {"filter__source": self.name} | parameters
        answer = checked("v3", "list-metering-events", self.get(V3, **own))
        assert answer.status_code == 200, answer.text
        page: dict[str, Any] = answer.json()
        return page


def ids(items: list[Any]) -> list[str]:
    return [item["event"]["id"] for item in items]
