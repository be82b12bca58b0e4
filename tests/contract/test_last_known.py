"""The last known state says what SQL said."""

import itertools

import pytest

from tests.support.control_plane import (
    NS,
    START,
    SteppingClock,
    meter_input,
    renamed,
    subject_inputs,
)
from tollgate.core.errors import NotFound
from tollgate.customers.store import SubjectStore
from tollgate.metering.last_known import LastKnown, decode_last_known, encode_last_known
from tollgate.metering.meter import Meter
from tollgate.metering.store import MeterListing, MeterOrder, MeterStore
from tollgate.platform.sql import Database


def state_of(meters: MeterStore) -> LastKnown:
    found = {meter.id: meter for meter in meters.live_of_all()}
    return LastKnown(meters=found, names={NS: {"ä": "Ä & Söhne"}}, read_at=START)


@pytest.fixture
def furnished(meters: MeterStore) -> MeterStore:
    for slug, name, aggregation in (
        ("b", "Zoë", "SUM"),
        ("a", "zoe", "COUNT"),
        ("c", "Zo\U0001f600", "SUM"),
        ("d", "Zo\uff5e", "COUNT"),
    ):
        value = None if aggregation == "COUNT" else "$.v"
        wanted = meter_input(
            slug,
            name=name,
            aggregation=aggregation,
            valueProperty=value,
            groupBy={"z": "$.z", "a": "$.a"},
            eventFrom="2026-01-01T00:00:00.000001Z",
        )
        meters.create(NS, wanted)
    meters.create("other", meter_input("a", eventType="x"))
    meters.create(NS, meter_input("gone"))
    meters.delete(NS, "gone")
    return meters


def test_it_survives_its_file_digit_for_digit(furnished: MeterStore) -> None:
    state = state_of(furnished)
    content = encode_last_known(state)
    again = decode_last_known(content, START)
    assert again == state
    assert encode_last_known(again) == content
    found = again.find(NS, "a")
    assert found is not None
    assert list(found.group_by) == ["z", "a"]
    with pytest.raises(ValueError, match="meters"):
        decode_last_known(b"{}", START)


def test_it_finds_and_lists_as_sql_does(furnished: MeterStore) -> None:
    state = state_of(furnished)
    every = furnished.live(NS)
    for meter in every:
        for name in (meter.id, meter.id.lower(), meter.slug):
            assert state.find(NS, name) == furnished.get(NS, name) == meter
        assert state.find("other", meter.id) is None
    assert state.find(NS, "gone") is None
    assert state.of_event_types(NS, ["prompt"]) == furnished.live_of_event_types(NS, ["prompt"])
    assert state.of_event_types(NS, ["x"]) == ()
    orders = itertools.product(MeterOrder, MeterOrder, (True, False), (True, False))
    for first, then, descending, then_descending in orders:
        for page, page_size in ((1, 3), (2, 3), (3, 3)):
            listing = MeterListing(
                page=page,
                page_size=page_size,
                order_by=first,
                descending=descending,
                then_by=((then, then_descending),),
            )
            assert state.list(NS, listing) == furnished.list(NS, listing), listing
            assert state.count(NS, listing) == furnished.count(NS, listing) == len(every)
    assert state.list(NS, MeterListing(include_deleted=True)) is None
    assert state.count(NS, MeterListing(include_deleted=True)) is None


def test_every_committed_change_is_told(database: Database, clock: SteppingClock) -> None:
    told: list[Meter] = []
    store = MeterStore(database, clock, told.append)
    made = store.create(NS, meter_input("a"))
    changed = store.update(NS, "a", lambda _: renamed("new"))
    store.update(NS, "a", lambda _: renamed("new"))
    gone = store.delete(NS, "a")
    with pytest.raises(NotFound):
        store.delete(NS, "a")
    assert told == [made, changed, gone]
    state = LastKnown(meters={}, names=None, read_at=START)
    assert state.with_meter(made).find(NS, "a") == made
    assert state.with_meter(made).with_meter(changed).find(NS, "a") == changed
    assert state.with_meter(made).with_meter(gone) == state


def test_display_names_of_all_are_bounded(subjects: SubjectStore) -> None:
    subjects.upsert(
        NS,
        subject_inputs(
            {"key": "a", "displayName": "A"},
            {"key": "b"},
            {"key": "c", "displayName": ""},
            {"key": "d", "displayName": "D"},
        ),
    )
    subjects.upsert("other", subject_inputs({"key": "a", "displayName": "O"}))
    subjects.delete(NS, "d")
    assert sorted(subjects.display_names_of_all(2) or ()) == [(NS, "a", "A"), ("other", "a", "O")]
    assert subjects.display_names_of_all(1) is None
