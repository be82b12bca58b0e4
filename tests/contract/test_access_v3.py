"""v3 of entitlements over HTTP: what customers may use, held against the wire contract."""

from typing import Any

import pytest

from tests.support.entitlements import Desk
from tests.support.server import Server
from tests.support.usage import fresh
from tollgate.core.ids import new_ulid

QUERY = "/api/v3/openmeter/entitlement-access/query"


@pytest.fixture
def desk(server: Server) -> Desk:
    return Desk(server)


def access(desk: Desk, customer_id: str, status: int = 200) -> Any:
    path = f"/api/v3/openmeter/customers/{customer_id}/entitlement-access"
    headers = desk.usage.waiting
    answer = desk.usage.call("v3", "list-customer-entitlement-access", "GET", path, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json().get("data")


def ask(desk: Desk, *names: str, status: int = 200, page: str = "", **more: Any) -> Any:
    body = {"customer": {"keys": names}} | more
    headers = desk.usage.waiting
    answer = desk.usage.call(
        "v3", "query-entitlement-access", "POST", QUERY + page, json=body, headers=headers
    )
    assert answer.status_code == status, answer.text
    return answer.json()


def test_what_a_customer_may_use(desk: Desk) -> None:
    desk.create(issue={"amount": 1})
    static, plain = desk.make_feature(), desk.make_feature()
    desk.on("POST", "", 201, json={"type": "static", "featureKey": static, "config": '{"a":1}'})
    desk.on("POST", "", 201, json={"type": "boolean", "featureKey": plain})
    desk.use(("2026-03-10T12:00:00Z", "1"))
    assert access(desk, desk.id) == [
        {"type": "metered", "feature_key": desk.feature, "has_access": False},
        {"type": "static", "feature_key": static, "has_access": True, "config": '{"a":1}'},
        {"type": "boolean", "feature_key": plain, "has_access": True},
    ]
    access(desk, new_ulid(), 404)
    access(desk, desk.key, 400)


def test_what_many_customers_may_use(desk: Desk, server: Server) -> None:
    desk.create(issue={"amount": 2})
    other = Desk(server)
    other.feature, other.usage = desk.feature, desk.usage
    other.create(issue={"amount": 3})
    third = Desk(server)
    desk.use(("2026-03-10T12:00:00Z", "2"))
    other.use(("2026-03-10T12:00:00Z", "2"))
    nobody, gone = fresh("nobody"), fresh("gone")
    found = ask(
        desk,
        desk.key,
        other.id,
        nobody,
        third.key,
        desk.id,
        desk.key,
        feature={"keys": [desk.feature, gone]},
    )
    ids = sorted((desk.id, other.id, third.id))
    assert [each["customer"]["id"] for each in found["data"]] == ids
    by_id = {each["customer"]["id"]: each for each in found["data"]}
    assert by_id[desk.id]["matched"] == [desk.key, desk.id]
    reasons = {
        customer_id: [
            (it["has_access"], it.get("reason", {}).get("code")) for it in each["features"].values()
        ]
        for customer_id, each in by_id.items()
    }
    missing = (False, "feature_not_found")
    assert reasons == {
        desk.id: [(False, "usage_limit_reached"), missing],
        other.id: [(True, None), missing],
        third.id: [(False, "feature_unavailable"), missing],
    }
    assert [(it["code"], it["customer"]) for it in found["errors"]] == [
        ("customer_not_found", nobody)
    ]
    assert found["meta"]["page"] == {"first": QUERY, "next": None, "previous": None, "size": 100}
    before = by_id[desk.id]["updated_at"]
    desk.grant(1)
    again = ask(desk, desk.key)["data"][0]
    assert again["updated_at"] > before
    assert again["features"][desk.feature] == {"has_access": True}
    assert third.feature in again["features"]


def test_pages_of_customers(desk: Desk, server: Server) -> None:
    names = [desk.key, *(Desk(server).key for _ in range(2))]
    feature = {"keys": [desk.feature]}
    first = ask(desk, *names, feature=feature, page="?page[size]=2")
    following = first["meta"]["page"]["next"]
    second = ask(desk, *names, feature=feature, page=following.removeprefix(QUERY))
    assert [len(each["data"]) for each in (first, second)] == [2, 1]
    back = second["meta"]["page"]["previous"]
    assert (
        ask(desk, *names, feature=feature, page=back.removeprefix(QUERY))["data"] == first["data"]
    )


def test_what_is_wrong_is_said(desk: Desk) -> None:
    wrong: list[dict[str, Any]] = [
        {"include_credits": True},
        {"feature": {"keys": []}},
        {"what": 1},
    ]
    for more in wrong:
        ask(desk, desk.key, status=400, **more)
    ask(desk, status=400)
    ask(desk, *map(str, range(101)), status=400)
    ask(desk, desk.key, status=400, page="?page[after]=a&page[before]=b")
