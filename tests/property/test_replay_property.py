"""Replay, cut off anywhere or asked for a period, decides as the loader did."""

import pytest

from tests.support.archives import archived
from tests.support.loading import NOON_US, NewStage
from tests.support.replaying import WINDOW_US, archive, digests, replay, wipe
from tollgate.core.errors import Transient
from tollgate.events.load import DAY_US
from tollgate.events.replay import Period, make_plan
from tollgate.events.replay_proof import prove
from tollgate.platform.objects_folder import FolderObjects

pytest_plugins = ["tests.support.stages", "tests.support.replay_stages"]


@pytest.mark.parametrize(("at", "after"), [(1, True), (3, False)])
def test_a_replay_that_was_cut_off_goes_on(
    new_stage: NewStage, objects: FolderObjects, at: int, *, after: bool
) -> None:
    with new_stage() as stage:
        archive(stage, objects)
        before = digests(stage)
        wipe(stage)
        stage.clickhouse.fail_at(at, after=after)
        with pytest.raises(Transient, match="interrupted"):
            replay(stage, objects)
        replay(stage, objects)
        assert digests(stage) == before


def test_a_period_is_decided_as_it_was(new_stage: NewStage, objects: FolderObjects) -> None:
    with new_stage() as stage:
        archive(stage, objects)
        since, until = NOON_US + 5 * DAY_US, NOON_US + 7 * DAY_US
        live = stage.everything()
        period = Period(since_us=since, until_us=until)
        inside = {r.offset for r in archived(objects, stage.log) if period.has(r.appended_us)}
        assert inside
        wipe(stage)
        replay(stage, objects, period)
        again = stage.everything()
        for name in ("stored", "outcomes"):
            assert {p for p in _positions(again[name]) if p[0] in inside} == {
                p for p in _positions(live[name]) if p[0] in inside
            }, name
        # Some of before, for their claims, and nothing of after.
        assert min(stage.ledger()) < min(inside)
        assert max(stage.ledger()) == max(inside)
        plan = make_plan(objects, period, WINDOW_US)
        assert prove(stage.clickhouse, objects, plan).differences == []
        assert min(entry.begin for entry in plan.files[stage.log.generation, 0]) > 0


def _positions(found: object) -> set[tuple[int, int]]:
    assert isinstance(found, set | dict)
    return set(found)
