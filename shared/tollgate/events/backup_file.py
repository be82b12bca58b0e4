"""The form of a backup: a tar whose last member, the manifest, names and vouches for all others.

Members: `log/<file>`, `control.sqlite`, `clickhouse/<table>/<part>/<file>`, `manifest.json`. A
backup that was cut off has no manifest, and is refused. Nothing is held in memory but one piece.
"""

import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO

import msgspec

from tollgate.core.errors import Fault, InvalidInput

FORMAT = 2
LOG = "log"
CONTROL = "control.sqlite"
MANIFEST = "manifest.json"
_MANIFEST_BYTES_MAX = 256 << 20
_PIECE_BYTES = 1 << 20
_LOG_BEFORE = "log.sqlite"
_LOG_BY_FORMAT = {1: _LOG_BEFORE, FORMAT: f"{LOG}/state"}
"""A file that the log of each form has. The first form's log is moved when it is first opened."""
_NAME = re.compile(
    r"log/state|log/[0-9]{20}\.segment|log\.sqlite|control\.sqlite"
    r"|clickhouse(?:/[A-Za-z0-9_-][A-Za-z0-9_.%-]*){3,4}"
)


class FileFacts(msgspec.Struct, frozen=True):
    """What the manifest says of one file."""

    size: int
    sha256: str


class Form(msgspec.Struct, frozen=True):
    """What the manifest of every form has."""

    format: int


class Manifest(msgspec.Struct, frozen=True):
    """What a backup holds.

    Attributes:
        format: of the tar.
        version: of Tollgate.
        schema: number of the last ClickHouse migration.
        generation: of the log's layout.
        frontier: last offset loaded, by partition.
        rows: by table, as the frozen parts count them.
        files: by member name.
    """

    format: int
    version: str
    schema: int
    generation: int
    frontier: dict[str, int]
    rows: dict[str, int]
    files: dict[str, FileFacts]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A file to be packed, under a name."""

    name: str
    path: Path


def pack(members: Iterable[Member], manifest: Manifest, made_at: int) -> Iterator[bytes]:
    """Pieces of the tar.

    Args:
        members: files that no longer change.
        manifest: its `files` are filled in.
        made_at: seconds since the epoch, for the members' times.
    """
    files: dict[str, FileFacts] = {}
    for member in members:
        size = member.path.stat().st_size
        yield _head(member.name, size, made_at)
        digest = sha256()
        left = size
        with member.path.open("rb") as source:
            while left:
                piece = source.read(min(_PIECE_BYTES, left))
                if not piece:
                    raise OSError(f"{member.path} became shorter while it was read")
                left -= len(piece)
                digest.update(piece)
                yield piece
        yield _padding(size)
        files[member.name] = FileFacts(size=size, sha256=digest.hexdigest())
    text = msgspec.json.format(
        msgspec.json.encode(msgspec.structs.replace(manifest, files=files)), indent=1
    )
    yield _head(MANIFEST, len(text), made_at) + text + _padding(len(text))
    yield bytes(2 * tarfile.BLOCKSIZE)


def _head(name: str, size: int, made_at: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o600, made_at
    return info.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


def unpack(source: IO[bytes], folder: Path) -> Manifest:
    """Writes the members under a folder and checks each against the manifest.

    Raises:
        InvalidInput: no backup, a damaged one, one that was cut off, or one of a newer form.
    """
    found: dict[str, FileFacts] = {}
    text = b""
    try:
        with tarfile.open(fileobj=source, mode="r|") as tar:
            for info in tar:
                content = tar.extractfile(info)
                if content is None:
                    raise refusal(f"{info.name!r} is no file")
                if info.name == MANIFEST:
                    text = content.read(_MANIFEST_BYTES_MAX)
                elif _NAME.fullmatch(info.name) and info.name not in found:
                    found[info.name] = _write(content, folder / info.name)
                else:
                    raise refusal(f"{info.name!r} has no place in a backup")
    except (tarfile.TarError, EOFError) as problem:
        raise refusal(f"it is damaged or cut off: {problem}") from None
    manifest = _read_manifest(text)
    for name in sorted(manifest.files.keys() | found.keys()):
        if manifest.files.get(name) != found.get(name):
            raise refusal(f"{name} is not what was saved: it is damaged")
    return manifest


def _read_manifest(text: bytes) -> Manifest:
    if not text:
        raise refusal("it is cut off: its manifest is missing")
    try:
        # The form first: a manifest of another form may have other members.
        form = msgspec.json.decode(text, type=Form).format
        if form not in _LOG_BY_FORMAT:
            raise refusal(f"its form is {form}, this Tollgate reads up to {FORMAT}")
        manifest = msgspec.json.decode(text, type=Manifest)
    except msgspec.DecodeError as problem:
        raise refusal(f"its manifest can't be read: {problem}") from None
    for name in (_LOG_BY_FORMAT[form], CONTROL):
        if name not in manifest.files:
            raise refusal(f"its manifest names no {name}")
    return manifest


def _write(content: IO[bytes], path: Path) -> FileFacts:
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, size = sha256(), 0
    with path.open("xb") as target:
        while piece := content.read(_PIECE_BYTES):
            digest.update(piece)
            size += len(piece)
            target.write(piece)
    return FileFacts(size=size, sha256=digest.hexdigest())


def refusal(why: str) -> InvalidInput:
    """The backup can't be used."""
    return InvalidInput((Fault(field="backup", code="bad_backup", message=why),))


def log_name(manifest: Manifest) -> str:
    """Under which name, file or folder, the data folder has this backup's log."""
    return LOG if manifest.format == FORMAT else _LOG_BEFORE
