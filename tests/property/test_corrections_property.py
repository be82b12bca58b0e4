"""What counts is exact whatever corrections come, in any order and batches, cut off at any write.

`reference` says in a few lines what must count after each record; the table by hand holds
`reference` itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.loading import HOUR_US, NOON_US, Correct, NewStage, Sent, Stage, by_day, load_all
from tollgate.core.errors import Transient
from tollgate.events.as_of import vector_at, vector_now
from tollgate.platform.clickhouse import DATABASE
from tollgate.platform.event_log import StoredRecord

pytest_plugins = ["tests.support.stages"]
WINDOW_US = HOUR_US
Place = tuple[int, int]
Op = Sent | Correct


@dataclass
class Key:
    """What the reference knows of a key.

    Versions of each event that claimed it, the last in force or none; what ended a version; the
    operation of the void that waits for an event, the first if several do; contents by correction.
    """

    claims: list[list[Place]] = field(default_factory=list)
    alive: dict[Place, bool] = field(default_factory=dict)
    ended_by: dict[Place, str] = field(default_factory=dict)
    claimed_us: int = 0
    waiting: str | None = None
    decided: dict[str, str] = field(default_factory=dict)

    def end(self, place: Place, operation: str) -> None:
        self.alive[place] = False
        self.ended_by[place] = operation


def step(key: Key, op: Op, place: Place, now_us: int) -> None:
    if isinstance(op, Sent):
        step_event(key, op, place, now_us)
    else:
        step_correction(key, op, place)


def step_event(key: Key, op: Sent, place: Place, now_us: int) -> None:
    if key.claims and now_us - key.claimed_us < WINDOW_US:
        return
    key.claims.append([place])
    key.claimed_us, key.alive[place] = now_us, True
    if key.waiting is not None:
        key.end(place, key.waiting)
        key.waiting = None
    elif op.backfill:
        key.end(place, op.backfill)


def step_correction(key: Key, op: Correct, place: Place) -> None:
    if op.correction:
        if op.correction in key.decided:
            return
        key.decided[op.correction] = op.content
    versions = [v for v in key.claims if op.target in v] if op.target else key.claims[-1:]
    if not versions:
        # Without an event a void waits; what names a version that is none is of no use.
        if key.waiting is None and op.amends is None and op.target is None:
            key.waiting = op.operation
        return
    (of_claim,) = versions
    if op.amends is None:
        gone = op.target or of_claim[-1]
        if key.alive[gone]:
            key.end(gone, op.operation)
        return
    if op.target and (op.target != of_claim[-1] or key.ended_by.get(op.target) != op.operation):
        return
    if key.alive[of_claim[-1]]:
        key.end(of_claim[-1], op.operation)
    of_claim.append(place)
    key.alive[place] = True


def reference(records: Sequence[tuple[int, Sequence[Op]]]) -> list[list[Place]]:
    """What counts after each record."""
    keys: dict[str, Key] = {}
    found = []
    for offset, (now_us, ops) in enumerate(records):
        for index, op in enumerate(ops):
            step(keys.setdefault(op.id, Key()), op, (offset, index), now_us)
        found.append(sorted(p for k in keys.values() for p, alive in k.alive.items() if alive))
    return found


A = Sent(id="a")
NEW = Sent(id="a", data='{"n":2}', type="u")
VOID = Correct(id="a")
AMEND = Correct(id="a", amends=NEW)
BACK = Correct(id="a", amends=A, operation="b", target=(0, 0))
HELD = Sent(id="a", backfill="b")
BY_HAND: list[tuple[str, list[Op], list[list[int]]]] = [
    ("a void takes it away, once", [A, VOID, VOID], [[0], [], []]),
    ("a void waits for its event, and for one only", [VOID, VOID, A, A], [[], [], [], []]),
    ("a voided key stays claimed", [A, VOID, A], [[0], [], []]),
    ("an amendment stands in its place", [A, AMEND, AMEND, VOID], [[0], [1], [2], []]),
    ("what is voided can be amended", [A, VOID, AMEND], [[0], [], [2]]),
    ("an amendment without an event does nothing", [AMEND, A], [[], [1]]),
    (
        "the same correction again does nothing, with any content",
        [
            A,
            replace(AMEND, correction="x", content="1"),
            replace(AMEND, correction="y", content="1"),
            replace(AMEND, correction="x", content="1"),
            replace(VOID, correction="x", content="2"),
        ],
        [[0], [1], [2], [2], [2]],
    ),
    (
        "a void of a version takes no other away",
        [A, AMEND, replace(VOID, target=(0, 0)), replace(VOID, target=(1, 0))],
        [[0], [1], [1], []],
    ),
    (
        "an operation gives back what it took, and only that",
        [A, replace(VOID, operation="b", target=(0, 0)), BACK, BACK, VOID, BACK],
        [[0], [], [2], [2], [], []],
    ),
    ("what another took it does not give back", [A, VOID, BACK], [[0], [], []]),
    (
        "what was amended since it leaves alone",
        [A, replace(VOID, operation="b", target=(0, 0)), AMEND, BACK],
        [[0], [], [2], [2]],
    ),
    ("an event of a backfill counts once it is released", [HELD, BACK, VOID], [[], [1], []]),
    (
        "a void that waited for it keeps it",
        [VOID, HELD, replace(BACK, target=(1, 0))],
        [[], [], []],
    ),
    (
        "of voids that wait the first takes it, and only its operation gives it back",
        [
            replace(VOID, operation="b"),
            VOID,
            A,
            replace(AMEND, target=(2, 0)),
            replace(BACK, target=(2, 0)),
        ],
        [[], [], [], [], [4]],
    ),
]


@pytest.mark.parametrize(
    ("ops", "expected"), [row[1:] for row in BY_HAND], ids=[row[0] for row in BY_HAND]
)
def test_the_table_by_hand(stages: NewStage, ops: list[Op], expected: list[list[int]]) -> None:
    records = [(NOON_US + n, [op]) for n, op in enumerate(ops)]
    wanted = [[(offset, 0) for offset in offsets] for offsets in expected]
    assert reference(records) == wanted
    with stages() as stage:
        load_all(stage.loader(WINDOW_US), stored(stage, records))
        check(stage, records, wanted)


def test_the_same_id_with_another_time_counts_once(stages: NewStage) -> None:
    """Flexprice documents the opposite: its identity is the id and the time."""
    with stages() as stage:
        records: list[tuple[int, list[Op]]] = [
            (NOON_US, [Sent(id="a", time_us=NOON_US)]),
            (NOON_US + 1, [Sent(id="a", time_us=NOON_US - 86_400_000_000)]),
        ]
        load_all(stage.loader(WINDOW_US), stored(stage, records))
        check(stage, records, [[(0, 0)], [(0, 0)]])
        assert stage.outcomes() == {(1, 0): ("conflict", (0, 0))}


def test_a_key_claimed_anew_is_not_hit_by_a_void_of_what_it_was(stages: NewStage) -> None:
    with stages() as stage:
        records: list[tuple[int, list[Op]]] = [
            (NOON_US, [A]),
            (NOON_US + WINDOW_US, [A]),
            (NOON_US + WINDOW_US + 1, [replace(VOID, operation="b", target=(0, 0))]),
            (NOON_US + WINDOW_US + 2, [BACK]),
            (NOON_US + WINDOW_US + 3, [VOID]),
        ]
        wanted = [[(0, 0)], [(0, 0), (1, 0)], [(1, 0)], [(1, 0), (3, 0)], [(3, 0)]]
        assert reference(records) == wanted
        load_all(stage.loader(WINDOW_US), stored(stage, records))
        check(stage, records, wanted)


def stored(stage: Stage, records: Sequence[tuple[int, Sequence[Op]]]) -> list[StoredRecord]:
    found = []
    for offset, (at, ops) in enumerate(records):
        events = [op for op in ops if isinstance(op, Sent)]
        corrections = [op for op in ops if isinstance(op, Correct)]
        assert not (events and corrections)
        made = stage.record(offset, at, *events) if events else None
        found.append(made or stage.corrections(offset, at, *corrections))
    return found


def check(
    stage: Stage, records: Sequence[tuple[int, Sequence[Op]]], expected: list[list[Place]]
) -> None:
    assert stage.counting() == expected[-1]
    assert stage.counting_through(len(expected)) == expected
    namespace = {"namespace": stage.namespace}
    twice = stage.clickhouse.query(
        "SELECT superseded_offset, superseded_index, uniqExact(log_offset, log_index)"
        f" FROM {DATABASE}.event_corrections"
        " WHERE namespace = {namespace:String} AND superseded_generation > 0"
        " GROUP BY ALL HAVING uniqExact(log_offset, log_index) > 1",
        namespace,
    )
    assert list(twice) == []
    rows = stage.clickhouse.query(
        "SELECT sum(accepted), sum(stored) + sum(duplicate) + sum(conflict), sum(dead),"
        f" sum(corrections) FROM {DATABASE}.ledger FINAL WHERE namespace = {{namespace:String}}",
        namespace,
    )
    events = sum(isinstance(op, Sent) for _, ops in records for op in ops)
    corrections = sum(isinstance(op, Correct) for _, ops in records for op in ops)
    assert [tuple(map(int, row)) for row in rows] == [(events, events, 0, corrections)]


_contents = st.sampled_from(['{"n":1}', '{"n":2}'])
_event = st.builds(
    Sent, id=st.sampled_from("ab"), data=_contents, backfill=st.sampled_from(["", "", "", "b"])
)
_correction = st.builds(
    Correct,
    id=st.sampled_from("ab"),
    correction=st.sampled_from(["", "", "x", "y"]),
    content=st.sampled_from("12"),
    operation=st.sampled_from(["", "b"]),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A record to be made: `aims` say which version a correction names, if any."""

    gap_us: int
    events: list[Sent]
    corrections: list[tuple[Correct, bool, int]]


