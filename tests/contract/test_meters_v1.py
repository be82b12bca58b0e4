"""v1 of meters over HTTP: create, read, update, delete, list."""

from typing import Any

import httpx
import pytest

from tests.support.server import Server
from tests.support.usage import Usage, fresh

BODY = {"aggregation": "SUM", "eventType": "prompt", "valueProperty": "$.tokens"}


@pytest.fixture
def usage(server: Server) -> Usage:
    return Usage(server)


def faults(answer: httpx.Response) -> dict[str, str]:
    """Code by field."""
    assert answer.status_code == 400, answer.text
    found = answer.json()["extensions"]["validationErrors"]
    return {fault["field"]: fault["code"] for fault in found}


def test_a_meter_is_found_by_id_and_slug(usage: Usage) -> None:
    body = BODY | {
        "slug": fresh("tokens"),
        "name": "Tokens",
        "description": "read and written",
        "metadata": {"team": "core platform"},
        "eventFrom": "2026-01-01T02:00:00.5+02:00",
        "groupBy": {"model": "$.model", "kind": "$['a kind']"},
    }
    created = usage.on_meters("POST", json=body)
    assert created.status_code == 201
    meter = created.json()
    assert meter | body | {"eventFrom": "2026-01-01T00:00:00.500000Z"} == meter
    assert meter["createdAt"] == meter["updatedAt"]
    assert "deletedAt" not in meter
    for key in (meter["id"], meter["id"].lower(), meter["slug"]):
        found = usage.on_meters("GET", f"/{key}")
        assert (found.status_code, found.json()) == (200, meter)


def test_only_slug_event_type_and_aggregation_are_needed(usage: Usage) -> None:
    slug = fresh("counts")
    body = {"slug": slug, "aggregation": "COUNT", "eventType": "prompt"}
    meter = usage.on_meters("POST", json=body).json()
    assert meter["name"] == slug
    assert meter["groupBy"] == {}
    assert {"description", "metadata", "valueProperty", "eventFrom"}.isdisjoint(meter)


def test_count_ignores_a_value_property(usage: Usage) -> None:
    body = BODY | {"slug": fresh("counts"), "aggregation": "COUNT"}
    answer = usage.on_meters("POST", json=body)
    assert answer.status_code == 201
    assert "valueProperty" not in answer.json()


def test_all_faults_of_a_meter_come_at_once(usage: Usage) -> None:
    answer = usage.on_meters(
        "POST",
        json={
            "slug": "No Slug",
            "name": "",
            "description": "d" * 1025,
            "metadata": {"a": 1},
            "aggregation": "MEDIAN",
            "eventType": "",
            "eventFrom": "yesterday",
            "valueProperty": "tokens",
            "groupBy": {"subject": "$.s", "1st": "$.a", "model": "$."},
        },
    )
    assert set(faults(answer)) == {
        "slug",
        "name",
        "description",
        "metadata.a",
        "aggregation",
        "eventType",
        "eventFrom",
        "valueProperty",
        "groupBy.subject",
        "groupBy.1st",
        "groupBy.model",
    }


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"slug": None}, "slug"),
        ({"slug": 7}, "slug"),
        ({"slug": "a" * 65}, "slug"),
        ({"slug": "a__b"}, "slug"),
        ({"eventType": None}, "eventType"),
        ({"aggregation": "sum"}, "aggregation"),
        ({"valueProperty": None}, "valueProperty"),
        ({"groupBy": {"tokens": "$.tokens"}}, "groupBy.tokens"),
        ({"groupBy": ["model"]}, "groupBy"),
        ({"name": "n" * 257}, "name"),
    ],
)
def test_one_fault_names_its_field(usage: Usage, members: dict[str, Any], field: str) -> None:
    answer = usage.on_meters("POST", json=BODY | {"slug": fresh("m")} | members)
    assert set(faults(answer)) == {field}


@pytest.mark.parametrize("body", ["", "{", "[]", "null", '"meter"', "[" * 5000])
def test_what_is_no_meter_at_all(usage: Usage, body: str) -> None:
    headers = {"content-type": "application/json"}
    assert usage.on_meters("POST", content=body, headers=headers).status_code == 400
    answer = usage.on_meters("POST", content=body or "x", headers={"content-type": "text/xml"})
    assert answer.status_code == 415


def test_a_slug_is_taken_until_its_meter_is_deleted(usage: Usage) -> None:
    body = BODY | {"slug": fresh("tokens")}
    first = usage.on_meters("POST", json=body).json()
    assert usage.on_meters("POST", json=body).status_code == 409
    assert usage.on_meters("DELETE", f"/{body['slug']}").status_code == 204
    for key in (body["slug"], first["id"]):
        assert usage.on_meters("GET", f"/{key}").status_code == 404
        assert usage.on_meters("DELETE", f"/{key}").status_code == 404
        assert usage.on_meters("PUT", f"/{key}", json={}).status_code == 404
        assert usage.on_meters("GET", f"/{key}/query").status_code == 404
    second = usage.on_meters("POST", json=body)
    assert second.status_code == 201
    assert second.json()["id"] != first["id"]
    assert usage.on_meters("DELETE", f"/{second.json()['id']}").status_code == 204


