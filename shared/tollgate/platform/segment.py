"""A file of the embedded event log: its form, its recovery, its reading.

A page with the segment's facts, then frames side by side, each a record:

    magic 4 | digest 8 | length 4 | index 4 | offset 8 | append time 8 | term 8 | value

`digest` is XXH3-64 of all that follows it, seeded by a secret of the log, so that no value can look
like a frame. `index` counts from the first record of the same write: what was written later than
a damaged frame proves that the frame was acknowledged. `term` grows at every opening and after
every failed write, so that what an unfinished write left behind the end is never read as going on
from what was written over its beginning.
"""

import struct
from array import array
from bisect import bisect_right
from dataclasses import dataclass
from os import close, fstat, pread
from pathlib import Path
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

from tollgate.core.errors import PermanentFault
from tollgate.platform.event_log import StoredRecord

HEAD_BYTES = 4096
_MAGIC = b"\xffTg\xf7"
_HEAD = struct.Struct("<8sQQqQQ")
_HEAD_MAGIC = b"\xffTgLog1\n"
_FRAME = struct.Struct("<4sQIIQQQ")
_LEAD = struct.Struct("<4sQ")
_REST = struct.Struct("<IIQQQ")
FRAME_BYTES = _FRAME.size
"""What a record takes besides its value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The facts of a segment.

    Attributes:
        base: offset of its first record.
        after: offset of the last record before it, in the log as it was when this began; less than
            `base - 1` where offsets were skipped.
        floor_us: no record here was appended before.
        term: no frame here has a lesser one.
    """

    base: int
    after: int
    floor_us: int
    term: int

    def encoded(self, seed: int) -> bytes:
        """The page as the file begins with it."""
        rest = struct.pack("<QqQQ", self.base, self.after, self.floor_us, self.term)
        return (_HEAD_MAGIC + struct.pack("<Q", xxh3_64_intdigest(rest, seed)) + rest).ljust(
            HEAD_BYTES, b"\0"
        )


def head_of(page: bytes, seed: int) -> Head | None:
    """The facts of a segment that begins with these bytes; None if it does not."""
    if len(page) < HEAD_BYTES:
        return None
    magic, digest, base, after, floor_us, term = _HEAD.unpack_from(page)
    if magic != _HEAD_MAGIC or digest != xxh3_64_intdigest(page[16 : _HEAD.size], seed):
        return None
    return Head(base=base, after=after, floor_us=floor_us, term=term)


def frame_head(
    value: bytes, place: tuple[int, int], appended_us: int, term: int, seed: int
) -> bytes:
    """What stands before a value. `place`: its offset, and its index in its write."""
    rest = _REST.pack(len(value), place[1], place[0], appended_us, term)
    return _LEAD.pack(_MAGIC, xxh3_64_intdigest(value, xxh3_64_intdigest(rest, seed))) + rest


class Frame(NamedTuple):
    """A frame whose digest is right: record `place` of its write, value from `start` to `end`."""

    offset: int
    place: int
    appended_us: int
    term: int
    start: int
    end: int


