"""What wire models of v3 share in every context: closed bodies, labels, pages, sorting, ids.

v3 refuses members that it does not know. Labels are what v1 calls metadata, under stricter rules;
metadata that is no label is not shown in v3 and stays as it is.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from tollgate.core.errors import Fault, InvalidInput
from tollgate.core.ids import ULID_PATTERN
from tollgate.core.reading import shown
from tollgate.platform.wire import Wire

LABELS_MAX = 50
LABEL_LENGTH_MAX = 63
_ID = re.compile(ULID_PATTERN)
_LABEL_VALUE = re.compile(r"[a-z0-9A-Z](?:[a-z0-9A-Z._-]*[a-z0-9A-Z])?", re.ASCII)
_RESERVED_LABELS = ("kong", "konnect", "mesh", "kic", "_")
Order = TypeVar("Order", bound=StrEnum)


class Closed(Wire):
    """What a client sends: a member that v3 does not know is a fault."""

    model_config = ConfigDict(extra="forbid")


class PageMeta(Wire):
    """Which page this is, and how many items all pages have."""

    number: int
    size: int
    total: int


class PaginatedMeta(Wire):
    """Where in a list an answer stands."""

    page: PageMeta


class PageParameters(Closed):
    """`page[number]` and `page[size]`."""

    number: Annotated[int, Field(ge=1)] = 1
    size: Annotated[int, Field(ge=1, le=1000)] = 100


def checked_id(text: str, field: str) -> str:
    """An id in a path: v3 names things by ULIDs only.

    Raises:
        InvalidInput: it is none.
    """
    if not _ID.fullmatch(text):
        message = "must be a ULID: 26 digits and upper-case letters"
        raise InvalidInput((Fault(field=field, code="invalid_ulid", message=message),))
    return text


def read_orders(
    sort: str, known: Mapping[str, Order], faults: list[Fault]
) -> tuple[tuple[Order, bool], ...]:
    """Orders that a `sort` names, the weightiest first, each with whether it descends."""
    found: list[tuple[Order, bool]] = []
    for part in sort.split(","):
        name, _, direction = part.strip().partition(" ")
        if name in known and direction.strip() in ("", "asc", "desc"):
            found.append((known[name], direction.strip() == "desc"))
        else:
            message = (
                f"takes one of {', '.join(known)}, each with asc or desc after it if you like, "
                "and commas in between"
            )
            faults.append(Fault(field="sort", code="invalid_sort", message=message))
            break
    return tuple(found)


def unknown_members(
    members: Mapping[str, object], model: type[BaseModel], outer: str = ""
) -> list[Fault]:
    """A fault for each member that a model does not have."""
    message = "is not a member of this request"
    return [
        Fault(
            field=outer + shown(name),
            code="unknown_property",
            message=message,
        )
        for name in members
        if name not in model.model_fields
    ]


def labels_from_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """The part of metadata that are labels, at most as many as a thing may have."""
    fitting = [(k, v) for k, v in metadata.items() if not _label_fault(k, v)]
    return dict(fitting[:LABELS_MAX])


def metadata_from_labels(labels: Mapping[str, str], stored: Mapping[str, str]) -> dict[str, str]:
    """New metadata: these labels, and what was stored that v3 does not show."""
    shown = labels_from_metadata(stored)
    return {k: v for k, v in stored.items() if k not in shown} | dict(labels)


def labels_faults(labels: object) -> list[Fault]:
    """What is wrong with labels as v3 has them; what is no text is found by who reads metadata."""
    if not isinstance(labels, Mapping):
        return []
    faults = []
    if len(labels) > LABELS_MAX:
        message = f"has more than {LABELS_MAX} entries"
        faults.append(Fault(field="labels", code="too_many", message=message))
    for key, value in labels.items():
        message = _label_fault(key, value) if isinstance(value, str) else ""
        if message:
            place = f"labels.{shown(key)}"
            faults.append(Fault(field=place, code="invalid_label", message=message))
    return faults


def _label_fault(key: str, value: str) -> str:
    """What is wrong with a label; "" if nothing is (schema `Labels`)."""
    if not 1 <= len(key) <= LABEL_LENGTH_MAX:
        return f"must have a key of 1 to {LABEL_LENGTH_MAX} characters"
    if key.startswith(_RESERVED_LABELS):
        return f"must not have a key that starts with one of {', '.join(_RESERVED_LABELS)}"
    if not _LABEL_VALUE.fullmatch(value) or len(value) > LABEL_LENGTH_MAX:
        return (
            f"must be 1 to {LABEL_LENGTH_MAX} letters, digits, dots, underscores and hyphens, "
            "with a letter or digit first and last"
        )
    return ""
