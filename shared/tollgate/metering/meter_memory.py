"""Remembers what queries need of the control plane, for the time that it is away.

Read again every few seconds while a process runs, changed at once by the process's own changes, and
kept in a file of the data folder for a start without SQL. SQL is asked first (`MeterReader`), so
nothing here makes an answer older while SQL answers.
"""

import logging
import threading
from time import monotonic

from tollgate.core.errors import TollgateError, Transient
from tollgate.customers.store import SubjectStore
from tollgate.metering.last_known import LastKnown, decode_last_known, encode_last_known
from tollgate.metering.meter import Meter
from tollgate.metering.store import MeterStore
from tollgate.platform.database import open_database
from tollgate.platform.key_reader import is_sqlite
from tollgate.platform.parts import Parts
from tollgate.platform.snapshot_file import SnapshotFile

_log = logging.getLogger(__name__)
SNAPSHOT = "meters.snapshot"
"""Name of the file in the data folder."""
NAMES_MAX = 10_000
"""Display names that are remembered; with more subjects, none is."""
_REFRESH_SECONDS = 5
_AGAIN_SECONDS = 1
# Reading takes at most a twentieth of the time.
_REST = 19


def open_meter_memory(parts: Parts) -> "MeterMemory | None":
    """The memory of this process; None where SQL is a file, which is never away."""
    return None if is_sqlite(parts.settings.sql_url) else MeterMemory(parts)


class MeterMemory:
    """The last known state. Thread-safe."""

    def __init__(self, parts: Parts) -> None:
        database, self._clock = parts.get(open_database), parts.clock
        self._meters = MeterStore(database, self._clock)
        self._subjects = SubjectStore(database, self._clock)
        path = parts.settings.data / SNAPSHOT
        self._snapshot = SnapshotFile(path, "meters", parts.settings.sql_url, self._clock)
        self._state: LastKnown | None = None
        # How many changes of this process there were, and how many of them the file has.
        self._changes = self._kept_changes = 0
        self._noted: list[Meter] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._on_close = parts.on_close

    @property
    def state(self) -> LastKnown | None:
        """None: nothing is known yet."""
        return self._state

    def age_seconds(self, state: LastKnown) -> int:
        """How long ago a state was read, rounded up."""
        return max(0, -int((state.read_at - self._clock.now()).total_seconds() // 1))

    def begin(self) -> None:
        """Reads SQL, or else what was last known of it; goes on in the background."""
        try:
            self.refresh()
        except Transient as problem:
            self._begin_without_sql(problem.detail)
        thread = threading.Thread(target=self._forever, name="meters", daemon=True)
        thread.start()

        def close() -> None:
            self._stop.set()
            self._wake.set()
            thread.join()

        self._on_close(close)

    def refresh(self) -> None:
        """Reads all from SQL.

        Raises:
            Transient: SQL is away; the last state stays.
        """
        with self._lock:
            self._noted.clear()
            changes = self._changes
        began = self._clock.now()
        meters = {meter.id: meter for meter in self._meters.live_of_all()}
        found = self._subjects.display_names_of_all(NAMES_MAX)
        names: dict[str, dict[str, str]] | None = None
        if found is not None:
            names = {}
            for namespace, key, name in found:
                names.setdefault(namespace, {})[key] = name
        state = LastKnown(meters=meters, names=names, read_at=began)
        with self._lock:
            # A change of ours that was made meanwhile may not be in what was read.
            for meter in self._noted:
                state = state.with_meter(meter)
            self._state = state
        self._snapshot.keep(encode_last_known(state), state.read_at)
        self._kept_changes = changes

    def note(self, meter: Meter) -> None:
        """Takes in a change that this process made."""
        with self._lock:
            self._changes += 1
            self._noted.append(meter)
            if self._state is not None:
                self._state = self._state.with_meter(meter)
        self._wake.set()

    def _begin_without_sql(self, problem: str) -> None:
        extra: dict[str, object] = {"problem": problem}
        found = self._snapshot.read()
        if found is None:
            _log.warning("no meters are known: SQL is away", extra=extra)
            return
        try:
            self._state = decode_last_known(found.content, found.read_at)
        except ValueError as wrong:
            _log.warning("no meters are known: SQL is away", extra=extra | {"snapshot": str(wrong)})
            return
        extra |= {"read_at": found.read_at, "age_seconds": self.age_seconds(self._state)}
        _log.warning("meters are taken from the snapshot: SQL is away", extra=extra)

    def _forever(self) -> None:
        pause = _REFRESH_SECONDS
        rest: float = 0  # tidy: allow-float -- seconds
        away = False
        while not self._stop.is_set():
            self._wake.wait(pause)
            self._stop.wait(rest)
            self._wake.clear()
            if self._stop.is_set() and self._kept_changes == self._changes:
                return
            began = monotonic()
            try:
                self.refresh()
            except Exception as problem:  # noqa: BLE001 -- if the thread ended, the state grew old
                said = problem.detail if isinstance(problem, TollgateError) else repr(problem)
                log = _log.debug if away else _log.warning
                log("meters could not be read", extra={"problem": said})
                away, pause = True, _AGAIN_SECONDS
            else:
                if away:
                    _log.info("meters are read again")
                away, pause = False, _REFRESH_SECONDS
                rest = _REST * (monotonic() - began)
