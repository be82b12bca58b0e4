"""A backup under load becomes a folder in which every event counts once, whatever is sent again."""

import hashlib
import io
import json
import random
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.faults import assert_balanced, inspect
from tests.support.server import ROOT, Server, wait_until
from tests.support.sqlite_log_file import make_sqlite_log
from tollgate.core.clock import SystemClock
from tollgate.core.errors import Conflict
from tollgate.events.backup import TABLES, backup_pieces
from tollgate.platform.parts import Parts
from tollgate.platform.segment_log import SegmentLog
from tollgate.platform.settings import read_settings

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.embedded_only("services have backups of their own"),
]
PER_BATCH = 50
METER = {"slug": "backup_sum", "eventType": "backup", "aggregation": "SUM", "valueProperty": "$.n"}


def batch(number: int) -> list[dict[str, Any]]:
    first = number * PER_BATCH
    return [
        {
            "specversion": "1.0",
            "id": str(n),
            "source": "backup-test",
            "type": "backup",
            "subject": f"customer-{n % 7}",
            "time": f"2026-03-0{1 + n % 9}T00:00:00Z",
            "data": {"n": f"{n}.01"},
        }
        for n in range(first, first + PER_BATCH)
    ]


def send(server: Server, number: int) -> str:
    answer = server.http.post("/api/v1/events", json=batch(number))
    assert answer.status_code == 204, answer.text
    return answer.headers["tollgate-position"]


def figure(server: Server, position: str | None = None) -> tuple[int, str]:
    """The meter's sum, in digits, and how many events that is by the ledger."""
    headers = {"Tollgate-Position": position} if position else {}
    answer = server.http.get("/api/v1/meters/backup_sum/query", headers=headers)
    assert answer.status_code == 200, answer.text
    rows = json.loads(answer.text, parse_float=str, parse_int=str)["data"]
    values = [row["value"] for row in rows]
    return len(values), values[0] if values else "0"


def expected(batches: int) -> tuple[int, str]:
    count = batches * PER_BATCH
    hundredths = count * (count - 1) // 2 * 100 + count  # 0 + 1 + ... and 0.01 for each
    whole, rest = divmod(hundredths, 100)
    return 1, f"{whole}.{rest:02d}".rstrip("0").rstrip(".")


def restore(file: Path, data: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tollgate.events.restore", str(file), "--data", str(data)],
        env={"PYTHONPATH": str(ROOT / "shared"), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )


@contextmanager
def hold_backup(port: int) -> Iterator[None]:
    """A client that asks for a backup and reads only how the answer begins."""
    with socket.socket() as client:
        # Small on purpose: what is not read must not fit into the buffers on the way.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        client.sendall(b"POST /api/v1/backups HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 200"
        yield


class Sender:
    """Sends batch after batch until told to stop; batches below `acknowledged` are on disk."""

    def __init__(self, server: Server) -> None:
        self.acknowledged = 0
        self._server = server
        self._stop = threading.Event()

    def run(self) -> None:
        while not self._stop.is_set():
            send(self._server, self.acknowledged)
            self.acknowledged += 1

    def stop(self) -> None:
        self._stop.set()


def test_a_backup_under_load_restores_and_counts_each_event_once(
    new_server: Callable[..., Server], tmp_path: Path
) -> None:
    original = new_server(data=tmp_path / "original").start()
    assert original.http.post("/api/v1/meters", json=METER).status_code == 201
    file = tmp_path / "backup.tar"
    sender = Sender(original)
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(sender.run)
        wait_until(lambda: sender.acknowledged >= 20, what="load running")
        before = sender.acknowledged
        with original.http.stream("POST", "/api/v1/backups") as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "application/x-tar"
            with file.open("wb") as target:
                for piece in answer.iter_bytes():
                    target.write(piece)
        after = sender.acknowledged
        wait_until(lambda: sender.acknowledged >= after + 5, what="load goes on")
        sender.stop()
        sending.result()
    original.kill()
    assert list((tmp_path / "original").glob("backup_*")) == []
    assert list((tmp_path / "original" / "clickhouse" / "shadow").glob("backup_*")) == []

    done = restore(file, tmp_path / "restored")
    assert done.returncode == 0, done.stderr
    copy = new_server(data=tmp_path / "restored").start()
    position = send(copy, 0)  # duplicates: only to know when all that was restored is loaded
    rows, total = figure(copy, position)
    assert rows == 1
    # Batches are sent in order: what is in the copy is a whole number of them, none left out.
    held = next(n for n in range(before, sender.acknowledged + 1) if expected(n)[1] == total)
    assert before <= held

    for number in range(sender.acknowledged):
        position = send(copy, number)
    assert figure(copy, position) == expected(sender.acknowledged)
    # No meter but the sample's and the one made over HTTP: it came with the backup.
    slugs = {meter["slug"] for meter in copy.http.get("/api/v1/meters").json()}
    assert "backup_sum" in slugs
    copy.stop()
    found = inspect(copy.data)
    assert_balanced(found)
    assert found["events"] == sender.acknowledged * PER_BATCH


@pytest.fixture(scope="module")
def backup(server: Server) -> bytes:
    """A whole backup of the shared server."""
    position = server.http.post("/api/v1/events", json=batch(90_000)).headers["tollgate-position"]
    server.http.get("/api/v1/meters/tokens_total/query", headers={"Tollgate-Position": position})
    answer = server.http.post("/api/v1/backups")
    assert answer.status_code == 200, answer.text
    return answer.content


def test_the_manifest_comes_last_and_vouches_for_every_file(backup: bytes) -> None:
    with tarfile.open(fileobj=io.BytesIO(backup)) as tar:
        names = tar.getnames()
        assert names[-1] == "manifest.json"
        text = tar.extractfile("manifest.json")
        assert text is not None
        manifest = json.loads(text.read())
        assert set(manifest["files"]) == set(names[:-1])
        for name, facts in manifest["files"].items():
            content = tar.extractfile(name)
            assert content is not None
            assert hashlib.sha256(content.read()).hexdigest() == facts["sha256"]
    assert {"log/state", "control.sqlite"} <= set(names)
    assert manifest["rows"]["events"] >= PER_BATCH


def with_flipped_bit(backup: bytes) -> bytes:
    """Changed inside the first file, which the tar's own header checksum does not cover."""
    damaged = bytearray(backup)
    damaged[700] ^= 1
    return bytes(damaged)


def without_manifest(backup: bytes) -> bytes:
    """Cut exactly between two members: a tar that ends like a good one."""
    at = backup.rindex(b"manifest.json")
    return backup[: at - at % 512] + bytes(1024)


def with_manifest(backup: bytes, **members: object) -> bytes:
    """The same files under a manifest that says something else."""
    out = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(backup)) as old,
        tarfile.open(fileobj=out, mode="w") as new,
    ):
        for info in old:
            content = old.extractfile(info)
            assert content is not None
            text = content.read()
            if info.name == "manifest.json":
                text = json.dumps(json.loads(text) | members).encode()
                info.size = len(text)
            new.addfile(info, io.BytesIO(text))
    return out.getvalue()


