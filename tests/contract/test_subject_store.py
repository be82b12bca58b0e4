"""Subjects in SQL."""

from datetime import UTC, datetime

import pytest

from tests.support.control_plane import NS, subject_inputs
from tollgate.core.errors import (
    InvalidInput,
    NotFound,
)
from tollgate.customers.store import SubjectStore
from tollgate.customers.subject import SubjectInput
from tollgate.platform.sql import Database


def test_an_upsert_touches_only_what_is_given(subjects: SubjectStore) -> None:
    (created,) = subjects.upsert(
        NS,
        subject_inputs(
            {
                "key": "customer-1",
                "displayName": "One",
                "metadata": {"hubspotId": "1", "deep": {"list": [1, 1.5, None, True]}},
                "stripeCustomerId": "cus_1",
                "currentPeriodStart": "2023-01-01T00:00:00Z",
                "currentPeriodEnd": "2023-02-01T00:00:00Z",
            }
        ),
    )
    assert created == subjects.get(NS, "customer-1") == subjects.get(NS, created.id.lower())
    assert created.metadata == {"hubspotId": "1", "deep": {"list": [1, 1.5, None, True]}}
    assert created.current_period_end == datetime(2023, 2, 1, tzinfo=UTC)

    (same,) = subjects.upsert(NS, subject_inputs({"key": "customer-1", "displayName": "One"}))
    assert same == created
    (changed,) = subjects.upsert(
        NS, subject_inputs({"key": "customer-1", "displayName": None, "metadata": {}})
    )
    assert changed.updated_at > created.updated_at
    assert (changed.id, changed.created_at) == (created.id, created.created_at)
    assert (changed.display_name, changed.metadata) == (None, {})
    assert changed.stripe_customer_id == "cus_1"
    assert changed.current_period_start == created.current_period_start


def test_json_values_that_python_takes_for_equal_are_a_change(subjects: SubjectStore) -> None:
    subjects.upsert(NS, subject_inputs({"key": "a", "metadata": {"v": 1}}))
    (changed,) = subjects.upsert(NS, subject_inputs({"key": "a", "metadata": {"v": True}}))
    assert changed.metadata is not None
    assert changed.metadata["v"] is True


def test_subjects_of_one_request_are_taken_in_order_and_all_or_none(
    subjects: SubjectStore, database: Database
) -> None:
    first, second, again = subjects.upsert(
        NS, subject_inputs({"key": "a"}, {"key": "b"}, {"key": "a", "displayName": "A"})
    )
    assert (again.id, again.display_name) == (first.id, "A")
    assert subjects.list(NS) == (again, second)
    assert subjects.list(NS, keys=["b", "none", "b"]) == (second,)
    assert subjects.list(NS, keys=[]) == ()
    bad = SubjectInput(key="\ud800", fields={})
    with pytest.raises(InvalidInput):
        subjects.upsert(NS, [*subject_inputs({"key": "c"}), bad])
    assert subjects.list(NS) == (again, second)


def test_a_deleted_subject_is_gone_and_its_key_free(subjects: SubjectStore) -> None:
    (first,) = subjects.upsert(NS, subject_inputs({"key": "a", "displayName": "A"}))
    assert subjects.delete(NS, "a").deleted_at is not None
    for name in ("a", first.id):
        with pytest.raises(NotFound):
            subjects.get(NS, name)
        with pytest.raises(NotFound):
            subjects.delete(NS, name)
    (second,) = subjects.upsert(NS, subject_inputs({"key": "a"}))
    assert second.id != first.id
    assert second.display_name is None
    assert subjects.list(NS) == (second,)


def test_an_id_wins_over_a_key_that_looks_like_it(subjects: SubjectStore) -> None:
    (first,) = subjects.upsert(NS, subject_inputs({"key": "a"}))
    (twin,) = subjects.upsert(NS, subject_inputs({"key": first.id}))
    assert subjects.get(NS, first.id) == first
    subjects.delete(NS, first.id)
    assert subjects.get(NS, first.id) == twin


def test_the_longest_key_can_be_stored(subjects: SubjectStore) -> None:
    longest = "\u00e9" * 1024
    (subject,) = subjects.upsert(NS, subject_inputs({"key": longest}))
    assert subjects.get(NS, longest) == subject
