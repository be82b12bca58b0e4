"""Features in SQL."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import partial
from threading import Barrier
from typing import Any

import pytest

from tests.support.control_plane import NS, SteppingClock, meter_input
from tollgate.core.errors import Conflict, Gone, InvalidInput, NotFound, TollgateError
from tollgate.core.ids import new_ulid
from tollgate.limits.feature import Feature, FeatureInput, FeatureMeter, parse_feature
from tollgate.limits.feature_store import FeatureField, FeatureListing, FeatureOrder, FeatureStore
from tollgate.limits.unit_cost import LlmUnitCost, ManualUnitCost
from tollgate.metering.meter import Meter, MeterChanges
from tollgate.metering.store import MeterStore
from tollgate.platform.filters import Comparison, Membership, Operator, contains
from tollgate.platform.sql import Database

DIMENSIONS = {"model": "$.model", "kind": "$.kind", "vendor": "$.vendor"}
LLM = LlmUnitCost(
    provider=None,
    provider_property="vendor",
    model="gpt-4",
    model_property=None,
    token_type="input",
    token_type_property=None,
)


@pytest.fixture
def features(database: Database, clock: SteppingClock) -> FeatureStore:
    return FeatureStore(database, clock)


@pytest.fixture
def meter(meters: MeterStore) -> Meter:
    return meters.create(NS, meter_input(groupBy=DIMENSIONS))


def wanted(key: str = "tokens", **members: Any) -> FeatureInput:
    return parse_feature({"key": key, "name": key} | members)


def metered(key: str = "tokens", **members: Any) -> FeatureInput:
    return wanted(key, meterSlug="tokens_total", **members)


def changed(meter: Meter, *gone: str, **members: Any) -> MeterChanges:
    kept = {name: path for name, path in meter.group_by.items() if name not in gone}
    parts = {"name": "n", "description": None, "metadata": {}, "group_by": kept}
    return MeterChanges(**parts | members)


def test_a_feature_is_made_and_read_by_id_and_key(features: FeatureStore, meter: Meter) -> None:
    asked = metered(
        meterGroupByFilters={"kind": "input"},
        advancedMeterGroupByFilters={"model": {"$in": ["a", "b"], "$ne": None}},
        unitCost={"type": "manual", "amount": "0.00000000000000005"},
        metadata={"crm": "1"},
        description="d",
    )
    made = features.create(NS, asked)
    assert features.get(NS, "tokens") == features.get(NS, made.id.lower()) == made
    assert features.get_live(NS, made.id) == features.get_by_id(NS, made.id) == made
    assert features.by_keys(NS, ["tokens", "none"]) == {"tokens": made}
    assert features.by_ids(NS, [made.id, new_ulid()]) == {made.id: made}
    assert made.meter == FeatureMeter(id=meter.id, slug="tokens_total")
    assert made.filters == {
        "kind": Comparison(operator=Operator.EQUAL, value="input"),
        "model": Membership(values=("a", "b"), negated=False),
    }
    assert made.conditions["model"].sent == {"$in": ["a", "b"]}
    assert made.unit_cost == ManualUnitCost(amount=Decimal("0.00000000000000005"))
    assert (made.description, dict(made.metadata)) == ("d", {"crm": "1"})
    assert (made.created_at, made.archived_at) == (made.updated_at, None)
    for name in (made.id, "tokens"):
        for refused in (features.get, features.get_live, features.archive):
            with pytest.raises(NotFound):
                refused("other", name)
    assert features.by_keys("other", ["tokens"]) == features.by_ids("other", [made.id]) == {}


def test_a_key_has_one_feature_until_it_is_archived(features: FeatureStore) -> None:
    first = features.create(NS, wanted())
    with pytest.raises(Conflict, match=f"the key tokens already: {first.id}"):
        features.create(NS, wanted())
    features.create("other", wanted())
    gone = features.archive(NS, "tokens")
    assert gone.archived_at == gone.updated_at
    assert gone.archived_at is not None
    assert gone.archived_at > first.created_at
    second = features.create(NS, wanted())
    assert features.get(NS, "tokens") == second
    assert features.get(NS, first.id) == gone
    assert features.by_keys(NS, ["tokens"]) == {"tokens": second}
    assert features.by_ids(NS, [first.id]) == {first.id: gone}
    for refused in (features.get_live, features.archive):
        with pytest.raises(NotFound):
            refused(NS, first.id)
    with pytest.raises(NotFound):
        features.update(NS, first.id, lambda _: None)
    with pytest.raises(Gone):
        features.get_by_id(NS, first.id)
    with pytest.raises(NotFound):
        features.get_by_id(NS, new_ulid())


def test_a_feature_needs_a_meter_that_is_there_and_fits(
    features: FeatureStore, meters: MeterStore, meter: Meter
) -> None:
    meters.create(NS, meter_input("mean", aggregation="AVG"))
    llm = {"type": "llm", "providerProperty": "size", "model": "m", "tokenType": "input"}
    for asked, field in (
        (wanted(meterSlug="none"), "meterSlug"),
        (wanted(meterSlug="mean"), "meterSlug"),
        (metered(meterGroupByFilters={"size": "1"}), "meterGroupByFilters.size"),
        (metered(unitCost=llm), "unitCost.providerProperty"),
        (wanted(unitCost=llm), "unitCost.type"),
    ):
        with pytest.raises(InvalidInput) as refused:
            features.create(NS, asked)
        assert [fault.field for fault in refused.value.faults] == [field]
    with pytest.raises(InvalidInput):
        features.create("other", metered())
    assert features.list(NS, FeatureListing(include_archived=True)) == ((), 0)


def test_the_unit_cost_may_change(features: FeatureStore, meter: Meter) -> None:
    made = features.create(NS, metered(unitCost={"type": "manual", "amount": "1.50"}))
    assert features.update(NS, made.id, lambda stored: stored.unit_cost) == made
    priced = features.update(NS, made.id.lower(), lambda _: LLM)
    assert priced.unit_cost == LLM
    assert priced.updated_at > made.updated_at
    assert features.get(NS, made.id) == priced
    assert features.update(NS, made.id, lambda _: None).unit_cost is None
    static = features.create(NS, wanted("static"))
    with pytest.raises(InvalidInput):
        features.update(NS, static.id, lambda _: LLM)


def test_a_meter_stays_while_a_feature_counts_by_it(
    features: FeatureStore, meters: MeterStore, meter: Meter
) -> None:
    first = features.create(NS, metered(meterGroupByFilters={"kind": "x"}))
    with pytest.raises(Conflict, match="in use by features: tokens; archive"):
        meters.delete(NS, meter.id)
    with pytest.raises(
        Conflict, match="kind of the meter tokens_total is in use by the feature tokens"
    ):
        meters.update(NS, meter.id, lambda stored: changed(stored, "kind"))
    features.update(NS, first.id, lambda _: LLM)
    with pytest.raises(Conflict, match="dimension vendor"):
        meters.update(NS, meter.id, lambda stored: changed(stored, "vendor"))
    assert meters.get(NS, meter.id) == meter
    assert "model" not in meters.update(NS, meter.id, lambda m: changed(m, "model")).group_by
    features.archive(NS, first.id)
    meters.update(NS, meter.id, lambda stored: changed(stored, "kind", "vendor"))
    meters.delete(NS, meter.id)
    kept = features.get(NS, first.id)
    assert kept.meter == first.meter
    assert kept.filters == first.filters


def test_lists_are_filtered_ordered_and_paged(
    features: FeatureStore, meters: MeterStore, meter: Meter
) -> None:
    second = meters.create(NS, meter_input("second"))
    made = [
        features.create(NS, each)
        for each in (
            metered("d", name="N1"),
            wanted("c", name="N0"),
            wanted("b", name="N1", meterSlug="second"),
            wanted("a", name="n0"),
        )
    ]
    features.archive(NS, "c")

    def listed(**more: Any) -> list[int]:
        found, total = features.list(NS, FeatureListing(**more))
        assert total == len(found)
        ids = [each.id for each in made]
        return [ids.index(each.id) for each in found]

    by_key = ((FeatureOrder.KEY, False),)
    assert listed() == [0, 2, 3]
    assert listed(include_archived=True, orders=by_key) == [3, 2, 1, 0]
    assert listed(orders=((FeatureOrder.NAME, True), (FeatureOrder.KEY, False))) == [3, 2, 0]
    assert listed(meter_slugs=("second", "tokens_total")) == [0, 2]
    assert listed(filters=((FeatureField.NAME, contains("N1")),)) == [0, 2]
    of_second = Comparison(operator=Operator.EQUAL, value=second.id)
    others = Comparison(operator=Operator.NOT_EQUAL, value=second.id)
    assert listed(filters=((FeatureField.METER_ID, of_second),)) == [2]
    assert listed(filters=((FeatureField.METER_ID, others),)) == [0, 3]
    page, total = features.list(NS, FeatureListing(orders=by_key, skipped=1, count_max=1))
    assert ([each.key for each in page], total) == (["b"], 3)


def race(*claims: Callable[[], object]) -> list[object]:
    """Runs them at once; results, or what they were refused by."""
    barrier = Barrier(len(claims))

    def run(claim: Callable[[], object]) -> object:
        barrier.wait()
        try:
            return claim()
        except TollgateError as refusal:
            return refusal

    with ThreadPoolExecutor(len(claims)) as pool:
        return list(pool.map(run, claims))


def test_of_two_that_claim_one_key_at_once_one_wins(features: FeatureStore) -> None:
    for number in range(10):
        ended = race(*[partial(features.create, NS, wanted(f"key_{number}"))] * 4)
        assert sorted(type(each).__name__ for each in ended) == ["Conflict"] * 3 + ["Feature"]


def test_a_meter_is_not_deleted_under_a_feature_that_is_made(
    features: FeatureStore, meters: MeterStore
) -> None:
    for number in range(10):
        slug = f"meter_{number}"
        meters.create(NS, meter_input(slug))
        asked = wanted(f"key_{number}", meterSlug=slug)
        feature, deletion = race(
            partial(features.create, NS, asked), partial(meters.delete, NS, slug)
        )
        if isinstance(feature, Feature):
            assert isinstance(deletion, Conflict)
            assert meters.get(NS, slug).slug == slug
        else:
            assert isinstance(feature, InvalidInput)
            assert isinstance(deletion, Meter)
