"""v2 of entitlements over HTTP, on the running product, held against the wire contract."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.support.entitlements import BEGIN, CENTURY, Desk
from tests.support.server import Server
from tests.support.usage import exact
from tollgate.core.ids import new_ulid
from tollgate.core.times import format_instant, parse_instant


@pytest.fixture
def desk(server: Server) -> Desk:
    return Desk(server)


def test_a_metered_one_from_creation_to_its_value(desk: Desk) -> None:
    made = desk.create(
        issue={"amount": 10.5, "priority": 3},
        metadata={"a": "b"},
        grants=[
            {
                "amount": 5,
                "effectiveAt": BEGIN,
                "annotations": {"why": "trial", "share": 0.5, "of": [1]},
                "recurrence": {"interval": "P50Y"},
            }
        ],
    )
    assert made["type"] == "metered"
    assert (made["customerId"], made["customerKey"]) == (desk.id, desk.key)
    assert made["featureKey"] == desk.feature
    assert made["issue"] == {"amount": Decimal("10.5"), "priority": 3}
    assert made["usagePeriod"] == {"interval": "P100Y", "anchor": BEGIN, "intervalISO": "P100Y"}
    assert made["currentUsagePeriod"] == {"from": BEGIN, "to": "2120-01-01T00:00:00Z"}
    assert made["lastReset"] == made["measureUsageFrom"] == BEGIN
    assert "activeTo" not in made
    assert desk.on("GET", f"/{made['id']}") == desk.on("GET", f"/{desk.feature}") == made
    by_id = desk.usage.call(
        "v1", "getEntitlementByIdV2", "GET", f"/api/v2/entitlements/{made['id']}"
    )
    assert exact(by_id.content) == made
    grants = desk.on("GET", f"/{desk.feature}/grants", params={"orderBy": "createdAt"})
    issued, given = grants["items"]
    assert (grants["totalCount"], issued["amount"], issued["maxRolloverAmount"]) == (
        2,
        Decimal("10.5"),
        Decimal("10.5"),
    )
    # In v2 all of a grant rolls over if nothing is said.
    assert (given["minRolloverAmount"], given["maxRolloverAmount"]) == (0, 5)
    assert given["recurrence"] == {"interval": "P50Y", "anchor": BEGIN, "intervalISO": "P50Y"}
    assert given["nextRecurrence"] == "2070-01-01T00:00:00Z"
    assert given["annotations"] == {"why": "trial", "share": Decimal("0.5"), "of": [1]}
    assert given["priority"] == 1
    desk.use(("2026-03-10T12:00:00Z", "5.1"), ("2026-03-10T12:00:01Z", "0.000000000000000001"))
    value = desk.value()
    assert value == {
        "hasAccess": True,
        "balance": Decimal("10.399999999999999999"),
        "usage": Decimal("5.100000000000000001"),
        "overage": 0,
        "totalAvailableGrantAmount": Decimal("15.5"),
        "grantBalances": {given["id"]: 0, issued["id"]: Decimal("10.399999999999999999")},
    }
    assert desk.value(made["id"]) == value


def test_numbers_keep_their_digits(desk: Desk) -> None:
    """No double is between what was sent and what is answered."""
    desk.create()
    path = f"/api/v2/customers/{desk.key}/entitlements/{desk.feature}/grants"
    body = f'{{"amount":12345678901234567890.123456789012345678,"effectiveAt":"{BEGIN}"}}'
    answer = desk.http.post(path, content=body, headers={"content-type": "application/json"})
    assert exact(answer.content)["amount"] == Decimal("12345678901234567890.123456789012345678")
    assert b"12345678901234567890.123456789012345678" in answer.content
    assert desk.value()["balance"] == Decimal("12345678901234567890.123456789012345678")


def test_an_instant_within_a_minute_decides(desk: Desk) -> None:
    desk.create(grants=[{"amount": 3, "effectiveAt": BEGIN}])
    hour = {"duration": "HOUR", "count": 1}
    desk.grant(100, effectiveAt="2026-03-10T11:00:30.000002Z", expiration=hour)
    ends = "2026-03-10T12:00:30.000002Z"
    desk.use(("2026-03-10T12:00:30.000001Z", "1"), (ends, "1"))
    asked = {"from": "2026-03-10T12:00:30Z", "to": "2026-03-10T12:00:31Z", "windowSize": "MINUTE"}
    one, two = desk.on("GET", f"/{desk.feature}/history", params=asked)["burndownHistory"]
    assert (one["period"]["to"], two["period"]["from"]) == (ends, ends)
    assert (one["balanceAtStart"], one["usage"], one["balanceAtEnd"]) == (103, 1, 102)
    assert (two["balanceAtStart"], two["usage"], two["balanceAtEnd"]) == (3, 1, 2)


def test_one_right_to_a_feature_at_a_time(desk: Desk) -> None:
    made = desk.create()
    assert made["id"] in desk.create(409)["detail"]
    over = desk.on(
        "PUT",
        f"/{desk.feature}/override",
        201,
        json={
            "type": "metered",
            "featureKey": desk.feature,
            "usagePeriod": CENTURY,
            "isSoftLimit": True,
        },
    )
    ended = desk.on("GET", f"/{made['id']}")
    assert ended["activeTo"] == ended["deletedAt"] == over["activeFrom"]
    assert desk.on("GET", f"/{desk.feature}")["id"] == over["id"]
    assert desk.value()["hasAccess"] is True
    assert desk.value(time=made["activeFrom"])["hasAccess"] is False
    assert [it["id"] for it in desk.on("GET")["items"]] == [over["id"]]
    every = desk.on("GET", params={"includeDeleted": "true", "order": "DESC"})
    assert [it["id"] for it in every["items"]] == [over["id"], made["id"]]
    body = {"type": "boolean", "featureKey": desk.make_feature()}
    desk.on("PUT", f"/{desk.feature}/override", 409, json=body)
    desk.on("PUT", f"/{body['featureKey']}/override", 404, json=body)


def test_static_and_boolean_ones(desk: Desk) -> None:
    config = '{"integrations": ["github"], "n": 1.10}'
    body = {"type": "static", "featureKey": desk.feature, "config": config}
    made = desk.on("POST", "", 201, json=body)
    assert (made["type"], made["config"]) == ("static", config)
    assert desk.value() == {"hasAccess": True, "config": config}
    plain = desk.make_feature()
    desk.on(
        "POST",
        "",
        201,
        json={"type": "boolean", "featureKey": plain, "usagePeriod": {"interval": "MONTH"}},
    )
    assert desk.value(plain) == {"hasAccess": True}
    desk.grant(1, 409)
    desk.on("GET", f"/{desk.feature}/history", 400, params={"windowSize": "DAY"})


def test_who_has_no_right_has_no_access(desk: Desk) -> None:
    assert desk.value() == desk.value("no_such_feature") == {"hasAccess": False}
    desk.on("GET", f"/{new_ulid()}/value", 404)
    desk.on("GET", f"/{desk.feature}", 404)
    made = desk.create(isSoftLimit=True)
    before = format_instant(parse_instant(made["activeFrom"]) - timedelta(microseconds=1))
    assert desk.value(made["id"], time=before) == {"hasAccess": False}
    desk.on("DELETE", f"/{desk.feature}", 204)
    assert desk.value() == desk.value(made["id"]) == {"hasAccess": False}
    assert desk.value(made["id"], time=made["activeFrom"])["hasAccess"] is True
    desk.on("DELETE", f"/{made['id']}", 404)
    desk.grant(1, 409, made["id"])
    answer = desk.http.get(f"/api/v2/customers/nobody/entitlements/{desk.feature}/value")
    assert answer.status_code == 404


def test_what_was_given_outlives_its_feature(desk: Desk) -> None:
    """An archived feature can be given to nobody more; a new one of its key takes an override."""
    made = desk.create(issue={"amount": 3})
    desk.use(("2026-03-10T12:00:00Z", "1"))
    assert desk.http.delete(f"/api/v1/features/{desk.feature}").status_code == 204
    assert desk.value()["balance"] == 2
    desk.create(400)
    meter = desk.http.get(f"/api/v1/features/{made['featureId']}").json()["meterSlug"]
    assert desk.http.delete(f"/api/v1/meters/{meter}").status_code == 204
    assert desk.value()["balance"] == 2
    body = {"key": desk.feature, "name": "new"}
    new = desk.http.post("/api/v1/features", json=body).json()
    static = {"type": "static", "featureKey": desk.feature, "config": "{}"}
    desk.on("POST", "", 409, json=static)
    over = desk.on("PUT", f"/{desk.feature}/override", 201, json=static)
    assert (over["featureId"], made["featureId"]) == (new["id"], made["featureId"])
    path_v3 = f"/api/v3/openmeter/customers/{desk.id}"
    refusal = desk.usage.call("v3", "delete-customer", "DELETE", path_v3)
    assert refusal.status_code == 409
    path = f"/api/v1/customers/{desk.key}"
    refusal = desk.usage.call("v1", "deleteCustomer", "DELETE", path)
    assert (refusal.status_code, desk.feature in refusal.json()["detail"]) == (409, True)
    desk.on("DELETE", f"/{desk.feature}", 204)
    gone = desk.usage.call("v3", "delete-customer", "DELETE", path_v3)
    assert gone.status_code == 204


def test_a_reset_begins_anew(desk: Desk) -> None:
    desk.create(
        usagePeriod={"interval": "P100Y", "anchor": BEGIN, "timeZone": "Europe/Berlin"},
        issue={"amount": 10},
    )
    desk.use(("2026-03-10T12:00:00.000001Z", "12"), ("2026-03-10T12:00:00.000002Z", "1"))
    at = "2026-03-10T12:00:00.000002Z"
    desk.on(
        "POST", f"/{desk.feature}/reset", 204, json={"effectiveAt": at, "preserveOverage": True}
    )
    value = desk.value()
    # Ten less two of overage, less what came at the instant itself.
    assert (value["balance"], value["usage"], value["overage"]) == (7, 1, 0)
    shown = desk.on("GET", f"/{desk.feature}")
    assert shown["lastReset"] == shown["currentUsagePeriod"]["from"] == at
    assert shown["usagePeriod"]["anchor"] == at
    assert shown["usagePeriod"]["timeZone"] == "Europe/Berlin"
    early = {"effectiveAt": "2026-03-10T12:00:00Z", "retainAnchor": True}
    desk.on("POST", f"/{desk.feature}/reset", 400, json=early)
    later = format_instant(datetime.now(UTC) + timedelta(hours=1))
    desk.on("POST", f"/{desk.feature}/reset", 400, json={"effectiveAt": later})
    # What was settled stays.
    assert desk.grant(1, 400, effectiveAt="2026-03-10T12:00:00Z")["extensions"]


def test_history(desk: Desk) -> None:
    desk.create(grants=[{"amount": 10, "effectiveAt": BEGIN}])
    second = desk.grant(5, effectiveAt="2026-03-10T12:30:00Z", priority=2)
    desk.use(
        ("2026-03-10T12:00:00Z", "4"), ("2026-03-10T12:45:00Z", "8"), ("2026-03-10T14:00:00Z", "1")
    )
    asked = {"windowSize": "HOUR", "from": "2026-03-10T12:00:00Z", "to": "2026-03-10T14:00:01Z"}
    found = desk.on("GET", f"/{desk.feature}/history", params=asked)
    windows = [
        (it["period"]["from"], it["usage"], it["balanceAtStart"]) for it in found["windowedHistory"]
    ]
    assert windows == [("2026-03-10T12:00:00Z", 12, 10), ("2026-03-10T14:00:00Z", 1, 3)]
    one, two = found["burndownHistory"]
    assert one["period"] == {"from": "2026-03-10T12:00:00Z", "to": "2026-03-10T12:30:00Z"}
    assert (one["usage"], one["balanceAtStart"], one["balanceAtEnd"]) == (4, 10, 6)
    assert (two["usage"], two["balanceAtStart"], two["balanceAtEnd"]) == (9, 11, 2)
    assert [it["usage"] for it in two["grantUsages"]] == [6, 3]
    assert two["grantUsages"][1]["grantId"] == second["id"]
    assert two["grantBalancesAtEnd"][second["id"]] == 2
    desk.on("GET", f"/{desk.feature}/history", 400, params={"windowSize": "DECADE"})
    desk.on("GET", f"/{desk.feature}/history", 400, params=asked | {"windowTimeZone": "Mars"})
    desk.on("GET", f"/{desk.feature}/history", 400, params=asked | {"to": asked["from"]})
    # From the last reset on, up to now.
    whole = desk.on("GET", f"/{desk.feature}/history", params={"windowSize": "MONTH"})
    assert [it["usage"] for it in whole["windowedHistory"]] == [13]


def test_a_void_grant_burns_no_more(desk: Desk) -> None:
    desk.create()
    given = desk.grant(10)
    desk.use(("2026-03-10T12:00:00Z", "6"))
    path = f"/api/v1/grants/{given['id']}"
    later = format_instant(datetime.now(UTC) + timedelta(hours=1))
    for query, status in (({"at": later}, 400), ({}, 204), ({}, 409)):
        answer = desk.usage.call("v1", "voidGrant", "DELETE", path, params=query)
        assert answer.status_code == status, answer.text
    value = desk.value()
    assert (value["hasAccess"], value["balance"], value["usage"], value["overage"]) == (
        False,
        0,
        6,
        0,
    )
    (shown,) = desk.on("GET", f"/{desk.feature}/grants")["items"]
    assert shown["voidedAt"] > shown["createdAt"]
    answer = desk.usage.call("v1", "voidGrant", "DELETE", f"/api/v1/grants/{new_ulid()}")
    assert answer.status_code == 404


def test_lists_of_all(desk: Desk) -> None:
    made, plain = desk.create(), desk.make_feature()
    boolean = desk.on("POST", "", 201, json={"type": "boolean", "featureKey": plain})
    given = [desk.grant(number)["id"] for number in (1, 2, 3)]

    def listed(**query: Any) -> list[str]:
        answer = desk.usage.call(
            "v1", "listEntitlementsV2", "GET", "/api/v2/entitlements", params=query
        )
        assert answer.status_code == 200, answer.text
        return [it["id"] for it in answer.json()["items"]]

    assert (
        listed(customerKeys=desk.key) == listed(customerIds=desk.id) == [made["id"], boolean["id"]]
    )
    assert listed(customerKeys=desk.key, entitlementType="boolean") == [boolean["id"]]
    assert listed(feature=[plain, desk.feature], order="DESC") == [boolean["id"], made["id"]]
    assert listed(customerIds=desk.id, offset=1, limit=1) == [boolean["id"]]
    assert listed(customerIds=desk.id, excludeInactive=True, page=2, pageSize=1) == [boolean["id"]]
    assert listed(customerIds=new_ulid()) == []

    def grants(**query: Any) -> list[str]:
        answer = desk.usage.call("v1", "listGrantsV2", "GET", "/api/v2/grants", params=query)
        assert answer.status_code == 200, answer.text
        return [it["id"] for it in answer.json()["items"]]

    assert grants(customer=desk.key) == grants(feature=desk.feature) == given
    assert grants(customer=desk.id, order="DESC", page=2, pageSize=1) == [given[1]]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"type": "other"}, "type"),
        ({"usagePeriod": None}, "usagePeriod"),
        ({"usagePeriod": {"interval": "FORTNIGHT"}}, "usagePeriod.interval"),
        ({"usagePeriod": {"interval": "PT1M"}}, "usagePeriod.interval"),
        ({"usagePeriod": {"interval": "DAY", "timeZone": "Mars"}}, "usagePeriod.timeZone"),
        ({"issue": {"amount": -1}}, "issue.amount"),
        ({"issue": {"amount": 1}, "issueAfterReset": 2}, "issue"),
        ({"issue": {"amount": "1"}}, "issue.amount"),
        ({"issue": {"amount": 1e30}}, "issueAfterReset"),
        ({"grants": [{"amount": 1}]}, "grants.0.effectiveAt"),
        ({"grants": [{"amount": 0, "effectiveAt": BEGIN}]}, "grants.0.amount"),
        ({"grants": [{"amount": 1e30, "effectiveAt": BEGIN}]}, "grants.0.amount"),
        (
            {"grants": [{"amount": 1, "effectiveAt": BEGIN, "recurrence": {"interval": "PT1S"}}]},
            "grants.0.recurrence.interval",
        ),
        ({"featureKey": "no_such"}, "featureKey"),
        ({"featureKey": None}, "featureKey"),
        ({"measureUsageFrom": "YESTERDAY"}, "measureUsageFrom"),
        ({"measureUsageFrom": "2299-01-01T00:00:00Z"}, "measureUsageFrom"),
        (
            {"measureUsageFrom": "1900-01-01T00:00:00Z", "usagePeriod": {"interval": "PT1H"}},
            "measureUsageFrom",
        ),
    ],
)
def test_what_is_wrong_is_said(desk: Desk, change: dict[str, Any], field: str) -> None:
    problem = desk.create(400, **change)
    named = [fault["field"] for fault in problem["extensions"]["validationErrors"]]
    assert any(name.startswith(field) for name in named), problem
