"""What the embedded event log makes of torn, damaged and interrupted folders."""

import shutil
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.support.disks import PowerLoss, StepDisk
from tests.support.event_logs import PARTITION, append, read_all, values_of
from tests.support.sqlite_log_file import make_sqlite_log
from tollgate.core.clock import SystemClock
from tollgate.core.errors import PermanentFault
from tollgate.platform.disk import Disk
from tollgate.platform.parts import Parts, open_log
from tollgate.platform.segment import FRAME_BYTES, HEAD_BYTES
from tollgate.platform.segment_log import SegmentLog
from tollgate.platform.segment_move import move_sqlite_log
from tollgate.platform.segment_store import SegmentStore, Sizes
from tollgate.platform.settings import read_settings

SMALL = Sizes(segment_bytes=16 << 10, grown_bytes=8 << 10)


def make(folder: Path, *submissions: list[bytes]) -> None:
    """Submissions, each written by itself."""
    with closing(SegmentLog(folder, SystemClock(), sizes=SMALL)) as log:
        for values in submissions:
            append(log, *values)


def only_segment(folder: Path) -> Path:
    (path,) = folder.glob("*.segment")
    return path


def change(path: Path, position: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        file.write(content)


def contents(folder: Path) -> list[bytes]:
    with closing(SegmentLog(folder, SystemClock(), sizes=SMALL)) as log:
        return values_of(read_all(log))


@pytest.fixture(scope="module")
def torn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two acknowledged records and one that is about to be torn."""
    folder = tmp_path_factory.mktemp("torn") / "log"
    make(folder, [b"first"], [b"second"], [b"torn record"])
    return folder


LAST = FRAME_BYTES + len(b"torn record")


@pytest.mark.parametrize("rest", [b"", b"\0" * 4096, b"\xa5" * 4096], ids=["cut", "zeros", "noise"])
def test_a_write_torn_at_any_byte_is_gone_and_stays_gone(
    torn: Path, tmp_path: Path, rest: bytes
) -> None:
    start = HEAD_BYTES + 2 * FRAME_BYTES + len(b"firstsecond")
    for kept in range(LAST):
        folder = tmp_path / f"{kept}"
        shutil.copytree(torn, folder)
        path = only_segment(folder)
        whole = path.read_bytes()
        assert len(whole) == start + LAST
        path.write_bytes(whole[: start + kept] + rest)
        with closing(SegmentStore(folder, Disk(), SMALL)) as store:
            assert store.end == 1, kept
            assert [r.value for r in store.read(-1, 1 << 20)] == [b"first", b"second"]
            # A shorter record goes over it, and then the power is lost again.
            assert store.append([b"x"], [0]) == 2
        with closing(SegmentStore(folder, Disk(), SMALL)) as store:
            assert [r.value for r in store.read(-1, 1 << 20)] == [b"first", b"second", b"x"], kept
        shutil.rmtree(folder)


def test_what_a_torn_write_left_behind_its_hole_never_comes_back(tmp_path: Path) -> None:
    """Pages reach the disk in any order: the first frame is lost, those behind it are there."""
    folder = tmp_path / "log"
    make(folder, [b"a"], [b"1" * 50, b"2" * 50, b"3" * 50])
    start = HEAD_BYTES + FRAME_BYTES + 1
    change(only_segment(folder), start + 60, b"?")
    with closing(SegmentStore(folder, Disk(), SMALL)) as store:
        assert store.end == 0
        # As long as the one that was torn: what stood behind that one now stands behind this.
        store.append([b"b" * 50], [0])
    assert contents(folder) == [b"a", b"b" * 50]
    with closing(SegmentStore(folder, Disk(), SMALL)) as store:
        store.append([b"c" * 50], [0])
    assert contents(folder) == [b"a", b"b" * 50, b"c" * 50]


def test_a_damaged_record_in_the_middle_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    make(folder, [b"a"], [b"bbbb"], [b"c"])
    position = HEAD_BYTES + FRAME_BYTES + 1
    path = only_segment(folder)
    whole = path.read_bytes()
    size = FRAME_BYTES + 4
    for at in range(position, position + size):
        change(path, at, bytes([whole[at] ^ 1]))
        with pytest.raises(PermanentFault, match=f"offset 1, at byte {position}, is damaged"):
            SegmentLog(folder, SystemClock())
        change(path, at, whole[at : at + 1])
    assert contents(folder) == [b"a", b"bbbb", b"c"], "a refusal changes nothing"


def fill_segments(folder: Path) -> list[Path]:
    make(folder, *[[b"%04d" % n * 100] for n in range(60)])
    paths = sorted(folder.glob("*.segment"))
    assert len(paths) > 2
    return paths


def test_a_damaged_end_of_a_segment_that_is_not_the_last_is_refused(tmp_path: Path) -> None:
    first, second, *_ = fill_segments(tmp_path / "log")
    last = int(second.stem) - 1
    content = first.read_bytes()
    change(first, content.rindex(b"%04d" % last), b"?")
    with pytest.raises(PermanentFault, match=f"offset {last}, .* is damaged"):
        SegmentLog(tmp_path / "log", SystemClock())


@pytest.mark.parametrize("which", [0, 1])
def test_a_missing_segment_is_refused(tmp_path: Path, which: int) -> None:
    paths = fill_segments(tmp_path / "log")
    paths[which].unlink()
    with pytest.raises(PermanentFault, match=f"offset {int(paths[which].stem)}, .* missing"):
        SegmentLog(tmp_path / "log", SystemClock())


def test_a_folder_without_its_state_or_all_its_segments_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    make(folder, [b"a"])
    (folder / "state").rename(tmp_path / "state")
    with pytest.raises(PermanentFault, match="state is missing"):
        SegmentLog(folder, SystemClock())
    (tmp_path / "state").rename(folder / "state")
    change(only_segment(folder), 20, b"?")
    with pytest.raises(PermanentFault, match="not the segment that its name says"):
        SegmentLog(folder, SystemClock())
    only_segment(folder).unlink()
    with pytest.raises(PermanentFault, match="all segments are missing"):
        SegmentLog(folder, SystemClock())


def test_a_value_that_holds_frames_is_a_value(tmp_path: Path) -> None:
    """Frames of another log, even this log's own bytes, prove nothing inside a value."""
    make(tmp_path / "other", *[[b"x"]] * 9)
    foreign = only_segment(tmp_path / "other").read_bytes()[HEAD_BYTES:]
    folder = tmp_path / "log"
    make(folder, [b"a"], [foreign])
    path = only_segment(folder)
    change(path, path.stat().st_size - 1, b"?")
    assert contents(folder) == [b"a"]


def test_a_recycled_file_shows_nothing_of_what_it_held(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    store = SegmentStore(folder, Disk(), SMALL)
    value = b"old" * 100
    recycled, last = 0, -1
    with closing(store):
        while recycled < 4:
            last = store.append([value] * 10, [0] * 10)
            store.prepare_spare()
            if len(store.segments) > 1:
                store.release(last - 10)
                store.drop_released()
                recycled += 1
    for _ in range(3):
        with closing(SegmentStore(folder, Disk(), SMALL)) as store:
            assert store.end == last
            assert store.read(last - 1, 1)[0].value == value
            last = store.append([value], [0])


@pytest.mark.parametrize("steps", range(14))
def test_power_lost_at_any_step_of_making_and_switching(tmp_path: Path, steps: int) -> None:
    """Every write and every replaced file of a log that is made and reaches its third segment."""
    folder = tmp_path / "log"
    told: list[bytes] = []
    with suppress(PowerLoss):
        with closing(SegmentStore(folder, StepDisk(steps), SMALL)) as store:
            for n in range(8):
                value = b"%d" % n * 3000
                store.append([value], [n])
                told.append(value)
                store.release(n - 4)
        assert steps >= 14
    with closing(SegmentStore(folder, Disk(), SMALL)) as store:
        found = [r.value for r in store.read(-1, 1 << 20)]
        assert found == told[store.released + 1 :]
        assert store.append([b"next"], [0]) == len(told)


def records_of(folder: Path) -> list[tuple[int, int, bytes]]:
    with closing(SegmentLog(folder, SystemClock())) as log:
        return [(r.offset, r.appended_us, r.value) for r in read_all(log)]


def test_a_sqlite_log_of_before_is_moved_with_its_offsets_and_times(tmp_path: Path) -> None:
    old, folder = tmp_path / "log.sqlite", tmp_path / "log"
    records = [(n, 1000 + n, b"%d" % n) for n in range(5, 600)]
    records += [(n, 9000, b"behind a gap") for n in range(1000, 1003)]
    make_sqlite_log(old, records, released=7, end=1010)
    # An attempt that was interrupted has left half a folder.
    make(tmp_path / "log.moving", [b"half"])
    assert move_sqlite_log(old, folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log"]
    assert records_of(folder) == [each for each in records if each[0] > 7]
    assert not move_sqlite_log(old, folder)
    with closing(SegmentLog(folder, SystemClock())) as log:
        assert (log.generation, log.released(PARTITION), log.end(PARTITION)) == (1, 7, 1010)
        assert log.backlog_bytes() == sum(len(value) for n, _, value in records if n > 7)
        assert append(log, b"next") == 1011


def open_parts(data: Path, **settings: str) -> list[bytes]:
    """What the log holds that the product opens."""
    parts = Parts(read_settings(settings, {"data": data}))
    try:
        return values_of(read_all(parts.get(open_log)))
    finally:
        parts.close()


def test_the_product_moves_the_log_of_its_folder_and_of_no_other(tmp_path: Path) -> None:
    make_sqlite_log(tmp_path / "log.sqlite", [(0, 1, b"old")])
    elsewhere = f"file://{tmp_path / 'elsewhere'}"
    make(tmp_path / "elsewhere", [b"other"])
    assert open_parts(tmp_path, TOLLGATE_LOG_URL=elsewhere) == [b"other"]
    assert open_parts(tmp_path) == [b"old"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "log"]
    with pytest.raises(PermanentFault, match="'sqlite' is not a known event log"):
        open_parts(tmp_path, TOLLGATE_LOG_URL="sqlite:///x")


def test_a_move_that_was_interrupted_before_the_old_file_was_gone_ends(tmp_path: Path) -> None:
    old, folder = tmp_path / "log.sqlite", tmp_path / "log"
    make_sqlite_log(old, [(0, 1, b"a")])
    shutil.copy(old, tmp_path / "kept")
    assert move_sqlite_log(old, folder)
    with closing(SegmentLog(folder, SystemClock())) as log:
        append(log, b"b")
    shutil.copy(tmp_path / "kept", old)
    assert move_sqlite_log(old, folder)
    assert not old.exists()
    assert contents(folder) == [b"a", b"b"]


def test_a_sqlite_log_that_is_not_the_moved_one_is_not_thrown_away(tmp_path: Path) -> None:
    old, folder = tmp_path / "log.sqlite", tmp_path / "log"
    make(folder, [b"a"])
    make_sqlite_log(old, [(0, 1, b"x")])
    with pytest.raises(PermanentFault, match="both there"):
        move_sqlite_log(old, folder)
    assert old.exists()
    assert contents(folder) == [b"a"]
