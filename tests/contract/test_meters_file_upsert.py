"""A meters file made true in the store."""

import logging
from pathlib import Path

import pytest

from tests.support.control_plane import (
    NS,
    SteppingClock,
    meter_input,
    renamed,
)
from tollgate.core.errors import (
    InvalidInput,
)
from tollgate.limits.feature import parse_feature
from tollgate.limits.feature_store import FeatureStore
from tollgate.metering.meter import ManagedBy, MeterInput
from tollgate.metering.meters_file import FileMeter, read_meters, upsert
from tollgate.metering.store import MeterStore
from tollgate.platform.sql import Database


def file_meters(path: Path, content: str) -> tuple[FileMeter, ...]:
    path.write_text(content)
    return read_meters(path)


FILE = """\
meters:
  - {slug: tokens, name: Tokens, eventType: prompt, aggregation: SUM, valueProperty: $.tokens}
  - {slug: requests, eventType: request, aggregation: COUNT, groupBy: {route: $.route}}
"""


def test_the_file_is_the_whole_definition_of_its_meters(
    meters: MeterStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "meters.yaml"
    meters.create(NS, meter_input("by_api"))
    first = upsert(meters, NS, file_meters(path, FILE))
    assert (first.created, first.updated, first.left_alone) == (("tokens", "requests"), (), ())
    tokens = meters.get(NS, "tokens")
    assert (tokens.name, tokens.managed_by) == ("Tokens", ManagedBy.FILE)

    assert upsert(meters, NS, file_meters(path, FILE)).unchanged == ("tokens", "requests")
    assert meters.get(NS, "tokens") == tokens

    meters.update(NS, "requests", lambda _stored: renamed("by hand"))
    caplog.set_level(logging.INFO)
    second = upsert(
        meters,
        NS,
        file_meters(
            path,
            "meters: [{slug: requests, eventType: request, aggregation: COUNT, description: d}]",
        ),
    )
    assert (second.updated, second.left_alone) == (("requests",), ("tokens",))
    assert "tokens" in caplog.text
    assert "by_api" not in caplog.text
    changed = meters.get(NS, "requests")
    assert (changed.name, changed.description, dict(changed.group_by)) == ("requests", "d", {})
    assert meters.get(NS, "tokens") == tokens


def test_a_meter_made_by_the_api_is_taken_over(meters: MeterStore, tmp_path: Path) -> None:
    before = meters.create(NS, meter_input("requests", aggregation="COUNT", valueProperty=None))
    meters.delete(NS, before.id)
    created = meters.create(
        NS, MeterInput.parse({"slug": "requests", "eventType": "request", "aggregation": "COUNT"})
    )
    result = upsert(meters, NS, file_meters(tmp_path / "m.yaml", FILE))
    assert (result.created, result.updated) == (("tokens",), ("requests",))
    assert meters.get(NS, created.id).managed_by is ManagedBy.FILE


def test_a_dimension_that_a_feature_needs_is_not_taken_away(
    meters: MeterStore, database: Database, clock: SteppingClock, tmp_path: Path
) -> None:
    path = tmp_path / "meters.yaml"
    upsert(meters, NS, file_meters(path, FILE))
    before = meters.live(NS)
    features = FeatureStore(database, clock)
    wanted = {"name": "n", "meterSlug": "requests", "meterGroupByFilters": {"route": "/"}}
    for key in ("first", "second"):
        features.create(NS, parse_feature(wanted | {"key": key}))
    bare = (
        "meters:\n"
        "  - {slug: new, eventType: x, aggregation: COUNT}\n"
        "  - {slug: requests, eventType: request, aggregation: COUNT}\n"
    )
    with pytest.raises(InvalidInput) as caught:
        upsert(meters, NS, file_meters(path, bare))
    (fault,) = caught.value.faults
    assert (fault.field, fault.code) == (f"{path}:3", "in_use")
    assert "groupBy.route" in fault.message
    assert "the feature first needs it" in fault.message
    assert meters.live(NS) == before
    features.archive(NS, "first")
    features.archive(NS, "second")
    assert upsert(meters, NS, file_meters(path, bare)).updated == ("requests",)


def test_a_change_of_what_is_fixed_is_told_and_nothing_is_written(
    meters: MeterStore, tmp_path: Path
) -> None:
    path = tmp_path / "meters.yaml"
    upsert(meters, NS, file_meters(path, FILE))
    before = meters.live(NS)
    changed = (
        "meters:\n"
        "  - {slug: new, eventType: x, aggregation: COUNT}\n"
        "  - {slug: requests, name: N, eventType: request, aggregation: COUNT}\n"
        "  - {slug: tokens, eventType: prompt, aggregation: MAX, valueProperty: $.total}\n"
    )
    with pytest.raises(InvalidInput) as caught:
        upsert(meters, NS, file_meters(path, changed))
    found = [(fault.field, fault.code) for fault in caught.value.faults]
    assert found == [(f"{path}:4", "immutable")] * 2
    aggregation, value = (fault.message for fault in caught.value.faults)
    assert "is SUM and cannot become MAX" in aggregation
    assert "is $.tokens and cannot become $.total" in value
    assert "DELETE /api/v1/meters/tokens" in value
    assert meters.live(NS) == before
    meters.delete(NS, "tokens")
    assert upsert(meters, NS, file_meters(path, changed)).created == ("new", "tokens")
