"""What entitlements are worth now is the same from memory as evaluated, in all members."""

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import httpx
import pytest

from tests.contract.test_limits_api import Desk
from tests.contract.test_projection import House
from tests.support.contract import Wire
from tests.support.loading import HOUR_US, NewStage
from tests.support.server import Server, World, wait_until
from tests.support.usage import event, exact, fresh
from tollgate.core.ids import new_ulid
from tollgate.core.times import format_instant, parse_instant
from tollgate.customers.customer import parse_customer
from tollgate.limits.api_values import AS_OF_HEADER
from tollgate.limits.entitlement_record import GrantInput
from tollgate.limits.evaluate import limits_at
from tollgate.limits.facts_store import FactsStore
from tollgate.limits.grant_store import GrantStore
from tollgate.limits.reset import Reset
from tollgate.metering.meter import MeterChanges
from tollgate.metering.store import MeterStore
from tollgate.platform.sql import Database

pytest_plugins = ["tests.support.stages"]
AGGREGATIONS = ("SUM", "COUNT", "UNIQUE_COUNT", "LATEST", "MAX")
SECOND_US, DAY_US = 1_000_000, 24 * HOUR_US


class Walk:
    """Anything may happen to a customer; after each step memory and stores are asked."""

    def __init__(self, house: House, database: Database, seed: int) -> None:
        self.house, self.random = house, Random(seed)
        self.facts, self.database = FactsStore(database), database
        self.grants = GrantStore(database, house.clock)
        self.meters = MeterStore(database, house.clock)
        other = parse_customer({"key": "other", "name": "o"})
        house.customers.create(house.stage.namespace, other)
        self.sources: Counter[str] = Counter()

    def step(self) -> None:
        namespace, house, random = self.house.stage.namespace, self.house, self.random
        match random.randrange(12):
            case 0 | 1 | 2:
                house.use(random.randrange(1, 9), subject=random.choice("us"))
            case 3:  # late: in this phase, or in one that is over
                house.use(3, subject="u", later_us=-random.choice((90 * SECOND_US, 2 * DAY_US)))
            case 4:  # to come: in a moment, or in the next period
                house.use(4, subject="u", later_us=random.choice((5, 40 * 86_400)) * SECOND_US)
            case 5:
                house.void(random.randrange(1, house.sent + 1))
            case 6:
                amount, at = Decimal(random.randrange(50)), house.clock.now()
                wanted = GrantInput(amount=amount, effective_at=at)
                self.grants.add(namespace, "u", random.choice(house.features), wanted)
            case 7:
                retains = random.random() < 0.5
                self.grants.reset(
                    namespace,
                    "u",
                    random.choice(house.features),
                    lambda now: Reset(effective_at=now, retain_anchor=retains),
                )
            case 8:
                house.moves.add(namespace, random.choice(("u", "other")), ["s"], move=True)
            case 9:
                name = random.choice(house.features)
                self.meters.update(namespace, name, self._renamed)
            case _:
                house.clock.us += random.choice((1, 59, 3600, 86_400)) * SECOND_US
        house.clock.us += SECOND_US

    @staticmethod
    def _renamed(meter: Any) -> MeterChanges:
        return MeterChanges(
            name=f"{meter.name}'", description=None, metadata={}, group_by=meter.group_by
        )

    def compare(self) -> None:
        house = self.house
        house.projection.tick()
        house.projection.refresh(house.accounts())
        now = house.clock.now()
        _, known = self.facts.of_customer(house.stage.namespace, "u", now)
        evaluated = limits_at(house.usage, known, now)
        for each, limit in zip(known, evaluated, strict=True):
            balance = house.projection.present_balance(each.record)
            self.sources["stores" if balance is None else "memory"] += 1
            assert balance is None or balance == limit.balance, each.record.definition.feature_key


@pytest.mark.parametrize("seed", range(2))
def test_memory_says_what_is_evaluated(stages: NewStage, database: Database, seed: int) -> None:
    with stages() as stage:
        house = House(stage, database, AGGREGATIONS)
        walk = Walk(house, database, seed)
        house.use(1)
        for _ in range(25):
            walk.step()
            walk.compare()
        assert walk.sources["memory"] > 40, walk.sources


def test_usage_to_come_is_left_to_the_stores_until_its_time(
    stages: NewStage, database: Database
) -> None:
    with stages() as stage:
        house = House(stage, database)
        walk = Walk(house, database, 0)
        house.projection.refresh(house.accounts())
        house.use(3)
        walk.compare()
        assert walk.sources == {"memory": 3}
        house.use(4, later_us=10 * SECOND_US)
        walk.compare()
        assert walk.sources == {"memory": 3, "stores": 3}
        house.clock.us += 9 * SECOND_US
        walk.compare()
        assert walk.sources == {"memory": 3, "stores": 6}, "at its time it is not used yet"
        house.clock.us += 1
        walk.compare()
        assert walk.sources == {"memory": 6, "stores": 6}
        assert house.usages() == [7, 2, 2]
        # What is old is not believed, nor what SQL knows better.
        _, known = walk.facts.of_customer(stage.namespace, "u", house.clock.now())
        grant = GrantInput(amount=Decimal(1), effective_at=house.clock.now())
        walk.grants.add(stage.namespace, "u", "values", grant)
        _, changed = walk.facts.of_customer(stage.namespace, "u", house.clock.now())
        memory = [house.projection.present_balance(each.record) for each in changed]
        assert [balance is None for balance in memory] == [False, False, True]
        house.clock.us += 3 * SECOND_US
        assert house.projection.present_balance(known[0].record) is None


