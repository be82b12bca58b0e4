"""What the folder of the embedded event log knows besides its segments, and who owns it."""

import fcntl
import os
import secrets
from pathlib import Path

import msgspec

from tollgate.core.errors import PermanentFault, Transient
from tollgate.platform.disk import Disk, sync_folder

STATE = "state"
_LOCK = "lock"
_FORM = 1


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What outlives every segment.

    Attributes:
        form: of the folder.
        generation: of the log.
        released: up to which offset records were given back.
        openings: how often the log was opened.
        seed: of the digests.
        moved_through: last offset of the SQLite log that this one was made from; None without.
    """

    form: int = _FORM
    generation: int = 1
    released: int = -1
    openings: int = 0
    seed: int
    moved_through: int | None = None


def new_state(generation: int = 1, released: int = -1, moved_through: int | None = None) -> State:
    """The state of a log that holds nothing yet."""
    return State(
        generation=generation,
        released=released,
        seed=secrets.randbits(64),
        moved_through=moved_through,
    )


def write_state(folder: Path, state: State, disk: Disk) -> None:
    """Puts the state on disk in place of the one before."""
    disk.replace(folder / STATE, msgspec.json.encode(state))


def read_state(folder: Path) -> State | None:
    """The state on disk; None if there never was one.

    Raises:
        PermanentFault: it can't be read.
    """
    try:
        state = msgspec.json.decode((folder / STATE).read_bytes(), type=State)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as problem:
        raise PermanentFault(f"event log {folder / STATE}: {problem}") from None
    if state.form != _FORM:
        raise PermanentFault(
            f"event log {folder}: its form is {state.form}, this Tollgate reads {_FORM}"
        )
    return state


def lock_folder(folder: Path) -> int:
    """Makes the folder and locks it to this process; the descriptor that holds the lock.

    Raises:
        Transient: another process has it.
        OSError: the disk refuses.
    """
    if not folder.exists():
        folder.mkdir(parents=True)
        sync_folder(folder.parent)
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise Transient(
            f"another process uses the event log {folder}; end it, or give another data folder"
        ) from None
    return lock
