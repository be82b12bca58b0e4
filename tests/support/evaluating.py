"""Entitlements evaluated on a real usage store, their facts written by hand."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from tests.support.loading import NOON_US, Sent, Stage
from tollgate.core.clock import us_from_datetime
from tollgate.core.times import EARLIEST
from tollgate.customers.attribution import Attribution
from tollgate.limits.balance import Balance
from tollgate.limits.dimension_filter import DimensionFilter, FilterDialect
from tollgate.limits.entitlement import MeteredEntitlement
from tollgate.limits.entitlement_record import EntitlementRecord
from tollgate.limits.evaluate import limits_at
from tollgate.limits.facts_store import Known, Metering
from tollgate.limits.feature import Feature, FeatureMeter
from tollgate.limits.plan import Facts
from tollgate.limits.usage_reader import UsageReader
from tollgate.metering.meter import Aggregation, ManagedBy, Meter
from tollgate.platform.filters import Comparison, Operator


class Books:
    """One customer's usage, `u`'s, of a meter for each aggregation."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.reader = UsageReader(stage.clickhouse, None, 60)
        self._loader = stage.loader()
        self._offset = 0

    def use(self, *used: tuple[datetime, str], subject: str = "u", model: str = "m") -> None:
        """Loads events, one after another: instant and value."""
        records = []
        for time, value in used:
            self._offset += 1
            event = Sent(
                id=str(self._offset),
                data=f'{{"n":{value},"model":"{model}"}}',
                time_us=us_from_datetime(time),
                subject=subject,
            )
            records.append(self.stage.record(self._offset, NOON_US, event))
        if records:
            self._loader.load(records)

    def meter(self, aggregation: Aggregation) -> Meter:
        return Meter(
            id=f"{self.stage.namespace}-{aggregation}",
            namespace=self.stage.namespace,
            slug="m",
            name="m",
            description=None,
            metadata={},
            annotations={},
            aggregation=aggregation,
            event_type="t",
            event_from=None,
            value_property=None if aggregation is Aggregation.COUNT else "$.n",
            group_by={"model": "$.model"},
            managed_by=ManagedBy.API,
            created_at=EARLIEST,
            updated_at=EARLIEST,
            deleted_at=None,
        )

    def known(
        self,
        facts: Facts,
        aggregation: Aggregation = Aggregation.SUM,
        *,
        customer: str = "acme",
        subjects: Iterable[str] = ("u",),
        model: str | None = None,
        **more: Any,
    ) -> Known:
        """An entitlement of these facts, of the usage of some subjects and a model."""
        meter, feature_key = self.meter(aggregation), f"{aggregation}_{model}".lower()
        definition = MeteredEntitlement(
            id=f"{customer}-{feature_key}",
            customer_id=customer,
            feature_key=feature_key,
            created_at=facts.measure_usage_from,
            active_from=facts.measure_usage_from,
            usage_period=facts.usage_period,
            measure_usage_from=facts.measure_usage_from,
            preserve_overage_at_reset=facts.preserve_overage_at_reset,
            **more,
        )
        conditions = {}
        if model is not None:
            is_model = Comparison(operator=Operator.EQUAL, value=model)
            conditions["model"] = DimensionFilter(
                asked=is_model, dialect=FilterDialect.V1, sent={"$eq": model}
            )
        feature = Feature(
            id=feature_key,
            namespace=meter.namespace,
            key=feature_key,
            name="f",
            description=None,
            metadata={},
            meter=FeatureMeter(id=meter.id, slug=meter.slug),
            conditions=conditions,
            unit_cost=None,
            created_at=EARLIEST,
            updated_at=EARLIEST,
            archived_at=None,
        )
        metering = Metering(
            entitlement=definition,
            feature=feature,
            meter=meter,
            grants=facts.grants,
            resets=facts.resets,
            attributions=tuple(
                Attribution(customer_id=customer, subject_key=each) for each in subjects
            ),
        )
        return Known(record=record_of(definition), metering=metering)

    def balance(self, known: Known, at: datetime) -> Balance:
        (limit,) = limits_at(self.reader, [known], at)
        assert limit.balance is not None
        return limit.balance


def record_of(definition: MeteredEntitlement) -> EntitlementRecord:
    return EntitlementRecord(
        definition=definition,
        namespace="n",
        feature_id="f",
        customer_key=None,
        usage_period=definition.usage_period,
        annotations={},
        updated_at=definition.created_at,
        deleted_at=None,
        supersedes=None,
        version=1,
    )


def figures(balance: Balance) -> tuple[dict[str, Decimal], Decimal, Decimal, Decimal]:
    """By grant, usage, overage, total available."""
    return dict(balance.by_grant), balance.usage, balance.overage, balance.total_available


def expected(
    by_grant: Mapping[str, str | int], usage: str | int, overage: str | int, total: str | int
) -> tuple[dict[str, Decimal], Decimal, Decimal, Decimal]:
    """The same, written short."""
    grants = {name: Decimal(amount) for name, amount in by_grant.items()}
    return grants, Decimal(usage), Decimal(overage), Decimal(total)
