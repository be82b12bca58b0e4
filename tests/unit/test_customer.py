"""What a customer may be, and whose usage is whose in time."""

from datetime import UTC, datetime

import pytest

from tollgate.core.errors import InvalidInput
from tollgate.customers.attribution import Attribution, Origin, origins, owner_at
from tollgate.customers.customer import parse_customer, v3_name


def at(day: int) -> datetime:
    return datetime(2026, 3, day, tzinfo=UTC)


def test_a_customer_is_read_whole() -> None:
    found = parse_customer(
        {
            "key": "acme",
            "name": "ACME Inc.",
            "description": "",
            "metadata": {"crm": "17"},
            "usageAttribution": {"subjectKeys": ["b", "a", "b"]},
            "primaryEmail": "a@example.com",
            "currency": "EUR",
            "billingAddress": {"country": "DE", "postalCode": "10115", "line2": None, "more": 1},
        }
    )
    assert found.subject_keys == ("b", "a")
    assert found.billing_address == {"country": "DE", "postal_code": "10115"}
    assert (found.currency, found.primary_email) == ("EUR", "a@example.com")


@pytest.mark.parametrize(
    ("members", "fields"),
    [
        ({}, ["name"]),
        ({"name": "x"}, ["key"]),
        ({"name": "x", "usageAttribution": {"subjectKeys": []}}, ["key"]),
        ({"name": "x", "usageAttribution": {}}, ["usageAttribution.subjectKeys"]),
        ({"name": "x", "usageAttribution": 1}, ["usageAttribution"]),
        ({"name": "", "key": "k" * 257}, ["key", "name"]),
        ({"name": "x", "key": "a\nb"}, ["key"]),
        (
            {"name": "x", "usageAttribution": {"subjectKeys": ["a", "", 5, "\x00"]}},
            [f"usageAttribution.subjectKeys.{number}" for number in (1, 2, 3)],
        ),
        (
            {"name": "x", "key": "k", "currency": "eur", "billingAddress": {"country": "DEU"}},
            ["currency", "billingAddress.country"],
        ),
        ({"name": "x", "key": "k", "metadata": {"a": 1}}, ["metadata.a"]),
        ({"name": "x", "key": "k", "primaryEmail": "\ud800"}, ["primaryEmail"]),
    ],
)
def test_every_fault_is_named(members: dict[str, object], fields: list[str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_customer(members)
    assert [fault.field for fault in caught.value.faults] == fields


def test_faults_are_spelled_as_the_wire_spells() -> None:
    raw = {"name": "x", "usage_attribution": {"subject_keys": [""]}, "billing_address": []}
    with pytest.raises(InvalidInput) as caught:
        parse_customer(raw, v3_name)
    named = [fault.field for fault in caught.value.faults]
    assert named == ["usage_attribution.subject_keys.0", "billing_address"]


def test_a_customer_s_key_and_id_are_subjects_too() -> None:
    assert origins("ID", "acme", ["b", "acme"]) == {
        "b": Origin.SUBJECT,
        "acme": Origin.SUBJECT,
        "ID": Origin.ID,
    }
    assert origins("ID", "acme", [])["acme"] is Origin.KEY


def test_an_instant_belongs_to_the_later_of_two() -> None:
    rows = (
        Attribution(customer_id="A", subject_key="s", ends_at=at(2)),
        Attribution(customer_id="B", subject_key="s", begins_at=at(2), ends_at=at(4)),
        Attribution(customer_id="C", subject_key="s", begins_at=at(5)),
    )
    days = {1: "A", 2: "B", 3: "B", 4: None, 5: "C"}
    assert {day: owner_at(rows, "s", at(day)) for day in days} == days
    assert owner_at(rows, "t", at(1)) is None
