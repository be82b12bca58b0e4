"""What a process decides limits by, put together once."""

from collections.abc import Collection
from dataclasses import dataclass

from tollgate.core.clock import Clock
from tollgate.core.errors import Fault, InvalidInput
from tollgate.customers.api_customers_v1 import open_customers
from tollgate.customers.customer_store import CustomerStore
from tollgate.limits.api_features_v1 import open_features
from tollgate.limits.check import Checking, Holds
from tollgate.limits.entitlement_parts import open_entitlements, open_facts, open_usage_reader
from tollgate.limits.feature_store import FeatureStore
from tollgate.limits.limit_reader import LimitReader
from tollgate.limits.limit_rule_store import LimitRuleStore
from tollgate.limits.present_values import PresentValues
from tollgate.limits.projection import Projection
from tollgate.limits.reservation_store import ReservationStore
from tollgate.limits.reserve import Reserving
from tollgate.metering.meter_reader import open_meters
from tollgate.metering.store import MeterStore
from tollgate.platform.clickhouse import ClickHouse
from tollgate.platform.database import open_database
from tollgate.platform.parts import Parts, open_clickhouse


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The parts of the limits function."""

    customers: CustomerStore
    features: FeatureStore
    meters: MeterStore
    rules: LimitRuleStore
    reservations: ReservationStore
    projection: Projection
    holds: Holds
    checking: Checking
    reserving: Reserving
    present: PresentValues
    clickhouse: ClickHouse
    clock: Clock

    def require_dimensions(
        self, namespace: str, feature_key: str, dimensions: Collection[str]
    ) -> None:
        """Checks that a feature's meter has dimensions.

        Raises:
            NotFound: there is no such feature. InvalidInput: it has no meter, or one without them.
        """
        feature = self.features.get_live(namespace, feature_key)
        if feature.meter is None:
            raise _refused("feature", "not_metered", "has no meter: there is no usage to limit")
        known = self.meters.get_by_id(namespace, feature.meter.id).group_by
        for name in dimensions:
            if name not in known:
                has = ", ".join(sorted(known)) or "none"
                message = f"is no dimension of {feature.meter.slug}; it has: {has}"
                raise _refused(f"scope.{name[:64]}", "unknown_dimension", message)


def _refused(field: str, code: str, message: str) -> InvalidInput:
    return InvalidInput((Fault(field=field, code=code, message=message),))


def open_limits(parts: Parts) -> Limits:
    """Puts them together; nothing runs yet."""
    database, clickhouse = parts.get(open_database), parts.get(open_clickhouse)
    rules, facts = LimitRuleStore(database, parts.clock), parts.get(open_facts)
    customers, usage = parts.get(open_customers), parts.get(open_usage_reader)
    projection = Projection(
        clickhouse,
        LimitReader(facts, rules, usage),
        parts.get(open_entitlements),
        rules,
        customers,
        parts.clock,
    )
    reservations = ReservationStore(database, parts.clock)
    holds = Holds(reservations)
    checking = Checking(projection, holds, rules, facts, parts.clock)
    return Limits(
        customers=customers,
        features=parts.get(open_features),
        meters=parts.get(open_meters),
        rules=rules,
        reservations=reservations,
        projection=projection,
        holds=holds,
        checking=checking,
        reserving=Reserving(reservations, projection),
        present=PresentValues(checking, projection, facts, usage, parts.settings.query_threads),
        clickhouse=clickhouse,
        clock=parts.clock,
    )