def by_source(server: Server) -> dict[str, int]:
    """How many balances came from where, so far."""
    path = "/metrics/limits" if isinstance(server, World) else "/metrics"
    text = server.http.get(path).text
    found = re.findall(r'^tollgate_limits_values_total{source="(\w+)"} (\d+)', text, re.MULTILINE)
    return {source: int(count) for source, count in found}


def test_over_http_every_form_says_the_same(server: Server) -> None:
    desk = Desk(server)
    desk.entitle(100, isSoftLimit=True)
    static = desk.make_feature()
    body = {"type": "static", "featureKey": static, "config": '{"seats": 5}'}
    desk.post(f"/api/v2/customers/{desk.key}/entitlements", body)
    of_customer = f"/customers/{desk.key}/entitlements/{desk.feature}/value"
    forms = {
        "getCustomerEntitlementValueV2": f"/api/v2{of_customer}",
        "getCustomerEntitlementValue": f"/api/v1{of_customer}",
        "getEntitlementValue": f"/api/v1/subjects/{desk.key}/entitlements/{desk.feature}/value",
    }

    def ask(operation: str, path: str, **query: str) -> httpx.Response:
        wire: Wire = "v3" if operation.startswith("list-") else "v1"
        answer: httpx.Response = desk.usage.call(
            wire, operation, "GET", path, headers=desk.usage.waiting, params=query
        )
        assert answer.status_code == 200, answer.text
        return answer

    # Each asks with the position of what was sent a moment ago: it is in the answer.
    used, before = 0, by_source(server)
    values: dict[str, Any] = {}
    for operation, path in forms.items():
        used += 3
        sent_at = datetime.now(UTC)
        desk.use("3")
        found = ask(operation, path)
        values = exact(found.content)
        assert (values["usage"], values["balance"]) == (used, 100 - used), operation
        known_at = parse_instant(found.headers[AS_OF_HEADER])
        assert known_at >= sent_at
        now = format_instant(datetime.now(UTC))
        assert exact(ask(operation, path, time=now).content) == values
    access = exact(ask("getCustomerAccess", f"/api/v1/customers/{desk.key}/access").content)
    assert access["entitlements"][desk.feature] == values
    assert access["entitlements"][static] == {"hasAccess": True, "config": '{"seats": 5}'}
    path = f"/api/v3/openmeter/customers/{desk.id}/entitlement-access"
    listed = ask("list-customer-entitlement-access", path)
    assert [each["has_access"] for each in listed.json()["data"]] == [True, True]
    assert AS_OF_HEADER in listed.headers
    path = f"/api/v2/customers/{desk.key}/entitlements/{static}/value"
    assert AS_OF_HEADER not in ask("getCustomerEntitlementValueV2", path).headers

    def from_memory() -> int:
        ask(*next(iter(forms.items())))
        return by_source(server)["memory"] - before["memory"]

    wait_until(lambda: from_memory() > 3, what="memory answers")


def test_a_grant_is_in_the_next_answer_and_usage_to_come_is_not(server: Server) -> None:
    desk = Desk(server)
    desk.entitle(10)
    path = f"/api/v2/customers/{desk.key}/entitlements/{desk.feature}"

    def value() -> Any:
        answer = desk.http.get(f"{path}/value", headers=desk.usage.waiting)
        assert answer.status_code == 200, answer.text
        return exact(answer.content)

    assert value()["balance"] == 10
    for expected in (15, 20):
        grant = {"amount": 5, "effectiveAt": format_instant(datetime.now(UTC))}
        desk.post(f"{path}/grants", grant)
        assert value()["balance"] == expected
    tomorrow = format_instant(datetime.now(UTC) + timedelta(days=1))
    desk.usage.send(event('{"v":7}', subject=desk.key, time=tomorrow))
    desk.use("1")
    found = value()
    assert (found["balance"], found["usage"], found["overage"]) == (19, 1, 0)
    assert desk.check()["usage"] == "8", "strict: it is taken off already"


def test_what_there_is_not_is_said_as_before(server: Server) -> None:
    desk = Desk(server)
    nobody, ulid = fresh("nobody"), new_ulid()
    entitlements = f"/customers/{desk.key}/entitlements"
    for path, status in (
        (f"/api/v1{entitlements}/{desk.feature}/value", 200),
        (f"/api/v2{entitlements}/{ulid}/value", 404),
        (f"/api/v2/customers/{nobody}/entitlements/{desk.feature}/value", 404),
        (f"/api/v1/customers/{nobody}/access", 404),
        (f"/api/v1/subjects/{desk.key}/entitlements/{desk.feature}/value", 404),
        (f"/api/v1/subjects/{nobody}/entitlements/{desk.feature}/value", 404),
    ):
        assert desk.http.get(path).status_code == status, path
    desk.entitle(1)
    wrong = desk.http.get(
        f"/api/v2{entitlements}/{desk.feature}/value", headers={"tollgate-position": "9999-0:1"}
    )
    assert wrong.status_code == 400, wrong.text


def test_usage_never_goes_back(server: Server) -> None:
    """A new grant is evaluated at once, from usage that memory learns of a moment later."""
    desk = Desk(server)
    desk.entitle(1000)
    path = f"/api/v2/customers/{desk.key}/entitlements/{desk.feature}"
    seen = []
    for _ in range(5):
        desk.use("1")
        desk.post(f"{path}/grants", {"amount": 1, "effectiveAt": "2030-01-01T00:00:00Z"})
        seen += [server.http.get(f"{path}/value").json()["usage"] for _ in range(6)]
    assert seen == sorted(seen)
