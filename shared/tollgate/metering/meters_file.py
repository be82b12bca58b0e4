"""Meters from a YAML file: read whole, every fault with its line, then made true in the store.

The `meters:` list of an OpenMeter configuration works as it is; the other top-level keys of that
file are left alone. The file is the whole definition of each of its meters: what it leaves out gets
its default, also where the API had set something else.
"""

import difflib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tollgate.core.errors import Fault, InvalidInput
from tollgate.metering.meter import ManagedBy, Meter, MeterInput
from tollgate.metering.store import MeterStore

FILE_BYTES_MAX = 4 << 20
METER_COUNT_MAX = 10_000

_FIELDS = (
    "slug",
    "name",
    "description",
    "metadata",
    "aggregation",
    "eventType",
    "eventFrom",
    "valueProperty",
    "groupBy",
)
# OpenMeter reads keys in any case. `windowSize` stood in its older configurations; it never meant
# anything to a query, as it does not here.
_FIELD_OF = {name.lower(): name for name in _FIELDS}
_WITHOUT_EFFECT = frozenset({"windowsize"})
_NULL = "tag:yaml.org,2002:null"
_MERGE = "tag:yaml.org,2002:merge"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMeter:
    """A meter of a file.

    Attributes:
        meter: what the file defines.
        place: where its definition starts, `meters.yaml:12`, for faults found later.
        field: what it is within the file, `meters[3]`.
    """

    meter: MeterInput
    place: str
    field: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Upserted:
    """The slugs of what became of a file's meters, and of what the file no longer names."""

    created: tuple[str, ...]
    updated: tuple[str, ...]
    unchanged: tuple[str, ...]
    left_alone: tuple[str, ...]


def read_meters(path: Path) -> tuple[FileMeter, ...]:
    """Reads and checks a whole file.

    Raises:
        InvalidInput: with every fault of the file, in the order of its lines; the field of each is
            its place, `path:line`. Of errors of YAML itself only the first is found.
    """
    return _FileReader(path).read()


def upsert(store: MeterStore, namespace: str, wanted: Sequence[FileMeter]) -> Upserted:
    """Makes the store's live meters those of the file; safe to run twice.

    All are checked before one is written. A meter that the file no longer names stays as it is.

    Raises:
        InvalidInput: the file would change what a meter can't change, or take away dimensions that
            features need; one fault for each member.
        Conflict: somebody else made one of the meters, or such a feature, at the same moment; run
            it again.
    """
    stored = store.find(namespace, {each.meter.slug for each in wanted})
    faults = [
        fault
        for each in wanted
        if each.meter.slug in stored
        for fault in _immutable_faults(each, stored[each.meter.slug])
    ]
    needed = store.needed_dimensions(namespace)
    faults += [
        fault
        for each in wanted
        if each.meter.slug in stored
        for fault in _needed_faults(each, needed.get(stored[each.meter.slug].id, {}))
    ]
    if faults:
        raise InvalidInput(tuple(faults))
    created, updated, unchanged = [], [], []
    for each in wanted:
        before = stored.get(each.meter.slug)
        if before is None:
            store.create(namespace, each.meter, ManagedBy.FILE)
            created.append(each.meter.slug)
        elif _apply(store, before, each.meter) == before:
            unchanged.append(each.meter.slug)
        else:
            updated.append(each.meter.slug)
    result = Upserted(
        created=tuple(created),
        updated=tuple(updated),
        unchanged=tuple(unchanged),
        left_alone=_left_alone(store, namespace, wanted),
    )
    _tell(result)
    return result


def _apply(store: MeterStore, before: Meter, wanted: MeterInput) -> Meter:
    changes = wanted.changes()
    return store.update(before.namespace, before.id, lambda _stored: changes, ManagedBy.FILE)


def _left_alone(store: MeterStore, namespace: str, wanted: Iterable[FileMeter]) -> tuple[str, ...]:
    named = {each.meter.slug for each in wanted}
    return tuple(
        meter.slug
        for meter in store.live(namespace)
        if meter.managed_by is ManagedBy.FILE and meter.slug not in named
    )


