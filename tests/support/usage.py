"""Meters and events over HTTP, every answer held against the contract."""

import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import httpx

from tests.support.contract import Wire, checked
from tests.support.positions import joined
from tests.support.server import Server
from tollgate.core.ids import new_ulid
from tollgate.events.position import HEADER

V1 = "/api/v1/meters"
V3 = "/api/v3/openmeter/meters"
_ONE = {"v1": "/{meterIdOrSlug}", "v3": "/{meterId}"}


def fresh(word: str) -> str:
    """A name that no other test has."""
    return f"{word}_{new_ulid().lower()}"


def event(data: str | None = None, **attributes: str) -> str:
    """The JSON of one event; `data` is JSON text, so that its digits stay as written."""
    head = {
        "specversion": "1.0",
        "id": new_ulid(),
        "source": "tests",
        "subject": "acme",
        "time": "2026-03-10T12:00:00Z",
    }
    text = json.dumps(head | attributes)
    return text if data is None else f'{text[:-1]},"data":{data}}}'


def exact(body: bytes | str) -> Any:
    """JSON whose numbers keep their digits."""
    return json.loads(body, parse_float=Decimal, parse_int=Decimal)


def quantities(answer: Mapping[str, Any], *names: str) -> list[tuple[Any, ...]]:
    """The rows of an answer, each as the named members; `groupBy.x` is a dimension."""
    return [tuple(_member(row, name) for name in names) for row in answer["data"]]


def _member(row: Mapping[str, Any], name: str) -> Any:
    head, _, rest = name.partition(".")
    return row[head][rest] if rest else row[head]


class Usage:
    """One test's talk with a running product."""

    def __init__(self, server: Server) -> None:
        self.http = server.http
        self.event_type = fresh("type")
        self.position = ""

    def call(self, wire: Wire, operation: str, method: str, path: str, **more: Any) -> Any:
        """The checked answer to any request."""
        return checked(wire, operation, self.http.request(method, path, **more))

    def on_meters(self, method: str, rest: str = "", **more: Any) -> httpx.Response:
        """v1's operations of meters: `rest` is what stands after the path."""
        return self._on("v1", V1, method, rest, more)

    def on_meters_v3(self, method: str, rest: str = "", **more: Any) -> httpx.Response:
        """v3's operations of meters."""
        return self._on("v3", V3, method, rest, more)

    def _on(
        self, wire: Wire, root: str, method: str, rest: str, more: dict[str, Any]
    ) -> httpx.Response:
        _, *parts = rest.partition("?")[0].split("/")
        template = root + (_ONE[wire] if parts else "") + "".join(f"/{each}" for each in parts[1:])
        if parts[1:2] == ["group-by"]:
            template = root + _ONE[wire] + "/group-by/{groupByKey}/values"
        answer = self.http.request(method, root + rest, **more)
        return checked(wire, template, answer)

    def meter(self, aggregation: str = "SUM", **members: Any) -> str:
        """The slug of a new meter of this test's event type; reads `$.v` unless it counts."""
        body = {
            "slug": fresh("meter"),
            "aggregation": aggregation,
            "eventType": self.event_type,
            "valueProperty": None if aggregation == "COUNT" else "$.v",
            "groupBy": {"model": "$.model", "kind": "$.kind"},
        }
        answer = self.on_meters("POST", json=body | members)
        assert answer.status_code == 201, answer.text
        slug: str = answer.json()["slug"]
        return slug

    def send(self, *events: str) -> None:
        """Sends events of this test's type in one request; queries wait until they are loaded."""
        texts = [f'{{"type":"{self.event_type}",{text[1:]}' for text in events]
        answer = self.http.post(
            "/api/v1/events",
            content="[" + ",".join(texts) + "]",
            headers={"content-type": "application/cloudevents-batch+json"},
        )
        assert answer.status_code == 204, answer.text
        self.position = joined(self.position, answer.headers[HEADER])

    def send_values(self, values: Iterable[str]) -> None:
        """One event for each value, given as JSON text, a second apart."""
        self.send(
            *(
                event(f'{{"v":{value}}}', time=f"2026-03-10T12:00:{second:02}Z")
                for second, value in enumerate(values)
            )
        )

    @property
    def waiting(self) -> dict[str, str]:
        """Header of queries that wait for what was sent last."""
        return {HEADER: self.position} if self.position else {}

    def query(self, slug: str, **body: Any) -> dict[str, Any]:
        """The answer to a v1 query by POST; `start` and `end` are `from` and `to`."""
        asked = {{"start": "from", "end": "to"}.get(n, n): v for n, v in body.items()}
        answer = self.on_meters("POST", f"/{slug}/query", json=asked, headers=self.waiting)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = exact(answer.content)
        return found

    def values(self, slug: str, **body: Any) -> list[Decimal]:
        """Only the quantities of a v1 query."""
        return [value for (value,) in quantities(self.query(slug, **body), "value")]
