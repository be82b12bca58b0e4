"""The key index of a process: filled from a file and from SQL, kept fresh in the background.

The host is open (loopback only, namespace `default`) only while no key was ever made. If SQL is
away, the last known keys stay in force.
"""

import logging
import threading
from pathlib import Path

from tollgate.core.errors import Fault, InvalidInput
from tollgate.platform.access import (
    DEFAULT_NAMESPACE,
    NAMESPACE_RULE,
    ActiveKey,
    KeyIndex,
    Scope,
    hash_secret,
    is_namespace,
)
from tollgate.platform.key_reader import read_keys
from tollgate.platform.parts import Parts

_log = logging.getLogger(__name__)
_REFRESH_SECONDS = 5


def open_keys(parts: Parts) -> KeyIndex:
    """The index, filled once before it is given, then refreshed every few seconds.

    Raises:
        InvalidInput: the keys file is wrong.
        Transient: SQL is away, so it is not known which keys are in force.
    """
    refresh = parts.get(open_key_refresh)
    refresh.now()
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
        read_at: when SQL was last read: what was changed since then may not be in force yet.
        from_file: keys of the keys file; they end only by being taken out of it.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        # One reader at a time: what was read earlier must never replace what was read later.
        self._reading = threading.Lock()
        self.index = KeyIndex()
        self.read_at = parts.clock.now()
        self.from_file = (
            read_keys_file(parts.settings.keys_file) if parts.settings.keys_file else ()
        )

    def now(self) -> None:
        """Reads SQL and replaces the index. Keys committed before the call count after it.

        Raises:
            Transient: SQL is away; the index stays as it was.
        """
        with self._reading:
            self._read()

    def _read(self) -> None:
        began = self._parts.clock.now()
        stored, ever = read_keys(self._parts.settings.sql_url)
        keys = [*self.from_file, *stored]
        self.index.replace(keys, open_to_all=not (ever or self.from_file))
        self.read_at = began

    def forever(self, stop: threading.Event) -> None:
        """Refreshes until told to stop."""
        while not stop.wait(_REFRESH_SECONDS):
            try:
                self.now()
            except Exception as problem:  # noqa: BLE001 -- if the thread ended, revoked keys stayed
                _log.warning("access keys could not be read", extra={"problem": str(problem)})


def read_keys_file(path: Path) -> tuple[ActiveKey, ...]:
    """Keys from a YAML list of `{key: tg_<id>_<secret>, namespace, scopes: [...]}`.

    Raises:
        InvalidInput: every fault, with the entry's number.
    """
    import yaml

    faults: list[Fault] = []
    keys: list[ActiveKey] = []

    def fault(field: str, message: str) -> None:
        faults.append(Fault(field=f"{path}: {field}", code="invalid_key", message=message))

    try:
        entries = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        entries = []
        fault("file", f"can't be read: {problem}")
    if not isinstance(entries, list):
        fault("file", "must be a list of keys")
        entries = []
    for number, found in enumerate(entries, 1):
        entry = found if isinstance(found, dict) else {}
        text = str(entry.get("key", ""))
        parts = text.split("_", 2)
        scopes = entry.get("scopes", [])
        known = isinstance(scopes, list) and scopes and all(s in list(Scope) for s in scopes)
        if len(parts) != 3 or parts[0] != "tg" or len(parts[2]) < 32:
            fault(f"entry {number}", "`key` must read tg_<id>_<secret of at least 32 characters>")
        elif not known:
            fault(f"entry {number}", f"`scopes` must be a list of {', '.join(Scope)}")
        elif not is_namespace(str(entry.get("namespace", DEFAULT_NAMESPACE))):
            fault(f"entry {number}", f"`namespace` {NAMESPACE_RULE}")
        else:
            keys.append(
                ActiveKey(
                    id=parts[1],
                    namespace=str(entry.get("namespace", DEFAULT_NAMESPACE)),
                    scopes=frozenset(Scope(s) for s in scopes),
                    secret_hash=hash_secret(parts[2]),
                )
            )
    if faults:
        raise InvalidInput(tuple(faults))
    return tuple(keys)
