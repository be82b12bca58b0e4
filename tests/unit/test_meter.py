"""What a meter may be, and that every fault is told at once."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.core.errors import InvalidInput
from tollgate.metering.meter import Aggregation, ManagedBy, Meter, MeterChanges, MeterInput

NOW = datetime(2026, 1, 2, tzinfo=UTC)
TOKENS: dict[str, object] = {
    "slug": "tokens_total",
    "aggregation": "SUM",
    "eventType": "prompt",
    "valueProperty": "$.tokens",
    "groupBy": {"model": "$.model", "type": "$.type"},
}


def stored(raw: dict[str, object]) -> Meter:
    wanted = MeterInput.parse(raw)
    return Meter(
        id="01G65Z755AFWAKHE12NY0CQ9FH",
        namespace="default",
        slug=wanted.slug,
        name=wanted.name,
        description=wanted.description,
        metadata=wanted.metadata,
        annotations={},
        aggregation=wanted.aggregation,
        event_type=wanted.event_type,
        event_from=wanted.event_from,
        value_property=wanted.value_property,
        group_by=wanted.group_by,
        managed_by=ManagedBy.API,
        created_at=NOW,
        updated_at=NOW,
        deleted_at=None,
    )


def faults(raw: dict[str, object]) -> list[tuple[str, str]]:
    with pytest.raises(InvalidInput) as caught:
        MeterInput.parse(raw)
    return [(fault.field, fault.code) for fault in caught.value.faults]


def test_a_whole_meter() -> None:
    raw = TOKENS | {
        "name": "Tokens",
        "description": "",
        "metadata": {"team": "billing"},
        "eventFrom": "2023-01-01T01:01:01.0000019+01:00",
        "unknown": object(),
    }
    assert MeterInput.parse(raw) == MeterInput(
        slug="tokens_total",
        name="Tokens",
        description="",
        metadata={"team": "billing"},
        aggregation=Aggregation.SUM,
        event_type="prompt",
        event_from=datetime(2023, 1, 1, 0, 1, 1, 1, tzinfo=UTC),
        value_property="$.tokens",
        group_by={"model": "$.model", "type": "$.type"},
    )


def test_what_is_left_out_or_null_gets_its_default() -> None:
    raw: dict[str, object] = {"slug": "requests", "aggregation": "COUNT", "eventType": "request"}
    nulls = dict.fromkeys(
        ("name", "description", "metadata", "eventFrom", "valueProperty", "groupBy")
    )
    meter = MeterInput.parse(raw)
    assert meter == MeterInput.parse(raw | nulls)
    assert (meter.name, meter.description, meter.event_from) == ("requests", None, None)
    assert (meter.value_property, dict(meter.group_by), dict(meter.metadata)) == (None, {}, {})


def test_event_from_may_be_a_datetime_of_any_zone() -> None:
    instant = datetime(2023, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    meter = MeterInput.parse(TOKENS | {"eventFrom": instant})
    assert meter.event_from == datetime(2023, 1, 1, tzinfo=UTC)
    assert meter.event_from is not None
    assert meter.event_from.tzinfo is UTC
    assert faults(TOKENS | {"eventFrom": datetime(2023, 1, 1)}) == [("eventFrom", "invalid_time")]  # noqa: DTZ001


def test_all_faults_are_told_at_once() -> None:
    raw: dict[str, object] = {
        "slug": "Tokens-Total",
        "name": 7,
        "description": "d" * 1025,
        "metadata": {"a": 1, "": "x"},
        "aggregation": "MEDIAN",
        "eventFrom": "yesterday",
        "valueProperty": "tokens",
        "groupBy": {"subject": "$.s", "1a": "$.a", "b": "$..b", "c": None, "d": 4},
    }
    assert faults(raw) == [
        ("slug", "invalid_slug"),
        ("aggregation", "unknown_aggregation"),
        ("eventType", "required"),
        ("eventFrom", "invalid_time"),
        ("valueProperty", "invalid_json_path"),
        ("name", "not_a_string"),
        ("description", "too_long"),
        ("metadata.a", "not_a_string"),
        ("metadata.", "empty"),
        ("groupBy.subject", "reserved_dimension"),
        ("groupBy.1a", "invalid_dimension"),
        ("groupBy.b", "invalid_json_path"),
        ("groupBy.c", "required"),
        ("groupBy.d", "not_a_string"),
    ]


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"slug": None}, "slug", "required"),
        ({"slug": ""}, "slug", "empty"),
        ({"slug": "a__b"}, "slug", "invalid_slug"),
        ({"slug": "_a"}, "slug", "invalid_slug"),
        ({"slug": "tokens\n"}, "slug", "invalid_slug"),
        ({"slug": "t\u00f6kens"}, "slug", "invalid_slug"),
        ({"slug": "a" * 65}, "slug", "too_long"),
        ({"name": ""}, "name", "empty"),
        ({"name": "n" * 257}, "name", "too_long"),
        ({"name": "a\x00b"}, "name", "forbidden_character"),
        ({"name": "\ud800"}, "name", "forbidden_character"),
        ({"aggregation": "sum"}, "aggregation", "unknown_aggregation"),
        ({"aggregation": 1}, "aggregation", "not_a_string"),
        ({"eventType": ""}, "eventType", "empty"),
        ({"eventFrom": 12}, "eventFrom", "invalid_time"),
        ({"eventFrom": "2023-01-01T00:00:00"}, "eventFrom", "invalid_time"),
        ({"valueProperty": None}, "valueProperty", "required"),
        ({"valueProperty": 1}, "valueProperty", "not_a_string"),
        ({"valueProperty": "$['a\x00b']"}, "valueProperty", "invalid_json_path"),
        ({"groupBy": ["$.a"]}, "groupBy", "not_an_object"),
        ({"groupBy": {f"d{i}": "$.d" for i in range(65)}}, "groupBy", "too_many"),
        ({"groupBy": {"customer_id": "$.c"}}, "groupBy.customer_id", "reserved_dimension"),
        ({"groupBy": {"": "$.c"}}, "groupBy.", "invalid_dimension"),
        ({"groupBy": {"a\n": "$.c"}}, "groupBy.a\n", "invalid_dimension"),
        ({"groupBy": {"tokens": "$.tokens"}}, "groupBy.tokens", "same_as_value"),
        ({"groupBy": {"tokens": "$['tokens']"}}, "groupBy.tokens", "same_as_value"),
        ({"metadata": {"k": "v" * 4097}}, "metadata.k", "too_long"),
        ({"metadata": {str(i): "" for i in range(65)}}, "metadata", "too_many"),
    ],
)
def test_one_fault(change: dict[str, object], field: str, code: str) -> None:
    assert faults(TOKENS | change) == [(field, code)]


@pytest.mark.parametrize("aggregation", [a for a in Aggregation if a is not Aggregation.COUNT])
def test_every_aggregation_but_count_needs_a_value(aggregation: Aggregation) -> None:
    raw = TOKENS | {"aggregation": aggregation.value}
    assert MeterInput.parse(raw).aggregation is aggregation
    assert faults(raw | {"valueProperty": None}) == [("valueProperty", "required")]


def test_count_ignores_a_value_property_as_the_contract_says() -> None:
    meter = MeterInput.parse(TOKENS | {"aggregation": "COUNT", "valueProperty": "$.tokens"})
    assert meter.value_property is None


def test_64_dimensions_and_the_longest_texts_are_taken() -> None:
    raw = TOKENS | {
        "slug": "a" * 64,
        "name": "\U0001f600" * 256,
        "description": "d" * 1024,
        "groupBy": {f"_d{i}": f"$.d{i}" for i in range(64)},
    }
    meter = MeterInput.parse(raw)
    assert (len(meter.name), len(meter.group_by)) == (256, 64)


def test_an_update_replaces_the_whole_mutable_part() -> None:
    meter = stored(TOKENS | {"name": "Tokens", "metadata": {"a": "b"}})
    assert MeterChanges.parse({"aggregation": "MAX"}, meter) == MeterChanges(
        name="tokens_total", description=None, metadata={}, group_by={}
    )
    changed = MeterChanges.parse({"name": "T", "groupBy": {"user": "$.user"}}, meter)
    assert (changed.name, dict(changed.group_by)) == ("T", {"user": "$.user"})


def test_an_update_cannot_make_the_value_a_dimension() -> None:
    with pytest.raises(InvalidInput) as caught:
        MeterChanges.parse({"name": "", "groupBy": {"t": '$."tokens"'}}, stored(TOKENS))
    assert [(f.field, f.code) for f in caught.value.faults] == [
        ("name", "empty"),
        ("groupBy.t", "same_as_value"),
    ]


def test_differences_that_no_update_may_make_are_told_with_both_values() -> None:
    wanted = MeterInput.parse(
        {
            "slug": "tokens_total",
            "aggregation": "COUNT",
            "eventType": "request",
            "eventFrom": "2023-01-01T00:00:00Z",
        }
    )
    assert stored(TOKENS).immutable_differences(wanted) == {
        "aggregation": ("SUM", "COUNT"),
        "eventType": ("prompt", "request"),
        "eventFrom": ("none", "2023-01-01T00:00:00Z"),
        "valueProperty": ("$.tokens", "none"),
    }


def test_another_spelling_of_the_value_or_another_name_is_no_such_difference() -> None:
    wanted = MeterInput.parse(TOKENS | {"valueProperty": "$['tokens']", "name": "x", "groupBy": {}})
    assert stored(TOKENS).immutable_differences(wanted) == {}


def test_paths_are_given_parsed() -> None:
    meter = stored(TOKENS | {"groupBy": {"model": "$.llm.models[0]"}})
    value = meter.value_path()
    assert value is not None
    assert value.segments == ("tokens",)
    assert meter.dimension_paths()["model"].segments == ("llm", "models", 0)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from([*TOKENS, "name", "description", "metadata", "eventFrom"]),
        _json | st.sampled_from(["SUM", "COUNT", "$.a", "a_b", "2023-01-01T00:00:00Z"]),
    )
)
def test_any_json_gives_a_meter_or_faults_that_can_be_sent(raw: dict[str, object]) -> None:
    try:
        meter = MeterInput.parse(raw)
    except InvalidInput as invalid:
        told = [f"{fault.field}{fault.message}".encode() for fault in invalid.faults]
        if not told:
            pytest.fail("refused without a fault")
    else:
        assert meter.slug == raw["slug"]
        assert (meter.value_property is None) == (meter.aggregation is Aggregation.COUNT)
