"""What OpenMeter is known to get wrong, by the number of its issue."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.loading import NewStage
from tests.support.sealing import SealHouse, Use, hour_at, open_house
from tollgate.core.errors import Transient

pytest_plugins = ["tests.support.stages"]


@pytest.fixture
def house(stages: NewStage, tmp_path: Path) -> Iterator[SealHouse]:
    with open_house(stages, tmp_path) as opened:
        yield opened


def test_an_event_with_an_old_time_is_not_lost_to_retention(house: SealHouse) -> None:
    """Issue 5005: there it is deleted by the time that the event names."""
    house.send(Use(id="a"))
    house.pass_hours(2)
    house.seal()
    house.send(Use(id="old", n=5, hour=-200 * 24))
    assert house.value() == 6
    house.pass_hours(1)
    revision, _ = house.seal().sealed[house.namespace]
    assert (revision.start, revision.late_events) == (hour_at(-200 * 24), 1)
    assert house.value(revision.vector, -200 * 24) == 5


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("insert", [1, 2])
def test_an_event_retried_after_a_failed_write_counts_once(
    house: SealHouse, insert: int, after: bool
) -> None:
    """Issue 5118: there its key is taken by the write that failed, or it counts twice."""
    use = Use(id="a", n=7)
    house.append([house.encoded(use)])
    house.stage.clickhouse.fail_at(insert, after=after)
    with pytest.raises(Transient):
        house.load()
    # The sender got no answer and sends it again; the loader tries again.
    house.append([house.encoded(use)])
    house.load()
    assert house.value() == 7
    house.pass_hours(2)
    assert house.namespace in house.seal().sealed
