"""The last known state of something in a database, in a file, for a start while that is away.

Several processes may keep one file. What it holds is as secret as the database: mode 0600. A file
that is damaged, of another kind or of another database counts as none.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec

from tollgate.core.clock import Clock, datetime_from_us, us_from_datetime

_log = logging.getLogger(__name__)
_VERSION = 1
_FRESH = timedelta(minutes=1)
_MODE = 0o600


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What was read, and when."""

    content: bytes
    read_at: datetime


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    kind: str
    database: str
    read_at_us: int
    content: msgspec.Raw


class SnapshotFile:
    """One file: a line with the SHA-256 of all that follows, then JSON."""

    def __init__(self, path: Path, kind: str, database_url: str, clock: Clock) -> None:
        """Opens nothing.

        Args:
            path: of the file; its folder is made when something is kept.
            kind: what it holds.
            database_url: where that was read; a password is left out of the file.
            clock: tells which instants can't be.
        """
        self._path = path
        self._kind = kind
        self._database = identity_of_database(database_url)
        self._clock = clock
        self._kept: Snapshot | None = None
        self._failure = ""

    def read(self) -> Snapshot | None:
        """What was kept last, by whatever process; None if there is nothing to rely on."""
        try:
            return self._read()
        except FileNotFoundError:
            return None
        except (OSError, ValueError, msgspec.MsgspecError) as problem:
            extra = {"file": str(self._path), "problem": str(problem)}
            _log.warning("a snapshot is not used", extra=extra)
            return None

    def _read(self) -> Snapshot:
        checksum, _, text = self._path.read_bytes().partition(b"\n")
        if sha256(text).hexdigest().encode() != checksum:
            raise ValueError("it is damaged")
        body = msgspec.json.decode(text, type=_Body)
        if (body.version, body.kind) != (_VERSION, self._kind):
            raise ValueError("it is of another version or kind")
        if body.database != self._database:
            raise ValueError("it is of another database")
        return Snapshot(content=bytes(body.content), read_at=datetime_from_us(body.read_at_us))

    def keep(self, content: bytes, read_at: datetime) -> None:
        """Writes what was read, if it is another content or the file is older than a minute.

        Never fails: what can't be written is said in the log, and the next call tries again.

        Args:
            content: JSON.
            read_at: an instant before the reading began.
        """
        new = Snapshot(content=content, read_at=read_at)
        if _is_fresh(self._kept, new):
            return
        try:
            with self._locked() as locked:
                if not locked:
                    return  # somebody else writes, or was stopped while it did
                stored = self._stored()
                if stored is not None and new.read_at < stored.read_at <= self._clock.now():
                    return  # read later than this
                if not _is_fresh(stored, new):
                    self._write(new)
                    stored = new
                self._kept = stored
            self._failure = ""
        except OSError as problem:
            if self._failure != str(problem):
                self._failure = str(problem)
                extra = {"file": str(self._path), "problem": self._failure}
                _log.warning("a snapshot can't be written", extra=extra)

    def _stored(self) -> Snapshot | None:
        try:
            return self._read()
        except (OSError, ValueError, msgspec.MsgspecError):
            return None  # it is written anew

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """Gives whether this process is the only one that writes now."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        lock = os.open(self._path.with_name(self._path.name + ".lock"), flags, _MODE)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(lock)

    def _write(self, snapshot: Snapshot) -> None:
        text = msgspec.json.encode(
            _Body(
                version=_VERSION,
                kind=self._kind,
                database=self._database,
                read_at_us=us_from_datetime(snapshot.read_at),
                content=msgspec.Raw(snapshot.content),
            )
        )
        new = self._path.with_name(self._path.name + ".new")
        new.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(new, flags, _MODE), "wb") as file:
            file.write(sha256(text).hexdigest().encode() + b"\n" + text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _is_fresh(stored: Snapshot | None, new: Snapshot) -> bool:
    if stored is None or stored.content != new.content:
        return False
    return abs(new.read_at - stored.read_at) < _FRESH


def identity_of_database(url: str) -> str:
    """The same for one database, whoever's password the URL has; tells nothing of it."""
    parts = urlsplit(url)
    place = parts.netloc
    if "@" in place:
        user, _, host = place.rpartition("@")
        place = f"{user.partition(':')[0]}@{host}"
    query = sorted((k, v) for k, v in parse_qsl(parts.query) if k != "password")
    shown = f"{parts.scheme}://{place}{parts.path}?{urlencode(query)}"
    return sha256(shown.encode()).hexdigest()
