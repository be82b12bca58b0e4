"""The key index of a process: filled from a file and from SQL, kept fresh in the background.

While SQL is away the last known keys stay in force, also over a start: they are kept in a file of
the data folder. A process that knows none takes no request that needs one.
"""

import logging
import threading
from datetime import datetime

import msgspec

from tollgate.core.errors import TollgateError, Transient
from tollgate.platform.access import ActiveKey, KeyIndex
from tollgate.platform.key_reader import is_sqlite, read_keys
from tollgate.platform.keys_file import read_keys_file
from tollgate.platform.parts import Parts
from tollgate.platform.snapshot_file import SnapshotFile

_log = logging.getLogger(__name__)
_REFRESH_SECONDS = 5
_AGAIN_SECONDS = 1
SNAPSHOT = "access-keys.snapshot"
"""Name of the file in the data folder."""


class _Content(msgspec.Struct, frozen=True):
    """What the snapshot holds: the keys, and whether there ever was one."""

    ever: bool
    keys: tuple[ActiveKey, ...]


# Sets in order: the same keys must be the same bytes in every process.
_ENCODER = msgspec.json.Encoder(order="deterministic")


def open_keys(parts: Parts) -> KeyIndex:
    """The index, filled once before it is given if that can be, then refreshed in the background.

    Raises:
        InvalidInput: the keys file is wrong.
        PermanentFault: SQL refuses for good.
    """
    refresh = parts.get(open_key_refresh)
    refresh.begin()
    stop = threading.Event()
    thread = threading.Thread(target=refresh.forever, args=(stop,), name="keys", daemon=True)
    thread.start()

    def close() -> None:
        stop.set()
        thread.join()

    parts.on_close(close)
    return refresh.index


def open_key_refresh(parts: Parts) -> "KeyRefresh":
    """What keeps the index of this process fresh; who changes keys asks it to look at once.

    Raises:
        InvalidInput: the keys file is wrong.
    """
    return KeyRefresh(parts)


class KeyRefresh:
    """Reads all keys and replaces the index.

    Attributes:
        index: what requests are checked against.
        read_at: when SQL was last read, by this process or by the one that left the snapshot: what
            was changed since then may not be in force yet. None: it is not known which keys are.
        from_file: keys of the keys file; they end only by being taken out of it.
    """

    def __init__(self, parts: Parts) -> None:
        self._clock = parts.clock
        self._sql_url = parts.settings.sql_url
        # One reader at a time: what was read earlier must never replace what was read later.
        self._reading = threading.Lock()
        self.index = KeyIndex()
        self.read_at: datetime | None = None
        self.from_file = (
            read_keys_file(parts.settings.keys_file) if parts.settings.keys_file else ()
        )
        self._snapshot: SnapshotFile | None = None
        if not is_sqlite(self._sql_url):
            path = parts.settings.data / SNAPSHOT
            self._snapshot = SnapshotFile(path, "access_keys", self._sql_url, self._clock)

    def begin(self) -> None:
        """Reads SQL, or what was last known of it; else only the file's keys are in force.

        Raises:
            PermanentFault: SQL refuses for good.
        """
        try:
            self.now()
        except Transient as problem:
            with self._reading:
                if self.read_at is None:
                    self._begin_without_sql(problem.detail)

    def _begin_without_sql(self, problem: str) -> None:
        extra: dict[str, object] = {"problem": problem}
        found = self._snapshot and self._snapshot.read()
        try:
            content = found and msgspec.json.decode(found.content, type=_Content)
        except (msgspec.MsgspecError, ValueError) as wrong:
            content, extra["snapshot"] = None, str(wrong)
        if not found or not content:
            self.index.replace(self.from_file, none_ever=False, complete=False)
            _log.warning("it is not known which access keys are in force: SQL is away", extra=extra)
            return
        self._put(content)
        self.read_at = found.read_at
        age = self._clock.now() - found.read_at
        extra |= {"read_at": found.read_at, "age_seconds": int(age.total_seconds())}
        _log.warning("access keys are taken from the snapshot: SQL is away", extra=extra)

    def now(self) -> None:
        """Reads SQL and replaces the index. Keys committed before the call count after it.

        Raises:
            Transient: SQL is away; the index stays as it was.
            PermanentFault: SQL refuses for good.
        """
        with self._reading:
            began = self._clock.now()
            stored, ever = read_keys(self._sql_url)
            content = _Content(ever, stored)
            self._put(content)
            self.read_at = began
            if self._snapshot is not None:
                self._snapshot.keep(_ENCODER.encode(content), began)

    def _put(self, content: _Content) -> None:
        none_ever = not (content.ever or content.keys or self.from_file)
        self.index.replace([*self.from_file, *content.keys], none_ever=none_ever)

    def forever(self, stop: threading.Event) -> None:
        """Refreshes until told to stop."""
        pause = _AGAIN_SECONDS if self.read_at is None else _REFRESH_SECONDS
        away = False
        while not stop.wait(pause):
            try:
                self.now()
            except Exception as problem:  # noqa: BLE001 -- if the thread ended, revoked keys stayed
                said = problem.detail if isinstance(problem, TollgateError) else repr(problem)
                log = _log.debug if away else _log.warning
                log("access keys could not be read", extra={"problem": said})
                away, pause = True, _AGAIN_SECONDS
            else:
                if away:
                    _log.info("access keys are read again")
                away, pause = False, _REFRESH_SECONDS
