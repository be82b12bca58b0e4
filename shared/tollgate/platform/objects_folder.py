"""Objects in a folder: a file each, under its name."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from tollgate.core.errors import NotFound, Transient
from tollgate.platform.objects import checked

_UNFINISHED = ".unfinished"


class FolderObjects:
    """See `Objects`. Any number of processes; the file system must know hard links."""

    def __init__(self, folder: Path) -> None:
        """Names the folder, which is made with the first object."""
        self._folder = folder

    @property
    def place(self) -> str:
        """The folder."""
        return str(self._folder)

    def put(self, name: str, data: bytes) -> bool:
        """See `Objects.put`.

        The bytes are on disk under a name of their own before link(2) gives them theirs, which it
        does only if that is free: nobody ever sees a part of an object, nor another in its place.
        """
        target = self._folder / checked(name)
        try:
            self._make_folder(target.parent)
            unfinished = self._folder / _UNFINISHED
            self._make_folder(unfinished)
            own = unfinished / uuid.uuid4().hex
            try:
                with own.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.link(own, target)
                written = True
            except FileExistsError:
                written = False
            finally:
                own.unlink(missing_ok=True)
            # Also if another has written it: it may have ended before its name was on disk.
            _sync(target.parent)
        except OSError as problem:
            raise _fault(problem) from problem
        return written

    def _make_folder(self, folder: Path) -> None:
        missing = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for each in reversed(missing):
            each.mkdir(mode=0o700, exist_ok=True)
            _sync(each.parent)

    def get(self, name: str) -> bytes:
        """See `Objects.get`."""
        try:
            return (self._folder / checked(name)).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"there is no object {name!r} in {self.place}") from None
        except OSError as problem:
            raise _fault(problem) from problem

    def exists(self, name: str) -> bool:
        """See `Objects.exists`."""
        try:
            return (self._folder / checked(name)).is_file()
        except OSError as problem:
            raise _fault(problem) from problem

    def names(self, prefix: str, after: str = "") -> Iterator[str]:
        """See `Objects.names`."""
        folder, _, _ = prefix.rpartition("/")
        yield from self._walk(f"{folder}/" if folder else "", prefix, after)

    def _walk(self, inside: str, prefix: str, after: str) -> Iterator[str]:
        try:
            with os.scandir(self._folder / inside) as entries:
                # A folder's names go on with a slash, and so does their order.
                found = sorted(
                    f"{inside}{each.name}/" if each.is_dir() else f"{inside}{each.name}"
                    for each in entries
                    if inside or each.name != _UNFINISHED
                )
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as problem:
            raise _fault(problem) from problem
        for name in found:
            if not name.startswith(prefix):
                continue
            if name.endswith("/"):
                if after[: len(name)] <= name:
                    yield from self._walk(name, prefix, after)
            elif name > after:
                yield name

    def close(self) -> None:
        """See `Objects.close`."""


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fault(problem: OSError) -> Transient:
    return Transient(f"object storage: {problem}", retry_after_seconds=2)
