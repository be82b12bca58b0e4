"""Void and amend over HTTP: what counts afterwards, what is told, what is refused."""

import itertools
import json
from typing import Any

import httpx
import pytest

from tests.support.own_models import held
from tests.support.positions import joined
from tests.support.server import Server

AGGREGATIONS = ("SUM", "COUNT", "AVG", "MIN", "MAX", "UNIQUE_COUNT", "LATEST")
EVENT = "application/cloudevents+json"
_numbers = itertools.count()


class Desk:
    """Somebody who sends events of one type of their own, corrects them and reads what counts."""

    def __init__(self, server: Server) -> None:
        self.http = server.http
        self.type = f"corrected-{next(_numbers)}"
        self.position: dict[str, str] = {}
        for aggregation in AGGREGATIONS:
            wanted: dict[str, Any] = {
                "slug": self.slug(aggregation),
                "eventType": self.type,
                "aggregation": aggregation,
            }
            if aggregation != "COUNT":
                wanted["valueProperty"] = "$.n"
            assert self.http.post("/api/v1/meters", json=wanted).status_code == 201

    def slug(self, aggregation: str) -> str:
        return f"{self.type}_{aggregation}".lower().replace("-", "_")

    def event(self, event_id: str, n: str, minute: int, **more: str) -> str:
        head = {"id": event_id, "source": self.type, "type": self.type, "subject": "u"} | more
        time = f"2026-03-01T10:{minute:02d}:00Z"
        return f'{json.dumps({"time": time} | head)[:-1]},"data":{{"n":{n}}}}}'

    def send(self, *events: str) -> str:
        answer = self.http.post(
            "/api/v1/events",
            content="[" + ",".join(events) + "]",
            headers={"content-type": "application/cloudevents-batch+json"},
        )
        assert answer.status_code == 204, answer.text
        return self._note(answer)

    def _note(self, answer: httpx.Response) -> str:
        token: str = answer.headers["tollgate-position"]
        before = self.position.get("tollgate-position", "")
        self.position = {"tollgate-position": joined(before, token)}
        return token

    def correct(self, *items: str, status: int = 202) -> dict[str, Any]:
        """Items are JSON texts, so that numbers keep their digits."""
        answer = self.http.post(
            "/api/v1/corrections",
            content='{"corrections":[' + ",".join(items) + "]}",
            headers={"content-type": "application/json"} | self.position,
        )
        held("correctEvents", answer)
        assert answer.status_code == status, answer.text
        if status == 202:
            self._note(answer)
        found: dict[str, Any] = answer.json()
        return found

    def void(self, event_id: str, **more: str) -> str:
        item = {"action": "void", "source": self.type, "id": event_id, "reason": "wrong"}
        return json.dumps(item | more)

    def amend(self, event_id: str, event: str, **more: str) -> str:
        item = {"action": "amend", "source": self.type, "id": event_id, "reason": "wrong"} | more
        return f'{json.dumps(item)[:-1]},"event":{event}}}'

    def totals(self, **parameters: str) -> dict[str, str]:
        """By aggregation the total as text; "" without a row."""
        found = {}
        for aggregation in AGGREGATIONS:
            path = f"/api/v1/meters/{self.slug(aggregation)}/query"
            answer = self.http.get(path, params=parameters, headers=self.position)
            assert answer.status_code == 200, answer.text
            rows = json.loads(answer.text, parse_float=str, parse_int=str)["data"]
            found[aggregation] = rows[0]["value"] if rows else ""
        return found

    def look(self, event_id: str) -> dict[str, Any]:
        params = {"source": self.type, "id": event_id}
        answer = self.http.get("/api/v1/events/lookup", params=params, headers=self.position)
        found: dict[str, Any] = held("getEventBySourceAndId", answer).json()
        return found

    def listed(self, **parameters: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            answer = self.http.get(
                "/api/v1/corrections", params={"limit": "2"} | parameters, headers=self.position
            )
            page = held("listCorrections", answer).json()
            found += page["items"]
            if "nextCursor" not in page:
                return found
            parameters["cursor"] = page["nextCursor"]


def totals(*values: str) -> dict[str, str]:
    return dict(zip(AGGREGATIONS, values, strict=True))


@pytest.fixture
def desk(server: Server) -> Desk:
    return Desk(server)


def test_all_aggregations_after_each_correction_and_as_of_before_it(desk: Desk) -> None:
    events = [desk.event("1", "1", 1), desk.event("2", "5.5", 2), desk.event("3", "3", 3)]
    sent = desk.send(*events)
    # By hand: sum, count, avg, min, max, unique, latest.
    first = totals("9.5", "3", "3.166666666666666667", "1", "5.5", "3", "3")
    assert desk.totals() == first

    desk.correct(desk.void("3"))
    voided = desk.position["tollgate-position"]
    second = totals("6.5", "2", "3.25", "1", "5.5", "2", "5.5")
    assert desk.totals() == second

    # Another content at another time, digit for digit; the number stands in no double.
    late = desk.event("1", "0.100000000000000001", 59)
    desk.correct(desk.amend("1", late))
    third = totals(
        "5.600000000000000001",
        "2",
        "2.8",
        "0.100000000000000001",
        "5.5",
        "2",
        "0.100000000000000001",
    )
    assert desk.totals() == third
    # What was known then: at the position of each step, and now.
    assert desk.totals(asOf=sent) == first
    assert desk.totals(asOf=voided) == second
    assert desk.totals(asOf="2299-01-01T00:00:00Z") == third
    assert desk.totals(asOf="2020-01-01T00:00:00Z") == dict.fromkeys(AGGREGATIONS, "")

    desk.correct(desk.void("1"), desk.void("2"))
    assert desk.totals() == dict.fromkeys(AGGREGATIONS, "")
    desk.correct(desk.amend("3", desk.event("3", "3", 3)))
    assert desk.totals() == totals("3", "1", "3", "3", "3", "1", "3")
    assert desk.totals(asOf=voided) == second


def test_as_of_is_a_vector_that_gives_the_same_for_ever(desk: Desk) -> None:
    desk.send(*(desk.event(str(n), "1", n) for n in range(4)))
    assert desk.totals()["COUNT"] == "4"
    # On several partitions the position of one event says nothing of the others.
    one = desk.send(desk.event("4", "1", 4))
    path = f"/api/v1/meters/{desk.slug('SUM')}/query"
    answer = desk.http.get(path, params={"asOf": one}, headers=desk.position)
    vector = answer.headers["tollgate-as-of"]
    assert answer.json()["data"][0]["value"] == 5
    loaded = desk.look("4")["storedAt"]
    desk.correct(desk.void("0"), desk.amend("1", desk.event("1", "7", 1, subject="v")))
    assert desk.totals()["SUM"] == "10"
    for known in (one, vector):
        again = desk.http.get(path, params={"asOf": known}, headers=desk.position)
        assert (again.text, again.headers["tollgate-as-of"]) == (answer.text, vector)
    posted = desk.http.post(path, json={"asOf": vector}, headers=desk.position)
    assert posted.json()["data"] == answer.json()["data"]
    csv = {"accept": "text/csv"} | desk.position
    assert desk.http.get(path, params={"asOf": vector}, headers=csv).text.split(",")[-1] == "5\r\n"
    meter = desk.http.get(f"/api/v1/meters/{desk.slug('SUM')}").json()["id"]
    v3 = desk.http.post(f"/api/v3/openmeter/meters/{meter}/query", json={"as_of": vector})
    assert v3.json()["data"][0]["value"] == "5"
    subjects = f"/api/v1/meters/{desk.slug('SUM')}/subjects"
    assert desk.http.get(subjects, headers=desk.position).json() == ["u", "v"]
    assert desk.http.get(subjects, params={"asOf": vector}).json() == ["u"]
    # A row of `events` is stored before the ledger has it: at that time it was not known.
    early = desk.http.get(path, params={"asOf": loaded})
    assert [row["value"] for row in early.json()["data"]] in ([4], [])


@pytest.mark.parametrize(
    ("path", "name", "as_of"),
    [
        ("/api/v1/events", "asOf", "yesterday"),
        ("/api/v2/events", "asOf", "1;0:x"),
        ("/api/v3/openmeter/events", "as_of", "999;0:1"),
    ],
)
def test_a_wrong_as_of_is_named(server: Server, path: str, name: str, as_of: str) -> None:
    answer = server.http.get(path, params={name: as_of})
    assert answer.status_code == 400, answer.text
    assert f'"{name}"' in answer.text


def test_what_is_not_loaded_is_no_past(server: Server) -> None:
    desk = Desk(server)
    generation = desk.send(desk.event("1", "1", 1)).partition(";")[0]
    ahead = {"asOf": f"{generation};0:99999999"}
    answer = server.http.get(f"/api/v1/meters/{desk.slug('SUM')}/query", params=ahead)
    assert answer.status_code == 503
    assert "is not loaded" in answer.json()["detail"]


def test_lists_show_what_counts_once(desk: Desk) -> None:
    # Neighbours may have filled a page of other subjects.
    subject = desk.type
    amended = desk.event("2", "3", 3, type="other", subject=subject)
    sent = desk.send(*[desk.event(n, n, int(n), subject=subject) for n in "12"])
    desk.correct(desk.void("1"), desk.amend("2", amended))

    def ids(path: str, **parameters: str) -> list[tuple[str, str, int]]:
        answer = desk.http.get(path, params=parameters, headers=desk.position)
        found = answer.json()
        items = found if isinstance(found, list) else found.get("items", found.get("data"))
        events = [item["event"] for item in items]
        return [(e["id"], e["type"], e["data"]["n"]) for e in events]

    now, then = [("2", "other", 3)], [("2", desk.type, 2), ("1", desk.type, 1)]
    period = {"from": "2026-03-01T00:00:00Z", "to": "2026-03-02T00:00:00Z"}
    only = json.dumps({"subject": {"$eq": subject}})
    assert ids("/api/v1/events", subject=subject, **period) == now
    assert ids("/api/v2/events", filter=only) == now
    assert ids("/api/v2/events", filter=only, asOf=sent) == then
    v3 = {"filter[subject]": subject}
    assert ids("/api/v3/openmeter/events", **v3) == now
    assert ids("/api/v3/openmeter/events", **v3, as_of=sent) == then


def test_a_void_that_comes_first_waits_for_its_event(desk: Desk) -> None:
    (taken,) = desk.correct(desk.void("1"))["corrections"]
    assert (taken["expected"], "replaces" in taken) == ("waiting", False)
    desk.send(desk.event("1", "1", 1))
    assert desk.totals()["COUNT"] == ""
    found = desk.look("1")
    assert found["state"] == "voided"
    (correction,) = found["corrections"]
    assert correction["effect"] == "applied"
    assert correction["since"] == correction["replaced"] == found["position"]


def test_history_says_what_is_in_force_and_why(desk: Desk) -> None:
    desk.send(desk.event("1", "1", 1))
    before = desk.look("1")
    assert (before["state"], before["corrections"]) == ("stored", [])
    # Without a time it keeps the event's.
    content = f'{{"type":"{desk.type}","subject":"w","data":{{"n":2}}}}'
    (taken,) = desk.correct(desk.amend("1", content, correction="c-1"))["corrections"]
    assert (taken["correction"], taken["expected"]) == ("c-1", "applied")
    assert taken["replaces"] == before["position"]
    amended = desk.look("1")
    assert amended["state"] == "amended"
    assert amended["event"]["subject"] == "w"
    assert amended["event"]["time"] == before["event"]["time"]
    desk.correct(desk.void("1", reason="all of it"))
    voided = desk.look("1")
    assert voided["state"] == "voided"
    assert voided["event"] == amended["event"]
    assert [c["reason"] for c in voided["corrections"]] == ["wrong", "all of it"]
    listed = desk.listed(source=desk.type, id="1")
    assert listed == list(reversed(voided["corrections"]))
    assert [c["replaced"] for c in listed] == [amended["position"], before["position"]]


def test_the_same_correction_again_has_no_further_effect(desk: Desk) -> None:
    desk.send(desk.event("1", "1", 1))
    first = desk.amend("1", desk.event("1", "2", 1), correction="first")
    desk.correct(first)
    desk.correct(desk.amend("1", desk.event("1", "3", 1), correction="second"))
    # In other bytes, as a client might write it the next time.
    again = desk.amend("1", desk.event("1", "2.0", 1), correction="first")
    (taken,) = desk.correct(again)["corrections"]
    assert taken["expected"] == "repeated"
    assert desk.totals()["SUM"] == "3"
    refused = desk.correct(desk.void("1", correction="first"), status=409)
    assert "first" in refused["detail"]
    # Before the first is loaded nobody can tell: the loader does.
    desk.position = {}
    both = [desk.void("1", correction="v"), desk.void("1", correction="v")]
    assert [c["expected"] for c in desk.correct(*both)["corrections"]] == ["applied", "repeated"]
    assert desk.totals()["SUM"] == ""


@pytest.mark.parametrize(
    ("item", "fields"),
    [
        ('{"action":"void","source":"DESK","id":"1"}', ["corrections.0.reason"]),
        ('{"action":"erase","source":"","id":"1","reason":"r"}', ["corrections.0.action"]),
        ('{"action":"amend","source":"DESK","id":"1","reason":"r"}', ["corrections.0.event"]),
        (
            '{"action":"void","source":"DESK","id":"1","reason":"r","event":{"type":"t"}}',
            ["corrections.0.event"],
        ),
        (
            '{"action":"void","source":"DESK","id":"1","reason":"r","correction":"a:b"}',
            ["corrections.0.correction"],
        ),
        ('{"action":"void","source":"a\\u0001b","id":"1","reason":"r"}', ["corrections.0.source"]),
        (
            '{"action":"amend","source":"DESK","id":"nobody","reason":"r","event":{"type":"t"}}',
            ["corrections.0"],
        ),
        (
            (
                '{"action":"amend","source":"DESK","id":"KNOWN","reason":"r",'
                '"event":{"id":"2","type":"t","subject":"s"}}'
            ),
            ["corrections.0.event.id"],
        ),
        (
            (
                '{"action":"amend","source":"DESK","id":"KNOWN","reason":"r",'
                '"event":{"type":"","time":"never"}}'
            ),
            ["corrections.0.event.type", "corrections.0.event.subject", "corrections.0.event.time"],
        ),
    ],
)
def test_every_fault_is_named_and_nothing_is_taken(
    desk: Desk, item: str, fields: list[str]
) -> None:
    known = f"known-{desk.type}"
    desk.send(desk.event(known, "1", 1))
    answer = desk.correct(
        item.replace("KNOWN", known).replace("DESK", desk.type), desk.void(known), status=400
    )
    faults = answer["extensions"]["validationErrors"]
    assert set(fields) <= {fault["field"] for fault in faults}
    assert desk.look(known)["state"] == "stored"
