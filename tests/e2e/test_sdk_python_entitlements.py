"""OpenMeter's published Python client, unmodified, on entitlements and grants."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from corehttp.exceptions import ResourceExistsError, ResourceNotFoundError
from openmeter import Client
from openmeter.models import (
    CustomerCreate,
    EntitlementBooleanCreateInputs,
    EntitlementGrantCreateInputV2,
    EntitlementMeteredV2CreateInputs,
    EntitlementStaticCreateInputs,
    EntitlementType,
    Event,
    ExpirationPeriod,
    FeatureCreateInputs,
    IssueAfterReset,
    Metadata,
    MeterAggregation,
    MeterCreate,
    RecurringPeriodCreateInput,
    ResetEntitlementUsageInput,
)

from tests.support.server import Server, wait_until
from tests.support.usage import fresh
from tollgate.core.ids import new_ulid

pytestmark = pytest.mark.e2e

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
STATIC: Final = EntitlementType.STATIC
BOOLEAN: Final = EntitlementType.BOOLEAN
CENTURY = RecurringPeriodCreateInput(interval="P100Y", anchor=BEGIN)


class Shop:
    """A customer and two features, made by the client."""

    def __init__(self, server: Server) -> None:
        self.client: Any = Client(endpoint=server.url)
        self.kind, self.customer = fresh("kind"), fresh("acme")
        self.feature, self.plain = fresh("f"), fresh("f")
        meter = MeterCreate(
            slug=fresh("m"),
            aggregation=MeterAggregation.SUM,
            event_type=self.kind,
            value_property="$.tokens",
        )
        made = self.client.meters.create(meter)
        self.client.customers.create(CustomerCreate(name="ACME", key=self.customer))
        for key, slug in ((self.feature, made.slug), (self.plain, None)):
            feature = FeatureCreateInputs(key=key, name=key, meter_slug=slug)
            self.client.features.create(feature)

    def use(self, tokens: int, minute: int = 0) -> None:
        event = Event(
            id=new_ulid(),
            source="sdk-python",
            specversion="1.0",
            type=self.kind,
            subject=self.customer,
            time=NOON + timedelta(minutes=minute),
            data={"tokens": tokens},
        )
        self.client.events.ingest_event(event)

    def value(self) -> Any:
        one = self.client.customer_entitlement_v2
        return one.get_customer_entitlement_value(self.customer, self.feature)

    def counted(self, usage: int) -> Any:
        wait_until(lambda: self.value().usage == usage, what=f"usage {usage}")
        return self.value()


@pytest.fixture
def shop(server: Server) -> Shop:
    return Shop(server)


def test_a_metered_entitlement_and_its_grants(shop: Shop) -> None:
    entitlements, one = shop.client.customer_entitlements_v2, shop.client.customer_entitlement_v2
    wanted = EntitlementMeteredV2CreateInputs(
        type=EntitlementType.METERED,
        feature_key=shop.feature,
        usage_period=CENTURY,
        measure_usage_from=BEGIN,
        issue=IssueAfterReset(amount=10),
        metadata=Metadata({"crm": "17"}),
    )
    made = entitlements.post(shop.customer, wanted)
    assert (made["type"], made["customerKey"]) == ("metered", shop.customer)
    with pytest.raises(ResourceExistsError):
        entitlements.post(shop.customer, wanted)
    shop.use(4)
    value = shop.counted(4)
    assert (value.has_access, value.balance, value.overage) == (True, 6, 0)
    grant = EntitlementGrantCreateInputV2(
        amount=5,
        effective_at=NOON,
        priority=1,
        expiration=ExpirationPeriod(duration="YEAR", count=100),
    )
    given = one.create_customer_entitlement_grant(shop.customer, shop.feature, grant)
    assert (given.amount, given.max_rollover_amount) == (5, 5)
    assert given.expires_at == NOON.replace(year=2126)
    shop.use(7, 1)
    value = shop.counted(11)
    # The grant that ends first burns first.
    assert (value.balance, value.total_available_grant_amount) == (4, 15)
    assert value.grant_balances[given.id] == 0
    listed = one.get_grants(shop.customer, shop.feature)
    assert listed.total_count == 2
    history = one.get_customer_entitlement_history(
        shop.customer,
        made["id"],
        window_size="HOUR",
        from_parameter=BEGIN,
        to=NOON.replace(hour=13),
    )
    assert [(row.usage, row.balance_at_start) for row in history.windowed_history] == [(11, 15)]
    assert [each.usage for each in history.burndown_history] == [0, 11]
    shop.client.grants.delete(given.id)
    with pytest.raises(ResourceExistsError):
        shop.client.grants.delete(given.id)
    one.reset_customer_entitlement(
        shop.customer, shop.feature, ResetEntitlementUsageInput(retain_anchor=True)
    )
    value = shop.value()
    assert (value.usage, value.balance, value.overage) == (0, 10, 0)
    assert shop.client.entitlements_v2.get(made["id"])["id"] == made["id"]


def test_other_kinds_and_lists(shop: Shop) -> None:
    entitlements = shop.client.customer_entitlements_v2
    config = '{"seats": 3}'
    static = EntitlementStaticCreateInputs(type=STATIC, feature_key=shop.feature, config=config)
    made = entitlements.post(shop.customer, static)
    assert shop.value().config == config
    boolean = EntitlementBooleanCreateInputs(type=BOOLEAN, feature_key=shop.plain)
    entitlements.post(shop.customer, boolean)
    access = shop.client.customer.get_customer_access(shop.customer)
    assert {key: value.has_access for key, value in access.entitlements.items()} == {
        shop.feature: True,
        shop.plain: True,
    }
    value = shop.client.customer_entitlement.get_customer_entitlement_value(
        shop.customer, shop.plain
    )
    assert value.has_access
    over = entitlements.override(
        shop.customer,
        shop.feature,
        EntitlementStaticCreateInputs(type=STATIC, feature_key=shop.feature, config="{}"),
    )
    assert entitlements.get(shop.customer, made["id"])["activeTo"] == over["activeFrom"]
    assert entitlements.list(shop.customer).total_count == 2
    assert entitlements.list(shop.customer, include_deleted=True).total_count == 3
    found = shop.client.entitlements_v2.list(customer_keys=[shop.customer], feature=[shop.plain])
    assert found.total_count == 1
    entitlements.delete(shop.customer, shop.plain)
    with pytest.raises(ResourceNotFoundError):
        entitlements.get(shop.customer, shop.plain)
    # v1's list of all, by subject: the customer's key is one.
    assert [each["id"] for each in shop.client.entitlements.list(subject=[shop.customer])] == [
        over["id"]
    ]
    with pytest.raises(ResourceExistsError):
        shop.client.customers.delete(shop.customer)
