"""v3 of meters over HTTP: definitions, lists, quantities."""

from typing import Any

import httpx
import pytest

from tests.support.server import Server
from tests.support.usage import Usage, event, fresh

BODY = {"name": "Tokens", "aggregation": "sum", "event_type": "prompt", "value_property": "$.v"}
UNKNOWN = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


@pytest.fixture
def usage(server: Server) -> Usage:
    return Usage(server)


def faults(answer: httpx.Response) -> dict[str, str]:
    """Rule by field."""
    assert answer.status_code == 400, answer.text
    found = answer.json()["invalid_parameters"]
    return {fault["field"]: fault["rule"] for fault in found}


def create(usage: Usage, **members: Any) -> dict[str, Any]:
    answer = usage.on_meters_v3("POST", json=BODY | {"key": fresh("meter")} | members)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_meter_is_found_by_its_id_alone(usage: Usage) -> None:
    body = {
        "key": fresh("tokens"),
        "description": "read and written",
        "labels": {"team": "core-platform"},
        "events_from": "2026-01-01T02:00:00.5+02:00",
        "dimensions": {"model": "$.model"},
    }
    meter = create(usage, **body)
    assert meter | BODY | body | {"events_from": "2026-01-01T00:00:00.500000Z"} == meter
    assert usage.on_meters_v3("GET", f"/{meter['id']}").json() == meter
    for key in (meter["key"], meter["id"].lower(), meter["id"] + "0"):
        for method, rest in (("GET", ""), ("DELETE", "")):
            answer = usage.on_meters_v3(method, f"/{key}{rest}")
            assert faults(answer) == {"meterId": "matches_regex"}
        answer = usage.on_meters_v3("POST", f"/{key}/query", json={})
        assert faults(answer) == {"meterId": "matches_regex"}
    for method in ("GET", "DELETE"):
        assert usage.on_meters_v3(method, f"/{UNKNOWN}").status_code == 404
    assert usage.on_meters_v3("PUT", f"/{UNKNOWN}", json={}).status_code == 404
    assert usage.on_meters_v3("POST", f"/{UNKNOWN}/query", json={}).status_code == 404


@pytest.mark.parametrize("kind", ["sum", "count", "avg", "min", "max", "unique_count", "latest"])
def test_both_versions_see_one_meter(usage: Usage, kind: str) -> None:
    meter = create(usage, aggregation=kind, labels={"a": "1"}, dimensions={"m": "$.m"})
    v1 = usage.on_meters("GET", f"/{meter['key']}").json()
    assert (v1["id"], v1["aggregation"]) == (meter["id"], kind.upper())
    assert (v1["metadata"], v1["groupBy"]) == ({"a": "1"}, {"m": "$.m"})
    assert ("valueProperty" in v1) == (kind != "count")


def test_metadata_that_is_no_label_is_hidden_and_stays(usage: Usage) -> None:
    hidden = {"team": "core platform", "kong-id": "1", "k" * 64: "x"}
    v1 = usage.on_meters("GET", f"/{usage.meter(metadata=hidden | {'a': '1'})}").json()
    assert usage.on_meters_v3("GET", f"/{v1['id']}").json()["labels"] == {"a": "1"}
    answer = usage.on_meters_v3("PUT", f"/{v1['id']}", json={"labels": {"b": "2"}})
    assert answer.json()["labels"] == {"b": "2"}
    assert usage.on_meters("GET", f"/{v1['id']}").json()["metadata"] == hidden | {"b": "2"}


def test_all_faults_of_a_meter_come_at_once_in_v3_names(usage: Usage) -> None:
    answer = usage.on_meters_v3(
        "POST",
        json={
            "key": "No Key",
            "description": 7,
            "labels": {"kong-a": "a", "b": "with space", "c": 1, "l" * 64: "x"},
            "aggregation": "SUM",
            "event_type": "",
            "events_from": "yesterday",
            "value_property": "tokens",
            "dimensions": {"subject": "$.s", "1st": "$.a", "model": "$."},
            "slug": "known_in_v1_only",
        },
    )
    assert faults(answer) == {
        "key": "matches_regex",
        "name": "required",
        "description": "is_string",
        "labels.kong-a": "is_label",
        "labels.b": "is_label",
        "labels.c": "is_string",
        f"labels.{'l' * 64}": "is_label",
        "aggregation": "invalid",
        "event_type": "required",
        "events_from": "is_date_time",
        "value_property": "invalid",
        "dimensions.subject": "invalid",
        "dimensions.1st": "matches_regex",
        "dimensions.model": "invalid",
        "slug": "unknown_property",
    }