_drawn = st.builds(
    Drawn,
    gap_us=st.sampled_from([0, 1, HOUR_US // 2, WINDOW_US, 13 * HOUR_US]),
    events=st.one_of(st.just([]), st.just([]), st.lists(_event, min_size=1, max_size=3)),
    corrections=st.lists(
        st.tuples(_correction, st.booleans(), st.integers(0, 5)), min_size=1, max_size=3
    ),
)


def made(drawn: Sequence[Drawn]) -> list[tuple[int, list[Op]]]:
    """The records; a correction that aims names one of the versions that its key has by then."""
    records: list[tuple[int, list[Op]]] = []
    keys: dict[str, Key] = {}
    now = NOON_US
    for offset, each in enumerate(drawn):
        now += each.gap_us
        ops: list[Op] = list(each.events)
        for index, op in enumerate(ops):
            step(keys.setdefault(op.id, Key()), op, (offset, index), now)
        for index, (correction, amends, aim) in enumerate([] if ops else each.corrections):
            key = keys.setdefault(correction.id, Key())
            if amends:
                sent = Sent(id=correction.id, data=f'{{"n":{index}}}')
                correction = replace(correction, amends=sent)  # noqa: PLW2901
            versions = [version for claim in key.claims for version in claim]
            if aim < 3 and versions:
                correction = replace(correction, target=versions[-1 - aim % len(versions)])  # noqa: PLW2901
            ops.append(correction)
            step(key, correction, (offset, index), now)
        records.append((now, ops))
    return records


@pytest.mark.timeout(300)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    drawn=st.lists(_drawn, min_size=1, max_size=9),
    cuts=st.lists(st.integers(1, 6), min_size=1, max_size=6),
    interruptions=st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=4),
)
def test_any_corrections_in_any_batches_and_any_crash_count_alike(
    stages: NewStage,
    drawn: list[Drawn],
    cuts: list[int],
    interruptions: list[tuple[int, bool]],
) -> None:
    records = made(drawn)
    expected = reference(records)
    with stages() as stage:
        log = stored(stage, records)
        stale = stage.loader(WINDOW_US)
        _load_with_crashes(stage, log, cuts, interruptions)
        check(stage, records, expected)
        # A loader that slept through all of it writes the same once more; so does one that starts
        # now and is handed what the ledger already has.
        load_all(stale, log)
        load_all(stage.loader(WINDOW_US), log)
        check(stage, records, expected)


