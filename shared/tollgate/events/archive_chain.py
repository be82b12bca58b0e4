"""The manifest of the archive: which file holds which offsets. Only what it names counts.

For each partition a row of entries, each put only if it is new, and named by the offset right after
what the one before covers. So of two writers that go on from the same entry one gives way to the
other, whatever their files hold: there is one truth, without holes and without overlaps.
"""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import PurePosixPath

import msgspec

from tollgate.core.errors import NotFound, PermanentFault
from tollgate.platform.objects import Objects

RECORDS, LEDGER = "records", "ledger"
"""What is archived, each with a manifest of its own."""
_FORM = 1
_DIGITS = 20


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the manifest says of a row of offsets.

    Attributes:
        form: of the entry.
        kind: `records` or `ledger`.
        generation, partition: of the log.
        begin: the offset after the last one of the entry before; 0 of the first.
        last: the last offset that is covered.
        file: name of the object that holds them; "": they were gone before they were archived.
        size, sha256: of the file.
        content: digest of what is in it, whatever form it is written in; "" of the ledger.
        rows, records: counts. A row of records is an event.
        appended, received, times: least and greatest of the rows, in microseconds.
        namespaces: rows by namespace.
        made_us: when it was archived.
        version: of Tollgate.
    """

    form: int = _FORM
    kind: str
    generation: int
    partition: int
    begin: int
    last: int
    file: str = ""
    size: int = 0
    sha256: str = ""
    content: str = ""
    rows: int = 0
    records: int = 0
    appended: tuple[int, int] = (0, 0)
    received: tuple[int, int] = (0, 0)
    times: tuple[int, int] = (0, 0)
    namespaces: dict[str, int] = {}
    made_us: int = 0
    version: str = ""

    @property
    def is_gap(self) -> bool:
        """Whether what it covers is not in the archive."""
        return not self.file


_decode = msgspec.json.Decoder(Entry).decode


def partition_folder(generation: int, partition: int) -> str:
    """The part of a name that says which partition, as warehouses read it."""
    return f"generation={generation}/partition={partition}"


class Chain:
    """The entries of one kind and partition. Used by one thread at a time."""

    def __init__(self, objects: Objects, kind: str, generation: int, partition: int) -> None:
        self._objects = objects
        self._kind = kind
        self._generation = generation
        self._partition = partition
        self._folder = f"manifest/{kind}/{partition_folder(generation, partition)}/"
        self._last_name = ""
        self._frontier = -1

    @property
    def frontier(self) -> int:
        """The last offset that is covered, as far as this object knows; -1: none."""
        return self._frontier

    def look(self) -> int:
        """Finds out how far the manifest goes, and gives that.

        Raises:
            Transient: object storage is away.
            PermanentFault: the last entry can't be read.
        """
        last = ""
        for last in self._objects.names(self._folder, self._last_name):  # noqa: B007
            pass
        if last:
            self._note(self._read(last))
        return self._frontier

    def ends_after(self, offset: int) -> list[int]:
        """The last offsets of the entries that cover what comes after an offset, in order.

        Raises:
            Transient: object storage is away.
        """
        begins = [
            int(name.rpartition("/")[2].removesuffix(".json"))
            for name in self._objects.names(self._folder, self._name(offset + 1))
        ]
        ends = [begin - 1 for begin in begins if begin - 1 > offset]
        return [*ends, self.look()] if self.look() > offset else ends

    def at(self, begin: int) -> Entry | None:
        """The entry that begins at an offset, if there is one. Errors as in `look`."""
        try:
            return self._read(self._name(begin))
        except NotFound:
            return None

    def entries(self, after: str = "") -> Iterator[Entry]:
        """All entries in order.

        Raises:
            Transient: object storage is away.
            PermanentFault: one is missing or can't be read.
        """
        expected = 0
        for name in self._objects.names(self._folder, after):
            entry = self._read(name)
            if entry.begin != expected:
                raise PermanentFault(
                    f"the archive's manifest has no entry {self._name(expected)} before {name}"
                )
            expected = entry.last + 1
            yield entry

    def append(self, entry: Entry) -> Entry:
        """Puts the entry that follows the last one; gives the one that stands there now.

        Raises:
            Transient: object storage is away; the entry may stand or not.
            PermanentFault: as in `look`.
        """
        assert entry.begin == self._frontier + 1
        assert entry.last >= entry.begin
        name = self._name(entry.begin)
        text = msgspec.json.format(msgspec.json.encode(entry), indent=1)
        stands = entry if self._objects.put(name, text + b"\n") else self._read(name)
        self._note(stands)
        return stands

    def adopt(self, entry: Entry) -> None:
        """Goes on after an entry that another writer has put."""
        self._note(entry)

    def _note(self, entry: Entry) -> None:
        self._last_name = self._name(entry.begin)
        self._frontier = entry.last

    def _name(self, begin: int) -> str:
        return f"{self._folder}{begin:0{_DIGITS}d}.json"

    def _read(self, name: str) -> Entry:
        text = self._objects.get(name)
        try:
            entry = _decode(text)
        except msgspec.DecodeError as problem:
            raise PermanentFault(f"{name} of the archive can't be read: {problem}") from problem
        mine = (_FORM, self._kind, self._generation, self._partition)
        if (entry.form, entry.kind, entry.generation, entry.partition) != mine or (
            self._name(entry.begin) != name or entry.last < entry.begin
        ):
            raise PermanentFault(f"{name} of the archive does not say what its name says")
        return entry


def put_file(objects: Objects, name: str, data: bytes) -> str:
    """Stores a file under its name, or, if other bytes stand there, under one with its digest.

    Returns:
        the name under which exactly these bytes are stored.

    Raises:
        Transient: object storage is away; the file may be stored or not.
    """
    if objects.put(name, data) or objects.get(name) == data:
        return name
    # Left by a writer that ended before its entry, or that gave way: nothing refers to it.
    path = PurePosixPath(name)
    other = str(path.with_name(f"{path.stem}-{sha256(data).hexdigest()[:16]}{path.suffix}"))
    objects.put(other, data)
    return other


def get_file(objects: Objects, entry: Entry) -> bytes:
    """The file of an entry, if it is what was stored.

    Raises:
        Transient: object storage is away.
        PermanentFault: it is gone or damaged.
    """
    try:
        data = objects.get(entry.file)
    except NotFound as problem:
        raise PermanentFault(f"{entry.file} is gone from the archive") from problem
    if len(data) != entry.size or sha256(data).hexdigest() != entry.sha256:
        raise PermanentFault(f"{entry.file} of the archive is damaged")
    return data


def partitions_of(objects: Objects, kind: str) -> list[tuple[int, int]]:
    """Every generation and partition that the manifest knows, in order.

    Raises:
        Transient: object storage is away.
    """
    found: list[tuple[int, int]] = []
    folder = f"manifest/{kind}/"
    after = folder
    while (name := next(objects.names(folder, after), "")) != "":
        generation, partition = name.removeprefix(folder).split("/")[:2]
        found.append((int(generation.partition("=")[2]), int(partition.partition("=")[2])))
        # Past all of this partition's entries.
        after = f"{folder}{generation}/{partition}/~"
    return sorted(found)
