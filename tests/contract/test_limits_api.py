"""Limits over HTTP on the running product: checks, reservations, budgets, gateways."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from tests.support.server import Server, wait_until
from tests.support.usage import Usage, event, fresh
from tollgate.core.ids import new_ulid
from tollgate.core.times import format_instant

BEGIN = "2020-01-01T00:00:00Z"
CENTURY = {"interval": "P100Y", "anchor": BEGIN}
ROOT = "/api/v1/limits"


class Desk:
    """A customer with a metered feature."""

    def __init__(self, server: Server, aggregation: str = "SUM") -> None:
        self.http = server.http
        self.usage = Usage(server)
        self.key = fresh("customer")
        self.id = self.post("/api/v1/customers", {"key": self.key, "name": "n"})["id"]
        self.meter = self.usage.meter(aggregation)
        self.feature = self.make_feature(meterSlug=self.meter)

    def _send(self, path: str, body: Any, status: int, **more: Any) -> httpx.Response:
        """As a client does: what is answered 503 is asked again."""

        def answered() -> httpx.Response | None:
            answer = self.http.post(path, json=body, **more)
            return None if answer.status_code == 503 != status else answer

        answer: httpx.Response = wait_until(answered, 30, "an answer")
        assert answer.status_code == status, answer.text
        return answer

    def post(self, path: str, body: Any, status: int = 201) -> Any:
        return self._send(path, body, status).json()

    def make_feature(self, **more: Any) -> str:
        key = fresh("f")
        self.post("/api/v1/features", {"key": key, "name": key} | more)
        return key

    def entitle(self, amount: Any = None, **more: Any) -> Any:
        body = {
            "type": "metered",
            "featureKey": self.feature,
            "usagePeriod": CENTURY,
            "measureUsageFrom": BEGIN,
        }
        issue = {} if amount is None else {"issue": {"amount": amount}}
        return self.post(f"/api/v2/customers/{self.key}/entitlements", body | issue | more)

    def use(self, *values: str, model: str = "m", **attributes: str) -> str:
        """Sends one event for each value; gives the position."""
        self.usage.send(
            *(
                event(
                    f'{{"v":{value},"model":"{model}"}}',
                    subject=self.key,
                    time=format_instant(datetime.now(UTC)),
                    **attributes,
                )
                for value in values
            )
        )
        return self.usage.position

    def ask(self, *features: Any, status: int = 200, **more: Any) -> httpx.Response:
        wanted = [each if isinstance(each, dict) else {"feature": each} for each in features]
        body = {"customer": self.key, "features": wanted or [{"feature": self.feature}]}
        return self._send(f"{ROOT}/check", body | more, status, headers=self.usage.waiting)

    def check(self, amount: Any = None, **more: Any) -> Any:
        """The first limit of a check of the feature."""
        wanted = {"feature": self.feature} | ({} if amount is None else {"amount": amount})
        return self.ask(wanted, **more).json()["limits"][0]

    def reserve(self, amount: Any, status: int = 201, **more: Any) -> Any:
        body = {"customer": self.key, "amounts": [{"feature": self.feature, "amount": amount}]}
        return self.post(f"{ROOT}/reservations", body | more, status)

    def end(self, reservation: Any, how: str, status: int = 200, **body: Any) -> Any:
        path = f"{ROOT}/reservations/{reservation['id']}/{how}"
        return self.post(path, body, status)


@pytest.fixture
def desk(server: Server) -> Desk:
    return Desk(server)


def test_a_check_says_what_is_left_and_when_it_begins_anew(desk: Desk) -> None:
    desk.entitle(100.5)
    desk.use("60.5")
    answer = desk.ask({"feature": desk.feature, "amount": "40"})
    found = answer.json()
    assert (found["allowed"], found["customerId"]) == (True, desk.id)
    (limit,) = found["limits"]
    shown = {name: limit[name] for name in ("total", "balance", "held", "available", "usage")}
    assert shown == {
        "total": "100.5",
        "balance": "40",
        "held": "0",
        "available": "40",
        "usage": "60.5",
    }
    assert limit["period"] == {"from": BEGIN, "to": "2120-01-01T00:00:00Z"}
    assert (limit["type"], limit["softLimit"], limit["overage"]) == ("metered", False, "0")
    assert limit["usageAsOf"] == limit["bound"]["unknownSince"]
    assert limit["bound"]["granted"] == "0"
    assert answer.headers["x-ratelimit-limit"] == limit["total"]
    assert answer.headers["x-ratelimit-remaining"] == limit["available"]
    assert int(answer.headers["x-ratelimit-reset"]) > 90 * 365 * 86_400
    assert "retry-after" not in answer.headers
    denied = desk.ask({"feature": desk.feature, "amount": "40.000000000000000001"})
    assert denied.json()["limits"][0]["reason"] == "usage_limit_reached"
    assert denied.headers["retry-after"] == denied.headers["x-ratelimit-reset"]


def test_usage_is_added_as_it_comes(desk: Desk) -> None:
    desk.entitle(10)
    assert desk.check()["usage"] == "0"
    for expected in ("3", "6", "9"):
        desk.use("3")
        assert desk.check()["usage"] == expected
    desk.use("3")
    limit = desk.check()
    assert (limit["allowed"], limit["usage"], limit["overage"]) == (False, "12", "2")


def test_what_grants_and_resets_change_is_known(desk: Desk) -> None:
    desk.entitle(10)
    desk.use("10")
    assert not desk.check()["allowed"]
    path = f"/api/v2/customers/{desk.key}/entitlements/{desk.feature}"
    desk.post(f"{path}/grants", {"amount": 5, "effectiveAt": format_instant(datetime.now(UTC))})
    wait_until(lambda: desk.check()["balance"] == "5", what="the grant counts")
    answer = desk.http.post(f"{path}/reset", json={"retainAnchor": True})
    assert answer.status_code == 204, answer.text
    wait_until(lambda: desk.check()["usage"] == "0", what="usage begins anew")
    assert Decimal(desk.check()["balance"]) >= 10


def test_a_correction_is_known(desk: Desk) -> None:
    desk.entitle(10)
    desk.check()
    key = new_ulid()
    desk.use("7", id=key)
    assert desk.check()["usage"] == "7"
    void = {"action": "void", "source": "tests", "id": key, "reason": "wrong"}
    answer = desk.http.post("/api/v1/corrections", json={"corrections": [void]})
    assert answer.is_success, answer.text
    wait_until(lambda: desk.check()["usage"] == "0", what="the event is void")


@pytest.mark.parametrize(
    ("aggregation", "values", "usage"),
    [
        ("COUNT", ("1", "1", "5"), "3"),
        ("UNIQUE_COUNT", ('"a"', '"b"', '"a"'), "2"),
        ("MAX", ("2", "9", "4"), "9"),
        ("LATEST", ("2", "9", "4"), "4"),
    ],
)
def test_every_aggregation_that_can_limit(
    server: Server, aggregation: str, values: tuple[str, ...], usage: str
) -> None:
    desk = Desk(server, aggregation)
    desk.entitle(9)
    assert desk.check()["usage"] == "0"
    for value in values:
        desk.use(value)
        desk.check()
    limit = desk.check()
    assert limit["usage"] == usage
    assert limit["allowed"] == (Decimal(usage) < 9)


def test_several_features_at_once(desk: Desk) -> None:
    desk.entitle(10)
    static, boolean, none = (desk.make_feature() for _ in range(3))
    path = f"/api/v2/customers/{desk.key}/entitlements"
    desk.post(path, {"type": "static", "featureKey": static, "config": '{"seats": 5}'})
    desk.post(path, {"type": "boolean", "featureKey": boolean})
    found = desk.ask(desk.feature, static, boolean).json()
    assert found["allowed"]
    assert [each["type"] for each in found["limits"]] == ["metered", "static", "boolean"]
    assert found["limits"][1]["config"] == '{"seats": 5}'
    refused = desk.ask(boolean, none).json()
    assert (refused["allowed"], refused["limits"][1]["reason"]) == (False, "no_entitlement")


def test_a_soft_limit_is_passed_and_says_so(desk: Desk) -> None:
    desk.entitle(1, isSoftLimit=True)
    desk.use("5")
    limit = desk.check(100)
    assert (limit["allowed"], limit["softLimit"], limit["overage"]) == (True, True, "4")


def test_reserve_settle_and_what_is_left(desk: Desk) -> None:
    desk.entitle(100)
    held = desk.reserve("60", idempotencyKey=(key := new_ulid()), ttlSeconds=600)
    assert (held["allowed"], held["state"]) == (True, "held")
    assert held["holds"][0] | {"position": ""} == {
        "feature": desk.feature,
        "amount": "60",
        "balance": "100",
        "held": "60",
        "available": "40",
        "position": "",
    }
    assert desk.reserve(60, 200, idempotencyKey=key)["id"] == held["id"]
    refused = desk.reserve(41, 200)
    assert (refused["allowed"], refused["holds"][0]["allowed"]) == (False, False)
    assert "id" not in refused
    assert desk.check(41)["reason"] == "usage_limit_reached"
    assert desk.check(40)["allowed"]

    event_id = new_ulid()
    position = desk.use("75", id=event_id)
    settled = desk.end(
        held,
        "settle",
        amounts=[{"feature": desk.feature, "amount": 75}],
        event={"source": "tests", "id": event_id},
        position=position,
    )
    hold = settled["holds"][0]
    assert (settled["state"], hold["actual"], hold["beyondHold"]) == ("settled", "75", "15")
    assert hold["beyondLimit"] == "0"
    # In the balance or still waited for: it counts once, at every moment.
    wait_until(lambda: desk.check()["held"] == "0", what="the usage is in the balance")
    limit = desk.check()
    assert (limit["usage"], limit["available"]) == ("75", "25")
    shown = desk.http.get(f"{ROOT}/reservations/{held['id']}").json()
    assert shown["event"] == {"source": "tests", "id": event_id}
    listed = desk.http.get(f"{ROOT}/reservations", params={"customer": desk.key}).json()
    assert [each["id"] for each in listed["items"]] == [held["id"]]


def test_an_event_that_nobody_said_the_position_of(desk: Desk) -> None:
    desk.entitle(100)
    held = desk.reserve(10)
    event_id = new_ulid()
    desk.use("4", id=event_id)
    desk.end(
        held,
        "settle",
        amounts=[{"feature": desk.feature, "amount": "4"}],
        event={"source": "tests", "id": event_id},
    )
    wait_until(lambda: desk.check()["held"] == "0", what="its event is found")
    assert desk.check()["available"] == "96"


def test_released_and_ended_holds(desk: Desk) -> None:
    desk.entitle(100)
    held = desk.reserve(100)
    assert desk.end(held, "release")["state"] == "released"
    assert desk.end(held, "settle", 409)["status"] == 409
    short = desk.reserve(100, ttlSeconds=1)
    wait_until(lambda: desk.check()["held"] == "0", what="the hold ends by itself")
    late = desk.end(short, "settle", amounts=[{"feature": desk.feature, "amount": 1}])
    assert late["settledLate"] is True


def test_budgets_have_to_be_passed_too(desk: Desk) -> None:
    desk.entitle(100)

    def budget(amount: int, **scope: str) -> Any:
        body = {"customer": desk.key, "feature": desk.feature, "scope": scope, "amount": amount}
        return desk.post(f"{ROOT}/budgets", body)

    budget(20, model="*")
    exact = budget(30, model="big")
    budget(8, model="big", kind="*")
    desk.use("15", model="small")
    desk.use("15", model="big")
    small = desk.ask(scope={"model": "small", "kind": "k"}).json()["limits"]
    assert [(each.get("scope"), each["available"]) for each in small] == [
        (None, "70"),
        ({"model": "small"}, "5"),
    ]
    big = desk.ask(scope={"model": "big", "kind": "k"}).json()["limits"]
    assert [(each.get("scope"), each["available"]) for each in big] == [
        (None, "70"),
        ({"model": "big"}, "15"),
        ({"kind": "k", "model": "big"}, "8"),
    ]
    refused = desk.reserve(9, 200, scope={"model": "big", "kind": "k"})
    assert [each["allowed"] for each in refused["holds"]] == [True, True, False]
    assert not any(each["held"] != "0" for each in refused["holds"])
    held = desk.reserve(8, scope={"model": "big", "kind": "k"})
    assert [each["available"] for each in held["holds"]] == ["62", "7", "0"]
    again = {"customer": desk.key, "feature": desk.feature, "scope": {"model": "*"}, "amount": 1}
    assert desk.post(f"{ROOT}/budgets", again, 409)["status"] == 409
    unknown = again | {"scope": {"nothing": "x"}}
    fault = desk.post(f"{ROOT}/budgets", unknown, 400)
    assert "it has: kind, model" in fault["detail"]
    listed = desk.http.get(f"{ROOT}/budgets", params={"customer": desk.key}).json()["items"]
    assert [each["amount"] for each in listed] == ["20", "30", "8"]
    assert desk.http.delete(f"{ROOT}/budgets/{exact['id']}").status_code == 204
    assert desk.http.delete(f"{ROOT}/budgets/{exact['id']}").status_code == 404


def test_a_gateway_lets_pass_or_blocks(desk: Desk) -> None:
    desk.entitle(2)
    headers = {
        "x-tollgate-customer": desk.key,
        "x-tollgate-feature": desk.feature,
        "authorization": "Bearer of-the-client",
    }

    def passes(**more: str) -> httpx.Response:
        path = f"{ROOT}/authorize/v1/chat/completions?stream=true"
        return desk.http.post(path, content=b"{", headers=headers | more)

    answer = passes()
    assert (answer.status_code, answer.headers["x-ratelimit-remaining"]) == (200, "2")
    blocked = passes(**{"x-tollgate-amount": "2.5"})
    assert blocked.status_code == 429
    assert blocked.json()["limits"][0]["reason"] == "usage_limit_reached"
    assert int(blocked.headers["retry-after"]) > 0
    desk.use("2")
    wait_until(lambda: passes().status_code == 429, what="the quota blocks")
    assert passes(**{"x-tollgate-customer": fresh("nobody")}).status_code == 403
    assert passes(**{"x-tollgate-feature": desk.make_feature()}).status_code == 403
    assert passes(**{"x-tollgate-amount": "many"}).status_code == 400
    del headers["x-tollgate-customer"]
    fault = passes()
    assert (fault.status_code, fault.json()["extensions"]["validationErrors"][0]["field"]) == (
        400,
        "x-tollgate-customer",
    )


def test_policies_are_said_and_shown(desk: Desk) -> None:
    path = f"{ROOT}/policies/{desk.feature}"
    default = {"failureMode": "closed", "openCap": "0", "staleAfterSeconds": 10}
    assert desk.http.get(path).json() == default
    wanted = {"failureMode": "open", "openCap": "5.5", "staleAfterSeconds": 3}
    assert desk.http.put(path, json=wanted).json() == wanted
    assert desk.http.get(path).json() == wanted
    assert desk.http.put(f"{ROOT}/policies/{fresh('no')}", json=wanted).status_code == 404
    assert desk.http.put(path, json=wanted | {"staleAfterSeconds": 0}).status_code == 400


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("check", {"customer": "c", "features": []}, "features"),
        ("check", {"customer": "c", "features": [{"feature": "a"}, {"feature": "a"}]}, "features"),
        ("reservations", {"customer": "c", "amounts": [{"feature": "a"}]}, "amounts.0.amount"),
        (
            "reservations",
            {"customer": "c", "amounts": [{"feature": "a", "amount": -1}]},
            "amounts.0.amount",
        ),
        (
            "reservations",
            {"customer": "c", "amounts": [{"feature": "a", "amount": 1}], "ttlSeconds": 0},
            "ttlSeconds",
        ),
    ],
)
def test_a_wrong_request_says_where(server: Server, path: str, body: Any, field: str) -> None:
    answer = server.http.post(f"{ROOT}/{path}", json=body)
    assert answer.status_code == 400
    assert answer.json()["extensions"]["validationErrors"][0]["field"] == field


def test_what_there_is_not(desk: Desk) -> None:
    body = {"customer": fresh("nobody"), "features": [{"feature": "f"}]}
    assert desk.post(f"{ROOT}/check", body, 404)["status"] == 404
    assert desk.reserve(1, 404)["detail"].startswith("the customer has no metered entitlement")
    assert desk.http.get(f"{ROOT}/reservations/{new_ulid()}").status_code == 404
    assert desk.end({"id": new_ulid()}, "settle", 404)["status"] == 404
    assert desk.end({"id": new_ulid()}, "release", 404)["status"] == 404