def with_link(_: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        link = tarfile.TarInfo("log/state")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return out.getvalue()


def with_stranger(_: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("clickhouse/events/../../../../etc/passwd"))
    return out.getvalue()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (with_flipped_bit, "damaged"),
        (without_manifest, "cut off"),
        (lambda whole: whole[: len(whole) // 2], "cut off"),
        (with_stranger, "no place in a backup"),
        (with_link, "link"),
        (lambda whole: with_manifest(whole, format=3, rows=None), "its form is 3"),
        (lambda whole: with_manifest(whole, schema=99), "restore it with that version"),
        (
            lambda whole: with_manifest(whole, rows=dict.fromkeys(TABLES, 1)),
            "rows were restored",
        ),
        (lambda whole: with_manifest(whole, frontier={"0": 10**9}), "the restored ledger ends at"),
        (lambda _: b"not a tar at all" * 100, "damaged"),
        (lambda _: b"", "damaged"),
    ],
)
def test_a_spoiled_backup_is_refused_and_leaves_nothing(
    backup: bytes, tmp_path: Path, spoil: Callable[[bytes], bytes], reason: str
) -> None:
    file = tmp_path / "spoiled.tar"
    file.write_bytes(spoil(backup))
    done = restore(file, tmp_path / "data")
    assert done.returncode == 2
    assert reason in done.stderr
    assert list(tmp_path.iterdir()) == [file]


def as_first_form(backup: bytes, folder: Path) -> bytes:
    """The same backup as it was made when the log was a SQLite file."""
    with tarfile.open(fileobj=io.BytesIO(backup)) as tar:
        tar.extractall(folder, filter="data")
    with closing(SegmentLog(folder / "log", SystemClock())) as log:
        records = [(r.offset, r.appended_us, r.value) for r in log.read(0, -1, 1 << 30)]
        old = folder / "log.sqlite"
        make_sqlite_log(old, records, released=log.released(0), end=log.end(0))
    shutil.rmtree(folder / "log")
    manifest = json.loads((folder / "manifest.json").read_text())
    files = {n: f for n, f in manifest["files"].items() if not n.startswith("log/")}
    digest = hashlib.sha256(old.read_bytes()).hexdigest()
    files["log.sqlite"] = {"size": old.stat().st_size, "sha256": digest}
    text = json.dumps(manifest | {"format": 1, "files": files}).encode()
    (folder / "manifest.json").write_bytes(text)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in (*files, "manifest.json"):
            tar.add(folder / name, name)
    return out.getvalue()


def test_a_backup_with_a_sqlite_log_is_restored(
    backup: bytes, new_server: Callable[..., Server], tmp_path: Path
) -> None:
    file = tmp_path / "backup.tar"
    file.write_bytes(as_first_form(backup, tmp_path / "unpacked"))
    done = restore(file, tmp_path / "copy")
    assert done.returncode == 0, done.stderr
    before = inspect(tmp_path / "copy")["events"]
    assert before >= PER_BATCH
    with new_server(data=tmp_path / "copy") as copy:
        # The same offsets would be positions that the ledger has already.
        position = send(copy, 91_000)
        wait = {"Tollgate-Position": position}
        assert copy.http.get("/api/v1/meters/tokens_total/query", headers=wait).is_success
        copy.stop()
        found = inspect(copy.data)
        assert_balanced(found)
        assert found["events"] == before + PER_BATCH
    assert not (copy.data / "log.sqlite").exists()


def test_only_a_new_or_empty_folder_is_restored_into(
    backup: bytes, server: Server, tmp_path: Path
) -> None:
    file = tmp_path / "backup.tar"
    file.write_bytes(backup)
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("keep me")
    done = restore(file, full)
    assert done.returncode == 2
    assert "not empty" in done.stderr
    assert (full / "mine.txt").read_text() == "keep me"

    done = restore(file, server.data)
    assert done.returncode == 2
    assert "in use by a running Tollgate" in done.stderr

    empty = tmp_path / "empty"
    empty.mkdir()
    assert restore(file, empty).returncode == 0
    assert (empty / "log" / "state").exists()


def test_a_backup_needs_an_operator(new_server: Callable[..., Server], tmp_path: Path) -> None:
    with new_server() as running:
        keys = {}
        headers: dict[str, str] = {}
        for scope in ("operator", "admin"):
            made = running.http.post(
                "/api/v1/access-keys", json={"name": scope, "scopes": [scope]}, headers=headers
            )
            assert made.status_code == 201, made.text
            keys[scope] = {"Authorization": f"Bearer {made.json()['key']}"}
            headers = keys["operator"]
        assert running.http.post("/api/v1/backups").status_code == 401
        assert running.http.post("/api/v1/backups", headers=keys["admin"]).status_code == 403
        assert running.http.post("/api/v1/backups", headers=keys["operator"]).status_code == 200
        # The keys come along: the same one opens the copy, and nobody gets in without.
        file = tmp_path / "backup.tar"
        file.write_bytes(running.http.post("/api/v1/backups", headers=keys["operator"]).content)
    done = restore(file, tmp_path / "copy")
    assert done.returncode == 0, done.stderr
    with new_server(data=tmp_path / "copy") as copy:
        assert copy.http.get("/api/v1/meters").status_code == 401
        assert copy.http.get("/api/v1/meters", headers=keys["admin"]).status_code == 200


def test_two_backups_at_once_and_one_given_up(server: Server) -> None:
    """While one is not read to its end another is refused; one given up leaves nothing behind."""
    made = server.data / "clickhouse" / "shadow"
    left = made / "backup_of_a_crash"
    left.mkdir(parents=True)
    # More than the sockets on the way take in, and nothing that compression makes small.
    ballast = [
        each
        | {"type": "ballast", "data": {"noise": random.Random(each["id"]).randbytes(50_000).hex()}}
        for number in range(96_000, 96_004)
        for each in batch(number)
    ]
    for first in range(0, len(ballast), PER_BATCH):
        answer = server.http.post("/api/v1/events", json=ballast[first : first + PER_BATCH])
        assert answer.status_code == 204, answer.text
    with hold_backup(server.port):
        assert not left.exists()
        answer = server.http.post("/api/v1/backups")
        assert answer.status_code == 409
        assert "a backup is being made" in answer.text
        assert send(server, 95_010)
    wait_until(lambda: not list(made.glob("backup_*")), what="the frozen tables are gone")
    wait_until(lambda: not list(server.data.glob("backup_*")), what="the copies are gone")
    assert server.http.post("/api/v1/backups").status_code == 200


def test_parts_outside_the_folder_are_not_backed_up(tmp_path: Path) -> None:
    settings = read_settings({"TOLLGATE_CLICKHOUSE_URL": "http://127.0.0.1:1"}, {"data": tmp_path})
    with pytest.raises(Conflict, match="only embedded parts are backed up"):
        next(backup_pieces(Parts(settings)))
    assert list(tmp_path.iterdir()) == []
