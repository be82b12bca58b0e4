"""Keys as the engine keeps them: digests, and what a crash between the two tables leaves."""

import json

import pytest

from tests.support.loading import NOON_US, NewStage, Sent
from tollgate.core.errors import Transient
from tollgate.events.batch import open_batch
from tollgate.events.claims import digest_of
from tollgate.events.dedupe import numbers_of
from tollgate.events.load import DAY_US
from tollgate.platform.clickhouse import DATABASE

pytest_plugins = ["tests.support.stages"]
POSITION = ("log_generation", "log_partition", "log_offset", "log_index")

TEXTS = ["plain", 'quote " backslash \\ slash /', "zweiundvierzig ü \U0001f600", "\u2028"]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("time_us", [None, NOON_US + 7])
def test_the_engine_and_the_loader_take_the_same_digest(
    stages: NewStage, text: str, time_us: int | None
) -> None:
    with stages() as stage:
        data = json.dumps({"x": text}, ensure_ascii=False)
        sent = Sent(id=f"a {text}", data=data, type=text, time_us=time_us)
        record = stage.record(0, NOON_US, sent)
        stage.loader().load([record])
        batch = open_batch(0, 0, [record])
        rows = stage.clickhouse.query(
            f"SELECT key, digest, toUInt16(appended_on) FROM {DATABASE}.event_keys"
            " WHERE log_generation = {g:UInt32}",
            {"g": stage.log.generation},
        )
        (number,) = numbers_of(batch.keys).tolist()
        assert rows == [(number, digest_of(batch.line(0)), NOON_US // DAY_US)]


def test_events_whose_keys_were_lost_with_a_crash_are_claimed_when_loaded_again(
    stages: NewStage,
) -> None:
    """The view is not atomic with its table: the ledger, which comes later, makes it whole."""
    with stages() as stage:
        records = [stage.record(0, NOON_US, Sent(id="a"), Sent(id="b"))]
        stage.clickhouse.fail_at(1, after=True)
        with pytest.raises(Transient, match="interrupted after"):
            stage.loader().load(records)
        stage.clickhouse.command(
            f"DELETE FROM {DATABASE}.event_keys WHERE log_generation = {{g:UInt32}}",
            {"g": stage.log.generation},
        )
        assert (stage.stored(), stage.claims()) == ({(0, 0), (0, 1)}, set())
        loader = stage.loader()
        loader.load(records)
        loader.load([stage.record(1, NOON_US, Sent(id="b"), Sent(id="a", data='{"n":2}'))])
        assert stage.stored() == stage.claims() == {(0, 0), (0, 1)}
        assert stage.ledger() == {0: (2, 2, 0, 0, 0), 1: (2, 0, 1, 1, 0)}


def test_a_key_that_shares_a_number_with_another_is_its_own(stages: NewStage) -> None:
    """64 bits may meet by chance: the full key decides, and no event is taken for another."""
    with stages() as stage:
        first = stage.record(0, NOON_US, Sent(id="a"))
        stage.loader().load([first])
        other = stage.record(1, NOON_US, Sent(id="b"))
        (number,) = numbers_of(open_batch(0, 0, [other]).keys).tolist()
        generation = stage.log.generation
        row = [number, 1, generation, 0, 0, 0, NOON_US // DAY_US]
        columns = ("key", "digest", *POSITION, "appended_on")
        stage.clickhouse.insert("event_keys", columns, json.dumps(row).encode())
        loader = stage.loader()
        loader.load([other])
        assert stage.ledger() == {0: (1, 1, 0, 0, 0), 1: (1, 1, 0, 0, 0)}
        again = Sent(id="b", data='{"n": 1}')
        loader.load([stage.record(2, NOON_US, again, Sent(id="b", data='{"n":2}'))])
        assert stage.outcomes() == {(2, 0): ("duplicate", (1, 0)), (2, 1): ("conflict", (1, 0))}


def test_an_event_whose_key_outlived_it_in_a_crash_is_compared_by_its_line(
    stages: NewStage,
) -> None:
    """The other half of it: the same content in other bytes is no conflict then."""
    with stages() as stage:
        records = [
            stage.record(0, NOON_US, Sent(id="a")),
            stage.record(1, NOON_US, Sent(id="a", data='{ "n" : 1.0 }')),
        ]
        stage.clickhouse.fail_at(1, after=True)
        with pytest.raises(Transient, match="interrupted after"):
            stage.loader().load(records)
        stage.clickhouse.command(
            f"DELETE FROM {DATABASE}.events WHERE log_generation = {{g:UInt32}}",
            {"g": stage.log.generation},
        )
        assert (stage.stored(), stage.claims()) == (set(), {(0, 0)})
        stage.loader().load(records)
        assert stage.stored() == stage.claims() == {(0, 0)}
        assert stage.outcomes() == {(1, 0): ("duplicate", (0, 0))}
