"""Features as a person describes them: what is read, and what is refused."""

from decimal import Decimal
from typing import Any

import pytest

from tests.support.control_plane import START, meter_input
from tollgate.core.errors import InvalidInput
from tollgate.core.ids import new_ulid
from tollgate.limits.dimension_filter import (
    filter_from_stored,
    filter_from_v1,
    filter_from_v3,
    stored_from_filter,
)
from tollgate.limits.feature import FeatureInput, check_meter, dimensions_of, parse_feature
from tollgate.limits.unit_cost import LlmUnitCost, ManualUnitCost, members_from_unit_cost
from tollgate.metering.meter import Aggregation, ManagedBy, Meter

PLAIN = {"key": "tokens", "name": "Tokens"}
LLM = {"type": "llm", "provider": "openai", "modelProperty": "model", "tokenType": "input"}


def parsed(**members: Any) -> FeatureInput:
    return parse_feature(PLAIN | members)


def faults(**members: Any) -> dict[str, str]:
    """Codes by field."""
    with pytest.raises(InvalidInput) as refused:
        parsed(**members)
    return {fault.field: fault.code for fault in refused.value.faults}


def stored_meter(aggregation: Aggregation, *dimensions: str) -> Meter:
    asked = meter_input(groupBy={name: f"$.{name}" for name in dimensions})
    return Meter(
        id=new_ulid(),
        namespace="acme",
        slug=asked.slug,
        name=asked.name,
        description=None,
        metadata={},
        annotations={},
        aggregation=aggregation,
        event_type=asked.event_type,
        event_from=None,
        value_property=asked.value_property,
        group_by=asked.group_by,
        managed_by=ManagedBy.API,
        created_at=START,
        updated_at=START,
        deleted_at=None,
    )


def test_a_plain_feature_is_read() -> None:
    assert parse_feature(PLAIN | {"meterSlug": None, "unitCost": None, "more": 1}) == FeatureInput(
        key="tokens",
        name="Tokens",
        description=None,
        metadata={},
        meter_slug=None,
        conditions={},
        unit_cost=None,
    )


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"key": None, "name": None}, {"key": "required", "name": "required"}),
        ({"key": "", "name": ""}, {"key": "empty", "name": "empty"}),
        ({"key": "a" * 64, "name": 1}, {"name": "not_a_string"}),
        ({"key": "a" * 65, "name": "n" * 257}, {"key": "too_long", "name": "too_long"}),
        ({"key": "Tokens"}, {"key": "invalid_slug"}),
        ({"key": "tokens__used"}, {"key": "invalid_slug"}),
        ({"key": "tokens\n"}, {"key": "invalid_slug"}),
        ({"key": "01arz3ndektsv4rrffq69g5fav"}, {"key": "looks_like_id"}),
        ({"name": "a\0"}, {"name": "forbidden_character"}),
        ({"metadata": []}, {"metadata": "not_an_object"}),
        ({"metadata": {"a": 1, "": "b"}}, {"metadata.a": "not_a_string", "metadata.": "empty"}),
        ({"meterSlug": 7}, {"meterSlug": "not_a_string"}),
        ({"meterGroupByFilters": "a"}, {"meterGroupByFilters": "not_an_object"}),
        ({"meterGroupByFilters": {"a": None}}, {"meterGroupByFilters.a": "not_a_string"}),
        (
            {"advancedMeterGroupByFilters": {"a": {"$eq": 1, "$is": "b"}}},
            {
                "advancedMeterGroupByFilters.a.$eq": "wrong_type",
                "advancedMeterGroupByFilters.a.$is": "unknown_operator",
            },
        ),
        (
            {"meterGroupByFilters": {"a": "1"}, "advancedMeterGroupByFilters": {"a": {"$ne": "1"}}},
            {"advancedMeterGroupByFilters.a": "conflicting"},
        ),
        (
            {"meterGroupByFilters": {f"d{n}": "x" for n in range(11)}},
            {"meterGroupByFilters": "too_many"},
        ),
        (
            {
                "meterGroupByFilters": {f"d{n}": "x" for n in range(6)},
                "advancedMeterGroupByFilters": {f"e{n}": {"$eq": "x"} for n in range(5)},
            },
            {"advancedMeterGroupByFilters": "too_many"},
        ),
        ({"unitCost": "1"}, {"unitCost": "not_an_object"}),
        ({"unitCost": {"amount": "1"}}, {"unitCost.type": "unknown_type"}),
        ({"unitCost": {"type": "manual"}}, {"unitCost.amount": "required"}),
        ({"unitCost": {"type": "manual", "amount": 0.5}}, {"unitCost.amount": "not_a_string"}),
        (
            {"unitCost": {"type": "manual", "amount": "1e3"}},
            {"unitCost.amount": "string_pattern_mismatch"},
        ),
        ({"unitCost": {"type": "manual", "amount": "-0.1"}}, {"unitCost.amount": "negative"}),
        (
            {"unitCost": {"type": "manual", "amount": "0." + "1" * 19}},
            {"unitCost.amount": "too_many_digits"},
        ),
        (
            {"unitCost": {"type": "llm", "provider": "a", "providerProperty": "b", "model": ""}},
            {
                "unitCost.provider": "conflicting",
                "unitCost.model": "empty",
                "unitCost.tokenType": "required",
            },
        ),
        ({"unitCost": LLM | {"tokenType": "words"}}, {"unitCost.tokenType": "unknown_token_type"}),
    ],
)
def test_every_fault_is_found(members: dict[str, Any], expected: dict[str, str]) -> None:
    assert faults(**members) == expected


