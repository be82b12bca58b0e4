"""Customers over HTTP, on the running product, held against the wire contract."""

from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from tests.support.contract import checked
from tests.support.server import Server
from tollgate.core.ids import new_ulid

V1, V3 = "/api/v1/customers", "/api/v3/openmeter/customers"
IDS = {"GET": "getCustomer", "PUT": "updateCustomer", "DELETE": "deleteCustomer"}
IDS_V3 = {"GET": "get-customer", "PUT": "upsert-customer", "DELETE": "delete-customer"}


def body(key: str | None, /, *subjects: str, **more: Any) -> dict[str, Any]:
    usage = {"usageAttribution": {"subjectKeys": list(subjects)}}
    return {"name": key or "Nameless", **({} if key is None else {"key": key}), **usage, **more}


def create(server: Server, *arguments: Any, status: int = 201, **more: Any) -> dict[str, Any]:
    answer = server.http.post(V1, json=body(*arguments, **more))
    assert checked("v1", "createCustomer", answer).status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def on(server: Server, method: str, name: str, status: int = 200, **more: Any) -> dict[str, Any]:
    answer = server.http.request(method, f"{V1}/{name}", **more)
    assert checked("v1", IDS[method], answer).status_code == status, answer.text
    found: dict[str, Any] = answer.json() if answer.content else {}
    return found


def on_v3(server: Server, method: str, name: str, status: int = 200, **more: Any) -> dict[str, Any]:
    answer = server.http.request(method, f"{V3}/{name}", **more)
    assert checked("v3", IDS_V3[method], answer).status_code == status, answer.text
    found: dict[str, Any] = answer.json() if answer.content else {}
    return found


def listed(server: Server, **query: Any) -> dict[str, Any]:
    answer = server.http.get(V1, params=query)
    assert checked("v1", "listCustomers", answer).status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def listed_v3(server: Server, query: Mapping[str, Any]) -> dict[str, Any]:
    answer = server.http.get(V3, params=query)
    assert checked("v3", "list-customers", answer).status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_customer_is_made_read_by_id_and_key_replaced_and_deleted(server: Server) -> None:
    full = body(
        "whole/ü",
        "whole-b",
        "whole-a",
        description="All of it",
        metadata={"crm": "17"},
        primaryEmail="pay@example.com",
        currency="EUR",
        billingAddress={"country": "DE", "postalCode": "10115", "phoneNumber": "+49"},
    )
    made = create(server, "whole/ü", "whole-b", "whole-a", **full)
    assert {name: made[name] for name in full} == full
    assert set(made) == {*full, "id", "createdAt", "updatedAt"}
    assert on(server, "GET", made["id"]) == on(server, "GET", "whole%2F%C3%BC") == made
    expanded = on(server, "GET", made["id"], params={"expand": "subscriptions"})
    assert expanded == made | {"subscriptions": []}
    # The answer of one request is the body of the next: what only reads is left alone.
    assert on(server, "PUT", made["id"], json=made) == made
    bare = on(server, "PUT", "whole%2F%C3%BC", json=body("whole-2"))
    assert set(bare) == {"id", "key", "name", "usageAttribution", "createdAt", "updatedAt"}
    assert on(server, "GET", "whole%2F%C3%BC", status=404)
    on(server, "DELETE", "whole-2", status=204)
    for method in ("GET", "DELETE", "PUT"):
        more = {"json": body("x")} if method == "PUT" else {}
        on(server, method, made["id"], status=404, **more)
        on(server, method, new_ulid(), status=404, **more)
    assert create(server, "whole-2", "whole-a")["id"] != made["id"]


def test_a_conflict_says_which_subject_and_whose_it_is(server: Server) -> None:
    holder = create(server, "held", "held-s")
    refusal = create(server, "held-2", "held-s", status=409)
    assert "held-s" in refusal["detail"]
    assert holder["id"] in refusal["detail"]
    assert "has the key held" in create(server, "held", status=409)["detail"]
    other = create(server, "held-3")
    refusal = on(server, "PUT", other["id"], status=409, json=body("held-3", "held-s"))
    assert holder["id"] in refusal["detail"]
    refusal = on_v3(
        server,
        "PUT",
        other["id"],
        status=409,
        json={"name": "x", "usage_attribution": {"subject_keys": ["held-s"]}},
    )
    assert holder["id"] in refusal["detail"]


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"key": "refused"}, "name"),
        ({"name": "x"}, "key"),
        ({"name": "x", "key": "k", "currency": "euro"}, "currency"),
        ({"name": "x", "key": "k", "billingAddress": {"country": "d"}}, "billingAddress.country"),
        ({"name": "x", "usageAttribution": {"subjectKeys": ["a", ""]}}, "subjectKeys.1"),
        ([], ""),
    ],
)
def test_what_is_no_customer_is_refused(server: Server, sent: Any, field: str) -> None:
    answer = checked("v1", "createCustomer", server.http.post(V1, json=sent))
    assert answer.status_code == 400
    (fault,) = answer.json()["extensions"]["validationErrors"]
    assert field in fault["field"]


