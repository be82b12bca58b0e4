"""Files of the archive, fetched and taken apart while those before them are loaded."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol

from tollgate.core.errors import PermanentFault, Transient
from tollgate.events.archive_chain import Entry, get_file
from tollgate.events.archive_file import content_of, unpack
from tollgate.platform.event_log import StoredRecord
from tollgate.platform.objects import Objects, objects_of
from tollgate.platform.settings import Settings

_in_this_process: list[Objects] = []


class ArchiveReader(Protocol):
    """Reads files."""

    def begin(self, entry: Entry) -> Callable[[], list[StoredRecord]]:
        """Begins to read a file. What it gives waits for its records, and raises as `read_file`."""
        ...

    def close(self) -> None:
        """Ends what was begun."""
        ...


def read_file(objects: Objects, entry: Entry) -> list[StoredRecord]:
    """The records of a file.

    Raises:
        Transient: object storage is away.
        PermanentFault: the file is gone, damaged, or holds other records than were archived.
    """
    records = unpack(get_file(objects, entry))
    if content_of(records) != entry.content:
        raise PermanentFault(f"{entry.file} does not hold the records that were archived")
    return records


class _Reader:
    """See `ArchiveReader`."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool

    def _wait(self, future: "Future[list[StoredRecord]]") -> list[StoredRecord]:
        try:
            return future.result()
        except BrokenProcessPool as problem:
            raise Transient("the process that reads the archive has ended") from problem

    def close(self) -> None:
        """See `ArchiveReader.close`."""
        self._pool.shutdown(cancel_futures=True)


class ThreadReader(_Reader):
    """Reads in a thread of this process."""

    def __init__(self, objects: Objects) -> None:
        super().__init__(ThreadPoolExecutor(1, "archive-reader"))
        self._objects = objects

    def begin(self, entry: Entry) -> Callable[[], list[StoredRecord]]:
        """See `ArchiveReader.begin`."""
        future = self._pool.submit(read_file, self._objects, entry)
        return lambda: self._wait(future)


class ProcessReader(_Reader):
    """Reads in a process of its own: the loader's Python keeps this one's interpreter busy."""

    def __init__(self, settings: Settings) -> None:
        # Never forked: the engine has threads.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(
            1, mp_context=context, initializer=_open_objects, initargs=(settings,)
        )
        super().__init__(pool)

    def begin(self, entry: Entry) -> Callable[[], list[StoredRecord]]:
        """See `ArchiveReader.begin`."""
        future = self._pool.submit(_read_file_here, entry)
        return lambda: self._wait(future)


def _open_objects(settings: Settings) -> None:
    objects = objects_of(settings)
    assert objects is not None
    _in_this_process.append(objects)


def _read_file_here(entry: Entry) -> list[StoredRecord]:
    return read_file(_in_this_process[-1], entry)
