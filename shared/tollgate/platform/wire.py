"""What wire models of every context share: spelling, and instants."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

from tollgate.core.times import format_instant, parse_instant


def _read_instant(value: object) -> object:
    if isinstance(value, str):
        return parse_instant(value.replace(" ", "+") if "T" in value else value)
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value
    raise ValueError("must be an RFC 3339 date-time")


WireInstant = Annotated[
    datetime,
    BeforeValidator(_read_instant, json_schema_input_type=datetime),
    PlainSerializer(format_instant, return_type=str),
]
"""RFC 3339 both ways, to the microsecond. A `+` that became a space in a query is mended."""


class Wire(BaseModel):
    """Base of wire models: names as in the contract, unknown members left alone.

    Each is built when it is first used: all of them take 0.2 s, and no process uses all of them.
    """

    model_config = ConfigDict(populate_by_name=True, extra="ignore", defer_build=True)