def _tell(result: Upserted) -> None:
    if result.created:
        _log.info("meters created from the file: %s", ", ".join(result.created))
    if result.updated:
        _log.info("meters changed by the file: %s", ", ".join(result.updated))
    if result.left_alone:
        _log.warning(
            "meters that the file no longer names are left as they are; "
            "delete them by the API if they are not wanted: %s",
            ", ".join(result.left_alone),
        )


def _immutable_faults(wanted: FileMeter, stored: Meter) -> Iterator[Fault]:
    for name, (before, after) in stored.immutable_differences(wanted.meter).items():
        yield Fault(
            field=wanted.place,
            code="immutable",
            message=(
                f"{wanted.field}.{name}: the {name} of the meter {stored.slug} is {before} and "
                f"cannot become {after}: give the new meter a slug of its own, or first delete "
                f"the old one with DELETE /api/v1/meters/{stored.slug}"
            ),
        )


def _needed_faults(wanted: FileMeter, needed: Mapping[str, str]) -> Iterator[Fault]:
    for name, key in needed.items():
        if name not in wanted.meter.group_by:
            yield Fault(
                field=wanted.place,
                code="in_use",
                message=(
                    f"{wanted.field}.groupBy.{name} is missing, and the feature {key} needs it: "
                    f"keep it, or first archive the feature with DELETE /api/v1/features/{key}"
                ),
            )


class _Fatal(Exception):
    """The file cannot be read any further; its one fault has been noted."""


