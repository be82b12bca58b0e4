"""v1 of entitlements over HTTP, under subjects and of customers, held against the contract."""

from decimal import Decimal
from typing import Any

import pytest

from tests.support.contract import checked
from tests.support.entitlements import BEGIN, CENTURY, Desk
from tests.support.server import Server
from tests.support.usage import event, exact, fresh
from tollgate.core.ids import new_ulid

MONTH = {"duration": "MONTH", "count": 1}
IDS = {
    ("POST", ""): "createEntitlement",
    ("GET", ""): "listSubjectEntitlements",
    ("GET", "/x"): "getEntitlement",
    ("DELETE", "/x"): "deleteEntitlement",
    ("PUT", "/x/override"): "overrideEntitlement",
    ("GET", "/x/grants"): "listEntitlementGrants",
    ("POST", "/x/grants"): "createGrant",
    ("GET", "/x/value"): "getEntitlementValue",
    ("GET", "/x/history"): "getEntitlementHistory",
    ("POST", "/x/reset"): "resetEntitlementUsage",
}


class Counter(Desk):
    """The same for a subject that nobody has made."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.subject = fresh("s")

    def on(self, method: str, rest: str = "", status: int = 200, **more: Any) -> Any:
        _, name, action = (rest + "//").split("/")[:3]
        template = ("/x" if name else "") + (f"/{action}" if action else "")
        path = f"/api/v1/subjects/{self.subject}/entitlements{rest}"
        headers, operation = self.usage.waiting, IDS[method, template]
        answer = self.usage.call("v1", operation, method, path, headers=headers, **more)
        assert answer.status_code == status, answer.text
        return exact(answer.content) if answer.content else None

    def use(self, *used: tuple[str, str]) -> None:
        self.usage.send(
            *(event(f'{{"v":{value}}}', time=time, subject=self.subject) for time, value in used)
        )

    def get(self, operation: str, path: str, status: int = 200, **query: Any) -> Any:
        headers = self.usage.waiting
        answer = checked("v1", operation, self.http.get(path, params=query, headers=headers))
        assert answer.status_code == status, answer.text
        return exact(answer.content)

    def access(self, customer: str) -> Any:
        found = self.get("getCustomerAccess", f"/api/v1/customers/{customer}/access")
        return found["entitlements"]


@pytest.fixture
def counter(server: Server) -> Counter:
    return Counter(server)


def test_a_subject_that_nobody_owns_gets_a_customer(counter: Counter) -> None:
    counter.use(("2026-03-10T12:00:00Z", "4"))
    assert counter.on("GET") == []
    counter.on("GET", f"/{counter.feature}/value", 404)
    counter.create(400, featureKey="no_such")
    assert counter.http.get(f"/api/v1/customers/{counter.subject}").status_code == 404
    made = counter.create(issueAfterReset=10.5, issueAfterResetPriority=2, isUnlimited=True)
    assert (made["subjectKey"], made["type"]) == (counter.subject, "metered")
    assert (made["issueAfterReset"], made["issueAfterResetPriority"]) == (Decimal("10.5"), 2)
    owner = counter.http.get(f"/api/v1/customers/{counter.subject}").json()
    assert owner["usageAttribution"]["subjectKeys"] == [counter.subject]
    # Usage that was before there was a customer is its.
    value = {
        "hasAccess": True,
        "balance": Decimal("6.5"),
        "usage": 4,
        "overage": 0,
        "totalAvailableGrantAmount": Decimal("10.5"),
    }
    assert counter.value() == counter.value(made["id"]) == value
    assert counter.on("GET", f"/{made['id']}") == made
    assert counter.on("GET") == [made]
    counter.create(409)
    # A customer's subject finds the customer's entitlements, whichever way they came.
    path = f"/api/v2/customers/{owner['id']}/entitlements/{counter.feature}/value"
    assert counter.get("getCustomerEntitlementValueV2", path)["balance"] == Decimal("6.5")


def test_grants_of_v1_do_not_roll_over(counter: Counter) -> None:
    made = counter.create()
    given = counter.grant(5, expiration={"duration": "YEAR", "count": 100}, metadata={"a": "b"})
    assert (given["maxRolloverAmount"], given["minRolloverAmount"], given["priority"]) == (0, 0, 1)
    assert (given["expiresAt"], given["metadata"]) == ("2120-01-01T00:00:00Z", {"a": "b"})
    assert given["entitlementId"] == made["id"]
    counter.grant(5, 400)  # v1 needs an expiration
    (listed,) = counter.on("GET", f"/{counter.feature}/grants")
    assert listed == given
    counter.use(("2026-03-10T12:00:00Z", "2"))
    assert counter.value()["balance"] == 3
    counter.on("POST", f"/{made['id']}/reset", 204, json={"effectiveAt": "2026-03-10T12:00:01Z"})
    assert counter.value() == {
        "hasAccess": False,
        "balance": 0,
        "usage": 0,
        "overage": 0,
        "totalAvailableGrantAmount": 0,
    }
    asked = {"windowSize": "HOUR", "from": "2026-03-10T12:00:00Z", "to": "2026-03-10T12:00:02Z"}
    found = counter.on("GET", f"/{made['id']}/history", params=asked)
    assert [it["usage"] for it in found["windowedHistory"]] == [2]
    assert [it["balanceAtEnd"] for it in found["burndownHistory"]] == [3, 0]


def test_overriding_and_deleting(counter: Counter) -> None:
    body = {"type": "static", "featureKey": counter.feature, "config": "{}"}
    counter.on("PUT", f"/{counter.feature}/override", 404, json=body)
    made = counter.create()
    static = counter.on("PUT", f"/{counter.feature}/override", 201, json=body)
    assert counter.value() == {"hasAccess": True, "config": "{}"}
    counter.on("DELETE", f"/{static['id']}", 204)
    counter.on("DELETE", f"/{static['id']}", 404)
    assert counter.on("GET") == []
    every = counter.on("GET", params={"includeDeleted": "true"})
    assert [each["id"] for each in every] == [made["id"], static["id"]]
    counter.on("GET", f"/{counter.feature}/value", 404)


def test_all_that_a_customer_may_use(counter: Counter) -> None:
    counter.create(issueAfterReset=3)
    static, plain = counter.make_feature(), counter.make_feature()
    config = '{"a": 1}'
    for body in (
        {"type": "static", "featureKey": static, "config": config},
        {"type": "boolean", "featureKey": plain},
    ):
        counter.on("POST", "", 201, json=body)
    counter.use(("2026-03-10T12:00:00Z", "3.5"))
    assert counter.access(counter.subject) == {
        counter.feature: {
            "hasAccess": False,
            "balance": 0,
            "usage": Decimal("3.5"),
            "overage": Decimal("0.5"),
            "totalAvailableGrantAmount": 3,
        },
        static: {"hasAccess": True, "config": config},
        plain: {"hasAccess": True},
    }
    assert counter.access(counter.key) == {}
    value = f"/api/v1/customers/{counter.subject}/entitlements"
    operation = "getCustomerEntitlementValue"
    assert counter.get(operation, f"{value}/{counter.feature}/value")["usage"] == Decimal("3.5")
    assert counter.get(operation, f"{value}/none/value") == {"hasAccess": False}
    counter.get(operation, f"/api/v1/customers/{new_ulid()}/entitlements/none/value", 404)


def test_lists_of_all(counter: Counter) -> None:
    made = counter.create(issueAfterReset=1)
    all_of = "/api/v1/entitlements"
    (listed,) = counter.get("listEntitlements", all_of, subject=counter.subject)
    assert listed == made == counter.get("getEntitlementById", f"{all_of}/{made['id']}")
    page = counter.get("listEntitlements", all_of, feature=counter.feature, page=1)
    assert (page["totalCount"], page["items"]) == (1, [made])
    assert counter.get("listEntitlements", all_of, subject="nobody") == []
    assert (
        counter.get(
            "listEntitlements", all_of, entitlementType="static", page=1, subject=counter.subject
        )["items"]
        == []
    )
    counter.get("getEntitlementById", f"{all_of}/{new_ulid()}", 404)
    (grant,) = counter.get("listGrants", "/api/v1/grants", subject=counter.subject)
    # It never expires: v1 has no word for that.
    assert (grant["amount"], grant["expiration"]) == (1, {"duration": "YEAR", "count": 1000})
    assert "expiresAt" not in grant
    found = counter.get("listGrants", "/api/v1/grants", subject=counter.subject, pageSize=1)
    assert found["items"] == [grant]


def test_a_subject_of_a_customer_stands_for_it(counter: Counter) -> None:
    """Of two subjects of one customer each sees what both used."""
    second = fresh("s")
    body = {"name": "n", "usageAttribution": {"subjectKeys": [counter.subject, second]}}
    assert counter.http.post("/api/v1/customers", json=body).status_code == 201
    counter.create(issueAfterReset=10)
    counter.use(("2026-03-10T12:00:00Z", "1"))
    first, counter.subject = counter.subject, second
    counter.use(("2026-03-10T12:00:00Z", "2"))
    assert counter.value()["usage"] == 3
    assert counter.on("GET", f"/{counter.feature}")["subjectKey"] == second
    (listed,) = counter.get("listEntitlements", "/api/v1/entitlements", subject=second)
    assert listed["subjectKey"] == first
    assert CENTURY["anchor"] == BEGIN == listed["usagePeriod"]["anchor"]
