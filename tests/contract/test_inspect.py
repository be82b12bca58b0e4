"""What became of an event, over HTTP: lookup, what did not count, the ledger, debug metrics."""

import base64
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.support.contract import checked
from tests.support.own_models import held
from tests.support.server import Server
from tollgate.core.clock import SystemClock
from tollgate.events.event import Arrival, decode_envelopes, encode_all
from tollgate.events.record import Encoded, Group, encode_record
from tollgate.platform.segment_log import SegmentLog

SOURCE = 'it\'s \\ "quoted" {id:String} %2F ü'
SINGLE = {"Content-Type": "application/cloudevents+json"}


def send(server: Server, **members: Any) -> dict[str, str]:
    """Sends an event; gives the header that waits for it."""
    event = {"specversion": "1.0", "type": "inspected", "subject": "someone", "source": SOURCE}
    return send_text(server, json.dumps(event | members))


def send_text(server: Server, body: str) -> dict[str, str]:
    answer = server.http.post("/api/v1/events", content=body, headers=SINGLE)
    assert answer.status_code == 204, answer.text
    return {"Tollgate-Position": answer.headers["Tollgate-Position"]}


def look_up(
    server: Server, event_id: str, headers: dict[str, str] | None = None, source: str = SOURCE
) -> httpx.Response:
    answer = server.http.get(
        "/api/v1/events/lookup", params={"source": source, "id": event_id}, headers=headers
    )
    return held("getEventBySourceAndId", answer)


def page(server: Server, path: str, **parameters: Any) -> dict[str, Any]:
    operations = {
        "conflicts": "listConflicts",
        "duplicates": "listDuplicates",
        "dead-letters": "listDeadLetters",
    }
    answer = held(operations[path], server.http.get(f"/api/v1/{path}", params=parameters))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_stored_event_comes_back_digit_for_digit(server: Server) -> None:
    data = '{"n": 0.10000000000000000000000000001, "big": 123456789012345678901234567890, "e":1E3}'
    headers = send_text(
        server,
        f'{{"specversion":"1.0","id":"digits","source":{json.dumps(SOURCE)},"type":"inspected",'
        f'"subject":"s","time":"2026-01-02T03:04:05.123456+01:00","region":"eu","data":{data}}}',
    )
    answer = look_up(server, "digits", headers)
    assert answer.status_code == 200, answer.text
    assert f'"data":{data}' in answer.text
    found = answer.json()
    assert found["state"] == "stored"
    assert {k: v for k, v in found["event"].items() if k != "data"} == {
        "specversion": "1.0",
        "id": "digits",
        "source": SOURCE,
        "type": "inspected",
        "subject": "s",
        "time": "2026-01-02T02:04:05.123456Z",
        "region": "eu",
    }
    generation, _, offset = headers["Tollgate-Position"].replace(";", ":").split(":")
    place = found["position"]
    assert (place["generation"], place["offset"]) == (int(generation), int(offset))
    assert found["receivedAt"] <= found["appendedAt"] <= found["storedAt"]
    assert [found[n]["count"] for n in ("duplicates", "conflicts", "deadLetters")] == [0, 0, 0]
    assert found["earlier"] == []


def test_duplicates_and_conflicts_stand_beside_the_event_that_counts(server: Server) -> None:
    send(server, id="beside", data={"n": 1})
    for _ in range(12):
        send(server, id="beside", data={"n": 1.0})
    # An extension may have any name that no attribute has.
    headers = send(server, id="beside", data={"n": 2}, time_us="x", time="2026-01-01T00:00:00Z")
    found = look_up(server, "beside", headers).json()
    assert (found["state"], found["event"]["data"]) == ("stored", {"n": 1})
    assert found["duplicates"]["count"] == 12
    newest = found["duplicates"]["newest"]
    offsets = [each["position"]["offset"] for each in newest]
    assert len(newest) == 10
    assert offsets == sorted(offsets, reverse=True)
    assert all(each["firstPosition"] == found["position"] for each in newest)
    assert found["conflicts"]["count"] == 1
    (conflict,) = found["conflicts"]["newest"]
    assert conflict["firstPosition"] == found["position"]
    assert conflict["event"] == {
        "specversion": "1.0",
        "id": "beside",
        "source": SOURCE,
        "type": "inspected",
        "subject": "someone",
        "time": "2026-01-01T00:00:00Z",
        "time_us": "x",
        "data": {"n": 2},
    }