def test_faults_speak_of_v3_members(usage: Usage) -> None:
    body = BODY | {"key": fresh("m"), "dimensions": {"v": "$.v"}}
    (fault,) = usage.on_meters_v3("POST", json=body).json()["invalid_parameters"]
    assert fault["field"] == "dimensions.v"
    assert "value_property" in fault["reason"]
    labels = {f"l{number}": "x" for number in range(51)}
    answer = usage.on_meters_v3("POST", json=BODY | {"key": fresh("m"), "labels": labels})
    assert faults(answer) == {"labels": "invalid"}
    assert create(usage, labels=dict(list(labels.items())[:50]))["labels"].keys() <= labels.keys()


def test_a_key_is_taken_until_its_meter_is_deleted(usage: Usage) -> None:
    meter = create(usage)
    body = BODY | {"key": meter["key"]}
    assert usage.on_meters_v3("POST", json=body).status_code == 409
    assert usage.on_meters_v3("DELETE", f"/{meter['id']}").status_code == 204
    assert usage.on_meters_v3("DELETE", f"/{meter['id']}").status_code == 404
    assert usage.on_meters_v3("GET", f"/{meter['id']}").status_code == 404
    assert usage.on_meters_v3("POST", json=body).status_code == 201


def test_an_update_replaces_what_may_change_and_refuses_the_rest(usage: Usage) -> None:
    before = create(usage, labels={"a": "1"}, dimensions={"x": "$.x"})
    changes = {"name": "New", "description": "d", "dimensions": {"y": "$.y"}}
    after = usage.on_meters_v3("PUT", f"/{before['id']}", json=changes).json()
    assert after["updated_at"] > before["updated_at"]
    expected = before | changes | {"updated_at": after["updated_at"]}
    del expected["labels"]
    assert after == expected
    fixed = {"key": "other", "aggregation": "max", "event_type": "other", "value_property": "$.o"}
    answer = usage.on_meters_v3("PUT", f"/{before['id']}", json=fixed | {"name": ""})
    assert faults(answer) == dict.fromkeys(fixed, "unknown_property") | {"name": "required"}
    assert usage.on_meters_v3("GET", f"/{before['id']}").json() == after


@pytest.fixture(scope="module")
def three(server: Server) -> str:
    """What the keys of three meters begin with; two share a name."""
    usage = Usage(server)
    word = fresh("list")
    for end, kind, name in (("c", "sum", "Berta"), ("a", "max", "Anton"), ("b", "avg", "Berta")):
        create(usage, key=f"{word}_{end}", name=f"{name} {word}", aggregation=kind)
    return word


def ends(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return "".join(meter["key"][-1] for meter in answer.json()["data"])


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        (None, "cab"),
        ("created_at", "cab"),
        ("created_at desc", "bac"),
        ("updated_at asc", "cab"),
        ("key", "abc"),
        ("key desc", "cba"),
        ("name", "acb"),
        ("name desc, key asc", "bca"),
        ("name,key", "abc"),
        ("aggregation", "bac"),
    ],
)
def test_lists_are_sorted(usage: Usage, three: str, sort: str | None, expected: str) -> None:
    query = {"filter[key][contains]": three} | ({"sort": sort} if sort else {})
    assert ends(usage.on_meters_v3("GET", params=query)) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"filter[key]": "{}_a"}, "a"),
        ({"filter[key][eq]": "{}_b"}, "b"),
        ({"filter[key][oeq]": "{0}_a, {0}_c ,other"}, "ac"),
        ({"filter[key][neq]": "{}_a"}, "bc"),
        ({"filter[key][gt]": "{}_a", "filter[key][lte]": "{}_b"}, "b"),
        ({"filter[key][ocontains]": "{0}_A,{0}_b"}, "ab"),
        ({"filter[name]": "Anton {}"}, "a"),
        ({"filter[name][contains]": "BERTA {}"}, "bc"),
        ({"filter[name][contains]": "Berta {}", "filter[key]": "{}_c"}, "c"),
        ({"filter[name][exists]": "true"}, "abc"),
        ({"filter[name][exists]": "false"}, ""),
        ({"filter[key]": "' OR 1=1 --"}, ""),
        ({"filter[name][contains]": "%"}, ""),
    ],
)
def test_lists_are_filtered(usage: Usage, three: str, query: dict[str, str], expected: str) -> None:
    asked = {name: value.format(three) for name, value in query.items()}
    found = usage.on_meters_v3("GET", params=asked | {"sort": "key", "page[size]": "1000"}).json()
    keys = [meter["key"] for meter in found["data"] if meter["key"].startswith(three)]
    assert "".join(key[-1] for key in keys) == expected
    assert found["meta"]["page"]["total"] == len(found["data"])


