"""The folder of the embedded event log: its segments, its state, and what a crash leaves of them.

    lock                          held by the one process that owns the folder
    state                         generation, released-through, terms, the secret of the digests
    00000000000000000000.segment  named by the offset of its first record
    spare                         a file of the full size, for the segment to come

One thread appends and begins segments, another gives back, prepares and recycles; any may read.
"""

import itertools
import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from tollgate.core.errors import PermanentFault, Transient
from tollgate.platform.disk import NO_ROOM, Disk, copy_bytes, sync_folder
from tollgate.platform.event_log import StoredRecord
from tollgate.platform.segment import (
    FRAME_BYTES,
    HEAD_BYTES,
    Head,
    Segment,
    damaged,
    frame_head,
    head_of,
    scan,
    written_later,
)
from tollgate.platform.segment_state import (
    STATE,
    lock_folder,
    new_state,
    read_state,
    write_state,
)

SUFFIX = ".segment"
SPARE = "spare"


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How large segments are.

    Attributes:
        segment_bytes: of one that is allocated beforehand.
        grown_bytes: up to which one grows that is not: the first, and whenever no spare is ready.
    """

    segment_bytes: int = 32 << 20
    grown_bytes: int = 1 << 20


class SegmentStore:
    """An open folder. `end`, `released` and `segments` may be read from any thread."""

    def __init__(self, folder: Path, disk: Disk, sizes: Sizes) -> None:
        """Opens or makes the folder, and recovers what a crash left.

        Raises:
            Transient: another process has it, or the disk refuses.
            PermanentFault: acknowledged records are damaged or missing.
        """
        self.folder = folder
        self._disk = disk
        self._sizes = sizes
        self._guard = threading.Lock()
        self.segments: tuple[Segment, ...] = ()
        self._spare = 0
        self._attempt = 0
        self._tainted = False
        self._base_min = 0
        try:
            self._lock = lock_folder(folder)
            try:
                self._open()
            except BaseException:
                self.close()
                raise
        except OSError as problem:
            raise Transient(f"event log {folder}: {problem}") from problem

    def _open(self) -> None:
        paths = sorted(self.folder.glob("*" + SUFFIX))
        state = read_state(self.folder)
        if state is None:
            if paths:
                raise PermanentFault(
                    f"event log {self.folder / STATE} is missing, the segments beside it can't be"
                    " read without. Restore the data folder from a backup"
                )
            state = new_state()
            write_state(self.folder, state, self._disk)
        if not paths and state.openings:
            raise PermanentFault(
                f"event log {self.folder}: all segments are missing. Restore the data folder from a"
                " backup"
            )
        self._state = state
        self.released, self.last_appended_us = state.released, 0
        if paths:
            self._recover(paths)
        else:
            self._begin(base=state.released + 1, size=0)
        self._state = msgspec.structs.replace(state, openings=state.openings + 1)
        write_state(self.folder, self._state, self._disk)
        self.end = self.segments[-1].last
        if self.end < state.released:
            # What was given back was on disk: its offsets are not used again.
            self.begin_after(state.released)
        self.backlog_start = self.value_bytes(state.released + 1, self.end)
        spare = self.folder / SPARE
        self._spare = spare.stat().st_size if spare.exists() else 0

    @property
    def generation(self) -> int:
        """Of the log."""
        return self._state.generation

    @property
    def _term(self) -> int:
        return self._state.openings << 32 | self._attempt

    # What a crash left.

    def _recover(self, paths: Sequence[Path]) -> None:
        heads = [self._head(path) for path in paths]
        if heads[0].after > self.released:
            raise damaged(paths[0], 0, self.released + 1, ": its segment is gone")
        opened = []
        for path, head, following in itertools.zip_longest(paths, heads, heads[1:]):
            if following is not None and following.after <= self.released:
                path.unlink()
                continue
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            segment = Segment(path, descriptor, head, 0)
            opened.append(segment)
            self.segments = tuple(opened)
            self._scan(segment, following)

    def _head(self, path: Path) -> Head:
        with path.open("rb") as file:
            head = head_of(file.read(HEAD_BYTES), self._state.seed)
        if head is None or path.name != _name(head.base):
            raise PermanentFault(
                f"event log {path}: this is not the segment that its name says. Restore the data"
                " folder from a backup"
            )
        return head

    def _scan(self, segment: Segment, following: Head | None) -> None:
        """Finds the segment's records; of the last one, repeats the last write."""
        content = segment.path.read_bytes()
        head, seed = segment.head, self._state.seed
        count = following.after - head.base + 1 if following else None
        found = scan(memoryview(content), head, count, seed)
        segment.ends = found.ends
        segment.limit = max(len(content), self._sizes.grown_bytes)
        self.last_appended_us = max(self.last_appended_us, found.appended_us)
        if count is not None:
            if segment.count != count:
                raise damaged(segment.path, segment.used, segment.last + 1)
            return
        later = written_later(content, segment.used, segment.last + 1, seed)
        if later is not None:
            why = f", while that of offset {later.offset}, written later, is there"
            raise damaged(segment.path, segment.used, segment.last + 1, why)
        if found.write_start < segment.used:
            # The process may have ended, and the disk may have refused, before this was on disk:
            # the page cache shows it all the same. Written again, it is.
            last_write = content[found.write_start : segment.used]
            self._disk.write(segment.descriptor, [last_write], found.write_start)

    # The appending thread.

    def append(self, values: Sequence[bytes], times: Iterable[int]) -> int:
        """Writes records side by side in one write; the offset of the last one.

        Args:
            values: records, in order.
            times: when each was appended; none before the one before it.

        Raises:
            OSError: none of them counts; any may come back after a crash, from the first on.
        """
        size = sum(map(len, values)) + FRAME_BYTES * len(values)
        active = self.segments[-1]
        if self._tainted or active.used + size > active.limit:
            self._begin(base=max(self.end + 1, self._base_min), size=size)
            active = self.segments[-1]
        first, term, seed = active.last + 1, self._term, self._state.seed
        position, buffers, ends = active.used, [], []
        appended_us = 0
        for index, (value, appended_us) in enumerate(zip(values, times, strict=False)):
            buffers.append(frame_head(value, (first + index, index), appended_us, term, seed))
            buffers.append(value)
            position += FRAME_BYTES + len(value)
            ends.append(position)
        try:
            self._disk.write(active.descriptor, buffers, active.used)
        except OSError as problem:
            # What it left has a lesser term than all that comes: it can't go on from there.
            self._attempt += 1
            # A disk that failed to write a page may fail again, and the page cache no longer tells
            # what is on it (https://lwn.net/Articles/752063/): another file takes what follows.
            self._tainted = problem.errno not in NO_ROOM
            raise
        active.ends.extend(ends)
        self.last_appended_us = appended_us
        self.end = first + len(values) - 1
        return self.end

    def room(self) -> int:
        """Bytes of frames that the segment at the end still takes."""
        return 0 if self._tainted else self.segments[-1].limit - self.segments[-1].used

    def begin_after(self, offset: int) -> None:
        """Makes the next record come after `offset`, if it would not anyway.

        Raises:
            OSError: nothing has changed.
        """
        if self.end < offset:
            # Also if this fails: the folder may know the new segment's name already.
            self._base_min = offset + 1
            self._begin(base=offset + 1, size=0)
            self.end = offset

    def _begin(self, base: int, size: int) -> None:
        """Begins a segment with room for so many bytes of frames.

        Once this has failed no record may be appended before it was done: the folder may know the
        new segment, and then the one before it ends where it ended.
        """
        with self._guard:
            spare = self._spare if self._spare >= HEAD_BYTES + size else 0
            if spare:
                self._spare = 0
        self._tainted = True
        before = self.segments[-1] if self.segments else None
        replaced = before if before is not None and before.head.base == base else None
        if replaced is not None:
            after = replaced.head.after
        else:
            after = self.released if before is None else before.last
        head = Head(base=base, after=after, floor_us=self.last_appended_us, term=self._term)
        made = self.folder / (SPARE if spare else "begun")
        flags = os.O_RDWR | os.O_CLOEXEC | (0 if spare else os.O_CREAT | os.O_TRUNC)
        descriptor = os.open(made, flags, 0o600)
        path = self.folder / _name(base)
        try:
            self._disk.write(descriptor, [head.encoded(self._state.seed)], 0)
            made.rename(path)
            # On disk under its name before any record in it is acknowledged.
            sync_folder(self.folder)
        except BaseException:
            os.close(descriptor)
            raise
        limit = spare or max(self._sizes.grown_bytes, HEAD_BYTES + size)
        begun = Segment(path, descriptor, head, limit)
        with self._guard:
            kept = self.segments[:-1] if replaced else self.segments
            self.segments = (*kept, begun)
            if replaced:
                replaced.retire()
        self._tainted = False

    # The tending thread.

    def release(self, through: int) -> None:
        """Gives records up to an offset back, first in the state on disk.

        Raises:
            OSError: nothing has changed.
        """
        if through > self.released:
            state = msgspec.structs.replace(self._state, released=through)
            write_state(self.folder, state, self._disk)
            self._state, self.released = state, through

    def drop_released(self) -> None:
        """Gives the files back that hold nothing but released records.

        Raises:
            OSError: a file stays until the log is opened again.
        """
        while len(self.segments) > 1 and self.segments[0].last <= self.released:
            self._drop()

    def _drop(self) -> None:
        with self._guard:
            first, self.segments = self.segments[0], self.segments[1:]
            allocated = first.allocated
            unread = first.retire()
            recycle = unread and not self._spare and allocated >= self._sizes.segment_bytes
            if recycle:
                # Its old frames have lesser offsets than any segment to come: they are none there.
                first.path.rename(self.folder / SPARE)
                self._spare = allocated
            else:
                first.path.unlink()
        sync_folder(self.folder)

    def prepare_spare(self) -> None:
        """Makes the next segment's file once half of the last one is used.

        Raises:
            OSError: there is no room for it; segments then grow as they are written.
        """
        active = self.segments[-1]
        if self._spare or active.used * 2 < active.limit:
            return
        prepared = self.folder / "preparing"
        try:
            self._disk.fill(prepared, self._sizes.segment_bytes)
        except OSError:
            prepared.unlink(missing_ok=True)
            raise
        with self._guard:
            prepared.rename(self.folder / SPARE)
            self._spare = self._sizes.segment_bytes

    # Any thread.

    def value_bytes(self, first: int, last: int) -> int:
        """Bytes of the values from one offset through another."""
        return sum(segment.value_bytes(first, last) for segment in self.segments)

    def read(self, after: int, bytes_max: int) -> list[StoredRecord]:
        """See `EventLog.read`."""
        records: list[StoredRecord] = []
        at, room = max(after, self.released) + 1, bytes_max
        while (not records or room > 0) and (segment := self._pinned(at)) is not None:
            try:
                at = max(at, segment.head.base)
                if records and segment.value_bytes(at, at) > room:
                    break
                found = segment.read(at, room, self._state.seed)
            finally:
                self._unpin(segment)
            records += found
            room -= sum(len(record.value) for record in found)
            at = found[-1].offset + 1
        return records

    def _pinned(self, at: int) -> Segment | None:
        """The segment that holds the first record from an offset on."""
        with self._guard:
            for segment in self.segments:
                if segment.count and segment.last >= at:
                    segment.pin()
                    return segment
        return None

    def _unpin(self, segment: Segment) -> None:
        with self._guard:
            segment.unpin()

    def copy_to(self, target: Path) -> None:
        """Writes all that is not released into a new folder, as it stands at this moment."""
        with self._guard:
            chosen = [(segment, segment.used) for segment in self.segments]
            state = self._state
            for segment, _ in chosen:
                segment.pin()
        try:
            target.mkdir()
            for segment, used in chosen:
                copy_bytes(segment.descriptor, target / segment.path.name, used)
            write_state(target, state, self._disk)
        finally:
            for segment, _ in chosen:
                self._unpin(segment)

    def close(self) -> None:
        """Lets go of the files; reading ends first."""
        with self._guard:
            segments, self.segments = self.segments, ()
            for segment in segments:
                segment.retire()
        os.close(self._lock)


def _name(base: int) -> str:
    return f"{base:020}{SUFFIX}"
