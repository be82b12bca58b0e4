"""A load batch: records of one partition, taken apart into arrays.

Entries stay in numpy, lines stay bytes: only the events that need a closer look become Python
objects.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tollgate.events.record import CorruptRecord, decode_record
from tollgate.platform.event_log import StoredRecord

ENTRY_TYPE = np.dtype(
    [
        ("key", "<u8", (2,)),
        ("content", "<u8", (2,)),
        ("time_us", "<i8"),
        ("received_us", "<i8"),
        ("length", "<u4"),
        ("key_length", "<u4"),
        ("namespace", "<u2"),
        ("flags", "<u2"),
        ("pad", "<u4"),
    ]
)
STORED, DUPLICATE, CONFLICT, DEAD = range(4)
"""What becomes of an event; also the column of its count in the ledger."""
OUTCOMES = ("stored", "duplicate", "conflict", "dead")


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrupt:
    """A record that can't be taken apart."""

    record: StoredRecord
    code: str
    detail: str


@dataclass(slots=True, kw_only=True)
class Batch:
    """Events of consecutive records, in log order. Arrays have one element per event.

    Attributes:
        generation, partition: where the records stand.
        records: the records, good and corrupt.
        corrupt: those that can't be taken apart.
        entries: as the log keeps them, dtype `ENTRY_TYPE`.
        record_of: index of the event's record in `records`.
        index: index of the event in its record.
        namespace: index into `namespaces`.
        namespaces: all names in the batch.
        lines: line of each event, with its newline.
        outcome: `STORED`, `DUPLICATE`, `CONFLICT` or `DEAD`.
        first: for duplicates and conflicts, position of the event that claimed the key.
        reason: for dead letters, (code, detail).
    """

    generation: int
    partition: int
    records: Sequence[StoredRecord]
    corrupt: list[Corrupt]
    entries: npt.NDArray[np.void]
    record_of: npt.NDArray[np.int64]
    index: npt.NDArray[np.int64]
    namespace: npt.NDArray[np.int64]
    namespaces: list[str]
    lines: list[bytes]
    outcome: npt.NDArray[np.int8]
    first: dict[int, tuple[int, int, int, int]] = field(default_factory=dict)
    reason: dict[int, tuple[str, str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def keys(self) -> npt.NDArray[np.uint64]:
        """Key hashes, shape (n, 2)."""
        keys: npt.NDArray[np.uint64] = self.entries["key"]
        return keys

    def key_text(self, event: int) -> str:
        """The event's key hash as the engine's UUID text without dashes."""
        key: bytes = self.entries["key"][event].tobytes()
        return key.hex()

    def position(self, event: int) -> tuple[int, int, int, int]:
        """(generation, partition, offset, index)."""
        record = self.records[int(self.record_of[event])]
        return (self.generation, self.partition, record.offset, int(self.index[event]))

    def bury(self, event: int, code: str, detail: str) -> None:
        """Makes an event a dead letter."""
        self.outcome[event] = DEAD
        self.reason[event] = (code, detail)

    def appended_us(self, event: int) -> int:
        """When the event's record was appended."""
        return self.records[int(self.record_of[event])].appended_us


def open_batch(generation: int, partition: int, records: Sequence[StoredRecord]) -> Batch:
    """Takes records apart. Corrupt ones are set aside, never an error."""
    names: dict[str, int] = {}
    corrupt: list[Corrupt] = []
    entries, record_of, index, namespace = [], [], [], []
    lines: list[bytes] = []
    for at, stored in enumerate(records):
        try:
            record = decode_record(stored.value)
            part = np.frombuffer(record.entries, dtype=ENTRY_TYPE, count=record.count)
            if (
                int(part["length"].sum()) != len(record.lines)
                or (part["key_length"] > part["length"]).any()
                or (part["namespace"] >= len(record.namespaces)).any()
            ):
                raise CorruptRecord("lengths", "the lengths do not add up")  # noqa: TRY301
        except (CorruptRecord, ValueError) as problem:
            code = problem.code if isinstance(problem, CorruptRecord) else "lengths"
            corrupt.append(Corrupt(record=stored, code=code, detail=str(problem)))
            continue
        local = np.array([names.setdefault(n, len(names)) for n in record.namespaces], np.int64)
        entries.append(part)
        record_of.append(np.full(record.count, at, np.int64))
        index.append(np.arange(record.count, dtype=np.int64))
        namespace.append(local[part["namespace"]])
        ends = np.cumsum(part["length"], dtype=np.int64)
        text, start = bytes(record.lines), 0
        for end in ends.tolist():
            lines.append(text[start:end])
            start = end
    count = len(lines)
    return Batch(
        generation=generation,
        partition=partition,
        records=records,
        corrupt=corrupt,
        entries=np.concatenate(entries) if entries else np.zeros(0, ENTRY_TYPE),
        record_of=np.concatenate(record_of) if record_of else np.zeros(0, np.int64),
        index=np.concatenate(index) if index else np.zeros(0, np.int64),
        namespace=np.concatenate(namespace) if namespace else np.zeros(0, np.int64),
        namespaces=list(names),
        lines=lines,
        outcome=np.full(count, STORED, np.int8),
    )