def _load_with_crashes(
    stage: Stage, log: list[StoredRecord], cuts: list[int], interruptions: list[tuple[int, bool]]
) -> None:
    """Loads to the end: batches of the given sizes in turn, a new loader after each crash."""
    crashes = list(interruptions)
    loader, turn = stage.loader(WINDOW_US), 0
    while (done := loader.progress.frontier + 1) < len(log):
        batch = next(by_day(log[done : done + cuts[turn % len(cuts)]]))
        turn += 1
        insert, after = crashes.pop() if crashes else (0, False)
        stage.clickhouse.fail_at(insert, after=after)
        try:
            loader.load(batch)
        except Transient:
            stage.clickhouse.fail_at(0, after=False)
            # What is cut off counts twice at no time: of each claim one version at most.
            assert len(stage.counting()) <= len(stage.claims())
            loader = stage.loader(WINDOW_US)
    stage.clickhouse.fail_at(0, after=False)


def test_what_was_known_at_a_time_stays_known(stages: NewStage) -> None:
    with stages() as stage:
        log = stored(stage, [(NOON_US + n, [Sent(id=str(n))]) for n in range(3)])
        stale = stage.loader(WINDOW_US)
        loader = stage.loader(WINDOW_US)
        load_all(loader, log[:2])
        then = datetime.now(UTC)
        load_all(loader, log[2:])
        known = vector_at(stage.clickhouse, then)
        assert dict(known.offsets) == {0: 1}
        # Loaded once more, and merged: the ledger keeps the later time only.
        load_all(stale, log)
        stage.clickhouse.command(f"OPTIMIZE TABLE {DATABASE}.ledger FINAL")
        assert vector_at(stage.clickhouse, then) == known
        # A loss of power took the last commit times: the next loader finds them in the ledger.
        stage.clickhouse.command(f"TRUNCATE TABLE {DATABASE}.ledger_commits")
        assert dict(vector_at(stage.clickhouse, then).offsets) == {}
        stage.loader(WINDOW_US)
        now = datetime.now(UTC)
        assert vector_at(stage.clickhouse, now) == vector_now(stage.clickhouse)
        assert dict(vector_now(stage.clickhouse).offsets) == {0: 2}
