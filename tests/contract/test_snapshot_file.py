"""The last known state in a file: what is relied on, and what is not."""

import fcntl
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.server import clean_environment
from tollgate.core.clock import us_from_datetime
from tollgate.platform.snapshot_file import SnapshotFile, identity_of_database

URL = "postgresql+psycopg://me:secret@db:5432/control"
NOON = datetime(2026, 3, 1, 12, 0, 0, 123457, tzinfo=UTC)
WRITER = """
import sys
from datetime import timedelta
from pathlib import Path
from tollgate.core.clock import SystemClock
from tollgate.platform.snapshot_file import SnapshotFile
clock, name = SystemClock(), sys.argv[2]
file = SnapshotFile(Path(sys.argv[1]), "numbers", "postgresql://db/x", clock)
seen = False
for number in range(300):
    file.keep(b'{"by": "%s", "number": %d}' % (name.encode(), number), clock.now())
    found = file.read()
    assert found or not seen
    seen = seen or found is not None
assert seen
"""


class SetClock:
    instant = NOON + timedelta(hours=1)

    def now(self) -> datetime:
        return self.instant

    def now_us(self) -> int:
        return us_from_datetime(self.instant)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "numbers.snapshot"


def file_at(path: Path, kind: str = "numbers", url: str = URL) -> SnapshotFile:
    return SnapshotFile(path, kind, url, SetClock())


def content_of(file: SnapshotFile) -> bytes | None:
    found = file.read()
    return None if found is None else found.content


def test_what_was_kept_is_read_and_is_the_owner_s_alone(path: Path) -> None:
    assert file_at(path).read() is None
    file_at(path).keep(b"[1.50]", NOON)
    found = file_at(path).read()
    assert found is not None
    assert (found.content, found.read_at) == (b"[1.50]", NOON)
    assert {p.stat().st_mode & 0o777 for p in path.parent.iterdir()} == {0o600}
    assert b"secret" not in path.read_bytes()


@pytest.mark.parametrize("place", [0, 30, 80, -1])
def test_a_damaged_file_counts_as_none(path: Path, place: int) -> None:
    file_at(path).keep(b"[1, 2, 3]", NOON)
    whole = bytearray(path.read_bytes())
    whole[place] ^= 1
    path.write_bytes(whole)
    assert file_at(path).read() is None
    path.write_bytes(b"")
    assert file_at(path).read() is None
    file_at(path).keep(b"[4]", NOON)
    assert content_of(file_at(path)) == b"[4]"


def test_it_is_good_for_its_database_and_kind_only(path: Path) -> None:
    file_at(path).keep(b"[1]", NOON)
    for own, other in (("5432", "5433"), ("@db:", "@db2:"), ("me:", "you:"), ("/control", "/x")):
        assert file_at(path, url=URL.replace(own, other)).read() is None
    assert file_at(path, kind="letters").read() is None
    assert content_of(file_at(path, url=URL.replace("secret", "changed"))) == b"[1]"
    with_query = URL + "?password=a&sslmode=require"
    assert identity_of_database(with_query) == identity_of_database(
        URL + "?sslmode=require&password=b"
    )
    assert identity_of_database(with_query) != identity_of_database(URL)


def test_what_was_read_later_stays(path: Path) -> None:
    file_at(path).keep(b'["revoked"]', NOON)
    file_at(path).keep(b'["in force"]', NOON - timedelta(milliseconds=1))
    assert content_of(file_at(path)) == b'["revoked"]'
    # An instant that has not come yet is a clock's mistake, and must not keep all others out.
    file_at(path).keep(b'["future"]', NOON + timedelta(days=1))
    file_at(path).keep(b'["now"]', NOON + timedelta(seconds=1))
    assert content_of(file_at(path)) == b'["now"]'


def test_the_same_is_written_again_after_a_minute(path: Path) -> None:
    file = file_at(path)
    file.keep(b"[1]", NOON)
    written = path.stat().st_ino
    file.keep(b"[1]", NOON + timedelta(seconds=59))
    file_at(path).keep(b"[1]", NOON + timedelta(seconds=59))
    assert path.stat().st_ino == written
    file.keep(b"[1]", NOON + timedelta(seconds=60))
    found = file.read()
    assert found is not None
    assert found.read_at == NOON + timedelta(seconds=60)


def test_who_was_stopped_while_it_wrote_holds_nobody_up(path: Path) -> None:
    file_at(path).keep(b"[1]", NOON)
    lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    file = file_at(path)
    file.keep(b"[2]", NOON)
    assert content_of(file) == b"[1]"
    os.close(lock)
    file.keep(b"[2]", NOON)
    assert content_of(file) == b"[2]"


def test_a_folder_that_can_t_be_made_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    file = file_at(tmp_path / "data" / "numbers.snapshot")
    file.keep(b"[1]", NOON)
    assert file.read() is None


def test_several_processes_keep_one_file(path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(path)]
    writers = [subprocess.Popen([*command, n], env=clean_environment({})) for n in "ab"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert {p.name for p in path.parent.iterdir()} == {path.name, path.name + ".lock"}
