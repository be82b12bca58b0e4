"""Seals: what an hour's figures are made of, what came later, who may force one."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.loading import NewStage
from tests.support.sealing import LATENESS, SealHouse, Use, hour_at, open_house
from tollgate.core.errors import Conflict, InvalidInput
from tollgate.events.seal import BEGINNING
from tollgate.events.seal_run import open_recount_store, open_seal_store, open_sealer
from tollgate.events.seal_schedule import open_seal_progress, recount_and_seal, seal_metrics
from tollgate.platform.clickhouse import DATABASE
from tollgate.platform.event_log import OneLayout
from tollgate.platform.parts import Parts, open_clickhouse
from tollgate.platform.settings import Settings

pytest_plugins = ["tests.support.stages"]


@pytest.fixture
def house(stages: NewStage, tmp_path: Path) -> Iterator[SealHouse]:
    with open_house(stages, tmp_path) as opened:
        yield opened


def test_the_first_seal_takes_all_hours_that_are_over(house: SealHouse) -> None:
    house.send(Use(id="old", n=1, hour=-4800), Use(id="now", n=2, hour=0), Use(id="next", hour=2))
    house.pass_hours(2)
    run = house.seal()
    assert (run.problem, dict(run.blocked)) == ("", {})
    (seal,) = run.sealed[house.namespace]
    assert (seal.start, seal.end, seal.revision) == (BEGINNING, hour_at(1), 1)
    assert house.store.list(house.namespace) == (seal,)
    assert house.store.state(house.namespace).sealed_through == hour_at(1)
    assert house.seal().sealed == {}


def test_an_hour_waits_for_its_lateness_and_a_clock_set_back_changes_nothing(
    house: SealHouse,
) -> None:
    house.send(Use(id="a"))
    house.stage.clock.us += 2 * 3_600_000_000 - 1
    assert house.seal().through == hour_at(0)
    house.stage.clock.us += 1
    house.seal()
    state = house.store.state(house.namespace)
    assert state.sealed_through == hour_at(1)
    house.pass_hours(-30)
    assert house.seal().sealed == {}
    assert house.store.state(house.namespace) == state


def test_what_comes_later_is_a_revision_and_the_seal_stays(house: SealHouse) -> None:
    house.send(Use(id="a", n=1), Use(id="b", n=10))
    house.pass_hours(2)
    house.seal()
    house.send(Use(id="c", n=100), Use(id="a", n=1))
    house.correct("b", reason="twice")
    # Nothing moves within the hour: what came is pending.
    assert house.seal().sealed == {}
    assert house.store.list(house.namespace, revised=True) == ()
    house.pass_hours(1)
    revision, seal = house.seal().sealed[house.namespace]
    assert (revision.start, revision.end, revision.revision) == (hour_at(0), hour_at(1), 2)
    assert (revision.late_events, revision.late_corrections) == (1, 1)
    assert (seal.start, seal.end, seal.revision) == (hour_at(1), hour_at(2), 1)
    first = house.store.find(house.namespace, hour_at(0), 1)
    assert first is not None
    assert revision.previous == first.vector
    assert house.value(first.vector, hour=0) == 11
    assert house.value(revision.vector, hour=0) == house.value(hour=0) == 101
    assert house.store.find(house.namespace, hour_at(0)) == revision


def test_an_amendment_changes_both_its_hours(house: SealHouse) -> None:
    house.send(Use(id="a", n=1, hour=-3), Use(id="b", n=10))
    house.pass_hours(2)
    house.seal()
    house.correct("a", Use(id="a", n=5, hour=0))
    house.correct("b", Use(id="b", n=20, hour=0))
    house.pass_hours(1)
    before, after, _ = house.seal().sealed[house.namespace]
    assert (before.start, before.late_events, before.late_corrections) == (hour_at(-3), 0, 1)
    assert (after.start, after.late_events, after.late_corrections) == (hour_at(0), 0, 2)
    assert [house.value(after.vector, hour) for hour in (-3, 0)] == [0, 25]
    assert after.previous is not None
    assert [house.value(after.previous, hour) for hour in (-3, 0)] == [1, 10]


def test_an_event_that_a_backfill_holds_back_changes_nothing_yet(house: SealHouse) -> None:
    house.send(Use(id="a"))
    house.pass_hours(2)
    house.seal()
    house.send(Use(id="b", n=5, backfill="last-year"), Use(id="c"))
    assert house.value() == 2
    house.pass_hours(1)
    revision, _ = house.seal().sealed[house.namespace]
    assert (revision.late_events, revision.late_corrections) == (1, 0)


def test_a_namespace_without_events_needs_no_seal_of_its_own(house: SealHouse) -> None:
    house.send(Use(id="a"))
    house.pass_hours(2)
    house.seal()
    house.pass_hours(30)
    house.seal()
    (seal,) = house.store.list(house.namespace)
    assert (seal.end, seal.extended_at) == (hour_at(31), hour_at(32))
    # What comes then is late for all of these hours.
    house.send(Use(id="b", hour=20))
    house.pass_hours(1)
    revision, _ = house.seal().sealed[house.namespace]
    assert (revision.start, revision.revision, revision.late_events) == (hour_at(20), 2, 1)


def test_what_is_in_the_log_is_waited_for(house: SealHouse) -> None:
    house.send(Use(id="a"))
    house.append([house.encoded(Use(id="b"))])
    house.pass_hours(2)
    run = house.sealer(wait_ms=1).run()
    generation = house.stage.log.generation
    assert run.problem == (
        f"not loaded yet: generation {generation}, partition 0: loaded up to offset 0 of 1"
    )
    house.load()
    (seal,) = house.seal().sealed[house.namespace]
    assert str(seal.vector) == f"{generation};0:1"


def test_two_runs_at_once_seal_once(house: SealHouse) -> None:
    house.send(Use(id="a"))
    house.pass_hours(2)
    house.seal()
    house.send(Use(id="b"))
    house.pass_hours(1)
    state = house.store.state(house.namespace)
    recounted = house.recounts.recounted()
    house.seal()
    sealed = house.store.list(house.namespace)
    # The other one had decided the same before.
    with pytest.raises(Conflict, match="another run"):
        house.recounts.save_recount(recounted, recounted, ())
    with pytest.raises(Conflict, match="another run"):
        house.store.seal(house.namespace, state, sealed[-1], {})
    assert house.store.list(house.namespace) == sealed
    assert [(s.start, s.revision) for s in sealed] == [
        (BEGINNING, 1),
        (hour_at(0), 2),
        (hour_at(1), 1),
    ]


@pytest.mark.parametrize("step", range(1, 6))
def test_a_run_that_was_killed_is_taken_up(
    house: SealHouse, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        house.send(Use(id=str(number)))
    house.pass_hours(2)
    with monkeypatch.context() as patched:
        begin, left = house.store._database.begin, [step]

        def begin_or_die() -> object:
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt
            return begin()

        patched.setattr(house.store._database, "begin", begin_or_die)
        try:
            house.sealer(slice_events_max=1).run()
        except KeyboardInterrupt:
            assert house.store.list(house.namespace) == ()
    house.sealer(slice_events_max=1).run()
    (seal,) = house.store.list(house.namespace)
    assert house.value(seal.vector) == 3


def test_a_forced_seal_says_what_was_missing(house: SealHouse) -> None:
    house.send(Use(id="a"), Use(id="b"))
    generation = house.stage.log.generation
    house.clickhouse.command(
        f"ALTER TABLE {DATABASE}.events DELETE WHERE id = 'b' AND log_generation = {generation}"
        " SETTINGS mutations_sync = 2"
    )
    house.append([house.encoded(Use(id="c"))])
    house.pass_hours(1)
    house.sealer(wait_ms=1).run()
    sealer = house.sealer()
    for wrong in (hour_at(2), hour_at(0) + LATENESS / 2):
        with pytest.raises(InvalidInput):
            sealer.force(house.namespace, wrong, "r", "")
    (seal,) = sealer.force(house.namespace, hour_at(1), "the month must close", "key-1")
    assert (seal.kind, seal.reason, seal.actor) == ("forced", "the month must close", "key-1")
    assert seal.missing == (
        "the allowed lateness of these hours was not over",
        f"generation {generation}, partition 0: loaded up to offset 0 of 1",
        "not all of the ledger was counted again",
    )
    with pytest.raises(Conflict, match="2026-11-02T13:00:00Z are sealed already"):
        sealer.force(house.namespace, hour_at(1), "again", "key-1")
    house.load()
    house.pass_hours(2)
    # What was found after it still stands against the next hours, until a person says otherwise.
    assert house.namespace in house.seal().blocked
    late, seal = sealer.force(house.namespace, hour_at(2), "known", "key-1")
    assert (late.start, late.revision, late.late_events) == (hour_at(0), 2, 1)
    assert seal.missing[-1].startswith("the ledger does not balance")
    house.pass_hours(1)
    (seal,) = house.seal().sealed[house.namespace]
    assert (seal.kind, seal.start, seal.end) == ("scheduled", hour_at(2), hour_at(3))


def test_the_scheduled_step_says_how_it_went(house: SealHouse, tmp_path: Path) -> None:
    parts = Parts(Settings(data=tmp_path, seal_lateness_seconds=3600), house.stage.clock)
    parts.get(open_seal_progress)
    made: dict[Any, Any] = {
        open_clickhouse: house.clickhouse,
        open_seal_store: house.store,
        open_recount_store: house.recounts,
        open_sealer: house.sealer(),
    }
    parts._made |= made
    assert list(seal_metrics(parts)) == []
    house.send(Use(id="a"))
    house.pass_hours(3)
    run = recount_and_seal(parts)
    assert run.sealed.keys() == {house.namespace}
    figures = {
        sample.name: sample.value for family in seal_metrics(parts) for sample in family.samples
    }
    assert figures["tollgate_ledger_imbalanced_hours"] == 0
    assert figures["tollgate_seal_namespaces_blocked"] == 0
    assert figures["tollgate_seal_delay_seconds"] == 0
    assert figures["tollgate_seal_last_success"] == house.stage.clock.us / 1_000_000
    assert figures["tollgate_seal_revisions"] == 0
    house.send(Use(id="b"))
    house.pass_hours(1)
    recount_and_seal(parts)
    figures = {
        sample.name: sample.value for family in seal_metrics(parts) for sample in family.samples
    }
    assert figures["tollgate_seal_revisions"] == 1
    assert figures["tollgate_seal_delay_seconds"] == 0
    parts.close()


class NoLayout(OneLayout):
    """A log that was never set up, or not the one that was loaded."""

    def generations(self) -> list[int]:
        return []


def test_a_log_that_is_not_the_ledgers_seals_nothing(house: SealHouse) -> None:
    house.send(Use(id="a"))
    house.pass_hours(2)
    sealer = replace(house.sealer(), layouts=NoLayout(house.stage.log))
    run = sealer.run()
    assert "Is TOLLGATE_LOG_URL the log that was loaded?" in run.problem
    assert (run.sealed, house.recounts.recounted().offsets) == ({}, {})
    (seal,) = sealer.force(house.namespace, hour_at(1), "r", "")
    assert seal.missing[0].startswith("what the log held was unknown: the ledger has records")
