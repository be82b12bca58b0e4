"""What a subject may be, and that every fault is told at once, with the subject's index."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from tollgate.core.errors import InvalidInput
from tollgate.customers.subject import parse_subjects


def faults(*members: object) -> list[tuple[int | None, str, str]]:
    with pytest.raises(InvalidInput) as caught:
        parse_subjects(members)
    return [(fault.index, fault.field, fault.code) for fault in caught.value.faults]


def test_what_is_given_and_what_is_left_out_are_told_apart() -> None:
    only_key, cleared, whole = parse_subjects(
        [
            {"key": "a", "unknown": 1},
            {"key": "b", "displayName": None, "metadata": None, "currentPeriodEnd": None},
            {
                "key": "c",
                "displayName": "C",
                "stripeCustomerId": "cus",
                "metadata": {"n": 1},
                "currentPeriodStart": "2023-01-01T00:00:00+02:00",
                "currentPeriodEnd": datetime(2023, 1, 1, tzinfo=timezone(timedelta(hours=1))),
            },
        ]
    )
    assert only_key.fields == {}
    assert cleared.fields == {"display_name": None, "metadata": None, "current_period_end": None}
    assert whole.fields == {
        "display_name": "C",
        "stripe_customer_id": "cus",
        "metadata": {"n": 1},
        "current_period_start": datetime(2022, 12, 31, 22, tzinfo=UTC),
        "current_period_end": datetime(2022, 12, 31, 23, tzinfo=UTC),
    }


def test_all_faults_of_all_subjects_are_told_at_once() -> None:
    assert faults(
        {"key": "", "displayName": 1, "metadata": []},
        {"key": "fine"},
        "text",
        {"key": "a", "currentPeriodStart": "soon", "stripeCustomerId": "x" * 1025},
    ) == [
        (0, "key", "empty"),
        (0, "displayName", "not_a_string"),
        (0, "metadata", "not_an_object"),
        (2, "", "not_an_object"),
        (2, "key", "required"),
        (3, "stripeCustomerId", "too_long"),
        (3, "currentPeriodStart", "invalid_time"),
    ]


@pytest.mark.parametrize(
    ("members", "field", "code"),
    [
        ({"key": 1}, "key", "not_a_string"),
        ({"key": "a\nb"}, "key", "forbidden_character"),
        ({"key": "\udc00"}, "key", "forbidden_character"),
        ({"key": "k" * 1025}, "key", "too_long"),
        ({"key": "\u20ac" * 683}, "key", "too_long"),
        ({"key": "a", "displayName": "a\x00"}, "displayName", "forbidden_character"),
        ({"key": "a", "metadata": {"\x00": 1}}, "metadata", "not_storable"),
        ({"key": "a", "metadata": {"x": [{"y": "\ud800"}]}}, "metadata", "not_storable"),
        ({"key": "a", "metadata": {"x": float("inf")}}, "metadata", "not_storable"),
        ({"key": "a", "metadata": {"x": [0] * 1025}}, "metadata", "too_many"),
        (
            {
                "key": "a",
                "currentPeriodStart": "2023-01-01T00:00:00Z",
                "currentPeriodEnd": "2023-01-01T00:00:00Z",
            },
            "currentPeriodEnd",
            "not_after_start",
        ),
    ],
)
def test_one_fault(members: dict[str, object], field: str, code: str) -> None:
    assert faults(members) == [(0, field, code)]


def test_metadata_is_bounded_in_depth() -> None:
    deepest: object = 10**400
    for _ in range(14):
        deepest = [deepest]
    metadata = {"x": deepest}  # the object, 14 lists, the number: 16 levels
    (subject,) = parse_subjects([{"key": "a", "metadata": metadata}])
    assert subject.fields == {"metadata": metadata}
    assert faults({"key": "a", "metadata": {"x": [deepest]}}) == [(0, "metadata", "too_many")]


def test_a_request_is_bounded_in_subjects() -> None:
    parse_subjects([{"key": "a"}] * 1000)
    assert faults(*[{"key": "a"}] * 1001) == [(None, "", "too_many")]
