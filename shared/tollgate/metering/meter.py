"""The meter: a rule that turns events into a quantity.

A meter is checked once, here, whatever way it comes in (API, meters file); all faults are reported
at once, under the names that v1 of the wire contract uses. Names and bounds are the contract's
(schema `MeterCreate`); bounds on what it leaves open are ours.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Self

from tollgate.core.errors import InvalidInput
from tollgate.core.reading import NAME_LENGTH_MAX, UNSTORABLE, Reading, shown
from tollgate.core.times import format_instant, parse_instant
from tollgate.metering.jsonpath import JsonPath, parse_path

SLUG_LENGTH_MAX = 64
DESCRIPTION_LENGTH_MAX = 1024
EVENT_TYPE_LENGTH_MAX = 1024
DIMENSION_COUNT_MAX = 64
DIMENSION_NAME_LENGTH_MAX = 128
RESERVED_DIMENSIONS = ("subject", "customer_id")
"""Names that a query groups by itself; a dimension may not hide them."""

_SLUG = re.compile(r"[a-z0-9]+(?:_[a-z0-9]+)*")
_DIMENSION = re.compile(r"[a-zA-Z_][0-9a-zA-Z_]*")


class Aggregation(StrEnum):
    """How the values of many events become one quantity."""

    SUM = "SUM"
    COUNT = "COUNT"
    AVG = "AVG"
    MIN = "MIN"
    MAX = "MAX"
    UNIQUE_COUNT = "UNIQUE_COUNT"
    LATEST = "LATEST"


class ManagedBy(StrEnum):
    """Who last defined a meter: a client of the API, or the meters file."""

    API = "api"
    FILE = "file"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterInput:
    """A meter as a person defines it; one that exists is valid.

    Attributes:
        slug: the meter's key, unique among the live meters of a namespace.
        event_from: events before this instant do not count; None: all count.
        value_property: JSONPath of the value in `data`; None for COUNT, which ignores it, and only
            there.
        group_by: name of a dimension to JSONPath in `data`.
    """

    slug: str
    name: str
    description: str | None
    metadata: Mapping[str, str]
    aggregation: Aggregation
    event_type: str
    event_from: datetime | None
    value_property: str | None
    group_by: Mapping[str, str]

    @classmethod
    def parse(cls, raw: Mapping[str, object]) -> Self:
        """Checks the members of the contract's `MeterCreate`, with plain values.

        Null counts as absent; other members are left alone. `eventFrom` is a text or a datetime.

        Raises:
            InvalidInput: with every fault found.
        """
        reading = _Reading(raw)
        slug = reading.slug()
        aggregation = reading.aggregation()
        event_type = reading.text("eventType", EVENT_TYPE_LENGTH_MAX, required=True)
        event_from = reading.instant("eventFrom")
        value_property = reading.value_property(aggregation)
        changes = reading.changes(default_name=slug, value_property=value_property)
        reading.finish()
        return cls(
            slug=slug,
            name=changes.name,
            description=changes.description,
            metadata=changes.metadata,
            aggregation=aggregation or Aggregation.COUNT,
            event_type=event_type or "",
            event_from=event_from,
            value_property=value_property,
            group_by=changes.group_by,
        )

    def changes(self) -> "MeterChanges":
        """The part that may also be given to a meter that exists."""
        return MeterChanges(
            name=self.name,
            description=self.description,
            metadata=self.metadata,
            group_by=self.group_by,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterChanges:
    """The mutable part of a meter, whole: an update replaces all of it."""

    name: str
    description: str | None
    metadata: Mapping[str, str]
    group_by: Mapping[str, str]

    @classmethod
    def parse(cls, raw: Mapping[str, object], meter: "Meter") -> Self:
        """Reads `name`, `description`, `metadata` and `groupBy`; an absent one gets its default.

        Args:
            raw: members of the request; others are left alone, null counts as absent.
            meter: what is to change; its slug is the default name, and its value may not be a
                dimension too.

        Raises:
            InvalidInput: with every fault found.
        """
        reading = _Reading(raw)
        changes = reading.changes(default_name=meter.slug, value_property=meter.value_property)
        reading.finish()
        return cls(
            name=changes.name,
            description=changes.description,
            metadata=changes.metadata,
            group_by=changes.group_by,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """A meter as it is stored. Only what `MeterChanges` holds may change."""

    id: str
    namespace: str
    slug: str
    name: str
    description: str | None
    metadata: Mapping[str, str]
    annotations: Mapping[str, object]
    aggregation: Aggregation
    event_type: str
    event_from: datetime | None
    value_property: str | None
    group_by: Mapping[str, str]
    managed_by: ManagedBy
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None

    def value_path(self) -> JsonPath | None:
        """Where the value stands in `data`; None for COUNT."""
        if self.value_property is None:
            return None
        return parse_path(self.value_property, "valueProperty")

    def dimension_paths(self) -> dict[str, JsonPath]:
        """Where each dimension stands in `data`."""
        return {name: parse_path(text, f"groupBy.{name}") for name, text in self.group_by.items()}

    def immutable_differences(self, wanted: MeterInput) -> dict[str, tuple[str, str]]:
        """What `wanted` would change although it must not: wire name to (stored, wanted) as text.

        Two spellings of one JSONPath are no difference.
        """
        stored_path, wanted_path = self.value_path(), None
        if wanted.value_property is not None:
            wanted_path = parse_path(wanted.value_property, "valueProperty")
        pairs: dict[str, tuple[object, object]] = {
            "aggregation": (self.aggregation, wanted.aggregation),
            "eventType": (self.event_type, wanted.event_type),
            "eventFrom": (self.event_from, wanted.event_from),
            "valueProperty": (
                stored_path and stored_path.spelling(),
                wanted_path and wanted_path.spelling(),
            ),
        }
        return {
            name: (_shown(stored), _shown(asked))
            for name, (stored, asked) in pairs.items()
            if stored != asked
        }


def _shown(value: object) -> str:
    if value is None:
        return "none"
    return format_instant(value) if isinstance(value, datetime) else str(value)


class _Reading(Reading):
    """Reads the members of a meter."""

    not_an_object = "must be an object of strings"

    def finish(self) -> None:
        if self.faults:
            raise InvalidInput(tuple(self.faults))

    def slug(self) -> str:
        slug = self.text("slug", SLUG_LENGTH_MAX, required=True) or ""
        if slug and not _SLUG.fullmatch(slug):
            self.fault(
                "slug",
                "invalid_slug",
                "must be lower-case letters and digits, in words joined by single underscores, "
                "such as tokens_total",
            )
        return slug

    def aggregation(self) -> Aggregation | None:
        text = self.text("aggregation", SLUG_LENGTH_MAX, required=True)
        if text is None:
            return None
        try:
            return Aggregation(text)
        except ValueError:
            known = ", ".join(Aggregation)
            self.fault("aggregation", "unknown_aggregation", f"{text!r} is not one of {known}")
            return None

    def value_property(self, aggregation: Aggregation | None) -> str | None:
        text = self._path("valueProperty", self.members.get("valueProperty"))
        given = self.members.get("valueProperty") is not None
        if aggregation is Aggregation.COUNT:
            return None  # the contract: COUNT ignores it
        if aggregation is not None and not given:
            message = f"{aggregation} needs the JSONPath of a value in data, such as $.tokens"
            self.fault("valueProperty", "required", message)
        return text

    def instant(self, field: str) -> datetime | None:
        value = self.members.get(field)
        if value is None:
            return None
        if isinstance(value, datetime) and value.tzinfo is not None:
            return value.astimezone(UTC)
        try:
            return parse_instant(value if isinstance(value, str) else "")
        except ValueError as error:
            self.fault(field, "invalid_time", str(error))
            return None

    def changes(self, *, default_name: str, value_property: str | None) -> MeterChanges:
        return MeterChanges(
            name=self.text("name", NAME_LENGTH_MAX) or default_name,
            description=self.text("description", DESCRIPTION_LENGTH_MAX, empty=True),
            metadata=self.metadata(),
            group_by=self._group_by(value_property),
        )

    def _path(self, field: str, value: object) -> str | None:
        """The text of a usable JSONPath; None if there is none or it is faulty."""
        if value is None:
            return None
        if not isinstance(value, str):
            self.fault(field, "not_a_string", "must be a JSONPath, such as $.tokens")
            return None
        try:
            parse_path(value, field)
        except InvalidInput as invalid:
            self.faults.extend(invalid.faults)
            return None
        if UNSTORABLE.search(value):
            self.fault(field, "forbidden_character", "holds NUL or a lone surrogate")
            return None
        return value

    def _group_by(self, value_property: str | None) -> dict[str, str]:
        value_path = value_property and parse_path(value_property, "valueProperty")
        found: dict[str, str] = {}
        for name, raw_path in self.entries("groupBy", DIMENSION_COUNT_MAX).items():
            place = f"groupBy.{shown(name)}"
            self._check_dimension(place, name)
            if raw_path is None:
                self.fault(place, "required", "needs a JSONPath, such as $.model")
            path = self._path(place, raw_path)
            if path is None:
                continue
            if parse_path(path, place) == value_path:
                message = "is the valueProperty too; a value cannot be its own dimension"
                self.fault(place, "same_as_value", message)
            found[name] = path
        return found

    def _check_dimension(self, place: str, name: str) -> None:
        if not _DIMENSION.fullmatch(name) or len(name) > DIMENSION_NAME_LENGTH_MAX:
            self.fault(
                place,
                "invalid_dimension",
                "must start with a letter or underscore and go on with letters, digits and "
                f"underscores, at most {DIMENSION_NAME_LENGTH_MAX} characters",
            )
        elif name in RESERVED_DIMENSIONS:
            message = f"{name} is reserved: every query can group by it already"
            self.fault(place, "reserved_dimension", message)
