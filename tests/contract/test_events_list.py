"""The events lists of v1 and v2, and what all versions share, over HTTP on a running product."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.contract import checked
from tests.support.event_sender import NOW, POSITION, V1, V2, V3, Sender, ago, ids
from tests.support.server import Server
from tollgate.core.times import format_instant, parse_instant


@pytest.fixture
def sender(server: Server) -> Sender:
    return Sender(server)


DATA = (
    '{"exact": 0.10000000000000000555111512312578270, "huge" :1e400,"n":[ 1.50,-0 ],"é":"\\u00e9"}'
)


def test_shows_an_event_as_it_was_sent(sender: Sender) -> None:
    members = sender.event(
        "as-sent",
        time="2026-03-01T12:00:00.123456+02:00",
        datacontenttype="application/json",
        dataschema="https://example.com/schema",
        traceparent="00-4bf9",
        sequence=7,
    )
    sender.send_text(f'[{json.dumps(members)[:-1]}, "data": {DATA}}}]')
    (item,) = sender.v1(**{"from": "2026-03-01T00:00:00Z"})
    expected = members | {"time": "2026-03-01T10:00:00.123456Z", "data": json.loads(DATA)}
    # CloudEvents' attributes are texts; a number among them is kept as it was sent.
    assert item["event"] == expected
    assert item.keys() == {"event", "validationError", "ingestedAt", "storedAt"}
    assert item["ingestedAt"] <= item["storedAt"]
    v1 = sender.get(V1, **{"from": "2026-03-01T00:00:00Z", "subject": sender.name})
    v2 = sender.get(V2, filter=json.dumps({"source": {"$eq": sender.name}}))
    v3 = sender.get(V3, filter__source=sender.name)
    for answer in (v1, v2, v3):
        assert f'"data":{DATA}' in answer.text
    (shown,) = sender.v3()["data"]
    assert shown["event"] == {
        name: value for name, value in expected.items() if name not in ("traceparent", "sequence")
    }


def test_without_time_and_data(sender: Sender) -> None:
    sender.send(sender.event("bare"), sender.event("null", data=None, time=None))
    for item in sender.v1():
        assert item["event"]["time"] == item["ingestedAt"]
        assert "data" not in item["event"]
        assert "datacontenttype" not in item["event"]


def test_v1_is_latest_first_and_bounded(sender: Sender) -> None:
    sender.send(*(sender.event(f"e{n}", time=ago(minutes=n)) for n in (3, 1, 2)))
    assert ids(sender.v1()) == ["e1", "e2", "e3"]
    assert ids(sender.v1(limit=2)) == ["e1", "e2"]


def test_v1_parts_of_id_and_subject_are_literal(sender: Sender) -> None:
    names = ["100%_off", "100 x off", "Abc", "abc\\d", "it's"]
    sender.send(*(sender.event(name, time=ago(minutes=n)) for n, name in enumerate(names)))
    for part, expected in (
        ("100", ["100%_off", "100 x off"]),
        ("%_", ["100%_off"]),
        ("b", ["Abc", "abc\\d"]),
        ("A", ["Abc"]),
        ("\\d", ["abc\\d"]),
        ("'", ["it's"]),
        ("", names),
        ("nowhere", []),
    ):
        assert ids(sender.v1(id=part)) == expected, part
    assert ids(sender.v1(subject=sender.name[1:])) == names


def test_v1_periods_are_half_open(sender: Sender) -> None:
    sender.send(
        *(sender.event(f"e{n}", time=f"2026-03-01T12:00:00.00000{n}Z") for n in range(4)),
    )
    start, end = "2026-03-01T12:00:00.000001Z", "2026-03-01T12:00:00.000003Z"
    items = sender.v1(**{"from": start, "to": end})
    assert ids(items) == ["e2", "e1"]
    taken = items[0]["ingestedAt"]
    later = format_instant(parse_instant(taken) + timedelta(microseconds=1))
    at = {"from": start}
    assert ids(sender.v1(**at, ingestedAtFrom=taken, ingestedAtTo=later)) == ["e3", "e2", "e1"]
    assert sender.v1(**at, ingestedAtTo=taken) == []
    assert sender.v1(**at, ingestedAtFrom=later) == []


def test_v1_without_from_goes_back_72_hours(sender: Sender) -> None:
    sender.send(
        *(sender.event(f"h{hours}", time=ago(hours=hours)) for hours in (71, 73, 100, 180)),
    )
    assert ids(sender.v1()) == ["h71"]
    assert ids(sender.v1(to=ago(hours=90))) == ["h100"]
    assert ids(sender.v1(**{"from": ago(hours=200)})) == ["h71", "h73", "h100", "h180"]


def test_an_event_of_nobody_is_no_customer_s(sender: Sender) -> None:
    sender.send(sender.event("e", time=ago(minutes=1)))
    customer = "01G65Z755AFWAKHE12NY0CQ9FH"
    assert sender.v1(customerId=[customer, customer]) == []
    assert sender.v2({"customerId": {"$in": [customer]}})["items"] == []
    assert sender.v3(filter__customer_id=customer)["data"] == []
    assert ids(sender.v3(filter__customer_id__neq=customer)["data"]) == ["e"]


def test_progress_of_a_list(sender: Sender) -> None:
    for path, client in ((V1, f"{sender.name}-1"), (V2, f"{sender.name}-2")):
        assert sender.get(path, clientId=client).status_code == 200
        answer = sender.http.get(f"/api/v1/info/progress/{client}")
        assert answer.status_code == 200, answer.text
        progress = answer.json()
        assert (progress["success"], progress["failed"], progress["total"]) == (1, 0, 1)


def pages_v2(sender: Sender, limit: int) -> Iterator[list[Any]]:
    cursor: dict[str, Any] = {}
    while True:
        page = sender.v2(limit=limit, **cursor)
        yield page["items"]
        if "nextCursor" not in page:
            return
        cursor = {"cursor": page["nextCursor"]}


@pytest.mark.embedded_only("events of one instant come in the order of one partition")
def test_v2_pages_hold_while_events_arrive(sender: Sender) -> None:
    same = ago(hours=1)
    sender.send(*(sender.event(f"same-{n}", time=same) for n in range(7)))
    sender.send(*(sender.event(f"old-{n}", time=ago(hours=2 + n)) for n in range(4)))
    seen: list[str] = []
    for number, items in enumerate(pages_v2(sender, 3)):
        assert 0 < len(items) <= 3
        seen += ids(items)
        # Later than all that was listed: they belong to pages that were read already.
        sender.send(sender.event(f"new-{number}", time=format_instant(NOW)))
    assert seen == [f"same-{n}" for n in reversed(range(7))] + [f"old-{n}" for n in range(4)]
    # One that is late takes its place on a page still to come.
    first = sender.v2({"id": {"$like": "old-%"}}, limit=2)
    sender.send(sender.event("old-late", time=ago(hours=4, minutes=30)))
    rest = sender.v2({"id": {"$like": "old-%"}}, cursor=first["nextCursor"])
    assert ids(first["items"] + rest["items"]) == ["old-0", "old-1", "old-2", "old-late", "old-3"]
    assert "nextCursor" not in rest


def test_v2_filters(sender: Sender) -> None:
    times = {"a": ago(hours=1), "b": ago(hours=2), "c": ago(hours=3)}
    for name, time in times.items():
        members = {"subject": f"{sender.name}-{name}", "type": f"type-{name}"}
        sender.send(sender.event(name, time=time, **members))
    (b,) = sender.v2({"id": {"$eq": "b"}})["items"]
    for wanted, expected in (
        ({}, "abc"),
        ({"id": None}, "abc"),
        ({"id": {"$in": ["a", "c", "x"]}}, "ac"),
        ({"id": {"$nin": ["a"]}, "type": {"$ne": "type-b"}}, "c"),
        ({"type": {"$like": "type-%"}, "subject": {"$ilike": "%-B"}}, "b"),
        ({"id": {"$or": [{"$eq": "a"}, {"$gt": "b"}]}}, "ac"),
        ({"time": {"$lt": times["a"]}}, "bc"),
        ({"time": {"$gte": times["b"], "$lte": times["b"]}}, "b"),
        ({"ingestedAt": {"$gt": b["ingestedAt"]}}, "c"),
        ({"ingestedAt": {"$lt": b["ingestedAt"]}}, "a"),
        ({"source": {"$eq": "elsewhere"}}, ""),
    ):
        assert ids(sender.v2(wanted)["items"]) == list(expected), wanted


@pytest.mark.parametrize(
    ("path", "parameters", "field"),
    [
        (V1, {"limit": "0"}, "limit"),
        (V1, {"limit": "101"}, "limit"),
        (V1, {"limit": "ten"}, "limit"),
        (V1, {"from": "yesterday"}, "from"),
        (V1, {"from": "2026-03-01T00:00:00Z", "to": "2026-03-01T00:00:00Z"}, "to"),
        (
            V1,
            {"ingestedAtFrom": "2026-03-02T00:00:00Z", "ingestedAtTo": ago(days=400)},
            "ingestedAtTo",
        ),
        (V1, {"customerId": "me"}, "customerId.$in[0]"),
        (V1, {"clientId": "x" * 37}, "clientId"),
        (V1, {"id": "x" * 1025}, "id"),
        (V2, {"limit": "101"}, "limit"),
        (V2, {"cursor": "x"}, "cursor"),
        (V2, {"cursor": ""}, "cursor"),
        (V2, {"cursor": "A" * 44}, "cursor"),
        (V2, {"filter": "{"}, "filter"),
        (V2, {"filter": "[1]"}, "filter"),
        (V2, {"filter": '{"subjects": {}}'}, "filter.subjects"),
        (V2, {"filter": '{"\\ud800": {}}'}, "filter.?"),
        (V2, {"filter": '{"id": {"$eq": "\\ud800"}}'}, "filter.id.$eq"),
        (V2, {"filter": '{"id": {"\\ud800": 1}}'}, None),
        (V2, {"filter": '{"id": {"$eq": 7}}'}, "filter.id.$eq"),
        (V2, {"filter": '{"time": {"$eq": "2026-03-01T00:00:00Z"}}'}, "filter.time.$eq"),
        (V3, {"page[size]": "0"}, "page.size"),
        (V3, {"page[size]": "101"}, "page.size"),
        (V3, {"page[number]": "1"}, "page.number"),
        (V3, {"page[after]": "x"}, "page[after]"),
        (V3, {"page[before]": "x"}, "page[before]"),
        (V3, {"page[before]": "x", "page[after]": "x"}, "page[before]"),
        (V3, {"sort": "id"}, "sort"),
        (V3, {"sort": ""}, "sort"),
        (V3, {"sort": "time up"}, "sort"),
        (V3, {"sort": "time desc,stored_at"}, "sort"),
        (V3, {"filter[nothing]": "1"}, "filter[nothing]"),
        (V3, {"filter[id][like]": "1"}, "filter[id][like]"),
        (V3, {"filter[time]": "noon"}, "filter[time]"),
        (V3, {"filter[customer_id]": "me"}, "filter[customer_id]"),
        (V3, {"filter[id][eq][x]": "1"}, "filter[id][eq]"),
    ],
)
def test_faults_name_the_parameter(
    server: Server, path: str, parameters: dict[str, str], field: str | None
) -> None:
    wire: Any = "v3" if path == V3 else "v1"
    operation = {V1: "listEvents", V2: "listEventsV2", V3: "list-metering-events"}[path]
    answer = checked(wire, operation, server.http.get(path, params=parameters))
    assert answer.status_code == 400, answer.text
    problem = answer.json()
    faults = problem.get("invalid_parameters") or problem["extensions"]["validationErrors"]
    if field is not None:
        assert field in [fault["field"] for fault in faults]


def test_says_why_an_event_does_not_count(sender: Sender) -> None:
    kind, slug = sender.name, sender.name.replace("-", "_")
    for name, aggregation in (("sum", "SUM"), ("unique", "UNIQUE_COUNT"), ("avg", "AVG")):
        meter = {
            "slug": f"{slug}_{name}",
            "aggregation": aggregation,
            "eventType": kind,
            "valueProperty": "$.nested[0].value",
        }
        if name == "avg":
            meter["eventFrom"] = "2026-03-01T12:00:00Z"
        assert sender.http.post("/api/v1/meters", json=meter).status_code == 201
    time = "2026-03-01T11:59:59.999999Z"
    values = {"good": 12, "text": "abc", "null": None, "digits": "0.1234567890123456789"}
    for name, value in values.items():
        data = {"nested": [{"value": value}]}
        sender.send(sender.event(name, type=kind, time=time, data=data))
    sender.send(sender.event("none", type=kind, time=time), sender.event("other", time=time))
    shown = {
        item["event"]["id"]: item.get("validationError")
        for item in sender.v1(**{"from": "2026-03-01T00:00:00Z"})
    }
    path, one, two = "$.nested[0].value", f"meter {slug}_sum: ", f"meter {slug}_unique: "
    late = f"meter {slug}_avg counts events from 2026-03-01T12:00:00Z on, and this one is earlier"
    assert shown == {
        "good": None,
        "text": one + f"{path} is a text that is not a number; "
        "one counts only if it is written like 12.5",
        "null": one + f"{path} is null; " + two + f"{path} is null; {late}",
        "digits": one + f"{path} has more digits than can be counted exactly: "
        "at most 20 before and 18 after the point",
        "none": one + f"{path} is missing; " + two + f"{path} is missing; {late}",
        "other": "no meter found for event type: unmetered",
    }
    errors = {
        item["event"]["id"]: item.get("validation_errors", []) for item in sender.v3()["data"]
    }
    assert [error["code"] for error in errors["none"]] == [
        "value_missing",
        "value_missing",
        "event_before_meter",
    ]
    assert errors["text"][0]["attributes"] == {"meter": f"{slug}_sum", "value_property": path}
    assert errors["good"] == []


def test_a_position_that_is_none_is_refused(server: Server) -> None:
    for path in (V1, V2, V3):
        assert server.http.get(path, headers={POSITION: "soon"}).status_code == 400


def test_namespaces_never_see_each_other(new_server: Callable[..., Server], tmp_path: Path) -> None:
    keys = {name: f"tg_{name}_{'s' * 43}" for name in ("one", "two", "three")}
    file = tmp_path / "keys.yaml"
    file.write_text(
        json.dumps(
            [
                {
                    "key": key,
                    "namespace": name,
                    "scopes": ["ingest"] if name == "three" else ["admin"],
                }
                for name, key in keys.items()
            ]
        )
    )
    running = new_server(settings={"TOLLGATE_KEYS_FILE": str(file)}).start()
    one, two, three = (Sender(running, {"Authorization": f"Bearer {key}"}) for key in keys.values())
    for sender in (one, two):
        sender.name = "shared"
        sender.send(*(sender.event(f"e{n}", time=ago(hours=n)) for n in range(1, 4)))
    two.send(two.event("secret", time=ago(minutes=1)))
    meter = {"slug": "secret", "aggregation": "COUNT", "eventType": "unmetered"}
    headers = {"Authorization": f"Bearer {keys['two']}"}
    assert running.http.post("/api/v1/meters", json=meter, headers=headers).status_code == 201
    assert ids(one.v1()) == ["e1", "e2", "e3"]
    assert ids(two.v1()) == ["secret", "e1", "e2", "e3"]
    assert "validationError" in one.v1()[0]
    assert "validationError" not in two.v1()[0]
    # A cursor of the other namespace names a place, and shows only one's own events beyond it.
    cursor = two.v2(limit=1)["nextCursor"]
    assert ids(one.v2(cursor=cursor)["items"]) == ["e1", "e2", "e3"]
    assert ids(one.v3(filter__id__contains="e")["data"]) == ["e1", "e2", "e3"]
    for path in (V1, V2, V3):
        assert running.http.get(path).status_code == 401
        assert three.get(path).status_code == 403
