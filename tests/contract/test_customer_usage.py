"""Usage and events by customer over HTTP, on the running product.

Subjects move at the moment of the request. So usage of long ago is of before every move, and usage
of the year 2099 of after all.
"""

from typing import Any

import pytest

from tests.support.server import Server
from tests.support.usage import Usage, event, fresh, quantities
from tollgate.core.ids import new_ulid

PAST, FUTURE = "2020-01-01T12:00:00Z", "2099-01-01T12:00:00Z"


@pytest.fixture
def usage(server: Server) -> Usage:
    return Usage(server)


class Customers:
    """Two customers of one test; `a` moved from the first to the second, `n` is nobody's."""

    def __init__(self, usage: Usage) -> None:
        self.usage = usage
        self.a, self.b, self.n = (fresh(letter) for letter in "abn")
        self.first_key = fresh("first")
        self.first = self.put("POST", "", self.first_key, self.a)
        self.second = self.put("POST", "", fresh("second"), self.b)
        self.put("PUT", f"/{self.first}", self.first_key)
        self.put("PUT", f"/{self.second}", fresh("second"), self.a, self.b)

    def put(self, method: str, rest: str, key: str, *subjects: str) -> str:
        body = {"key": key, "name": "=name", "usageAttribution": {"subjectKeys": subjects}}
        operation = "createCustomer" if method == "POST" else "updateCustomer"
        answer = self.usage.call("v1", operation, method, f"/api/v1/customers{rest}", json=body)
        assert answer.is_success, answer.text
        customer_id: str = answer.json()["id"]
        return customer_id

    def send(self) -> None:
        values = ((self.a, 1), (self.b, 10), (self.n, 100), (self.first_key, 1000))
        self.usage.send(
            *(
                event(f'{{"v":{value},"model":"m"}}', subject=subject, time=time)
                for time in (PAST, FUTURE)
                for subject, value in values
            )
        )


@pytest.fixture
def customers(usage: Usage) -> Customers:
    found = Customers(usage)
    found.send()
    return found


def test_usage_is_its_customer_s_as_it_was_at_its_time(usage: Usage, customers: Customers) -> None:
    slug, first, second = usage.meter(), customers.first, customers.second

    def totals(**body: Any) -> dict[str | None, int]:
        found = usage.query(slug, groupBy=["customer_id"], **body)
        return {row.get("customerId"): int(row["value"]) for row in found["data"]}

    both = [first, second.lower(), second]
    assert totals(filterCustomerId=both) == {first: 2001, second: 21}
    assert totals(filterCustomerId=both, end="2021-01-01T00:00:00Z") == {first: 1001, second: 10}
    assert totals(filterCustomerId=both, start="2098-01-01T00:00:00Z") == {
        first: 1000,
        second: 11,
    }
    assert totals(filterCustomerId=[first]) == {first: 2001}
    assert totals(filterCustomerId=both, subject=[customers.b]) == {second: 20}
    # Without a filter nobody's usage is a row too.
    assert totals() == {None: 200, first: 2001, second: 21}
    assert usage.values(slug, filterCustomerId=[second]) == [21]
    assert usage.values(slug, filterCustomerId=[first], filterGroupBy={"model": ["x"]}) == []
    by_year = usage.query(
        slug, filterCustomerId=[second], windowSize="MONTH", groupBy=["customer_id", "subject"]
    )
    assert quantities(by_year, "customerId", "subject", "value") == [
        (second, customers.b, 10),
        (second, customers.a, 1),
        (second, customers.b, 10),
    ]
    assert all(row["groupBy"] == {} for row in by_year["data"])
    unique = usage.meter("UNIQUE_COUNT")
    assert usage.values(unique, filterCustomerId=[second]) == [2]


def test_v1_by_get_by_page_filled_and_as_csv(usage: Usage, customers: Customers) -> None:
    slug, first, second = usage.meter(), customers.first, customers.second
    query: list[tuple[str, str]] = [("filterCustomerId", each) for each in (first, second)]
    query += [("groupBy", "customer_id")]
    path = f"/{slug}/query"
    answer = usage.on_meters("GET", path, params=query, headers=usage.waiting)
    assert [row["customerId"] for row in answer.json()["data"]] == [first, second]
    one = usage.on_meters("GET", path, params=[*query, ("limit", "1")], headers=usage.waiting)
    assert [row["customerId"] for row in one.json()["data"]] == [first]
    cursor = ("cursor", one.json()["nextCursor"])
    rest = usage.on_meters("GET", path, params=[*query, ("limit", "1"), cursor])
    assert [row["customerId"] for row in rest.json()["data"]] == [second]
    period = [("from", "2050-01-01T00:00:00Z"), ("to", "2051-01-01T00:00:00Z")]
    filled = usage.on_meters("GET", path, params=[*query, *period, ("fill", "true")])
    assert [(r["customerId"], r["value"]) for r in filled.json()["data"]] == [
        (first, 0),
        (second, 0),
    ]
    headers = usage.waiting | {"accept": "text/csv"}
    text = usage.on_meters("GET", path, params=query, headers=headers).text
    assert [line.split(",")[2:] for line in text.splitlines()] == [
        ["customer_id", "value"],
        [first, "2001"],
        [second, "21"],
    ]


