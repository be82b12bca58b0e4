"""Access keys from a file: they are in force without any database."""

from pathlib import Path

from tollgate.core.errors import Fault, InvalidInput
from tollgate.platform.access import (
    DEFAULT_NAMESPACE,
    NAMESPACE_RULE,
    ActiveKey,
    Scope,
    hash_secret,
    is_namespace,
    split_key,
)

_SECRET_LENGTH_MIN = 32


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
        split = split_key(text)
        scopes = entry.get("scopes", [])
        known = isinstance(scopes, list) and scopes and all(s in list(Scope) for s in scopes)
        if split is None or len(split[1]) < _SECRET_LENGTH_MIN:
            fault(f"entry {number}", "`key` must read tg_<id>_<secret of at least 32 characters>")
        elif not known:
            fault(f"entry {number}", f"`scopes` must be a list of {', '.join(Scope)}")
        elif not is_namespace(str(entry.get("namespace", DEFAULT_NAMESPACE))):
            fault(f"entry {number}", f"`namespace` {NAMESPACE_RULE}")
        else:
            keys.append(
                ActiveKey(
                    id=split[0],
                    namespace=str(entry.get("namespace", DEFAULT_NAMESPACE)),
                    scopes=frozenset(Scope(s) for s in scopes),
                    secret_hash=hash_secret(split[1]),
                )
            )
    if faults:
        raise InvalidInput(tuple(faults))
    return tuple(keys)
