"""What schedules have found, each as a table of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.schedules.drive import simulated_parts
from tests.schedules.options import options_of
from tests.schedules.truth import Item
from tests.schedules.world import World
from tests.support.loading import NewStage
from tests.support.sealing import SealHouse, Use, open_house
from tollgate.core.errors import Transient
from tollgate.events.position import Token

pytest_plugins = ["tests.support.stages"]


@pytest.fixture
def house(stages: NewStage, tmp_path: Path) -> Iterator[SealHouse]:
    with open_house(stages, tmp_path) as opened:
        yield opened


def test_an_amendment_that_is_half_written_does_not_count_beside_its_event(
    house: SealHouse,
) -> None:
    """Also if it is the first correction ever: no other makes queries look for corrections."""
    house.send(Use(id="a", n=7))
    house.stage.clickhouse.fail_at(2, after=False)
    with pytest.raises(Transient):
        house.correct("a", Use(id="a", n=5))
    assert house.value() == 7
    house.load()
    assert house.value() == 5


def test_an_answer_to_corrections_covers_those_that_came_before() -> None:
    """One of two is in the log already: the position that is answered says where both stand."""
    options = next(o for o in map(options_of, range(1000)) if o.partitions == 3)
    world = World(options, simulated_parts(options), None)
    world.faults.calm = True
    items = [Item(key=("n", "s", f"e{number}"), n=number) for number in range(9)]
    tokens: list[Token | Exception] = []
    try:
        for some in (items[:5], items):
            world.clients.clear()
            turn = world.cast.corrections[0].send("void", "once", some, tokens.append)
            world.cast.actors = [a for a in world.cast.actors if a.name.startswith("load")]
            while not turn.ended or world.step():
                if turn.runnable:
                    turn.step()
                for submission in world.network.due:
                    world.network.move(submission)
    finally:
        world.close()
    history = world.parts.records.history
    last = {p: records[-1].offset for p, records in enumerate(history) if records}
    assert len(last) == 3
    assert isinstance(tokens[1], Token)
    assert tokens[1].offsets == last