def test_pages_say_how_many_there_are(usage: Usage, three: str) -> None:
    query = {"filter[key][contains]": three, "page[size]": "2"}
    for number, expected in ((1, "ca"), (2, "b"), (3, "")):
        answer = usage.on_meters_v3("GET", params=query | {"page[number]": str(number)})
        assert ends(answer) == expected
        assert answer.json()["meta"] == {"page": {"number": number, "size": 2, "total": 3}}


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ({"page[size]": "0", "page[number]": "x"}, {"page.size", "page.number"}),
        ({"page[size]": "1001"}, {"page.size"}),
        ({"page[after]": "x"}, {"page.after"}),
        ({"filter[slug]": "x"}, {"filter.slug"}),
        ({"filter[key][like]": "x", "sort": "slug"}, {"filter[key][like]", "sort"}),
        ({"sort": "key up"}, {"sort"}),
        ({"sort": ""}, {"sort"}),
    ],
)
def test_faults_of_a_list_come_at_once(
    usage: Usage, query: dict[str, str], fields: set[str]
) -> None:
    assert set(faults(usage.on_meters_v3("GET", params=query))) == fields


@pytest.fixture(scope="module")
def by_model(server: Server) -> tuple[Usage, str]:
    """A meter with six events of two days, three subjects and three models (one absent)."""
    usage = Usage(server)
    dimensions = {"model": "$.model", "kind": "$.kind"}
    meter = create(usage, event_type=usage.event_type, dimensions=dimensions)
    later = "2026-03-11T08:00:00Z"
    usage.send(
        event('{"v":0.1,"model":"a","kind":"in"}', subject="ada"),
        event('{"v":0.2,"model":"a","kind":"out"}', subject="ada"),
        event('{"v":"4","model":"b","kind":"in"}', subject="ada", time=later),
        event('{"v":8,"model":"b","kind":"in"}', subject="bob"),
        event('{"v":-16,"model":"=1+1"}', subject="bob", time=later),
        event('{"v":9007199254740993,"kind":"out"}', subject="=cmd()"),
    )
    return usage, meter["id"]


def rows(by_model: tuple[Usage, str], **body: Any) -> list[tuple[str, dict[str, str]]]:
    usage, meter_id = by_model
    answer = usage.on_meters_v3("POST", f"/{meter_id}/query", json=body, headers=usage.waiting)
    assert answer.status_code == 200, answer.text
    return [(row["value"], row["dimensions"]) for row in answer.json()["data"]]


@pytest.mark.parametrize(
    ("dimensions", "expected"),
    [
        ({}, "9007199254740989.3"),
        ({"model": {"eq": "a"}}, "0.3"),
        ({"model": {"neq": "a"}}, "9007199254740989"),
        ({"model": {"in": ["a", "b"]}, "kind": {"eq": "in"}}, "12.1"),
        ({"model": {"nin": ["", "b"]}}, "-15.7"),
        ({"model": {"contains": "1+"}}, "-16"),
        ({"model": {"ncontains": "A"}, "subject": {"eq": "ada"}}, "4"),
        ({"model": {"exists": False}}, "9007199254740993"),
        ({"model": {"exists": True}}, "-3.7"),
        ({"model": {"or": [{"eq": "a"}, {"and": [{"eq": "b"}, {"neq": "a"}]}]}}, "12.3"),
        ({"subject": {"in": ["ada", "bob"]}}, "-3.7"),
        ({"subject": {"eq": "nobody"}}, None),
    ],
)
def test_filters_of_a_query(
    by_model: tuple[Usage, str], dimensions: dict[str, Any], expected: str | None
) -> None:
    found = rows(by_model, filters={"dimensions": dimensions})
    assert found == ([] if expected is None else [(expected, {})])


