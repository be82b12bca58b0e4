"""Seals and adjustments over HTTP, and what the ledger says of them."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.own_models import held
from tests.support.positions import joined
from tests.support.server import Server
from tests.support.usage import event, exact

METERS = (
    "meters: [{slug: sealed_sum, eventType: sealed, aggregation: SUM, valueProperty: $.n,"
    " groupBy: {model: $.model}}]\n"
)
# Nothing is sealed by a schedule meanwhile.
SETTINGS = {"TOLLGATE_SEAL_LATENESS_SECONDS": "31536000"}
APRIL, MAY = "2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z"
HOUR = "2026-03-10T12:00:00Z"


class Talk:
    """A running product and its last position."""

    def __init__(self, server: Server) -> None:
        self.http = server.http
        self.headers: dict[str, str] = {}

    def send(self, data: str, **attributes: str) -> None:
        answer = self.http.post(
            "/api/v1/events",
            content=event(data, type="sealed", **attributes),
            headers={"Content-Type": "application/cloudevents+json"},
        )
        assert answer.status_code == 204, answer.text
        before = self.headers.get("Tollgate-Position", "")
        self.headers = {"Tollgate-Position": joined(before, answer.headers["Tollgate-Position"])}

    def get(self, operation: str, path: str, **params: Any) -> Any:
        answer = self.http.get(f"/api/v1/{path}", params=params, headers=self.headers)
        assert answer.status_code == 200, answer.text
        held(operation, answer)
        return exact(answer.content)

    def force(self, through: str, reason: str, status: int = 200) -> Any:
        # Whoever seals by force waits for nothing: what was sent shall be loaded.
        self.get("getLedger", "ledger")
        answer = self.http.post(
            "/api/v1/seals", json={"through": through, "reason": reason}, headers=self.headers
        )
        assert held("forceSeal", answer).status_code == status, answer.text
        return answer.json()

    def adjustments(self, **params: Any) -> Any:
        return self.get("listAdjustments", "usage/adjustments", meter="sealed_sum", **params)


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Talk]:
    folder = tmp_path_factory.mktemp("seals")
    meters = folder / "meters.yaml"
    meters.write_text(METERS)
    with Server(folder / "data", meters, SETTINGS) as server:
        yield Talk(server)


def test_an_hour_is_sealed_changed_and_adjusted(talk: Talk) -> None:
    assert talk.get("listSeals", "seals") == {"items": []}
    assert "sealedThrough" not in talk.get("getLedger", "ledger")
    talk.send('{"n":0.1,"model":"a"}')
    (seal,) = talk.force(APRIL, "close")["items"]
    assert (seal["from"], seal["to"]) == ("1900-01-01T00:00:00Z", APRIL)
    assert (seal["revision"], seal["kind"], seal["reason"]) == (1, "forced", "close")
    assert seal["missing"] == [
        "the allowed lateness of these hours was not over",
        "not all of the ledger was counted again",
    ]
    assert talk.get("getLedger", "ledger")["sealedThrough"] == APRIL
    assert talk.adjustments() == {"items": []}

    talk.send('{"n":0.2,"model":"b"}')
    (pending,) = talk.adjustments()["items"]
    assert pending == {
        "hour": HOUR,
        "subject": "acme",
        "groupBy": {},
        "pending": True,
        "before": exact("0.1"),
        "after": exact("0.3"),
        "delta": exact("0.2"),
        "lateEvents": 1,
        "lateCorrections": 0,
        "reasons": [],
        "actors": [],
        "operations": [],
    }
    assert "must be the end" in talk.force("2026-04-30T00:30:00Z", "half", 400)["detail"]
    revision, last = talk.force(MAY, "more")["items"]
    assert (revision["from"], revision["revision"], revision["lateEvents"]) == (HOUR, 2, 1)
    assert (last["from"], last["to"]) == (APRIL, MAY)
    assert "sealed already" in talk.force(MAY, "again", 409)["detail"]
    found = pending | {"pending": False, "revision": 2, "sealedAt": revision["sealedAt"]}
    assert talk.adjustments()["items"] == [found]
    assert talk.adjustments(subject="acme", groupBy="model")["items"] == [
        found | {"groupBy": {"model": "b"}, "before": None, "after": exact("0.2")}
    ]
    assert talk.adjustments(subject="other")["items"] == []
    assert talk.adjustments(**{"from": APRIL})["items"] == []

    # What is sealed says the same for ever.
    for position, value in ((seal["position"], "0.1"), (revision["position"], "0.3")):
        query = {"asOf": position, "from": HOUR, "to": "2026-03-10T13:00:00Z"}
        answer = talk.http.get("/api/v1/meters/sealed_sum/query", params=query)
        assert exact(answer.content)["data"][0]["value"] == exact(value)


def test_seals_are_listed_by_page(talk: Talk) -> None:
    whole = talk.get("listSeals", "seals")
    assert whole["sealedThrough"] == MAY
    found: list[Any] = []
    cursor: dict[str, Any] = {}
    while True:
        page = talk.get("listSeals", "seals", limit=1, **cursor)
        found += page["items"]
        if "nextCursor" not in page:
            break
        cursor = {"cursor": page["nextCursor"]}
    assert found == whole["items"]
    assert [each["revision"] for each in found] == [1, 2, 1]
    assert talk.get("listSeals", "seals", revisions="true")["items"] == [found[1]]
    assert talk.get("listSeals", "seals", **{"from": APRIL})["items"] == [found[2]]
    for path in ("seals?cursor=x", "usage/adjustments?meter=sealed_sum&cursor=MQ"):
        assert talk.http.get(f"/api/v1/{path}").status_code == 400


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({}, 400),
        ({"meter": "nowhere"}, 404),
        ({"meter": "sealed_sum", "groupBy": "none"}, 400),
        ({"meter": "sealed_sum", "groupBy": "customer_id"}, 400),
    ],
)
def test_wrong_questions_are_refused(talk: Talk, query: dict[str, str], status: int) -> None:
    answer = talk.http.get("/api/v1/usage/adjustments", params=query)
    assert held("listAdjustments", answer).status_code == status, answer.text


def test_what_waits_for_the_loader_is_in_flight(talk: Talk) -> None:
    talk.send('{"n":1}')
    ledger = talk.get("getLedger", "ledger")
    assert (ledger["inFlight"], ledger["inFlightComplete"], ledger["imbalances"]) == (0, True, [])