def test_only_the_very_key_is_found(server: Server) -> None:
    headers = send(server, id="very", source="a-b")
    assert look_up(server, "very", headers, "a-b").status_code == 200
    for source, event_id in (("a", "b-very"), ("a-b", "Very"), ("a-b", "v\0ery"), ("a-b", "")):
        answer = look_up(server, event_id, source=source)
        assert answer.status_code == 404
        assert "Tollgate-Position" in answer.json()["detail"]
    answer = held("getEventBySourceAndId", server.http.get("/api/v1/events/lookup?source=a"))
    assert answer.status_code == 400
    assert [f["field"] for f in answer.json()["extensions"]["validationErrors"]] == ["id"]


def test_pages_are_stable_while_more_comes_in(server: Server) -> None:
    begin = datetime.now(UTC).isoformat()
    for number in range(5):
        send(server, id=f"paged-{number}", data={"n": 1})
    for number in range(5):
        look_up(server, "", send(server, id=f"paged-{number}", data={"n": 2}))
    end = datetime.now(UTC).isoformat()
    first = page(server, "conflicts", limit=2, **{"from": begin, "to": end})
    look_up(server, "paged-0", send(server, id="paged-0", data={"n": 3}))
    seen = [item["id"] for item in first["items"]]
    cursor = first["nextCursor"]
    while cursor:
        more = page(server, "conflicts", limit=2, cursor=cursor, **{"from": begin, "to": end})
        seen += [item["id"] for item in more["items"]]
        cursor = more.get("nextCursor")
    assert seen == [f"paged-{number}" for number in (4, 3, 2, 1, 0)]
    assert page(server, "conflicts", limit=1)["items"][0]["event"]["data"] == {"n": 3}
    assert page(server, "conflicts", to=begin, limit=1000)["items"] == [
        item for item in page(server, "conflicts", limit=1000)["items"] if item["id"][:5] != "paged"
    ]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("cursor=abc", "cursor"),
        ("cursor=%00", "cursor"),
        ("cursor=ü", "cursor"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("from=yesterday", "from"),
        ("unattributed=perhaps", "unattributed"),
    ],
)
def test_wrong_parameters_are_named(server: Server, query: str, field: str) -> None:
    for path in ("conflicts", "duplicates", "dead-letters"):
        answer = server.http.get(f"/api/v1/{path}?{query}")
        assert answer.status_code == 400
        assert [f["field"] for f in answer.json()["extensions"]["validationErrors"]] == [field]


def broken(event_id: str, received_us: int) -> Encoded:
    """An event whose time the engine can't read: a writer's fault that no check of ours caught."""
    body = json.dumps(
        {"id": event_id, "source": SOURCE, "type": "t", "subject": "s", "data": {"n": 1}}
    )
    arrival = Arrival(namespace="default", received_us=received_us, event_bytes_max=10_000)
    (encoded,) = encode_all(decode_envelopes(body.encode(), batch=False), arrival, plain=False)
    line = encoded.line.replace(arrival.received_text.encode(), b"never" + b" " * 12, 1)
    assert len(line) == len(encoded.line)
    return Encoded(encoded.key_hash, line)


def append(path: Path, records: list[bytes]) -> None:
    log = SegmentLog(path, SystemClock())
    done = threading.Event()
    log.submit(0, records, lambda _: done.set())
    assert done.wait(10)
    log.close()


@pytest.fixture
def bad_log(new_server: Callable[..., Server]) -> Server:
    """A product whose log already holds a broken event, and a record that is none."""
    server = new_server()
    server.data.mkdir()
    now_us = SystemClock().now_us()
    record = encode_record([Group("default", now_us, [broken("broken", now_us)])])
    append(server.data / "log", [record, b"no record at all"])
    return server.start()


