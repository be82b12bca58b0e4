"""The loader on the real engine: what it does with records that are not as they should be."""

import threading
from collections.abc import Callable
from contextlib import closing

import pytest
from xxhash import xxh3_64_intdigest

from tests.support.event_logs import append
from tests.support.loading import NOON_US, NewStage, Sent, Stage, load_all
from tests.support.server import wait_until
from tollgate.core.errors import PermanentFault, Transient
from tollgate.events.load import DAY_US
from tollgate.events.rebuild import drop_keys_before
from tollgate.events.record import CHECKSUM, PREAMBLE, Encoded, Group, encode_record
from tollgate.platform.clickhouse import DATABASE
from tollgate.platform.event_log import LOADER, StoredRecord
from tollgate.platform.segment_log import SegmentLog

pytest_plugins = ["tests.support.stages"]
POSITION = ("log_generation", "log_partition", "log_offset", "log_index")


def poison(stage: Stage, sent: Sent) -> Encoded:
    """An event whose time the engine can't read; all else is in order."""
    good = stage.encoded(sent)
    # source, id, then the time, which is the line's first text with a point between digits.
    before, quote, rest = good.line.partition(b'"' + str(NOON_US // 1_000_000).encode())
    assert quote
    line = before + b'"no time at all' + rest[rest.index(b'"') :]
    return Encoded(good.key_hash, line)


def record_of(stage: Stage, offset: int, *events: Encoded) -> StoredRecord:
    value = encode_record([Group(stage.namespace, NOON_US, events)])
    return StoredRecord(offset=offset, appended_us=NOON_US, value=value)


def _cut(value: bytes) -> bytes:
    return value[:-5]


def _flipped(value: bytes) -> bytes:
    return value[:-3] + bytes([value[-3] ^ 1]) + value[-2:]


def _other_magic(value: bytes) -> bytes:
    return b"XX" + value[2:]


def _resealed(value: bytes) -> bytes:
    """Cut off and given a checksum that fits: only the lengths tell."""
    head, body = value[: PREAMBLE.size], value[PREAMBLE.size + CHECKSUM.size : -5]
    return head + CHECKSUM.pack(xxh3_64_intdigest(head + body)) + body


def _of_a_later_release(value: bytes) -> bytes:
    head, body = value[:2] + b"\x09" + value[3 : PREAMBLE.size], value[16:]
    return head + CHECKSUM.pack(xxh3_64_intdigest(head + body)) + body


def test_a_record_of_a_later_release_stops_the_loader_and_waits(stages: NewStage) -> None:
    with stages() as stage:
        good = stage.record(0, NOON_US, Sent(id="a"))
        later = StoredRecord(offset=1, appended_us=NOON_US, value=_of_a_later_release(good.value))
        with pytest.raises(PermanentFault, match=r"offset 1 .*version 9.*later"):
            stage.loader().load([good, later])
        assert stage.stored() == set()
        assert not stage.dead_letters()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (_cut, "checksum"),
        (_flipped, "checksum"),
        (_other_magic, "not_a_record"),
        (_resealed, "lengths"),
        (lambda _: b"", "too_short"),
        (lambda value: value[:10], "too_short"),
    ],
    ids=["cut", "bit flipped", "magic", "cut and resealed", "empty", "short"],
)
def test_a_corrupt_record_is_a_dead_letter_and_the_rest_loads(
    stages: NewStage, spoil: Callable[[bytes], bytes], code: str
) -> None:
    with stages() as stage:
        records = [stage.record(n, NOON_US, Sent(id=f"{n}")) for n in range(3)]
        records[1] = StoredRecord(offset=1, appended_us=NOON_US, value=spoil(records[1].value))
        loader = stage.loader()
        load_all(loader, records)
        assert stage.stored() == {(0, 0), (2, 0)}
        assert [letter[:3] for letter in stage.dead_letters()] == [(1, 0, code)]
        assert stage.ledger()[1] == (1, 0, 0, 0, 1)
        assert loader.progress.counts == {"stored": 2, "duplicate": 0, "conflict": 0, "dead": 1}
        before = stage.everything()
        load_all(stage.loader(), records)
        assert stage.everything() == before


