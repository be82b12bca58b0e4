"""Records of every kind, object storage that fails where a test says, and the archive read back."""

from collections.abc import Sequence
from pathlib import Path

from tests.support.loading import HOUR_US, NOON_US
from tollgate.core.clock import Clock
from tollgate.core.errors import Transient
from tollgate.events.archive import ArchiveLimits, Archiver
from tollgate.events.archive_chain import RECORDS, Chain, Entry, get_file
from tollgate.events.archive_file import content_of, unpack
from tollgate.events.correction import Request, encode_correction, encode_key
from tollgate.events.event import Arrival, Attributes, column_time, encode
from tollgate.events.identity import key_hash, key_prefix
from tollgate.events.record import CORRECTIONS_VERSION, Encoded, Group, encode_record
from tollgate.platform.event_log import EventLog, StoredRecord
from tollgate.platform.objects import Objects
from tollgate.platform.objects_folder import FolderObjects


def encoded(event_id: str, data: str = '{"n":1}', **others: object) -> Encoded:
    """The log's form of an event."""
    attributes: dict[str, object] = {
        "id": event_id,
        "source": "s",
        "type": "t",
        "subject": "u",
        "time_us": NOON_US,
        "datacontenttype": "",
        "dataschema": "",
        "extensions": "",
    }
    namespace, received_us = others.pop("namespace", "n"), others.pop("received_us", NOON_US)
    arrival = Arrival(namespace=namespace, received_us=received_us, event_bytes_max=1 << 20)  # type: ignore[arg-type]
    return encode(Attributes(**attributes | others), data.encode(), arrival)  # type: ignore[arg-type]


def correction_record(event_id: str, amended: Encoded | None = None, namespace: str = "n") -> bytes:
    """A record with one void or amendment."""
    request = Request(
        correction=f"c-{event_id}",
        operation="",
        action="void" if amended is None else "amend",
        reason="wrong",
        actor="somebody",
        content="",
    )
    hashed = key_hash(key_prefix(namespace), "s", event_id)
    event = amended or encode_key((namespace, "s", event_id), column_time(NOON_US), hashed)
    return encode_record(
        [Group(namespace, NOON_US, [encode_correction(request, event)])], CORRECTIONS_VERSION
    )


class Failing(FolderObjects):
    """A folder that fails at its n-th put, before or after the write; then it is well again."""

    def __init__(self, folder: Path, at: int = 0, *, after: bool = False) -> None:
        super().__init__(folder)
        self._left, self._after = at, after

    def put(self, name: str, data: bytes) -> bool:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise Transient("interrupted before the write")
        written = super().put(name, data)
        if self._left == 0:
            raise Transient("interrupted after the write")
        return written


def archiver_of(
    log: EventLog, objects: Objects, clock: Clock, events_max: int = 10, slot_us: int = HOUR_US
) -> Archiver:
    """An archiver that has read the manifest."""
    archiver = Archiver(
        log=log,
        partition=0,
        objects=objects,
        limits=ArchiveLimits(events_max=events_max, slot_us=slot_us),
        clock=clock,
    )
    archiver.prepare()
    return archiver


def archive_all(archiver: Archiver) -> None:
    """Archives every file that is complete."""
    while records := archiver.gather():
        archiver.archive(records)


def entries_of(objects: Objects, log: EventLog) -> list[Entry]:
    """What the manifest says."""
    return list(Chain(objects, RECORDS, log.generation, 0).entries())


def archived(objects: Objects, log: EventLog) -> list[StoredRecord]:
    """All records of the archive, each file checked against the manifest."""
    found: list[StoredRecord] = []
    for entry in entries_of(objects, log):
        records = unpack(get_file(objects, entry)) if entry.file else []
        if records:
            assert content_of(records) == entry.content
            assert (len(records), records[-1].offset) == (entry.records, entry.last)
            assert entry.begin <= records[0].offset
        found += records
    return found


def same_bytes(found: Sequence[StoredRecord], expected: Sequence[StoredRecord]) -> None:
    """Every record once, in order, byte by byte."""
    assert [each.offset for each in found] == [each.offset for each in expected]
    assert list(found) == list(expected)
