"""The archiver: each record once, whatever ends where, and nothing forgotten before."""

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.archives import (
    Failing,
    archive_all,
    archived,
    archiver_of,
    encoded,
    entries_of,
    same_bytes,
)
from tests.support.event_logs import append, read_all
from tests.support.loading import HOUR_US, NOON_US, SetClock
from tests.support.server import wait_until
from tollgate.core.errors import PermanentFault, Transient
from tollgate.events.archive_chain import RECORDS, Chain
from tollgate.events.load import DAY_US
from tollgate.events.record import Group, encode_record
from tollgate.platform.event_log import ARCHIVE, LOADER
from tollgate.platform.objects_folder import FolderObjects
from tollgate.platform.segment_log import SegmentLog


class House:
    """A log that loaders and archivers read, and a folder of objects."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = SetClock()
        self.log = self.open_log()
        self.objects = FolderObjects(folder / "objects")

    def open_log(self, *readers: str) -> SegmentLog:
        path = self.folder / "log"
        return SegmentLog(path, self.clock, readers=readers or (LOADER, ARCHIVE))

    def append(self, *ids: str) -> None:
        """One record."""
        events = [encoded(each) for each in ids]
        append(self.log, encode_record([Group("n", NOON_US, events)]))

    def fill(self, records: int) -> None:
        for number in range(records):
            self.append(*(f"{number}-{n}" for n in range(1 + number % 3)))

    def pass_time(self) -> None:
        """All that is in the log may be archived from now on."""
        self.clock.us += 2 * HOUR_US


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.log.close()


def test_where_a_file_ends_follows_from_the_records(house: House) -> None:
    house.fill(4)  # of 1, 2, 3, 1 events
    house.clock.us += HOUR_US
    house.append("next hour")
    house.clock.us += 11 * HOUR_US
    house.append("next day")
    archiver = archiver_of(house.log, house.objects, house.clock, events_max=6, slot_us=DAY_US)
    archive_all(archiver)
    # 6 events; those of the rest of the day. What came today waits, for more may come.
    assert [(e.begin, e.last, e.rows) for e in entries_of(house.objects, house.log)] == [
        (0, 2, 6),
        (3, 4, 2),
    ]
    house.clock.us += 2 * DAY_US
    archive_all(archiver)
    entries = entries_of(house.objects, house.log)
    assert [e.file.rpartition("partition=0/")[2] for e in entries] == [
        "day=2026-11-02/0-2.parquet",
        "day=2026-11-02/3-4.parquet",
        "day=2026-11-03/5-5.parquet",
    ]
    same_bytes(archived(house.objects, house.log), read_all(house.log))
    assert [e.namespaces for e in entries] == [{"n": 6}, {"n": 2}, {"n": 1}]
    assert archiver.progress.events == 9


def test_the_log_is_kept_until_it_is_loaded_and_archived(house: House) -> None:
    house.fill(5)
    house.log.release(0, 4)
    told: list[tuple[int, int, int]] = []
    archiver = archiver_of(house.log, house.objects, house.clock, events_max=6)
    archiver.on_archived = lambda *place: told.append(place)
    assert house.log.released(0) == -1
    archive_all(archiver)
    assert told == [(1, 0, 2)]
    wait_until(lambda: house.log.released(0) == 2, what="released")
    house.pass_time()
    archive_all(archiver)
    wait_until(lambda: house.log.released(0) == 4, what="released")
    # The other way round: archived, and not loaded.
    house.append("more")
    house.pass_time()
    archive_all(archiver)
    assert archiver.progress.frontier == 5
    assert house.log.backlog_bytes() > 0
    house.log.release(0, 5)
    wait_until(lambda: house.log.backlog_bytes() == 0, what="released")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", [1, 2, 3, 4, 7])
def test_an_archiver_that_ends_anywhere_is_gone_on_from(
    house: House, at: int, *, after: bool
) -> None:
    """At the probe, a file, its entry; the next one may cut its files elsewhere."""
    house.fill(7)
    house.pass_time()
    failing = Failing(house.folder / "objects", at, after=after)
    told: list[tuple[int, int, int]] = []

    def archive_for_ever() -> None:
        while True:
            archiver = archiver_of(house.log, failing, house.clock, events_max=6)
            archiver.on_archived = lambda *place: told.append(place)
            archive_all(archiver)
            house.append("more")
            house.pass_time()

    with pytest.raises(Transient, match="interrupted"):
        archive_for_ever()
    # Nothing is told of that the manifest does not have.
    known = Chain(failing, RECORDS, 1, 0).look()
    assert all(offset <= known for _, _, offset in told)
    archive_all(archiver_of(house.log, house.objects, house.clock, events_max=4))
    same_bytes(archived(house.objects, house.log), read_all(house.log))


def test_copies_at_once_make_one_archive(house: House) -> None:
    house.fill(60)
    house.pass_time()
    barrier = threading.Barrier(4)
    failed: list[BaseException] = []

    def work(events_max: int) -> None:
        try:
            archiver = archiver_of(house.log, house.objects, house.clock, events_max=events_max)
            barrier.wait()
            archive_all(archiver)
        except BaseException as problem:
            failed.append(problem)
            raise

    threads = [threading.Thread(target=work, args=(size,)) for size in (3, 5, 5, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    entries = entries_of(house.objects, house.log)
    same_bytes(archived(house.objects, house.log), read_all(house.log))
    # What gave way is there, and nothing refers to it.
    files = set(house.objects.names("records/"))
    assert {entry.file for entry in entries} <= files


def test_a_file_that_another_content_has_taken_gets_another_name(house: House) -> None:
    house.fill(1)
    house.pass_time()
    house.objects.put("records/generation=1/partition=0/day=2026-11-02/0-0.parquet", b"other")
    archive_all(archiver_of(house.log, house.objects, house.clock))
    (entry,) = entries_of(house.objects, house.log)
    assert entry.file.startswith("records/generation=1/partition=0/day=2026-11-02/0-0-")
    same_bytes(archived(house.objects, house.log), read_all(house.log))


def test_what_the_log_had_forgotten_is_said(house: House) -> None:
    house.log.close()
    with closing(house.open_log(LOADER)) as alone:
        house.log = alone
        house.fill(3)
        alone.release(0, 1)
        wait_until(lambda: alone.released(0) == 1, what="released")
    house.log = house.open_log()
    house.pass_time()
    archiver = archiver_of(house.log, house.objects, house.clock)
    assert archiver.progress.gaps == 1
    archive_all(archiver)
    assert [(e.begin, e.last, e.is_gap) for e in entries_of(house.objects, house.log)] == [
        (0, 1, True),
        (2, 2, False),
    ]
    same_bytes(archived(house.objects, house.log), read_all(house.log))


def test_the_archive_of_another_log_is_not_gone_on_with(house: House, tmp_path: Path) -> None:
    house.fill(3)
    house.pass_time()
    archive_all(archiver_of(house.log, house.objects, house.clock))
    with (
        closing(SegmentLog(tmp_path / "other", house.clock)) as other,
        pytest.raises(PermanentFault, match="archive of another log"),
    ):
        archiver_of(other, house.objects, house.clock)


def test_a_damaged_file_and_a_missing_entry_are_found(house: House) -> None:
    house.fill(3)
    house.pass_time()
    archive_all(archiver_of(house.log, house.objects, house.clock, events_max=1))
    first, second, third = entries_of(house.objects, house.log)
    path = house.folder / "objects" / second.file
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(PermanentFault, match="damaged"):
        archived(house.objects, house.log)
    path.unlink()
    with pytest.raises(PermanentFault, match="gone"):
        archived(house.objects, house.log)
    manifest = house.folder / "objects/manifest/records/generation=1/partition=0"
    (manifest / f"{second.begin:020d}.json").rename(manifest / f"{third.begin:020d}.json")
    with pytest.raises(PermanentFault, match="does not say what its name says"):
        entries_of(house.objects, house.log)
    (manifest / f"{third.begin:020d}.json").unlink()
    (manifest / f"{first.begin:020d}.json").unlink()
    assert entries_of(house.objects, house.log) == []


def test_a_thread_goes_on_once_object_storage_is_back(house: House) -> None:
    house.fill(4)
    house.pass_time()
    away = Failing(house.folder / "objects", 3)
    archiver = archiver_of(house.log, away, house.clock)
    stop = threading.Event()
    thread = threading.Thread(target=archiver.run, args=(stop,))
    thread.start()
    try:
        wait_until(lambda: archiver.progress.frontier == 3, what="archived")
        assert archiver.progress.failures == 1
        assert archiver.progress.last_failure == ""
    finally:
        stop.set()
        thread.join()
    same_bytes(archived(house.objects, house.log), read_all(house.log))