@pytest.mark.parametrize("batches", [1, 3], ids=["one batch", "three batches"])
def test_a_row_that_the_engine_refuses_is_a_dead_letter_and_claims_no_key(
    stages: NewStage, batches: int
) -> None:
    """Offset 1 index 2 is poison; what comes under its key later counts, in any batches."""
    with stages() as stage:
        bad = poison(stage, Sent(id="bad"))
        records = [
            stage.record(0, NOON_US, *[Sent(id=f"a{n}") for n in range(5)]),
            record_of(stage, 1, *[stage.encoded(Sent(id=f"b{n}")) for n in range(2)], bad),
            stage.record(2, NOON_US, Sent(id="bad", data='{"n":5}'), Sent(id="a0")),
        ]
        loader = stage.loader()
        step = 3 // batches
        for start in range(0, 3, step):
            load_all(loader, records[start : start + step])
        good = {(0, n) for n in range(5)} | {(1, 0), (1, 1), (2, 0)}
        assert stage.stored() == stage.claims() == good
        assert [letter[:3] for letter in stage.dead_letters()] == [(1, 2, "unreadable_row")]
        assert '"id":"bad"' in stage.dead_letters()[0][3]
        assert stage.ledger() == {0: (5, 5, 0, 0, 0), 1: (3, 2, 0, 0, 1), 2: (2, 1, 1, 0, 0)}
        before = stage.everything()
        load_all(stage.loader(), records)
        assert stage.everything() == before


def test_a_line_that_is_no_json_is_a_dead_letter_even_where_its_key_repeats(
    stages: NewStage,
) -> None:
    with stages() as stage:
        good = stage.encoded(Sent(id="a"))
        line = b"{{{ not a row" + b"x" * (len(good.line) - 14) + b"\n"
        assert len(line) == len(good.line)
        broken = Encoded(good.key_hash, line)
        records = [record_of(stage, 0, broken, good), record_of(stage, 1, broken)]
        load_all(stage.loader(), records)
        assert stage.stored() == {(0, 1)}
        assert [letter[:2] for letter in stage.dead_letters()] == [(0, 0), (1, 0)]
        assert all("{{{ not" in letter[3] for letter in stage.dead_letters())
        assert stage.ledger() == {0: (2, 1, 0, 0, 1), 1: (1, 0, 0, 0, 1)}


def test_when_most_rows_are_refused_loading_stops_and_says_so(stages: NewStage) -> None:
    with stages() as stage:
        events = [poison(stage, Sent(id=f"{n}")) for n in range(130)]
        with pytest.raises(PermanentFault, match="more than 100 dead letters"):
            stage.loader().load([record_of(stage, 0, *events)])
        assert stage.ledger() == {}