def frame_at(content: memoryview, position: int, seed: int) -> Frame | None:
    """The frame that stands there, if one does."""
    start = position + FRAME_BYTES
    if start > len(content):
        return None
    magic, digest, length, index, offset, appended_us, term = _FRAME.unpack_from(content, position)
    end = start + length
    if magic != _MAGIC or end > len(content):
        return None
    inner = xxh3_64_intdigest(content[position + _LEAD.size : start], seed)
    if digest != xxh3_64_intdigest(content[start:end], inner):
        return None
    return Frame(offset, index, appended_us, term, start, end)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What a segment holds from its beginning on.

    Attributes:
        ends: where each frame ends; the first entry is where the frames begin.
        appended_us: of the last frame; the segment's floor without one.
        write_start: where the last write begins.
    """

    ends: "array[int]"
    appended_us: int
    write_start: int


def scan(content: memoryview, head: Head, count_max: int | None, seed: int) -> Scan:
    """Reads frames until one is not what must come next, or `count_max` were read."""
    ends = array("Q", [HEAD_BYTES])
    position = write_start = HEAD_BYTES
    appended_us, term, offset = head.floor_us, head.term, head.base
    while count_max is None or len(ends) <= count_max:
        frame = frame_at(content, position, seed)
        if frame is None or frame.offset != offset or frame.term < term:
            break
        if not frame.place:
            write_start = position
        appended_us, term, offset = frame.appended_us, frame.term, offset + 1
        position = frame.end
        ends.append(position)
    return Scan(ends=ends, appended_us=appended_us, write_start=write_start)


def written_later(content: bytes, position: int, offset: int, seed: int) -> Frame | None:
    """A frame behind `position` whose write began after the one of `offset` had ended.

    One write is on its way at a time. So such a frame shows that the record of `offset` was on disk
    once; without any, what stands at `position` may be the rest of an unfinished write.
    """
    view = memoryview(content)
    while (position := content.find(_MAGIC, position)) >= 0:
        if position + FRAME_BYTES <= len(content):
            _, _, _, index, found, _, _ = _FRAME.unpack_from(content, position)
            if found - index > offset and (frame := frame_at(view, position, seed)) is not None:
                return frame
        position += 1
    return None


class Segment:
    """One file: where its records stand, and reading them. Appending is its owner's work.

    `ends` grows by appends of whole entries: a reader beside the writer sees some prefix.
    """

    def __init__(
        self, path: Path, descriptor: int, head: Head, limit: int, ends: "array[int] | None" = None
    ) -> None:
        self.path = path
        self.descriptor = descriptor
        self.head = head
        self.limit = limit
        self.ends = array("Q", [HEAD_BYTES]) if ends is None else ends
        self._readers = 0
        self._retired = False

    @property
    def count(self) -> int:
        """How many records it holds."""
        return len(self.ends) - 1

    @property
    def last(self) -> int:
        """Offset of its last record; of the one before its first if it has none."""
        return self.head.base + len(self.ends) - 2

    @property
    def used(self) -> int:
        """Where the next frame begins."""
        return self.ends[-1]

    @property
    def allocated(self) -> int:
        """Size of the file."""
        return fstat(self.descriptor).st_size

    def value_bytes(self, first: int, last: int) -> int:
        """Bytes of the values from one offset through another, as far as they are here."""
        start = max(first - self.head.base, 0)
        stop = min(last - self.head.base + 1, self.count)
        if stop <= start:
            return 0
        return self.ends[stop] - self.ends[start] - (stop - start) * FRAME_BYTES

    def read(self, first: int, bytes_max: int, seed: int) -> list[StoredRecord]:
        """Records from an offset on, at least one, before one would pass `bytes_max`.

        Raises:
            PermanentFault: what stands there is not what was written.
        """
        base, ends, count = self.head.base, self.ends, self.count
        start = first - base
        zero = ends[start] - start * FRAME_BYTES
        stop = bisect_right(
            range(start + 2, count + 1),
            bytes_max,
            key=lambda at: ends[at] - at * FRAME_BYTES - zero,
        )
        stop += start + 1
        content = pread(self.descriptor, ends[stop] - ends[start], ends[start])
        view, position = memoryview(content), 0
        records = []
        for offset in range(first, base + stop):
            frame = frame_at(view, position, seed)
            if frame is None or frame.offset != offset:
                raise damaged(self.path, ends[start] + position, offset)
            position = frame.end
            records.append(
                StoredRecord(
                    offset=offset,
                    appended_us=frame.appended_us,
                    value=content[frame.start : position],
                )
            )
        return records

    # The owner calls these three under its lock.

    def pin(self) -> None:
        """Keeps the file open, and its content as it is, until `unpin`."""
        self._readers += 1

    def unpin(self) -> None:
        """The opposite of `pin`."""
        self._readers -= 1
        if self._retired and not self._readers:
            close(self.descriptor)

    def retire(self) -> bool:
        """Closes the file once nobody reads it; whether that is now."""
        self._retired = True
        if self._readers:
            return False
        close(self.descriptor)
        return True


def damaged(path: Path, position: int, offset: int, why: str = "") -> PermanentFault:
    """Acknowledged records are not there any more."""
    return PermanentFault(
        f"event log {path}: the record of offset {offset}, at byte {position}, is damaged or"
        f" missing{why}. It was acknowledged; nothing is cut away silently. Restore the data folder"
        " from a backup"
    )
