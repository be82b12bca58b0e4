"""Backfills as events know them: an extension attribute names the one that an event belongs to."""

import re
from typing import Final

import msgspec

EXTENSION: Final = "tollgatebackfill"
"""CloudEvents extension of an event of a backfill; its value is the backfill's name."""
NAME_PATTERN: Final = "[a-z0-9][a-z0-9._-]{0,63}"
NAME: Final = re.compile(NAME_PATTERN, re.ASCII)


def backfill_of(extensions: str) -> str:
    """The backfill that an event belongs to, by its extensions as a line has them; "": to none."""
    if EXTENSION not in extensions:
        return ""
    name = msgspec.json.decode(extensions).get(EXTENSION)
    return name if isinstance(name, str) and NAME.fullmatch(name) else ""
