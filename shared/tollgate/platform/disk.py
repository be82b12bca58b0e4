"""Writes that return once the bytes are on the disk."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

# What the kernel takes at once (IOV_MAX), with room to spare.
_BUFFERS_MAX = 1000
_ZEROS = bytes(1 << 20)
_REFUSED = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What a full disk says, a spent quota, and a bound on the size of files."""


class Disk:
    """Durable writes to files, by the fewest system calls that the file system knows.

    Into space that is allocated and written already, `pwritev` with `RWF_DSYNC` is one call and one
    turn for the interpreter's lock: https://man7.org/linux/man-pages/man2/readv.2.html.
    """

    def __init__(self, *, in_one_call: bool = True) -> None:
        self._in_one_call = in_one_call

    def write(self, descriptor: int, buffers: Sequence[bytes], position: int) -> None:
        """Writes all of it side by side and returns when it is on disk.

        Raises:
            OSError: any of it may be on disk, or none.
        """
        if len(buffers) > _BUFFERS_MAX:
            buffers = [b"".join(buffers)]
        size = sum(map(len, buffers))
        while self._in_one_call:
            try:
                written = os.pwritev(descriptor, buffers, position, os.RWF_DSYNC)
            except OSError as problem:
                if problem.errno not in _REFUSED:
                    raise
                self._in_one_call = False
                continue
            _require(written, size)
            return
        _require(os.pwritev(descriptor, buffers, position), size)
        os.fdatasync(descriptor)

    def fill(self, path: Path, size: int) -> None:
        """Makes a file of so many zeros, all of them on disk.

        Raises:
            OSError: there is no room; the file may be there in part.
        """
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            for position in range(0, size, len(_ZEROS)):
                piece = min(len(_ZEROS), size - position)
                _require(os.pwrite(descriptor, _ZEROS[:piece], position), piece)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def replace(self, path: Path, content: bytes) -> None:
        """Puts a file in the place of another: whoever looks finds the one or the other, whole.

        Raises:
            OSError: the old one stands there; or the new one, which a power loss may undo.
        """
        made = path.with_name(path.name + ".new")
        with made.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        made.rename(path)
        sync_folder(path.parent)


def _require(written: int, size: int) -> None:
    if written != size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def sync_folder(folder: Path) -> None:
    """Puts the names in a folder on disk.

    Raises:
        OSError: the disk refuses.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_bytes(source: int, target: Path, size: int) -> None:
    """Makes a file of the first bytes of another, on disk when this returns.

    Raises:
        OSError: there is no room, or the file became shorter.
    """
    with target.open("xb") as copy:
        position = 0
        while position < size:
            piece = os.pread(source, min(1 << 20, size - position), position)
            if not piece:
                raise OSError(f"{target.name} became shorter while it was read")
            position += copy.write(piece)
        copy.flush()
        os.fsync(copy.fileno())