def test_groups_of_a_query(by_model: tuple[Usage, str]) -> None:
    assert rows(by_model, group_by_dimensions=["subject", "kind"]) == [
        ("9007199254740993", {"subject": "=cmd()", "kind": "out"}),
        ("4.1", {"subject": "ada", "kind": "in"}),
        ("0.2", {"subject": "ada", "kind": "out"}),
        ("-16", {"subject": "bob", "kind": ""}),
        ("8", {"subject": "bob", "kind": "in"}),
    ]


@pytest.mark.parametrize(
    ("granularity", "zone", "expected"),
    [
        ("PT1M", "UTC", ["2026-03-10T12:00:00Z", "2026-03-11T08:00:00Z"]),
        ("PT1H", "Asia/Kathmandu", ["2026-03-10T11:15:00Z", "2026-03-11T07:15:00Z"]),
        ("P1D", "Asia/Kolkata", ["2026-03-09T18:30:00Z", "2026-03-10T18:30:00Z"]),
        ("P1M", "Europe/Berlin", ["2026-02-28T23:00:00Z"]),
    ],
)
def test_buckets(
    by_model: tuple[Usage, str], granularity: str, zone: str, expected: list[str]
) -> None:
    usage, meter_id = by_model
    period = {"from": "2026-03-01T00:00:00Z", "to": "2026-03-12T00:00:00Z"}
    asked = period | {"granularity": granularity, "time_zone": zone}
    found = usage.on_meters_v3("POST", f"/{meter_id}/query", json=asked).json()
    assert found | period == found
    assert [row["from"] for row in found["data"]] == expected
    # 0.1 + 0.2 + 8 + 2^53 + 1 on the first day, 4 - 16 on the second.
    days = ["9007199254741001.3", "-12"] if len(expected) == 2 else ["9007199254740989.3"]
    assert [row["value"] for row in found["data"]] == days


def test_csv(by_model: tuple[Usage, str]) -> None:
    usage, meter_id = by_model
    body = {
        "from": "2026-03-10T00:00:00Z",
        "to": "2026-03-11T00:00:00Z",
        "group_by_dimensions": ["model", "subject"],
    }
    span = "2026-03-10T00:00:00Z,2026-03-11T00:00:00Z"
    headers = {"accept": "text/csv"}
    answer = usage.on_meters_v3("POST", f"/{meter_id}/query", json=body, headers=headers)
    assert answer.headers["content-type"].partition(";")[0] == "text/csv"
    assert answer.text.splitlines() == [
        "from,to,subject,model,value",
        f"{span},'=cmd(),,9007199254740993",
        f"{span},ada,a,0.3",
        f"{span},bob,b,8",
    ]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"granularity": "DAY", "from": "now", "windowSize": "DAY"}, "granularity from windowSize"),
        ({"time_zone": "Mars", "group_by_dimensions": ["x"]}, "time_zone group_by_dimensions"),
        ({"filters": {"dimensions": {"x": {"eq": "a"}}}}, "filters.dimensions"),
        (
            {"filters": {"dimensions": {"model": {"like": "a"}, "subject": {"neq": "a"}}}},
            "filters.dimensions.model.like filters.dimensions.subject",
        ),
        (
            {"filters": {"dimensions": {"customer_id": {"or": [{"eq": "a"}]}}}},
            "filters.dimensions.customer_id",
        ),
        ({"filters": {"dimensions": {f"d{n}": {} for n in range(11)}}}, "filters.dimensions"),
        ({"filters": {"groups": {}}}, "filters.groups"),
        ({"group_by_dimensions": ["model"] * 101}, "group_by_dimensions"),
        (
            {"filters": {"dimensions": {"customer_id": {"eq": UNKNOWN}}}},
            "filters.dimensions.customer_id",
        ),
        ({"from": "2026-03-10T00:00:00Z", "to": "2026-03-10T00:00:00Z"}, "to"),
    ],
)
def test_faults_of_a_query_come_at_once(
    by_model: tuple[Usage, str], body: dict[str, Any], fields: str
) -> None:
    usage, meter_id = by_model
    answer = usage.on_meters_v3("POST", f"/{meter_id}/query", json=body)
    assert set(faults(answer)) == set(fields.split())
