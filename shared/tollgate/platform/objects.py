"""The port of object storage: what a folder and any S3 both give.

An object is written once and never changed: `put` writes a name only if nothing stands under it.
One contract suite (`tests/contract/test_objects.py`) holds every implementation to this.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from tollgate.core.errors import Fault, InvalidInput, PermanentFault
from tollgate.platform.parts import Parts
from tollgate.platform.settings import Settings

_NAME = re.compile(r"[A-Za-z0-9_=][A-Za-z0-9_.=-]*(?:/[A-Za-z0-9_=][A-Za-z0-9_.=-]*)*")
_PROBE = "conditional-put"
_PROBE_TEXT = b"An object that is never written twice.\n"


class Objects(Protocol):
    """Objects by name: parts of letters, digits, `_`, `.`, `=` and `-`, joined by slashes."""

    @property
    def place(self) -> str:
        """Where they are, for people: without any secret."""
        ...

    def put(self, name: str, data: bytes) -> bool:
        """Writes an object unless the name is taken. Durable when this returns.

        Returns:
            whether it was written; False: an object stood there before, and still stands.

        Raises:
            Transient: it may have been written or not.
            PermanentFault: the store refuses for good.
        """
        ...

    def get(self, name: str) -> bytes:
        """The whole object.

        Raises:
            NotFound: there is none.
            Transient, PermanentFault: as in `put`.
        """
        ...

    def exists(self, name: str) -> bool:
        """Whether there is such an object. Errors as in `get`."""
        ...

    def names(self, prefix: str, after: str = "") -> Iterator[str]:
        """Names that begin with `prefix` and come after `after`, in ascending order of bytes.

        What is put meanwhile may be among them or not. Errors as in `put`.
        """
        ...

    def close(self) -> None:
        """Lets go of connections."""
        ...


def checked(name: str) -> str:
    """The name.

    Raises:
        PermanentFault: it is none that every store can have.
    """
    if not _NAME.fullmatch(name):
        raise PermanentFault(f"{name!r} can't be the name of an object")
    return name


def require_conditional(objects: Objects) -> None:
    """Makes sure that the store keeps what stands under a name.

    Raises:
        PermanentFault: it overwrites: two writers at once would give two truths.
    """
    objects.put(_PROBE, _PROBE_TEXT)
    if objects.put(_PROBE, _PROBE_TEXT):
        raise PermanentFault(
            f"{objects.place} overwrites an object that was to be put only if it is new"
            " (If-None-Match: *): nothing can be archived there"
        )


def open_objects(parts: Parts) -> Objects | None:
    """The object storage of the settings, which is not asked yet; None if they name none.

    Raises:
        InvalidInput: the setting is not what it should be.
    """
    made = objects_of(parts.settings)
    if made is not None:
        parts.on_close(made.close)
    return made


def objects_of(settings: Settings) -> Objects | None:
    """See `open_objects`; to be closed by the caller."""
    url = settings.objects_url
    if not url:
        return None
    scheme = urlsplit(url).scheme
    if scheme == "file":
        from tollgate.platform.objects_folder import FolderObjects

        path = unquote(url.removeprefix("file://"))
        if not path.startswith("/"):
            raise wrong_url("must be file:///folder, a path from the root")
        return FolderObjects(Path(path))
    if scheme == "s3":
        # Its client takes 0.2 s to import.
        from tollgate.platform.objects_s3 import S3Objects, s3_place

        return S3Objects(s3_place(settings))
    raise wrong_url("must begin with file:/// or s3://")


def wrong_url(message: str) -> InvalidInput:
    """The setting is wrong. The message has nothing of it, for there may be a secret in it."""
    fault = Fault(field="TOLLGATE_OBJECTS_URL", code="invalid_setting", message=message)
    return InvalidInput((fault,))