def test_lists_are_filtered_ordered_and_paged(server: Server) -> None:
    mail: dict[str, Any] = {"primaryEmail": "Some@Listed.example"}
    made = [create(server, f"listed-{n}", f"of-listed-{n}", name=f"Z-{n}", **mail) for n in (2, 1)]
    ids = [each["id"] for each in made]
    for query, expected in (
        ({"key": "LISTED-"}, [1, 0]),
        ({"key": "LISTED-", "order": "DESC"}, [0, 1]),
        ({"key": "listed-", "orderBy": "createdAt"}, [0, 1]),
        ({"name": "z-1"}, [1]),
        ({"primaryEmail": "@listed", "orderBy": "id"}, [0, 1]),
        ({"subject": "OF-LISTED-2"}, [0]),
        ({"planKey": "any"}, []),
        ({"key": "listed-", "page": 2, "pageSize": 1}, [0]),
        ({"key": "listed-", "page": 10**18}, []),
    ):
        found = listed(server, **query)
        assert [ids.index(each["id"]) for each in found["items"]] == expected, query
    page = listed(server, key="listed-", page=2, pageSize=1)
    assert (page["totalCount"], page["page"], page["pageSize"]) == (2, 2, 1)
    on(server, "DELETE", ids[0], status=204)
    assert listed(server, key="listed-")["totalCount"] == 1
    (gone,) = (
        each
        for each in listed(server, key="listed-", includeDeleted=True)["items"]
        if "deletedAt" in each
    )
    assert gone["id"] == ids[0]
    refused = server.http.get(V1, params={"orderBy": "currency"})
    assert checked("v1", "listCustomers", refused).status_code == 400


def test_v3_makes_reads_replaces_and_deletes(server: Server) -> None:
    full = {
        "key": "v3-whole",
        "name": "Whole",
        "description": "All of it",
        "labels": {"env": "test"},
        "usage_attribution": {"subject_keys": ["v3-b", "v3-a"]},
        "primary_email": "pay@example.com",
        "currency": "EUR",
        "billing_address": {"country": "DE", "postal_code": "10115", "phone_number": "+49"},
    }
    answer = checked("v3", "create-customer", server.http.post(V3, json=full))
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert {name: made[name] for name in full} == full
    assert on_v3(server, "GET", made["id"]) == made
    on(server, "PUT", made["id"], json=body("v3-whole", "v3-b", metadata={"no label": "_"}))
    changed = on_v3(server, "PUT", made["id"], json={"name": "New", "labels": {"env": "live"}})
    assert (changed["key"], changed["labels"]) == ("v3-whole", {"env": "live"})
    assert changed["usage_attribution"] == {"subject_keys": []}
    kept = on(server, "GET", made["id"])["metadata"]
    assert kept == {"no label": "_", "env": "live"}
    on_v3(server, "DELETE", made["id"], status=204)
    on_v3(server, "GET", made["id"], status=404)
    on_v3(server, "PUT", made["id"], status=410, json={"name": "x"})
    on_v3(server, "PUT", new_ulid(), status=404, json={"name": "x"})
    on_v3(server, "GET", "v3-whole", status=400)


def test_v3_shows_the_id_of_a_customer_without_key(server: Server) -> None:
    made = create(server, None, "v3-keyless")
    assert on_v3(server, "GET", made["id"])["key"] == made["id"]
    assert on_v3(server, "PUT", made["id"], json={"name": "x"})["key"] == made["id"]
    assert "key" not in on(server, "GET", made["id"])


@pytest.mark.parametrize(
    ("more", "fields"),
    [
        ({"key": None}, ["key"]),
        ({"metadata": {}}, ["metadata"]),
        ({"labels": {"_a": "b"}}, ["labels._a"]),
        ({"labels": {"a": 1}}, ["labels.a"]),
        ({"billing_address": {"postalCode": "1"}}, ["billing_address.postalCode"]),
        ({"usage_attribution": {"subject_keys": [1]}}, ["usage_attribution.subject_keys.0"]),
        ({"name": "", "currency": "x"}, ["name", "currency"]),
    ],
)
def test_v3_names_faults_its_own_way(server: Server, more: Any, fields: list[str]) -> None:
    answer = server.http.post(V3, json={"key": "v3-refused", "name": "x"} | more)
    assert checked("v3", "create-customer", answer).status_code == 400
    assert [each["field"] for each in answer.json()["invalid_parameters"]] == fields


def test_v3_lists_are_filtered_sorted_and_paged(server: Server) -> None:
    made = [create(server, f"v3l-{n}", f"v3l-s{n}", name=f"V{n % 2}") for n in range(3)]
    ids = [each["id"] for each in made]
    mine = {"filter[key][contains]": "V3L-"}
    for query, expected in (
        (mine, [0, 2, 1]),
        (mine | {"sort": "name desc,created_at desc"}, [1, 2, 0]),
        (mine | {"sort": "id"}, [0, 1, 2]),
        ({"filter[key]": "v3l-1"}, [1]),
        (mine | {"filter[name][oeq]": "V1,V7"}, [1]),
        ({"filter[usage_attribution_subject_key]": "v3l-s2"}, [2]),
        (mine | {"filter[usage_attribution_subject_key][neq]": "v3l-s2"}, [0, 1]),
        (mine | {"filter[primary_email][exists]": "true"}, []),
        (mine | {"filter[plan_key]": "pro"}, []),
        (mine | {"filter[billing_profile_id]": new_ulid()}, []),
        (mine | {"page[size]": "2", "page[number]": "2"}, [1]),
    ):
        found = listed_v3(server, query)
        assert [ids.index(each["id"]) for each in found["data"]] == expected, query
    assert listed_v3(server, mine | {"page[size]": "1"})["meta"]["page"]["total"] == 3
    for query, field in (
        ({"sort": "currency"}, "sort"),
        ({"filter[billing_profile_id]": "me"}, "filter[billing_profile_id]"),
        ({"filter[color]": "red"}, "filter.color"),
    ):
        answer: httpx.Response = server.http.get(V3, params=query)
        assert checked("v3", "list-customers", answer).status_code == 400
        assert [each["field"] for each in answer.json()["invalid_parameters"]] == [field]
