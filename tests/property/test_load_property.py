"""Loading is exact whatever comes: twice, in other batches, cut off at any write.

`reference` says in a few lines what must come out; the table by hand holds `reference` itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.loading import HOUR_US, NOON_US, NewStage, Sent, Stage, by_day, load_all
from tollgate.core.errors import Transient
from tollgate.platform.event_log import StoredRecord

pytest_plugins = ["tests.support.stages"]
WINDOW_US = HOUR_US
# Texts of `data` and which value each stands for: order, space and 1.0 for 1 are the same value.
CONTENTS = {
    '{"n":1}': "n=1",
    '{ "n" : 1.0 }': "n=1",
    '{"n":"1"}': "n='1'",
    '{"n":2}': "n=2",
    '{"n":2,"m":[true,null]}': "n=2,m",
    '{"m":[true,null],"n":2e0}': "n=2,m",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """An event and how long after the one before it its record was appended."""

    sent: Sent
    gap_us: int
    joins: bool = False  # stands in the record of the one before


Decision = tuple[str, int | None]
"""What becomes of an event, and the number of the event that holds its key."""


def reference(events: Sequence[tuple[Sent, int]], window_us: int) -> list[Decision]:
    """The first claim in its window wins; the same content is a duplicate, other a conflict."""
    claims: dict[str, tuple[int, int, Sent]] = {}
    decisions: list[Decision] = []
    for number, (sent, appended_us) in enumerate(events):
        claim = claims.get(sent.id)
        if claim is None or (window_us and appended_us - claim[1] >= window_us):
            claims[sent.id] = (number, appended_us, sent)
            decisions.append(("stored", None))
            continue
        first = claim[2]
        same = (
            (first.type, CONTENTS[first.data]) == (sent.type, CONTENTS[sent.data])
            # A time that was left out matches any.
            and (None in (first.time_us, sent.time_us) or first.time_us == sent.time_us)
        )
        decisions.append(("duplicate" if same else "conflict", claim[0]))
    return decisions


BY_HAND: list[tuple[str, list[tuple[Sent, int]], list[Decision]]] = [
    (
        "the same again, other bytes, other content",
        [
            (Sent(id="a"), 0),
            (Sent(id="a"), 1),
            (Sent(id="a", data='{ "n" : 1.0 }'), 2),
            (Sent(id="a", data='{"n":2}'), 3),
            (Sent(id="a", data='{"n":"1"}'), 4),
            (Sent(id="b", data='{"n":2}'), 5),
            (Sent(id="a", type="other"), 6),
        ],
        [
            ("stored", None),
            ("duplicate", 0),
            ("duplicate", 0),
            ("conflict", 0),
            ("conflict", 0),
            ("stored", None),
            ("conflict", 0),
        ],
    ),
    (
        "a time that was left out matches any, two different ones do not match",
        [
            (Sent(id="a"), 0),
            (Sent(id="a", time_us=1), 1),
            (Sent(id="a", time_us=2), 2),
            (Sent(id="b", time_us=1), 3),
            (Sent(id="b", time_us=2), 4),
            (Sent(id="b"), 5),
            (Sent(id="b", time_us=1), 6),
        ],
        [
            ("stored", None),
            ("duplicate", 0),
            ("duplicate", 0),
            ("stored", None),
            ("conflict", 3),
            ("duplicate", 3),
            ("duplicate", 3),
        ],
    ),
    (
        "a claim holds for less than the window, and a conflict does not prolong it",
        [
            (Sent(id="a"), 0),
            (Sent(id="a", data='{"n":2}'), WINDOW_US - 1),
            (Sent(id="a", data='{"n":2}'), WINDOW_US),
            (Sent(id="a"), WINDOW_US + 1),
            (Sent(id="a", data='{"n":2}'), 2 * WINDOW_US - 1),
            (Sent(id="a"), 2 * WINDOW_US),
        ],
        [
            ("stored", None),
            ("conflict", 0),
            ("stored", None),
            ("conflict", 2),
            ("duplicate", 2),
            ("stored", None),
        ],
    ),
]
TABLE = pytest.mark.parametrize(
    ("events", "expected"), [row[1:] for row in BY_HAND], ids=[row[0] for row in BY_HAND]
)


@TABLE
def test_the_reference_agrees_with_the_table_by_hand(
    events: list[tuple[Sent, int]], expected: list[Decision]
) -> None:
    assert reference(events, WINDOW_US) == expected


@TABLE
@pytest.mark.parametrize("cut", [1, 2, 100], ids=lambda n: f"{n} records a batch")
def test_the_loader_agrees_with_the_table_by_hand(
    stages: NewStage, events: list[tuple[Sent, int]], expected: list[Decision], cut: int
) -> None:
    with stages() as stage:
        records = [stage.record(n, NOON_US + at, sent) for n, (sent, at) in enumerate(events)]
        loader = stage.loader(WINDOW_US)
        for start in range(0, len(records), cut):
            load_all(loader, records[start : start + cut])
        _check(stage, [(n, 0) for n in range(len(events))], expected)


def _check(stage: Stage, places: list[tuple[int, int]], expected: list[Decision]) -> None:
    stored = {p for p, (kind, _) in zip(places, expected, strict=True) if kind == "stored"}
    assert stage.stored() == stored
    assert stage.claims() == stored
    assert stage.outcomes() == {
        place: (kind, places[first])
        for place, (kind, first) in zip(places, expected, strict=True)
        if first is not None
    }
    tally: dict[int, list[int]] = {}
    for (offset, _), (kind, _) in zip(places, expected, strict=True):
        row = tally.setdefault(offset, [0, 0, 0, 0, 0])
        row[0] += 1
        row[1 + ("stored", "duplicate", "conflict", "dead").index(kind)] += 1
    assert stage.ledger() == {offset: tuple(row) for offset, row in tally.items()}


_sent = st.builds(
    Sent,
    id=st.sampled_from("ab"),
    data=st.sampled_from(sorted(CONTENTS)),
    time_us=st.sampled_from([None, None, NOON_US, NOON_US + 1]),
    type=st.sampled_from("ttu"),
)
_arrived = st.builds(
    Arrived,
    sent=_sent,
    gap_us=st.sampled_from([0, 1, HOUR_US // 2, WINDOW_US - 1, WINDOW_US, 5 * HOUR_US]),
    joins=st.booleans(),
)
_interruption = st.tuples(st.integers(0, 5), st.booleans())


def _records(
    stage: Stage, arrived: Sequence[Arrived]
) -> tuple[list[StoredRecord], list[tuple[int, int]], list[tuple[Sent, int]]]:
    """Records, the place of each event, and each event with its append time."""
    groups: list[tuple[int, list[Sent]]] = []
    places, events, now = [], [], NOON_US
    for each in arrived:
        if not (each.joins and groups):
            now += each.gap_us
            groups.append((now, []))
        groups[-1][1].append(each.sent)
        places.append((len(groups) - 1, len(groups[-1][1]) - 1))
        events.append((each.sent, now))
    records = [stage.record(offset, at, *sent) for offset, (at, sent) in enumerate(groups)]
    return records, places, events


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    arrived=st.lists(_arrived, min_size=1, max_size=12),
    cuts=st.lists(st.integers(1, 6), min_size=1, max_size=6),
    interruptions=st.lists(_interruption, max_size=4),
    window_us=st.sampled_from([WINDOW_US, WINDOW_US, 0]),
)
def test_any_batches_and_any_crash_give_the_same_store(
    stages: NewStage,
    arrived: list[Arrived],
    cuts: list[int],
    interruptions: list[tuple[int, bool]],
    window_us: int,
) -> None:
    with stages() as stage:
        records, places, events = _records(stage, arrived)
        stale = stage.loader(window_us)
        _load_with_crashes(stage, records, cuts, interruptions, window_us)
        expected = reference(events, window_us)
        _check(stage, places, expected)
        # A loader that slept through all of it, its filters empty, writes the same once more.
        load_all(stale, records)
        _check(stage, places, expected)
        # So does one that starts now and is handed what the ledger already has.
        load_all(stage.loader(window_us), records)
        _check(stage, places, expected)


def _load_with_crashes(
    stage: Stage,
    records: list[StoredRecord],
    cuts: list[int],
    interruptions: list[tuple[int, bool]],
    window_us: int,
) -> None:
    """Loads to the end: batches of the given sizes in turn, a new loader after each crash."""
    crashes = list(interruptions)
    loader, turn = stage.loader(window_us), 0
    while (done := loader.progress.frontier + 1) < len(records):
        batch = next(by_day(records[done : done + cuts[turn % len(cuts)]]))
        turn += 1
        insert, after = crashes.pop() if crashes else (0, False)
        stage.clickhouse.fail_at(insert, after=after)
        try:
            loader.load(batch)
        except Transient:
            stage.clickhouse.fail_at(0, after=False)
            loader = stage.loader(window_us)
    stage.clickhouse.fail_at(0, after=False)
