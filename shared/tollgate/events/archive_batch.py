"""A load batch out of a file of the archive: its events stay in columns, which stores read as such.

Nothing is decoded and encoded again on the way but the events that need a closer look.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tollgate.events.archive_columns import Rows
from tollgate.events.archive_file import ArchivedFile, text_of
from tollgate.events.batch import STORED, Batch, Place
from tollgate.events.record import KEY_BYTES, VERSION
from tollgate.platform.event_log import StoredRecord

_RENAMED = {
    "generation": "log_generation",
    "partition": "log_partition",
    "offset": "log_offset",
    "index": "log_index",
}
_OF_THE_RECORD = frozenset(("request", "record", "raw"))
_EVENTS_PER_LOOK = 64


@dataclass(slots=True, kw_only=True)
class ArchivedBatch(Batch):
    """See `Batch`. Lines are made when they are asked for.

    Attributes:
        rows: of its events.
        lines: those made so far, by number of the event.
        looks: how often one was made alone.
    """

    rows: Rows
    lines: dict[int, bytes]
    looks: int = 0

    def text(self, event: int) -> bytes:
        """See `Batch.text`."""
        if event not in self.lines:
            # Few are looked at, mostly; where many are, they are made together.
            self.looks += 1
            many = self.looks * _EVENTS_PER_LOOK > len(self)
            first, count = (0, len(self)) if many else (event, 1)
            made = _lines_of(self.rows.slice(first, count))
            self.lines |= zip(range(first, first + count), made, strict=True)
        return self.lines[event]

    def arrow_rows(self, chosen: npt.NDArray[np.bool_]) -> tuple[Sequence[str], bytes]:
        """Columns and rows of `arrivals` for the chosen ones, as an Arrow stream."""
        names = {
            name: _RENAMED.get(name, name) for name in self.rows.names if name not in _OF_THE_RECORD
        }
        return list(names.values()), self.rows.arrow_stream(names, chosen)


def _lines_of(rows: Rows) -> list[bytes]:
    keys = b"".join(rows.binaries("key_hash"))
    text = text_of(rows, rows.numbers("received_at"), rows.repeated_texts("namespace"), keys)
    return text.split(b"\n")[:-1]


def open_archived(
    place: tuple[int, int], file: ArchivedFile, first: int, end: int
) -> ArchivedBatch:
    """The events of some records, all of them rebuildable.

    Args:
        place: generation and partition.
        file: which has them.
        first: number of the first record.
        end: number of the record after the last.
    """
    assert file.rebuildable[first:end].all()
    begin, stop = int(file.starts[first]), int(file.starts[end])
    rows = file.rows.slice(begin, stop - begin)
    starts = file.starts[first : end + 1] - begin
    # What the records' bytes would say is in the columns.
    records = [
        StoredRecord(offset=offset, appended_us=appended_us, value=b"")
        for offset, appended_us in zip(
            file.offsets[first:end].tolist(), file.appended_us[first:end].tolist(), strict=True
        )
    ]
    keys = np.frombuffer(b"".join(rows.binaries("key_hash")), np.uint64)
    namespaces, namespace = rows.distinct_texts("namespace")
    none = np.zeros(0, np.int64)
    return ArchivedBatch(
        kind=VERSION,
        generation=place[0],
        partition=place[1],
        records=records,
        corrupt=[],
        places=[
            Place(record=record, first=at, text=b"")
            for record, at in zip(records, starts[:-1].tolist(), strict=True)
        ],
        place_of=np.repeat(np.arange(len(records)), np.diff(starts)),
        keys=keys.reshape(-1, KEY_BYTES // keys.itemsize),
        received_us=rows.numbers("received_at"),
        namespace=namespace,
        namespaces=namespaces,
        starts=none,
        ends=none,
        outcome=np.full(len(rows), STORED, np.int8),
        rows=rows,
        lines={},
    )