@pytest.mark.parametrize(
    ("sent", "amount", "shown"),
    [
        ("0.005", "0.005", "0.005"),
        ("1.50", "1.50", "1.50"),
        ("007", "7", "7"),
        ("-0", "0", "0"),
        ("0.000000000000000001", "0.000000000000000001", "0.000000000000000001"),
        ("9" * 20, "9" * 20, "9" * 20),
    ],
)
def test_an_amount_keeps_its_digits(sent: str, amount: str, shown: str) -> None:
    cost = parsed(unitCost={"type": "manual", "amount": sent}).unit_cost
    assert cost == ManualUnitCost(amount=Decimal(amount))
    assert members_from_unit_cost(cost) == {"type": "manual", "amount": shown}


def test_a_price_of_tokens_is_read_and_written() -> None:
    cost = parsed(unitCost=LLM | {"pricing": {"inputPerToken": "1"}}).unit_cost
    assert isinstance(cost, LlmUnitCost)
    assert cost.dimensions() == {"modelProperty": "model"}
    assert members_from_unit_cost(cost) == LLM
    assert dimensions_of({}, cost) == ["model"]


def test_both_kinds_of_filters_may_say_the_same() -> None:
    found = parsed(
        meterGroupByFilters={"a": "1", "b": "2"},
        advancedMeterGroupByFilters={"a": {"$eq": "1"}, "c": {"$ne": None}},
    )
    assert list(found.conditions) == ["a", "b", "c"]
    assert [each.equal_to() for each in found.conditions.values()] == ["1", "2", None]
    assert found.simple == {"b"}


@pytest.mark.parametrize(
    ("aggregation", "refused"),
    [
        (Aggregation.SUM, False),
        (Aggregation.COUNT, False),
        (Aggregation.UNIQUE_COUNT, False),
        (Aggregation.LATEST, False),
        (Aggregation.MAX, False),
        (Aggregation.MIN, True),
        (Aggregation.AVG, True),
    ],
)
def test_what_a_meter_counts_must_be_something_that_can_be_limited(
    aggregation: Aggregation, refused: bool
) -> None:
    asked = parsed(meterSlug="tokens_total")
    if not refused:
        check_meter(asked, stored_meter(aggregation))
        return
    with pytest.raises(InvalidInput, match="more usage does not raise it") as found:
        check_meter(asked, stored_meter(aggregation))
    assert [fault.field for fault in found.value.faults] == ["meterSlug"]