class _FileReader:
    """Reads one file and collects its faults with their lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._faults: list[tuple[int, Fault]] = []
        self._slugs: dict[str, tuple[str, int]] = {}

    def read(self) -> tuple[FileMeter, ...]:
        found: list[FileMeter] = []
        try:
            for index, node in enumerate(self._meter_nodes()):
                meter = self._meter(node, f"meters[{index}]")
                if meter is not None:
                    found.append(meter)
        except _Fatal:
            pass
        if self._faults:
            self._faults.sort(key=lambda fault: fault[0])
            raise InvalidInput(tuple(fault for _, fault in self._faults))
        return tuple(found)

    def _meter_nodes(self) -> Sequence[yaml.Node]:
        root = self._compose(self._text())
        if not isinstance(root, yaml.MappingNode):
            raise self._fatal(1, "wrong_shape", "the file must have a `meters:` list at its top")
        for key, node in root.value:
            if _scalar(key) != "meters":
                continue
            if _is_null(node):
                return ()
            if not isinstance(node, yaml.SequenceNode):
                raise self._fatal(_line(node), "wrong_shape", "`meters` must be a list")
            if len(node.value) > METER_COUNT_MAX:
                message = f"`meters` has more than {METER_COUNT_MAX} entries"
                raise self._fatal(_line(node), "too_many", message)
            nodes: Sequence[yaml.Node] = node.value
            return nodes
        raise self._fatal(1, "no_meters", "there is no `meters:` list at the top of the file")

    def _text(self) -> str:
        try:
            if not self._path.is_file():
                what = "is no file" if self._path.exists() else "does not exist"
                raise self._fatal(None, "no_such_file", what)
            if self._path.stat().st_size > FILE_BYTES_MAX:
                raise self._fatal(None, "too_large", f"is larger than {FILE_BYTES_MAX} bytes")
            raw = self._path.read_bytes()
        except OSError as error:
            raise self._fatal(None, "unreadable", f"cannot be read: {error.strerror}") from error
        try:
            return raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = raw[: error.start].count(b"\n") + 1
            message = f"is not UTF-8: byte 0x{raw[error.start]:02x}; save the file as UTF-8"
            raise self._fatal(line, "not_utf8", message) from error

    def _compose(self, text: str) -> yaml.Node | None:
        try:
            node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            raise self._fatal(line, "invalid_yaml", _yaml_message(error)) from error
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            message = f"character #x{ord(text[error.position]):04x} is not allowed in YAML"
            raise self._fatal(line, "invalid_yaml", message) from error
        except RecursionError as error:
            raise self._fatal(1, "too_deep", "the YAML is nested too deeply") from error
        return node

    def _meter(self, node: yaml.Node, field: str) -> FileMeter | None:
        if not isinstance(node, yaml.MappingNode):
            self._fault(_line(node), field, "wrong_shape", "must be a mapping with a slug")
            return None
        raw: dict[str, object] = {}
        lines = {"": _line(node)}
        for key, value in self._members(node, field):
            lowered = key.lower()
            name = _FIELD_OF.get(lowered)
            if name is None:
                if lowered not in _WITHOUT_EFFECT:
                    self._unknown(_line(value), field, key)
                continue
            lines[name] = _line(value)
            raw[name] = self._value(value, name, field, lines)
        return self._checked(raw, lines, field)

    def _checked(
        self, raw: dict[str, object], lines: dict[str, int], field: str
    ) -> FileMeter | None:
        self._check_slug(raw.get("slug"), lines.get("slug", 0), field)
        try:
            meter = MeterInput.parse(raw)
        except InvalidInput as invalid:
            for fault in invalid.faults:
                line = lines.get(fault.field, lines.get(fault.field.split(".")[0], lines[""]))
                self._fault(line, f"{field}.{fault.field}", fault.code, fault.message)
            return None
        return FileMeter(meter=meter, place=f"{self._path}:{lines['']}", field=field)

    def _check_slug(self, slug: object, line: int, field: str) -> None:
        if not isinstance(slug, str):
            return
        taken_by, taken_line = self._slugs.setdefault(slug, (field, line))
        if taken_by != field:
            message = f"is {slug}, which {taken_by} in line {taken_line} has already"
            self._fault(line, f"{field}.slug", "duplicate_slug", message)

    def _value(self, node: yaml.Node, name: str, field: str, lines: dict[str, int]) -> object:
        """A scalar's text as it is written, so that `123`, `yes` and a date stay what they are."""
        if not isinstance(node, yaml.MappingNode):
            return _scalar(node)
        members: dict[str, object] = {}
        for key, value in self._members(node, f"{field}.{name}"):
            lines[f"{name}.{key}"] = _line(value)
            members[key] = _scalar(value)
        return members

    def _members(self, node: yaml.MappingNode, field: str) -> Iterator[tuple[str, yaml.Node]]:
        """The members of a mapping; a merge (`<<`) or a key given twice is a fault."""
        seen: dict[str, int] = {}
        for key_node, value in node.value:
            key = _scalar(key_node)
            line = _line(key_node)
            if key_node.tag == _MERGE:
                message = "merge keys (<<) are not supported; write the members out"
                self._fault(line, field, "merge_key", message)
            elif not isinstance(key, str):
                self._fault(line, field, "wrong_shape", "a key must be a text")
            elif key in seen:
                message = f"is given twice, first in line {seen[key]}"
                self._fault(line, f"{field}.{key}", "duplicate_key", message)
            else:
                seen[key] = line
                yield key, value

    def _unknown(self, line: int, field: str, key: str) -> None:
        close = difflib.get_close_matches(key.lower(), _FIELD_OF, n=1)
        hint = (
            f"; did you mean {_FIELD_OF[close[0]]}?" if close else f"; known: {', '.join(_FIELDS)}"
        )
        self._fault(line, f"{field}.{key}", "unknown_field", f"is no field of a meter{hint}")

    def _fault(self, line: int, field: str, code: str, message: str) -> None:
        place = f"{self._path}:{line}"
        self._faults.append((line, Fault(field=place, code=code, message=f"{field} {message}")))

    def _fatal(self, line: int | None, code: str, message: str) -> _Fatal:
        """Notes a fault of the whole file."""
        place = str(self._path) if line is None else f"{self._path}:{line}"
        self._faults.append((line or 0, Fault(field=place, code=code, message=message)))
        return _Fatal()


def _yaml_message(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "it cannot be parsed"
    if "'\\t'" in problem:
        return "is not YAML: indent with spaces, tabs are not allowed"
    context = f"{error.context}: " if error.context else ""
    return f"is not YAML: {context}{problem}"


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _is_null(node: yaml.Node) -> bool:
    return bool(node.tag == _NULL)


def _scalar(node: yaml.Node) -> object:
    """The text of a scalar, None for null; a list or mapping gives what no field takes."""
    if not isinstance(node, yaml.ScalarNode):
        return ()
    return None if _is_null(node) else node.value