def test_v3_shows_customers_and_their_names(usage: Usage, customers: Customers) -> None:
    slug, first, second = usage.meter(), customers.first, customers.second
    meter_id = usage.on_meters("GET", f"/{slug}").json()["id"]
    body = {
        "group_by_dimensions": ["customer_id", "model"],
        "filters": {"dimensions": {"customer_id": {"in": [first, second]}}},
    }
    path = f"/{meter_id}/query"
    answer = usage.on_meters_v3("POST", path, json=body, headers=usage.waiting)
    assert [(row["dimensions"], row["value"]) for row in answer.json()["data"]] == [
        ({"customer_id": first, "model": "m"}, "2001"),
        ({"customer_id": second, "model": "m"}, "21"),
    ]
    headers = usage.waiting | {"accept": "text/csv"}
    rows = usage.on_meters_v3("POST", path, json=body, headers=headers).text.splitlines()
    assert rows[0] == "from,to,customer_id,customer_key,customer_name,model,value"
    assert rows[1].split(",")[2:] == [first, customers.first_key, "'=name", "m", "2001"]
    everybody = usage.on_meters_v3(
        "POST", path, json={"group_by_dimensions": ["customer_id"]}, headers=usage.waiting
    )
    found = {r["dimensions"]["customer_id"]: r["value"] for r in everybody.json()["data"]}
    assert found == {"": "200", first: "2001", second: "21"}


def test_a_deleted_customer_keeps_its_usage_and_an_unknown_one_is_refused(
    usage: Usage, customers: Customers
) -> None:
    slug, first = usage.meter(), customers.first
    answer = usage.call("v1", "deleteCustomer", "DELETE", f"/api/v1/customers/{first}")
    assert answer.status_code == 204
    assert usage.values(slug, filterCustomerId=[first]) == [1001]
    for unknown in (new_ulid(), customers.first_key):
        body = {"filterCustomerId": [first, unknown]}
        answer = usage.on_meters("POST", f"/{slug}/query", json=body)
        assert answer.status_code == 400
        (fault,) = answer.json()["extensions"]["validationErrors"]
        assert (fault["field"], fault["code"]) == ("filterCustomerId", "unknown_customer")
        assert unknown.upper() in fault["message"]


def test_events_show_and_are_found_by_their_customer(usage: Usage, customers: Customers) -> None:
    first, second = customers.first, customers.second
    usage.meter()
    mine = {first: [1, 1000, 1000], second: [1, 10, 10]}

    def listed(path: str, operation: str, query: dict[str, Any]) -> Any:
        wire: Any = "v3" if path.startswith("/api/v3") else "v1"
        answer = usage.call(wire, operation, "GET", path, params=query, headers=usage.waiting)
        assert answer.status_code == 200, answer.text
        return answer.json()

    for customer, values in mine.items():
        v1 = listed(
            "/api/v1/events",
            "listEvents",
            {"from": "2019-01-01T00:00:00Z", "customerId": [customer, new_ulid()]},
        )
        v2 = listed(
            "/api/v2/events",
            "listEventsV2",
            {"filter": f'{{"customerId":{{"$in":["{customer}"]}}}}'},
        )["items"]
        v3 = listed(
            "/api/v3/openmeter/events",
            "list-metering-events",
            {"filter[customer_id][oeq]": f"{customer},{new_ulid()}"},
        )["data"]
        for items in (v1, v2, v3):
            assert sorted(item["event"]["data"]["v"] for item in items) == values
        assert {item["customerId"] for item in (*v1, *v2)} == {customer}
        assert {item["customer"]["id"] for item in v3} == {customer}
    others = listed(
        "/api/v3/openmeter/events",
        "list-metering-events",
        {"filter[customer_id][neq]": first, "filter[type]": usage.event_type},
    )["data"]
    shown = sorted((item["event"]["data"]["v"], item.get("customer")) for item in others)
    assert [value for value, _ in shown] == [1, 10, 10, 100, 100]
    assert [who for value, who in shown if value != 100] == [{"id": second}] * 3


def test_a_customer_of_ten_thousand_subjects(usage: Usage) -> None:
    slug, mark = usage.meter(), fresh("many")
    subjects = [f"{mark}-{number}-{'x' * 20}" for number in range(10_000)]
    body = {"key": mark, "name": "Many", "usageAttribution": {"subjectKeys": subjects}}
    made = usage.call("v1", "createCustomer", "POST", "/api/v1/customers", json=body)
    assert made.status_code == 201
    assert made.json()["usageAttribution"]["subjectKeys"] == subjects
    customer = made.json()["id"]
    usage.send(*(event('{"v":1}', subject=each) for each in (*subjects[::1000], mark, "nobody")))
    assert usage.values(slug, filterCustomerId=[customer]) == [11]
    # Half of it is another's from now on.
    left = body | {"usageAttribution": {"subjectKeys": subjects[:5000]}}
    changed = usage.call("v1", "updateCustomer", "PUT", f"/api/v1/customers/{customer}", json=left)
    assert changed.status_code == 200
    usage.send(*(event('{"v":1}', subject=each, time=FUTURE) for each in subjects[::1000]))
    found = usage.query(slug, filterCustomerId=[customer], groupBy=["customer_id"])
    assert quantities(found, "customerId", "value") == [(customer, 16)]
