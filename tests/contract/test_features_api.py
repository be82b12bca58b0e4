"""Features over HTTP, on the running product, held against the wire contract."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.contract import checked
from tests.support.server import Server
from tollgate.core.ids import new_ulid

V1, V3 = "/api/v1/features", "/api/v3/openmeter/features"
IDS = {"GET": "getFeature", "DELETE": "deleteFeature"}
IDS_V3 = {"GET": "get-feature", "PATCH": "update-feature", "DELETE": "delete-feature"}
LLM = {"type": "llm", "provider": "openai", "modelProperty": "model", "tokenType": "request"}
LLM_V3 = {"type": "llm", "provider": "openai", "model_property": "model", "token_type": "request"}


def meter(server: Server, slug: str, **more: Any) -> dict[str, Any]:
    body = {"slug": slug, "eventType": "x", "aggregation": "SUM", "valueProperty": "$.n"} | more
    body["groupBy"] = {"model": "$.model", "kind": "$.kind"}
    answer = server.http.post("/api/v1/meters", json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def create(server: Server, key: str, status: int = 201, **more: Any) -> dict[str, Any]:
    answer = server.http.post(V1, json={"key": key, "name": key} | more)
    assert checked("v1", "createFeature", answer).status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def create_v3(server: Server, key: str, status: int = 201, **more: Any) -> dict[str, Any]:
    answer = server.http.post(V3, json={"key": key, "name": key} | more)
    assert checked("v3", "create-feature", answer).status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def on(server: Server, method: str, name: str, status: int = 200) -> dict[str, Any]:
    answer = server.http.request(method, f"{V1}/{name}")
    assert checked("v1", IDS[method], answer).status_code == status, answer.text
    found: dict[str, Any] = answer.json() if answer.content else {}
    return found


def on_v3(server: Server, method: str, name: str, status: int = 200, **more: Any) -> dict[str, Any]:
    answer = server.http.request(method, f"{V3}/{name}", **more)
    assert checked("v3", IDS_V3[method], answer).status_code == status, answer.text
    found: dict[str, Any] = answer.json() if answer.content else {}
    return found


def listed(server: Server, **query: Any) -> Any:
    answer = server.http.get(V1, params=query)
    assert checked("v1", "listFeatures", answer).status_code == 200, answer.text
    return answer.json()


def listed_v3(server: Server, query: Mapping[str, Any]) -> dict[str, Any]:
    answer = server.http.get(V3, params=query)
    assert checked("v3", "list-features", answer).status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_feature_is_made_read_by_id_and_key_and_archived(server: Server) -> None:
    counting = meter(server, "feature_whole")
    sent: dict[str, Any] = {
        "name": "Whole",
        "metadata": {"crm": "17"},
        "meterSlug": "feature_whole",
        "meterGroupByFilters": {"kind": "input"},
        "advancedMeterGroupByFilters": {"model": {"$in": ["a", "b"]}},
        "unitCost": {"type": "manual", "amount": "0.000000000000000500"},
    }
    made = create(server, "whole_feature", **sent)
    both = {"kind": {"$eq": "input"}, "model": {"$in": ["a", "b"]}}
    shown = sent | {"key": "whole_feature", "advancedMeterGroupByFilters": both}
    assert {name: made[name] for name in shown} == shown
    assert set(made) == {*shown, "id", "createdAt", "updatedAt"}
    assert on(server, "GET", made["id"]) == on(server, "GET", "whole_feature") == made
    assert on_v3(server, "GET", made["id"]) == {
        "id": made["id"],
        "key": "whole_feature",
        "name": "Whole",
        "labels": {"crm": "17"},
        "meter": {
            "id": counting["id"],
            "filters": {"kind": {"eq": "input"}, "model": {"in": ["a", "b"]}},
        },
        "unit_cost": {"type": "manual", "amount": "0.000000000000000500"},
        "created_at": made["createdAt"],
        "updated_at": made["updatedAt"],
    }
    taken = create(server, "whole_feature", status=409)
    assert made["id"] in taken["detail"]
    for path in (f"/api/v1/meters/{counting['id']}", f"/api/v3/openmeter/meters/{counting['id']}"):
        used = server.http.delete(path)
        wire, operation = ("v3", "delete-meter") if "v3" in path else ("v1", "deleteMeter")
        assert checked(wire, operation, used).status_code == 409  # type: ignore[arg-type]
        assert "whole_feature" in used.json()["detail"]
    on(server, "DELETE", made["id"], status=204)
    gone = on(server, "GET", made["id"])
    assert gone == made | {"archivedAt": gone["archivedAt"], "updatedAt": gone["archivedAt"]}
    on_v3(server, "GET", made["id"], status=410)
    on_v3(server, "PATCH", made["id"], status=404, json={})
    on_v3(server, "DELETE", made["id"], status=404)
    for name in (made["id"], "whole_feature", new_ulid()):
        on(server, "DELETE", name, status=404)
    on(server, "GET", "whole_feature", status=404)
    # The answer of one request is the body of the next: what only reads is left alone.
    assert create(server, **gone)["id"] != made["id"]


@pytest.mark.parametrize(
    ("more", "fields"),
    [
        ({"key": "Upper", "name": ""}, ["key", "name"]),
        ({"key": new_ulid().lower()}, ["key"]),
        ({"meterSlug": "nowhere"}, ["meterSlug"]),
        ({"meterSlug": "refused_mean"}, ["meterSlug"]),
        ({"meterGroupByFilters": {"model": "a"}}, ["meterGroupByFilters.model"]),
        (
            {"meterSlug": "refused_sum", "advancedMeterGroupByFilters": {"colour": {"$eq": "red"}}},
            ["advancedMeterGroupByFilters.colour"],
        ),
        ({"unitCost": {"type": "manual", "amount": 1}}, ["unitCost.amount"]),
        ({"unitCost": LLM}, ["unitCost.type"]),
    ],
)
def test_what_is_no_feature_is_refused(server: Server, more: Any, fields: list[str]) -> None:
    if "meterSlug" in more and server.http.get("/api/v1/meters/refused_sum").status_code == 404:
        meter(server, "refused_sum")
        meter(server, "refused_mean", aggregation="AVG")
    answer = create(server, **{"key": "refused"} | more, status=400)
    faults = answer["extensions"]["validationErrors"]
    assert [fault["field"] for fault in faults] == fields


def test_lists_are_arrays_or_pages(server: Server) -> None:
    meter(server, "feature_list")
    made = [
        create(server, f"listed_{n}", name=f"Z{n % 2}", meterSlug="feature_list") for n in range(4)
    ]
    ids = [each["id"] for each in made]
    on(server, "DELETE", ids[2], status=204)
    mine: dict[str, Any] = {"meterSlug": ["feature_list", "nowhere"]}
    for query, expected in (
        ({}, [0, 1, 3]),
        ({"includeArchived": "true", "orderBy": "key", "order": "DESC"}, [3, 2, 1, 0]),
        ({"orderBy": "name"}, [0, 1, 3]),
        ({"orderBy": "id", "offset": 1, "limit": 1}, [1]),
        ({"orderBy": "updatedAt", "includeArchived": "true"}, [0, 1, 3, 2]),
        ({"offset": 10**18}, []),
    ):
        found = listed(server, **mine | query)
        assert [ids.index(each["id"]) for each in found] == expected, query
    page = listed(server, **mine, page=2, pageSize=2)
    assert [ids.index(each["id"]) for each in page.pop("items")] == [3]
    assert page == {"totalCount": 3, "page": 2, "pageSize": 2}
    assert [listed(server, **mine, **more)["totalCount"] for more in ({"page": 1},)] == [3]
    refused = server.http.get(V1, params={"orderBy": "price"})
    assert checked("v1", "listFeatures", refused).status_code == 400


def test_v3_makes_reads_changes_and_archives(server: Server) -> None:
    counting = meter(server, "feature_v3")
    sent: dict[str, Any] = {
        "name": "Whole",
        "description": "All of it",
        "labels": {"env": "test"},
        "meter": {"id": counting["id"], "filters": {"model": {"exists": True}, "kind": {}}},
        "unit_cost": LLM_V3,
    }
    made = create_v3(server, "v3_feature", **sent)
    shown = sent | {"key": "v3_feature"}
    assert {name: made[name] for name in shown} == shown
    assert set(made) == {*shown, "id", "created_at", "updated_at"}
    assert on_v3(server, "GET", made["id"]) == made
    old = on(server, "GET", made["id"])
    assert old["unitCost"] == LLM
    assert old["advancedMeterGroupByFilters"] == {"kind": {}}
    assert "meterGroupByFilters" not in old
    assert on_v3(server, "PATCH", made["id"], json={}) == made
    manual = {"unit_cost": {"type": "manual", "amount": "1.50"}}
    changed = on_v3(server, "PATCH", made["id"], json=manual)
    assert changed == made | manual | {"updated_at": changed["updated_at"]}
    assert "unit_cost" not in on_v3(server, "PATCH", made["id"], json={"unit_cost": None})
    assert made["id"] in create_v3(server, "v3_feature", status=409)["detail"]
    on_v3(server, "DELETE", made["id"], status=204)
    on_v3(server, "GET", made["id"], status=410)
    on_v3(server, "GET", new_ulid(), status=404)
    on_v3(server, "GET", "v3_feature", status=400)


@pytest.mark.parametrize(
    ("more", "fields"),
    [
        ({"key": None}, ["key"]),
        ({"metadata": {}, "meterSlug": "a"}, ["metadata", "meterSlug"]),
        ({"labels": {"_a": "b"}}, ["labels._a"]),
        ({"labels": {"a": 1}}, ["labels.a"]),
        ({"meter": "tokens"}, ["meter"]),
        ({"meter": {"slug": "tokens"}}, ["meter.slug", "meter.id"]),
        (
            {"meter": {"id": "me", "filters": {"a": {"is": "b"}}}},
            ["meter.id", "meter.filters.a.is"],
        ),
        ({"meter": {"id": new_ulid()}}, ["meter.id"]),
        ({"unit_cost": {"type": "manual", "amount": "1", "more": 1}}, ["unit_cost.more"]),
        (
            {"unit_cost": {"type": "llm", "provider": "a", "provider_property": "b", "model": "c"}},
            ["unit_cost.provider", "unit_cost.token_type"],
        ),
        ({"unit_cost": LLM_V3}, ["unit_cost.type"]),
    ],
)
def test_v3_names_faults_its_own_way(server: Server, more: Any, fields: list[str]) -> None:
    answer = create_v3(server, **{"key": "v3_refused", "name": "x"} | more, status=400)
    assert [each["field"] for each in answer["invalid_parameters"]] == fields
    assert "Property" not in str(answer)


def test_v3_refuses_dimensions_and_costs_by_its_own_names(server: Server) -> None:
    counting = meter(server, "feature_v3_refused")
    mean = meter(server, "feature_v3_mean", aggregation="AVG")
    named: dict[str, Any] = {"id": counting["id"], "filters": {"size": {"eq": "a"}}}
    cost = LLM_V3 | {"model_property": "size"}
    answer = create_v3(server, "v3_refused", status=400, meter=named, unit_cost=cost)
    fields = ["meter.filters.size", "unit_cost.model_property"]
    assert [each["field"] for each in answer["invalid_parameters"]] == fields
    refused = create_v3(server, "v3_refused", status=400, meter={"id": mean["id"]})
    assert [each["field"] for each in refused["invalid_parameters"]] == ["meter"]
    made = create_v3(server, "v3_priced", meter={"id": counting["id"].lower()})
    for body, field in (
        ({"unit_cost": cost}, "unit_cost.model_property"),
        ({"unit_cost": {"type": "fixed"}}, "unit_cost.type"),
        ({"name": "x"}, "name"),
    ):
        answer = on_v3(server, "PATCH", made["id"], status=400, json=body)
        assert [each["field"] for each in answer["invalid_parameters"]] == [field]


def test_v3_lists_are_filtered_sorted_and_paged(server: Server) -> None:
    counting = meter(server, "feature_v3_list")
    of_meter: Any = {"meterSlug": "feature_v3_list"}
    made = [create(server, f"v3l_{n}", name=f"V{n % 2}", **of_meter) for n in range(3)]
    made.append(create(server, "v3l_static", name="V7"))
    ids = [each["id"] for each in made]
    mine = {"filter[key][contains]": "V3L_"}
    for query, expected in (
        (mine, [0, 1, 2, 3]),
        (mine | {"sort": "name desc,key desc"}, [3, 1, 2, 0]),
        ({"filter[meter_id][oeq]": f"{counting['id']},{new_ulid()}"}, [0, 1, 2]),
        (mine | {"filter[meter_id][neq]": counting["id"]}, [3]),
        ({"filter[key]": "v3l_1"}, [1]),
        (mine | {"filter[name][oeq]": "V1,V7"}, [1, 3]),
        (mine | {"page[size]": "3", "page[number]": "2", "sort": "key"}, [3]),
    ):
        found = listed_v3(server, query)
        assert [ids.index(each["id"]) for each in found["data"]] == expected, query
    assert listed_v3(server, mine | {"page[size]": "1"})["meta"]["page"]["total"] == 4
    on(server, "DELETE", ids[0], status=204)
    assert listed_v3(server, mine)["meta"]["page"]["total"] == 3
    for query, field in (
        ({"sort": "price"}, "sort"),
        ({"filter[meter_id]": "me"}, "filter[meter_id]"),
        ({"filter[colour]": "red"}, "filter.colour"),
    ):
        answer = server.http.get(V3, params=query)
        assert checked("v3", "list-features", answer).status_code == 400
        assert [each["field"] for each in answer.json()["invalid_parameters"]] == [field]
