"""Which events a correction in bulk is about: conditions on what was sent, as SQL and as JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tollgate.core.times import format_instant, parse_instant
from tollgate.events.backfill import EXTENSION

OF_BACKFILL = f"JSONExtractString(extensions, '{EXTENSION}')"
"""SQL: the backfill that a row of `events` belongs to; '' if to none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """All conditions that are given must hold.

    Attributes:
        types, subjects: one of these; (): any.
        source: exactly this; None: any.
        start, end: half-open period of event time; None is open.
        received_start, received_end: the same of receipt.
        backfill: name of the backfill that the events were sent for; None: whatever.
    """

    types: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    source: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    received_start: datetime | None = None
    received_end: datetime | None = None
    backfill: str | None = None

    @property
    def is_everything(self) -> bool:
        """Whether nothing is left out."""
        return self == Selection()

    def sql(self) -> str:
        """SQL on a row of `events`; binds `parameters`."""
        parts = []
        if self.types:
            parts.append("type IN {selected_types:Array(String)}")
        if self.subjects:
            parts.append("subject IN {selected_subjects:Array(String)}")
        if self.source is not None:
            parts.append("source = {selected_source:String}")
        if self.backfill is not None:
            parts.append(f"{OF_BACKFILL} = {{selected_backfill:String}}")
        for name, value in self._instants().items():
            column = "received_at" if name.startswith("received") else "time"
            sign = ">=" if name.endswith("start") else "<"
            if value is not None:
                parts.append(f"{column} {sign} {{selected_{name}:DateTime64(6, 'UTC')}}")
        return " AND ".join(parts) or "true"

    def _instants(self) -> dict[str, datetime | None]:
        return {
            "start": self.start,
            "end": self.end,
            "received_start": self.received_start,
            "received_end": self.received_end,
        }

    def parameters(self) -> dict[str, object]:
        """What `sql` binds."""
        found: dict[str, object] = {
            "selected_types": list(self.types),
            "selected_subjects": list(self.subjects),
            "selected_source": self.source or "",
            "selected_backfill": self.backfill or "",
        }
        for name, value in self._instants().items():
            if value is not None:
                found[f"selected_{name}"] = value
        return found

    def members(self) -> dict[str, Any]:
        """As JSON, to be kept."""
        found: dict[str, Any] = {
            "types": list(self.types),
            "subjects": list(self.subjects),
            "source": self.source,
            "backfill": self.backfill,
        }
        for name, value in self._instants().items():
            found[name] = None if value is None else format_instant(value)
        return {name: value for name, value in found.items() if value not in (None, [])}


def selection_from_members(members: Mapping[str, Any]) -> Selection:
    """What `Selection.members` gave."""
    instants = ("start", "end", "received_start", "received_end")
    return Selection(
        types=tuple(members.get("types", ())),
        subjects=tuple(members.get("subjects", ())),
        source=members.get("source"),
        backfill=members.get("backfill"),
        **{name: parse_instant(members[name]) for name in instants if name in members},
    )
