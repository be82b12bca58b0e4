"""The subject: whom usage is attributed to, as the producer names it, and what is added to it.

A subject need not exist for its usage to count. Names and shapes are the contract's (schema
`SubjectUpsert`); bounds on what it leaves open are ours.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from numbers import Real
from typing import TypedDict

from tollgate.core.errors import Fault, InvalidInput
from tollgate.core.reading import UNSTORABLE
from tollgate.core.times import parse_instant

KEY_LENGTH_MAX = 1024
"""As long as an event's subject may be."""
KEY_BYTES_MAX = 2048
"""What PostgreSQL can index, with room for the namespace."""
TEXT_LENGTH_MAX = 1024
METADATA_DEPTH_MAX = 16
METADATA_VALUE_COUNT_MAX = 1024
UPSERT_COUNT_MAX = 1000

# CloudEvents allows no control characters in an event's subject, so no usage could ever be found.
_FORBIDDEN_IN_KEY = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class SubjectFields(TypedDict, total=False):
    """The optional members of a subject; one that is left out is not touched, None clears it."""

    display_name: str | None
    metadata: Mapping[str, object] | None
    stripe_customer_id: str | None
    current_period_start: datetime | None
    current_period_end: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectInput:
    """A subject as a person describes it; one that exists is valid."""

    key: str
    fields: SubjectFields


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A subject as it is stored."""

    id: str
    namespace: str
    key: str
    display_name: str | None
    metadata: Mapping[str, object] | None
    stripe_customer_id: str | None
    current_period_start: datetime | None
    current_period_end: datetime | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None


def subject_key_fault(value: object) -> tuple[str, str] | None:
    """What is wrong with a subject's key, as code and message; None: nothing."""
    if not isinstance(value, str):
        return "not_a_string", "must be a string"
    if not value:
        return "empty", "must not be empty"
    if _FORBIDDEN_IN_KEY.search(value):
        return "forbidden_character", "holds a control character"
    if len(value) > KEY_LENGTH_MAX or len(value.encode()) > KEY_BYTES_MAX:
        message = f"is longer than {KEY_LENGTH_MAX} characters or {KEY_BYTES_MAX} bytes"
        return "too_long", message
    return None


def parse_subjects(raw: Sequence[object]) -> tuple[SubjectInput, ...]:
    """Checks a list of the contract's `SubjectUpsert`, as JSON's plain values.

    Raises:
        InvalidInput: with every fault of every subject, each with the subject's index.
    """
    if len(raw) > UPSERT_COUNT_MAX:
        message = f"at most {UPSERT_COUNT_MAX} subjects are taken at once"
        raise InvalidInput((Fault(field="", code="too_many", message=message),))
    faults: list[Fault] = []
    found = []
    for index, members in enumerate(raw):
        reading = _Reading(members, index, faults)
        found.append(SubjectInput(key=reading.key(), fields=reading.fields()))
    if faults:
        raise InvalidInput(tuple(faults))
    return tuple(found)


class _Reading:
    """Reads one subject and adds what is wrong with it to the faults of all."""

    def __init__(self, members: object, index: int, faults: list[Fault]) -> None:
        self._index = index
        self._faults = faults
        self._members: Mapping[str, object] = {}
        if isinstance(members, Mapping):
            self._members = members
        else:
            self._fault("", "not_an_object", "must be an object with a key")

    def key(self) -> str:
        value = self._members.get("key")
        if value is None:
            self._fault("key", "required", "is required")
            return ""
        wrong = subject_key_fault(value)
        if wrong is None:
            return str(value)
        self._fault("key", *wrong)
        return ""

    def fields(self) -> SubjectFields:
        given: SubjectFields = {}
        if "displayName" in self._members:
            given["display_name"] = self._text("displayName")
        if "stripeCustomerId" in self._members:
            given["stripe_customer_id"] = self._text("stripeCustomerId")
        if "metadata" in self._members:
            given["metadata"] = self._metadata()
        if "currentPeriodStart" in self._members:
            given["current_period_start"] = self._instant("currentPeriodStart")
        if "currentPeriodEnd" in self._members:
            given["current_period_end"] = self._instant("currentPeriodEnd")
        start, end = given.get("current_period_start"), given.get("current_period_end")
        if start is not None and end is not None and end <= start:
            self._fault("currentPeriodEnd", "not_after_start", "must be after currentPeriodStart")
        return given

    def _text(self, field: str) -> str | None:
        value = self._members[field]
        if value is None:
            return None
        if not isinstance(value, str):
            self._fault(field, "not_a_string", "must be a string or null")
        elif len(value) > TEXT_LENGTH_MAX:
            self._fault(field, "too_long", f"has more than {TEXT_LENGTH_MAX} characters")
        elif UNSTORABLE.search(value):
            self._fault(field, "forbidden_character", "holds NUL or a lone surrogate")
        else:
            return value
        return None

    def _instant(self, field: str) -> datetime | None:
        value = self._members[field]
        if value is None:
            return None
        if isinstance(value, datetime) and value.tzinfo is not None:
            return value.astimezone(UTC)
        try:
            return parse_instant(value if isinstance(value, str) else "")
        except ValueError as error:
            self._fault(field, "invalid_time", str(error))
            return None

    def _metadata(self) -> Mapping[str, object] | None:
        value = self._members["metadata"]
        if value is None:
            return None
        if not isinstance(value, Mapping):
            self._fault("metadata", "not_an_object", "must be an object or null")
            return None
        self._check_metadata(value)
        return value

    def _check_metadata(self, metadata: Mapping[str, object]) -> None:
        """Looks at every value once; stops at the first fault."""
        pending: list[tuple[object, int]] = [(metadata, 1)]
        # The list grows while it is walked; the bounds below end it.
        for seen, (value, depth) in enumerate(pending):
            if depth > METADATA_DEPTH_MAX or seen > METADATA_VALUE_COUNT_MAX:
                bounds = f"{METADATA_DEPTH_MAX} levels or {METADATA_VALUE_COUNT_MAX} values"
                return self._fault("metadata", "too_many", f"has more than {bounds}")
            children: Iterable[object] = ()
            if isinstance(value, Mapping):
                children = (*value.values(), *value.keys())
            elif isinstance(value, list):
                children = value
            elif not _is_storable(value):
                message = "holds NUL, a lone surrogate, or a number that no JSON number names"
                return self._fault("metadata", "not_storable", message)
            pending.extend((child, depth + 1) for child in children)
        return None

    def _fault(self, field: str, code: str, message: str) -> None:
        self._faults.append(Fault(field=field, code=code, message=message, index=self._index))


def _is_storable(value: object) -> bool:
    if isinstance(value, str):
        return UNSTORABLE.search(value) is None
    if isinstance(value, Real) and not isinstance(value, int):
        # A JSON reader makes infinity of 1e400; no JSON writer can give that back.
        return math.isfinite(value)
    return True