def test_every_dimension_that_a_meter_lacks_is_named() -> None:
    asked = parsed(
        meterSlug="tokens_total",
        meterGroupByFilters={"model": "a", "size": "b"},
        advancedMeterGroupByFilters={"colour": {"$eq": "c"}},
        unitCost={"type": "llm", "providerProperty": "p", "model": "m", "tokenTypeProperty": "t"},
    )
    for meter, code in ((stored_meter(Aggregation.SUM, "model"), "unknown_dimension"), (None, "")):
        with pytest.raises(InvalidInput) as found:
            check_meter(asked, meter)
        fields = {fault.field: fault.code for fault in found.value.faults}
        lacking = ["meterGroupByFilters.size", "advancedMeterGroupByFilters.colour"]
        if meter is None:
            assert fields == dict.fromkeys(
                ["meterGroupByFilters.model", *lacking, "unitCost.type"], "meter_required"
            )
        else:
            costs = ["unitCost.providerProperty", "unitCost.tokenTypeProperty"]
            assert fields == dict.fromkeys([*lacking, *costs], code)
            assert "it has: model" in found.value.detail
    check_meter(asked, stored_meter(Aggregation.SUM, "model", "size", "colour", "p", "t"))


@pytest.mark.parametrize(
    ("v1", "v3"),
    [
        ({"$eq": "a"}, {"eq": "a"}),
        ({"$ne": "a"}, {"neq": "a"}),
        ({"$in": ["a", "b"]}, {"in": ["a", "b"]}),
        ({"$nin": ["a"]}, {"nin": ["a"]}),
        ({"$ilike": "%50\\%\\_\\\\%"}, {"contains": "50%_\\"}),
        ({"$nilike": "%a%"}, {"ncontains": "a"}),
        (
            {"$and": [{"$ne": "a"}, {"$or": [{"$eq": "b"}]}]},
            {"and": [{"neq": "a"}, {"or": [{"eq": "b"}]}]},
        ),
        ({}, {}),
    ],
)
def test_a_filter_is_written_in_both_versions(v1: dict[str, Any], v3: dict[str, Any]) -> None:
    one, three = filter_from_v1(v1, "x"), filter_from_v3(v3, "x")
    assert one.asked == three.asked
    assert (one.in_v1(), one.in_v3()) == (v1, v3)
    assert (three.in_v1(), three.in_v3()) == (v1, v3)
    for each in (one, three):
        assert filter_from_stored(stored_from_filter(each)) == each


@pytest.mark.parametrize(
    "sent",
    [
        {"$gt": "a"},
        {"$like": "%a%"},
        {"$ilike": "a%"},
        {"$ilike": "%a_b%"},
        {"$in": []},
        {"$or": []},
        {"$in": [str(n) for n in range(101)]},
        {"$and": [{"$eq": "a"}] * 11},
        {"$or": [{"$eq": "a"}, {"$lt": "b"}]},
    ],
)
def test_v3_has_no_words_for_some_filters_of_v1(sent: dict[str, Any]) -> None:
    assert filter_from_v1(sent, "x").in_v3() is None


def test_v1_has_no_words_for_presence() -> None:
    found = filter_from_v3({"exists": True}, "x")
    assert (found.in_v1(), found.in_v3()) == (None, {"exists": True})


def test_nulls_of_v1_are_not_given_back() -> None:
    found = filter_from_v1({"$eq": "a", "$ne": None, "$and": [{"$eq": "a", "$in": None}]}, "x")
    assert found.sent == {"$eq": "a", "$and": [{"$eq": "a"}]}
