"""A load batch: records of one partition, taken apart into arrays.

Keys are numpy arrays, lines stay in one piece: only the events that need a closer look become
Python objects.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from tollgate.core.errors import PermanentFault
from tollgate.events.record import VERSION, CorruptRecord, UnknownVersion, decode_record
from tollgate.platform.event_log import StoredRecord

STORED, DUPLICATE, CONFLICT, DEAD = range(4)
"""What becomes of an event; also the column of its count in the ledger."""
OUTCOMES = ("stored", "duplicate", "conflict", "dead")
_NEWLINE = 10
_ZERO = np.zeros(1, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrupt:
    """A record that can't be taken apart."""

    record: StoredRecord
    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the events of one record stand in a batch.

    Attributes:
        record: the record.
        first: number of its first event.
        text: its lines, each ended by a newline.
    """

    record: StoredRecord
    first: int
    text: bytes


class Line(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An event's line, decoded: `LINE_COLUMNS` of `tollgate.events.record`."""

    log_index: int
    namespace: str
    source: str
    id: str
    time: str
    time_given: int
    received_at: str
    key_hash: str
    type: str
    subject: str
    datacontenttype: str
    dataschema: str
    extensions: str
    data: str
    data_exact: str


_line = msgspec.json.Decoder(Line)


@dataclass(slots=True, kw_only=True)
class Batch:
    """Events of consecutive records, in log order. Arrays have one element per event.

    Attributes:
        kind: version of the records: of events, or of corrections; never both.
        generation, partition: where the records stand.
        records: the records, good and corrupt.
        corrupt: those that can't be taken apart.
        places: of each good record, where its events stand.
        place_of: index of the event's record in `places`.
        keys: key hashes, shape (n, 2).
        received_us: server time of the event's request.
        namespace: index into `namespaces`.
        namespaces: all names in the batch.
        starts, ends: where the event's line stands in its record's text, newline left out.
        outcome: `STORED`, `DUPLICATE`, `CONFLICT` or `DEAD`.
        first: for duplicates and conflicts, position of the event that claimed the key.
        reason: for dead letters, (code, detail).
    """

    kind: int
    generation: int
    partition: int
    records: Sequence[StoredRecord]
    corrupt: list[Corrupt]
    places: list[Place]
    place_of: npt.NDArray[np.int64]
    keys: npt.NDArray[np.uint64]
    received_us: npt.NDArray[np.int64]
    namespace: npt.NDArray[np.int64]
    namespaces: list[str]
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    outcome: npt.NDArray[np.int8]
    first: dict[int, tuple[int, int, int, int]] = field(default_factory=dict)
    reason: dict[int, tuple[str, str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.outcome)

    def text(self, event: int) -> bytes:
        """The event's line, without its newline."""
        text = self.places[int(self.place_of[event])].text
        return text[int(self.starts[event]) : int(self.ends[event])]

    def line(self, event: int) -> Line:
        """The event's line, decoded.

        Raises:
            msgspec.DecodeError: it can't be read.
        """
        return _line.decode(b"[" + self.text(event))

    def key_text(self, event: int) -> str:
        """The event's key hash as the engine's UUID text without dashes."""
        key: bytes = self.keys[event].tobytes()
        return key.hex()

    def position(self, event: int) -> tuple[int, int, int, int]:
        """(generation, partition, offset, index)."""
        place = self.places[int(self.place_of[event])]
        return (self.generation, self.partition, place.record.offset, event - place.first)

    def number(self, position: tuple[int, int, int, int]) -> int:
        """The event that stands at a position of this batch."""
        _, _, offset, index = position
        return next(p.first for p in self.places if p.record.offset == offset) + index

    def bury(self, event: int, code: str, detail: str) -> None:
        """Makes an event a dead letter."""
        self.outcome[event] = DEAD
        self.reason[event] = (code, detail)

    def appended_us(self, event: int) -> int:
        """When the event's record was appended."""
        return self.places[int(self.place_of[event])].record.appended_us


def open_batch(generation: int, partition: int, records: Sequence[StoredRecord]) -> Batch:
    """Takes records apart. Corrupt ones are set aside, never an error.

    Raises:
        PermanentFault: a record was written by a later release: nothing may be decided on it.
    """
    names: dict[str, int] = {}
    corrupt: list[Corrupt] = []
    places: list[Place] = []
    place_of, keys, received, namespace, starts, ends = [], [], [], [], [], []
    count = 0
    kinds: set[int] = set()
    for stored in records:
        try:
            record = decode_record(stored.value)
        except CorruptRecord as problem:
            corrupt.append(Corrupt(record=stored, code=problem.code, detail=str(problem)))
            continue
        except UnknownVersion as problem:
            raise PermanentFault(f"offset {stored.offset} of the log: {problem}") from problem
        kinds.add(record.version)
        local = [names.setdefault(name, len(names)) for name in record.namespaces]
        requests = np.array(record.requests, np.int64)
        received.append(np.repeat(requests[:, 0], requests[:, 1]))
        namespace.append(np.repeat(np.array(local, np.int64)[requests[:, 2]], requests[:, 1]))
        keys.append(np.frombuffer(record.keys, np.uint64).reshape(-1, 2))
        end = np.flatnonzero(np.frombuffer(record.lines, np.uint8) == _NEWLINE)
        ends.append(end)
        starts.append(np.concatenate((_ZERO, end[:-1] + 1)))
        place_of.append(np.full(record.count, len(places), np.int64))
        places.append(Place(record=stored, first=count, text=record.lines))
        count += record.count
    assert len(kinds) <= 1
    return Batch(
        kind=kinds.pop() if kinds else VERSION,
        generation=generation,
        partition=partition,
        records=records,
        corrupt=corrupt,
        places=places,
        place_of=_joined(place_of),
        keys=np.concatenate(keys) if keys else np.zeros((0, 2), np.uint64),
        received_us=_joined(received),
        namespace=_joined(namespace),
        namespaces=list(names),
        starts=_joined(starts),
        ends=_joined(ends),
        outcome=np.full(count, STORED, np.int8),
    )


def _joined(arrays: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    return np.concatenate(arrays) if arrays else np.zeros(0, np.int64)