def test_an_update_replaces_what_may_change_and_ignores_the_rest(usage: Usage) -> None:
    body = BODY | {"slug": fresh("tokens"), "metadata": {"a": "1"}, "groupBy": {"x": "$.x"}}
    before = usage.on_meters("POST", json=body).json()
    changes = {"name": "New", "description": "d", "groupBy": {"y": "$.y"}}
    fixed = {
        "slug": "other",
        "aggregation": "MAX",
        "eventType": "other",
        "eventFrom": "2026-01-01T00:00:00Z",
        "valueProperty": "$.other",
    }
    answer = usage.on_meters("PUT", f"/{before['slug']}", json=changes | fixed)
    assert answer.status_code == 200
    after = answer.json()
    assert after["updatedAt"] > before["updatedAt"]
    expected = before | changes | {"updatedAt": after["updatedAt"]}
    del expected["metadata"]
    assert after == expected
    assert usage.on_meters("GET", f"/{before['id']}").json() == after
    cleared = usage.on_meters("PUT", f"/{before['id']}", json={}).json()
    assert (cleared["name"], cleared["groupBy"]) == (before["slug"], {})
    assert "description" not in cleared


def test_all_faults_of_an_update_come_at_once(usage: Usage) -> None:
    slug = usage.meter()
    body = {"name": "", "metadata": {"a": None}, "groupBy": {"v": "$.v", "customer_id": "$.c"}}
    answer = usage.on_meters("PUT", f"/{slug}", json=body)
    assert set(faults(answer)) == {"name", "metadata.a", "groupBy.v", "groupBy.customer_id"}


@pytest.fixture(scope="module")
def three(server: Server) -> list[str]:
    """Slugs of three meters, made one after the other."""
    usage = Usage(server)
    word = fresh("list")
    made = [("c", "SUM", "Berta"), ("a", "MAX", "Anton"), ("b", "AVG", "Caesar")]
    return [usage.meter(kind, slug=f"{word}_{end}", name=name) for end, kind, name in made]


@pytest.mark.parametrize(
    ("order_by", "expected"),
    [
        (None, "cab"),
        ("createdAt", "cab"),
        ("updatedAt", "cab"),
        ("key", "abc"),
        ("name", "acb"),
        ("aggregation", "bac"),
    ],
)
def test_lists_are_sorted(
    usage: Usage, three: list[str], order_by: str | None, expected: str
) -> None:
    asked = {"pageSize": "1000"} | ({"orderBy": order_by} if order_by else {})
    for order, wanted in ((None, expected), ("ASC", expected), ("DESC", expected[::-1])):
        query = asked | ({"order": order} if order else {})
        listed = usage.on_meters("GET", params=query).json()
        slugs = [meter["slug"] for meter in listed if meter["slug"] in three]
        assert "".join(slug[-1] for slug in slugs) == wanted


def test_pages_hold_every_meter_once(usage: Usage, three: list[str]) -> None:
    found: list[str] = []
    page = 1
    while part := usage.on_meters("GET", params={"page": page, "pageSize": 2}).json():
        assert len(part) <= 2
        found += [meter["slug"] for meter in part]
        page += 1
    assert len(found) == len(set(found))
    assert set(three) <= set(found)


def test_deleted_meters_are_listed_on_demand(usage: Usage) -> None:
    slug = usage.meter()
    usage.on_meters("DELETE", f"/{slug}")
    for asked, expected in (({}, 0), ({"includeDeleted": "false"}, 0)):
        listed = usage.on_meters("GET", params={"pageSize": "1000"} | asked).json()
        assert sum(meter["slug"] == slug for meter in listed) == expected
    query = {"pageSize": "1000", "includeDeleted": "true"}
    listed = usage.on_meters("GET", params=query).json()
    (meter,) = [meter for meter in listed if meter["slug"] == slug]
    assert meter["deletedAt"] >= meter["createdAt"]


def test_faults_of_a_list_come_at_once(usage: Usage) -> None:
    query = {
        "page": "0",
        "pageSize": "1001",
        "order": "up",
        "orderBy": "slug",
        "includeDeleted": "perhaps",
    }
    assert set(faults(usage.on_meters("GET", params=query))) == set(query)


@pytest.mark.parametrize("key", ["nothing_like_it", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "a b", "%00"])
def test_unknown_meters(usage: Usage, key: str) -> None:
    for method, rest in (("GET", ""), ("DELETE", ""), ("GET", "/subjects"), ("GET", "/query")):
        assert usage.on_meters(method, f"/{key}{rest}").status_code == 404
    assert usage.on_meters("POST", f"/{key}/query", json={}).status_code == 404
    assert usage.on_meters("GET", f"/{key}/group-by/model/values").status_code == 404
