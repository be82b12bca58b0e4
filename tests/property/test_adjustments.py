"""Adjustments: the first seal's quantity and all changes since are today's, for any history."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.loading import NewStage
from tests.support.sealing import BOUNDS, SealHouse, Use, hour_at, open_house
from tollgate.core.errors import NotFound
from tollgate.metering.adjust import Adjuster, AdjustmentQuery, sealed_value
from tollgate.metering.adjustment import Adjustment
from tollgate.metering.meter import Aggregation
from tollgate.metering.query import run_query
from tollgate.metering.question import SUBJECT, MeterQuery
from tollgate.metering.window import WindowSize

pytest_plugins = ["tests.support.stages"]


@pytest.fixture
def house(stages: NewStage, tmp_path: Path) -> Iterator[SealHouse]:
    with open_house(stages, tmp_path) as opened:
        yield opened


def all_of(
    house: SealHouse,
    aggregation: Aggregation = Aggregation.SUM,
    group_by: Sequence[str] = (),
    subjects: tuple[str, ...] | None = None,
    limit: int = 2,
) -> list[Adjustment]:
    """Every page, pending ones last."""
    adjuster = Adjuster(
        clickhouse=house.clickhouse,
        store=house.store,
        meter=house.meter(aggregation),
        bounds=BOUNDS,
    )
    found: list[Adjustment] = []
    after: tuple[datetime, int] | None = None
    while True:
        page = adjuster.page(
            AdjustmentQuery(
                start=None,
                end=None,
                subjects=subjects,
                group_by=tuple(group_by),
                after=after,
                limit=limit,
            )
        )
        found += [*page.adjustments, *page.pending]
        after = page.after
        if after is None:
            return found


def shown(each: Adjustment) -> tuple[object, ...]:
    return (each.hour, each.subject, each.revision, each.before, each.after, each.delta)


def test_what_changed_by_hand(house: SealHouse) -> None:
    house.send(Use(id="a", n=1), Use(id="b", n=10), Use(id="c", n=100, subject="v"))
    house.pass_hours(2)
    house.seal()
    assert all_of(house) == []
    house.send(Use(id="d", n=1000, model="b"), Use(id="e", n=5, hour=-2))
    house.correct("c", reason="not theirs")
    house.pass_hours(1)
    house.seal()
    house.correct("b", Use(id="b", n=30), reason="typo")
    noon, before = hour_at(0), hour_at(-2)
    found = all_of(house)
    assert [shown(each) for each in found] == [
        (before, "u", 2, None, Decimal(5), Decimal(5)),
        (noon, "u", 2, Decimal(11), Decimal(1011), Decimal(1000)),
        (noon, "v", 2, Decimal(100), None, Decimal(-100)),
        (noon, "u", None, Decimal(1011), Decimal(1031), Decimal(20)),
    ]
    facts = [(f.facts.events, f.facts.corrections, f.facts.reasons, f.facts.actors) for f in found]
    assert facts == [
        (1, 0, (), ()),
        (1, 0, (), ()),
        (0, 1, ("not theirs",), ("someone",)),
        (0, 1, ("typo",), ("someone",)),
    ]
    assert [shown(each)[1:] for each in all_of(house, group_by=["model"], subjects=("u",))] == [
        ("u", 2, None, Decimal(5), Decimal(5)),
        ("u", 2, None, Decimal(1000), Decimal(1000)),
        ("u", None, Decimal(11), Decimal(31), Decimal(20)),
    ]
    # An hour that holds nothing any more has no greatest value, so there is no difference.
    (gone,) = [each for each in all_of(house, Aggregation.MAX) if each.subject == "v"]
    assert shown(gone)[3:] == (Decimal(100), None, None)
    meter = house.meter()
    seal, (row,) = sealed_value(house.clickhouse, house.store, meter, noon, 1)
    assert (seal.revision, row.value) == (1, Decimal(111))
    seal, (row,) = sealed_value(house.clickhouse, house.store, meter, noon)
    assert (seal.revision, row.value) == (2, Decimal(1011))
    for hour, revision in ((noon, 3), (hour_at(3), None)):
        with pytest.raises(NotFound):
            sealed_value(house.clickhouse, house.store, meter, hour, revision)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Something that happens: an event, a correction of one, or a run of the schedule."""

    what: str
    use: Use


USES = st.builds(
    Use,
    id=st.sampled_from("abcde"),
    n=st.integers(-3, 9),
    hour=st.integers(-2, 2),
    subject=st.sampled_from("uv"),
)
STEPS = st.lists(
    st.builds(Step, what=st.sampled_from(["send", "send", "void", "amend", "seal"]), use=USES),
    min_size=4,
    max_size=14,
)


def quantities(house: SealHouse, aggregation: Aggregation) -> dict[tuple[datetime, str], Decimal]:
    asked = MeterQuery(window=WindowSize.HOUR, group_by=(SUBJECT,))
    rows = run_query(house.clickhouse, house.meter(aggregation), asked, BOUNDS)
    return {(row.start, row.subject or ""): row.value for row in rows}


@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS)
def test_the_first_seal_and_all_changes_make_todays_quantity(
    stages: NewStage, tmp_path_factory: pytest.TempPathFactory, steps: list[Step]
) -> None:
    with open_house(stages, tmp_path_factory.mktemp("house")) as house:
        for step in steps:
            take(house, step)
        house.pass_hours(1)
        house.seal()
        through = house.store.state(house.namespace).sealed_through
        for aggregation in (Aggregation.SUM, Aggregation.MAX):
            now = quantities(house, aggregation)
            changes: dict[tuple[datetime, str], list[Adjustment]] = {}
            for each in all_of(house, aggregation, limit=100):
                changes.setdefault((each.hour, each.subject), []).append(each)
            for place in now.keys() | changes.keys():
                if place[0] < through:
                    value = followed(house, aggregation, place, changes.get(place, []))
                    assert value == now.get(place)
                else:
                    assert place not in changes


def take(house: SealHouse, step: Step) -> None:
    match step.what:
        case "send":
            house.send(step.use)
        case "void":
            house.correct(step.use.id)
        case "amend":
            house.correct(step.use.id, step.use)
        case _:
            house.pass_hours(1)
            assert house.seal().blocked == {}


def followed(
    house: SealHouse,
    aggregation: Aggregation,
    place: tuple[datetime, str],
    changes: Sequence[Adjustment],
) -> Decimal | None:
    """From the first seal's quantity through all changes: each goes on where the last ended."""
    hour, subject = place
    asked = MeterQuery(subjects=(subject,))
    meter = house.meter(aggregation)
    _, rows = sealed_value(house.clickhouse, house.store, meter, hour, 1, asked)
    value = rows[0].value if rows else None
    for change in changes:
        assert change.before == value
        if aggregation is Aggregation.SUM:
            assert change.delta == (change.after or 0) - (change.before or 0)
        value = change.after
    return value
