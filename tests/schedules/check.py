"""What must hold when all is over, whatever happened: accepted = billed."""

from collections.abc import Mapping
from contextlib import closing
from typing import Any

from tests.schedules.archiving import SimulatedObjects, open_archive, replay, wrong_archive
from tests.schedules.probe import what_counts
from tests.schedules.reference import Key, Place, Reckoning, facts_of, reckon, value_of
from tests.schedules.sealing import wrong_seals
from tests.schedules.store import SimulatedStore
from tests.schedules.truth import Answer
from tests.schedules.world import World
from tollgate.platform.clickhouse import DATABASE, ClickHouse


class Wrong(AssertionError):
    """Something that was promised does not hold."""


def _require_equal(what: str, found: object, expected: object) -> None:
    if found == expected:
        return
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        keys = sorted(found.keys() | expected.keys(), key=repr)
        differ = [k for k in keys if found.get(k) != expected.get(k)]
        lines = [f"  {k}: {found.get(k)}, expected {expected.get(k)}" for k in differ[:8]]
        raise Wrong(f"{what}, {len(differ)} differ:\n" + "\n".join(lines))
    raise Wrong(f"{what}: {found}, expected {expected}")


def check(world: World) -> None:
    """Compares the store with the log, and the log with what clients know.

    Raises:
        Wrong: a promise does not hold.
    """
    history, window_us = world.parts.records.history, world.options.window_us
    expected = reckon(history, window_us)
    store = world.plain_store()
    counted = what_counts(store, world.namespaces)
    _require_equal("what counts", counted, expected.counting)
    _check_store(store, world.parts.records.generation, expected)
    _check_claims(world, store, expected)
    for answered in world.probe.answers:
        then = reckon(history, window_us, answered.vector.offsets).counting
        _require_equal(f"what counted as of {answered.vector} when asked", answered.counted, then)
        again = what_counts(store, world.namespaces, answered.vector)
        _require_equal(f"what counted as of {answered.vector}, asked again", again, then)
    if world.control is not None:
        for problem in wrong_seals(world.control.plain, history, window_us):
            raise Wrong(problem)
    if world.objects is not None:
        _check_archive(world, world.objects, expected)
    for keys in world.probe.now:
        if not window_us and len(keys) != len(set(keys)):
            twice = {key for key in keys if keys.count(key) > 1}
            raise Wrong(f"{twice} counted twice for a while")
    _check_truth(world, expected)
    _check_positions(world)


def _check_store(store: ClickHouse, generation: int, expected: Reckoning) -> None:
    bound = {"generation": generation}
    mine = "log_generation = {generation:UInt32}"
    place = "log_partition, log_offset, log_index"

    def rows(sql: str) -> Any:
        return store.query(sql.format(db=DATABASE, place=place, mine=mine), bound)

    outcomes: dict[Place, tuple[str, Place]] = {}
    for row in rows(
        "SELECT {place}, toString(outcome), first_partition, first_offset, first_index"
        " FROM {db}.event_outcomes FINAL WHERE {mine} AND outcome != 'dead'"
    ):
        at: Place = (row[0], row[1], row[2])
        if at in outcomes:
            raise Wrong(f"{at} has two outcomes")
        outcomes[at] = (row[3], (row[4], row[5], row[6]))
    _require_equal("outcomes", outcomes, expected.outcomes)
    ledger = {
        (row[0], row[1]): tuple(map(int, row[2:]))
        for row in rows(
            "SELECT log_partition, log_offset, sum(accepted), sum(stored), sum(duplicate),"
            " sum(conflict), sum(dead), sum(corrections) FROM {db}.ledger FINAL WHERE {mine}"
            " GROUP BY log_partition, log_offset"
        )
    }
    _require_equal("the ledger", ledger, expected.ledger)
    for at_record, (accepted, stored, duplicate, conflict, dead, _) in ledger.items():
        if accepted != stored + duplicate + conflict + dead:
            raise Wrong(f"record {at_record} does not balance")


def _check_claims(world: World, store: ClickHouse, expected: Reckoning) -> None:
    """Every key that an event may still repeat is there; housekeeping drops the others some day."""
    window_us = world.options.window_us
    rows = store.query(
        f"SELECT log_partition, log_offset, log_index FROM {DATABASE}.event_keys FINAL"
        " WHERE log_generation = {generation:UInt32}",
        {"generation": world.parts.records.generation},
    )
    found = {(row[0], row[1], row[2]) for row in rows}
    if strange := found - expected.claims.keys():
        raise Wrong(f"{sorted(strange)} claimed no key")
    last_us = max(expected.claims.values(), default=0)
    for place in expected.claims.keys() - found:
        age_us = last_us - expected.claims[place]
        if not window_us or age_us < window_us:
            raise Wrong(f"the claim of {place} is gone, {age_us} us after it began")


def _check_archive(world: World, objects: SimulatedObjects, expected: Reckoning) -> None:
    records = world.parts.records
    for problem in wrong_archive(objects, records.generation, records.history):
        raise Wrong(problem)
    with closing(SimulatedStore(world.parts.clock)) as empty:
        store = world.plain_store(empty)
        log = open_archive(objects, records.generation, records.partitions)
        with closing(log):
            replay(log, store, world.options.window_us, world.parts.clock)
        counted = what_counts(store, world.namespaces)
        _require_equal("what counts when it is replayed", counted, expected.counting)
        _check_store(store, records.generation, expected)


def _check_truth(world: World, expected: Reckoning) -> None:
    """Every acknowledged event counts once, others at most once, each with its own content."""
    found: dict[Key, list[int]] = {}
    for key, data in expected.counting.values():
        found.setdefault(key, []).append(int(value_of(data)["n"]))
    allowed = world.truth.allowed()
    for key in found.keys() - allowed.keys():
        raise Wrong(f"{key} counts and was never sent")
    for key, contents in allowed.items():
        counts = found.get(key, [])
        if len(counts) > 1:
            raise Wrong(f"{key} counts {len(counts)} times: {counts}")
        if (counts[0] if counts else None) not in contents:
            raise Wrong(f"{key} counts as {counts}, clients know of {contents}")


def _check_positions(world: World) -> None:
    """What was acknowledged stands at or before the position that came with the answer."""
    places: dict[Key, list[Place]] = {}
    for partition, records in enumerate(world.parts.records.history):
        for record in records:
            for fact in facts_of(partition, record):
                places.setdefault(fact.key, []).append(fact.place)
    for attempt in world.truth.attempts:
        if attempt.answer is Answer.ACCEPTED:
            assert attempt.token is not None
            offsets = attempt.token.offsets
            for item in attempt.items:
                stands = [p for p in places.get(item.key, []) if p[1] <= offsets.get(p[0], -1)]
                if not stands:
                    raise Wrong(f"{attempt} was acknowledged with {attempt.token}: not there")