def test_dead_letters_are_kept_and_balance(bad_log: Server) -> None:
    headers = send(bad_log, id="good", data={"n": 1})
    assert look_up(bad_log, "good", headers).json()["state"] == "stored"
    found = look_up(bad_log, "broken").json()
    assert found["state"] == "dead"
    assert found["event"]["data"] == {"n": 1}
    (dead,) = page(bad_log, "dead-letters")["items"]
    assert dead.pop("letter") == "1-0-0-0"
    assert found["deadLetters"] == {"count": 1, "newest": [dead]}
    assert (dead["id"], dead["source"], dead["code"]) == ("broken", SOURCE, "unreadable_row")
    assert dead["detail"]

    (record,) = page(bad_log, "dead-letters", unattributed=True)["items"]
    assert base64.b64decode(record["record"]) == b"no record at all"
    assert record["code"] == "not_a_record"
    assert "id" not in record

    ledger = held("getLedger", bad_log.http.get("/api/v1/ledger")).json()
    assert ledger["totals"] == tally(stored=1, dead=1)
    whole = held("getLedger", bad_log.http.get("/api/v1/ledger?unattributed=true")).json()
    assert whole["totals"] == tally(dead=1)


def tally(**counts: int) -> dict[str, Any]:
    all_counts = dict.fromkeys(("stored", "duplicate", "conflict", "dead"), 0) | counts
    accepted = sum(all_counts.values())
    return all_counts | {"accepted": accepted, "corrections": 0, "balanced": True}


def test_the_ledger_says_what_became_of_each_hour(new_server: Callable[..., Server]) -> None:
    server = new_server().start()
    empty = held("getLedger", server.http.get("/api/v1/ledger")).json()
    assert empty["hours"] == []
    assert empty["totals"] == tally()
    begin = datetime.now(UTC)
    send(server, id="1", data={"n": 1}, time="2020-01-01T00:00:00Z")
    send(server, id="2", data={"n": 1})
    send(server, id="2", data={"n": 1})
    headers = send(server, id="2", data={"n": 2})
    answer = held("getLedger", server.http.get("/api/v1/ledger", headers=headers)).json()
    assert answer["totals"] == tally(stored=2, duplicate=1, conflict=1)
    for name in ("accepted", "stored", "duplicate", "conflict", "dead"):
        assert sum(hour[name] for hour in answer["hours"]) == answer["totals"][name]
    hours = [hour["hour"] for hour in answer["hours"]]
    # The hour of receipt, not of the event's own time.
    assert hours[0] == begin.strftime("%Y-%m-%dT%H:00:00Z")
    (partition,) = answer["frontier"]
    assert partition == {
        "generation": 1,
        "partition": 0,
        "loadedThrough": partition["logEnd"],
        "logEnd": int(headers["Tollgate-Position"].rpartition(":")[2]),
        "inFlightRecords": 0,
    }
    assert answer["lag"] == {"records": 0, "milliseconds": 0}

    before = {"to": hours[0]}
    assert held("getLedger", server.http.get("/api/v1/ledger", params=before)).json()["hours"] == []
    within = {"from": begin.isoformat()}
    same = held("getLedger", server.http.get("/api/v1/ledger", params=within)).json()
    assert same["totals"] == answer["totals"]
    for query in ({"from": "2020-01-01T00:00:00Z"}, {"from": hours[0], "to": hours[0]}):
        refused = held("getLedger", server.http.get("/api/v1/ledger", params=query))
        assert refused.status_code == 400


def test_debug_metrics_are_open_metrics(new_server: Callable[..., Server]) -> None:
    server = new_server().start()
    subject = 'a "quoted" \\ back\\nslash ü'
    send(server, id="1", subject=subject)
    send(server, id="1", subject=subject)
    send(server, id="2", subject=subject, time="2020-01-01T00:00:00Z")
    headers = send(server, id="3", subject="plain")
    answer = checked(
        "v1", "getDebugMetrics", server.http.get("/api/v1/debug/metrics", headers=headers)
    )
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text.endswith("# EOF\n")
    (family,) = text_string_to_metric_families(answer.text)  # type: ignore[no-untyped-call]
    assert (family.name, family.type) == ("openmeter_events", "counter")
    assert [(s.name, s.labels, s.value) for s in family.samples] == [
        ("openmeter_events_total", {"subject": subject}, 2),
        ("openmeter_events_total", {"subject": "plain"}, 1),
    ]
