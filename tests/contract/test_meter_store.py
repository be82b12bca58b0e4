"""Meters in SQL: one life of a meter."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.control_plane import NS, START, meter_input, renamed
from tollgate.core.errors import (
    Conflict,
    NotFound,
)
from tollgate.metering.meter import Aggregation, ManagedBy, Meter, MeterChanges
from tollgate.metering.store import MeterListing, MeterStore


def test_a_meter_comes_back_as_it_was_created(meters: MeterStore) -> None:
    wanted = meter_input(
        name="T\u00f6kens \U0001f600",
        description="d",
        metadata={"b": "1", "a": ""},
        eventFrom="2023-01-01T00:00:00.000001Z",
        groupBy={"type": "$.type", "model": "$.model"},
    )
    created = meters.create(NS, wanted)
    assert created == meters.get(NS, created.id) == meters.get(NS, "tokens_total")
    assert created == meters.get(NS, created.id.lower()) == meters.get_by_id(NS, created.id)
    assert created == Meter(
        id=created.id,
        namespace=NS,
        slug="tokens_total",
        name="T\u00f6kens \U0001f600",
        description="d",
        metadata={"b": "1", "a": ""},
        annotations={},
        aggregation=Aggregation.SUM,
        event_type="prompt",
        event_from=datetime(2023, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        value_property="$.tokens",
        group_by={"type": "$.type", "model": "$.model"},
        managed_by=ManagedBy.API,
        created_at=START + timedelta(microseconds=1),
        updated_at=START + timedelta(microseconds=1),
        deleted_at=None,
    )
    assert list(meters.get(NS, created.id).group_by) == ["type", "model"]


def test_a_slug_is_taken_once_until_its_meter_is_deleted(meters: MeterStore) -> None:
    first = meters.create(NS, meter_input())
    with pytest.raises(Conflict, match="tokens_total"):
        meters.create(NS, meter_input(aggregation="MAX"))
    deleted = meters.delete(NS, "tokens_total")
    assert deleted.deleted_at == deleted.updated_at == START + timedelta(microseconds=3)
    for name in ("tokens_total", first.id):
        with pytest.raises(NotFound):
            meters.get(NS, name)
        with pytest.raises(NotFound):
            meters.delete(NS, name)
    second = meters.create(NS, meter_input(aggregation="MAX"))
    meters.delete(NS, second.id)
    third = meters.create(NS, meter_input())
    assert meters.live(NS) == (third,)
    assert [m.id for m in meters.list(NS, MeterListing(include_deleted=True))] == [
        first.id,
        second.id,
        third.id,
    ]


def test_an_id_wins_over_a_slug_that_looks_like_it(meters: MeterStore) -> None:
    first = meters.create(NS, meter_input())
    twin = meters.create(NS, meter_input(slug=first.id.lower()))
    assert meters.get(NS, first.id.lower()) == first
    meters.delete(NS, first.id)
    assert meters.get(NS, twin.slug) == twin
    with pytest.raises(NotFound):
        meters.get_by_id(NS, twin.slug)


def test_an_update_replaces_the_mutable_part_only_where_it_differs(meters: MeterStore) -> None:
    before = meters.create(NS, meter_input(groupBy={"a": "$.a", "b": "$.b"}))
    changes = MeterChanges(
        name="Tokens", description="d", metadata={"k": "v"}, group_by={"b": "$.b", "a": "$.a"}
    )
    after = meters.update(NS, "tokens_total", lambda _stored: changes)
    assert (after.name, after.description, dict(after.metadata)) == ("Tokens", "d", {"k": "v"})
    assert list(after.group_by) == ["b", "a"]
    assert after.updated_at > before.updated_at
    assert after.created_at == before.created_at
    assert meters.update(NS, after.id, lambda _stored: changes) == after
    assert meters.get(NS, after.id) == after
    taken_over = meters.update(NS, after.id, lambda _stored: changes, ManagedBy.FILE)
    assert taken_over.managed_by is ManagedBy.FILE


def test_updates_at_once_each_see_the_other(meters: MeterStore) -> None:
    meter = meters.create(NS, meter_input(name="n"))
    barrier = threading.Barrier(4)

    def append() -> None:
        barrier.wait()
        for _ in range(5):
            meters.update(NS, meter.id, lambda stored: renamed(stored.name + "n"))

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(append) for _ in range(4)]:
            future.result()
    assert meters.get(NS, meter.id).name == "n" * 21


def test_of_creations_at_once_one_wins(meters: MeterStore) -> None:
    def create() -> bool:
        try:
            meters.create(NS, meter_input())
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        outcomes = [future.result() for future in [pool.submit(create) for _ in range(8)]]
    assert sorted(outcomes) == [False] * 7 + [True]