def test_a_batch_ends_at_the_edge_of_the_append_day(stages: NewStage) -> None:
    with stages() as stage:
        midnight = (NOON_US // DAY_US + 1) * DAY_US
        for at in (midnight - 2, midnight - 1, midnight, midnight + 1):
            stage.clock.us = at
            append(stage.log, stage.record(0, at, Sent(id=f"{at}")).value)
        loader, stop = stage.loader(), threading.Event()
        assert [r.appended_us - midnight for r in loader.gather(stop)] == [-2, -1]
        assert [r.appended_us - midnight for r in loader.gather(stop)] == [0, 1]


def test_a_batch_holds_whole_records_up_to_its_number_of_events(stages: NewStage) -> None:
    with stages() as stage:
        for size in (3, 3, 3, 9, 1):
            append(stage.log, stage.record(0, 0, *[Sent(id=f"{n}") for n in range(size)]).value)
        loader, stop = stage.loader(events_max=7), threading.Event()
        batches = [[r.offset for r in loader.gather(stop)] for _ in range(3)]
        assert batches == [[0, 1], [2], [3]]
        assert [r.offset for r in loader.gather(stop)] == [4]


def test_stop_finishes_the_batch_at_hand(stages: NewStage) -> None:
    with stages() as stage:
        for n in range(3):
            append(stage.log, stage.record(n, NOON_US, Sent(id=f"{n}")).value)
        loader, stop = stage.loader(wait_ms=60_000), threading.Event()
        thread = threading.Thread(target=loader.run, args=(stop,))
        thread.start()
        # All three are held for a minute's batch; the stop ends the wait, not the batch.
        wait_until(lambda: not loader._held and loader._read_through == 2, what="gathered")
        assert stage.ledger() == {}
        stop.set()
        thread.join(20)
        assert not thread.is_alive()
        assert stage.stored() == {(0, 0), (1, 0), (2, 0)}
        assert loader.progress.frontier == 2


class _Endless(SegmentLog):
    """A log that has one more record whenever it is read."""

    def read(self, partition: int, after: int, bytes_max: int) -> list[StoredRecord]:
        append(self, b"one more")
        return super().read(partition, after, bytes_max)


def test_a_steady_stream_does_not_keep_a_batch_open(stages: NewStage) -> None:
    """What the first read finds, and what one last look finds when the time is over: two."""
    with stages() as stage:
        stage.log.close()
        stage.log = _Endless(stage.log.path, stage.clock)
        with closing(stage.log):
            loader = stage.loader(wait_ms=0, events_max=1000)
            stop = threading.Event()
            batches = [[r.offset for r in loader.gather(stop)] for _ in range(2)]
        assert batches == [[0, 1], [2, 3]]


def test_a_loader_refuses_when_the_log_gave_back_what_the_ledger_lacks(stages: NewStage) -> None:
    with stages() as stage:
        for n in range(3):
            append(stage.log, stage.record(n, NOON_US, Sent(id=f"{n}")).value)
        stage.log.release(0, 1)
        wait_until(lambda: stage.log.released(0) == 1, what="released")
        with pytest.raises(PermanentFault, match=r"offset 1, the ledger ends at -1.*backup"):
            stage.loader()
        assert stage.stored() == set()


def test_a_crash_between_ledger_and_release_does_not_leave_the_log_full(stages: NewStage) -> None:
    with stages() as stage:
        append(stage.log, stage.record(0, NOON_US, Sent(id="a")).value)
        records = stage.log.read(0, -1, 1 << 20)
        stage.log.close()
        stage.log = _NeverReleases(stage.log.path, stage.clock)
        with closing(stage.log):
            stage.loader().load(records)
        stage.log = SegmentLog(stage.log.path, stage.clock)
        with closing(stage.log):
            assert stage.log.backlog_bytes() > 0
            stage.loader()
            wait_until(lambda: stage.log.backlog_bytes() == 0, what="released at the next start")
            assert stage.log.released(0) == 0


class _NeverReleases(SegmentLog):
    """A log whose process dies before it can forget."""

    def release(self, partition: int, through: int, reader: str = LOADER) -> None:
        del partition, through, reader


def test_a_restarted_loader_knows_the_keys_that_were_stored(stages: NewStage) -> None:
    with stages() as stage:
        records = [stage.record(n, NOON_US + n, Sent(id=f"{n % 3}")) for n in range(6)]
        load_all(stage.loader(35 * DAY_US), records[:3])
        again = stage.loader(35 * DAY_US)
        load_all(again, records[3:])
        assert stage.stored() == {(0, 0), (1, 0), (2, 0)}
        assert again.progress.counts["duplicate"] == 3


def test_a_record_that_waited_long_still_meets_the_claims_of_its_time(stages: NewStage) -> None:
    """Appended 30 days after its first and loaded 20 days later, it is a duplicate all the same."""
    with stages() as stage:
        window = 35 * DAY_US
        first = stage.record(0, NOON_US, Sent(id="a"))
        load_all(stage.loader(window), [first])
        stage.clock.us = NOON_US + 30 * DAY_US
        stage.log.begin_after(0, 0)
        append(stage.log, stage.record(1, stage.clock.us, Sent(id="a")).value)
        stage.clock.us = NOON_US + 50 * DAY_US
        loader = stage.loader(window)
        loader.tend()
        loader.load(loader.gather(threading.Event()))
        assert stage.outcomes() == {(1, 0): ("duplicate", (0, 0))}


def test_a_loader_whose_clock_is_days_ahead_keeps_the_keys_of_the_window(stages: NewStage) -> None:
    """The log's clock decides what the next record may repeat."""
    with stages() as stage:
        window = 35 * DAY_US
        load_all(stage.loader(window), [stage.record(0, NOON_US, Sent(id="a"))])
        again = stage.record(1, NOON_US + DAY_US, Sent(id="a"))
        stage.clock.us = NOON_US + 60 * DAY_US
        loader = stage.loader(window)
        loader.tend()
        load_all(loader, [again])
        assert stage.outcomes() == {(1, 0): ("duplicate", (0, 0))}


def test_a_loader_that_has_loaded_nothing_drops_no_keys(stages: NewStage) -> None:
    """It knows no time of the log: what others have loaded is not for it to forget."""
    keys = f"SELECT count() FROM {DATABASE}.event_keys"
    with stages() as stage:
        load_all(stage.loader(35 * DAY_US), [stage.record(0, NOON_US, Sent(id="a"))])
        before = stage.clickhouse.query(keys)
        assert before[0][0] > 0
    with stages() as empty:
        empty.loader(35 * DAY_US).tend()
        assert empty.clickhouse.query(keys) == before
        drop_keys_before(empty.clickhouse, -37 * DAY_US)
        assert empty.clickhouse.query(keys) == before


def test_two_loaders_at_the_same_time_store_each_event_once(stages: NewStage) -> None:
    with stages() as stage:
        records = [
            stage.record(n, NOON_US + n, Sent(id=f"{n % 7}"), Sent(id=f"x{n}")) for n in range(20)
        ]
        loaders = [stage.loader(), stage.loader()]

        def load(loader_number: int) -> None:
            step = 3 + 2 * loader_number
            for start in range(0, len(records), step):
                load_all(loaders[loader_number], records[start : start + step])

        threads = [threading.Thread(target=load, args=(n,)) for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert stage.stored() == {(n, 1) for n in range(20)} | {(n, 0) for n in range(7)}
        assert stage.outcomes() == {(n, 0): ("duplicate", (n % 7, 0)) for n in range(7, 20)}


def test_loading_goes_on_after_clickhouse_was_away(stages: NewStage) -> None:
    with stages() as stage:
        append(stage.log, stage.record(0, NOON_US, Sent(id="a")).value)
        loader, stop = stage.loader(), threading.Event()
        stage.clickhouse.fail_at(2, after=True)
        thread = threading.Thread(target=loader.run, args=(stop,))
        thread.start()
        wait_until(lambda: loader.progress.frontier == 0, what="loaded after a failure")
        stop.set()
        thread.join()
        assert loader.progress.failures == 1
        assert stage.stored() == {(0, 0)}
        assert stage.ledger() == {0: (1, 1, 0, 0, 0)}


def test_an_interrupted_load_raises_what_interrupted_it(stages: NewStage) -> None:
    with stages() as stage:
        stage.clickhouse.fail_at(1, after=False)
        with pytest.raises(Transient, match="interrupted before"):
            stage.loader().load([stage.record(0, NOON_US, Sent(id="a"))])
        assert stage.everything() == {
            "stored": set(),
            "claims": set(),
            "outcomes": {},
            "ledger": {},
        }
