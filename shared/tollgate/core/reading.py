"""Reads untyped members, and collects every fault under the names that the sender wrote.

Pure: the contexts say which members a thing has; what is alike in all of them is here.
"""

import re
from collections.abc import Mapping

from tollgate.core.errors import Fault

NAME_LENGTH_MAX = 256
METADATA_COUNT_MAX = 64
METADATA_KEY_LENGTH_MAX = 256
METADATA_VALUE_LENGTH_MAX = 4096
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""No database stores NUL or lone surrogates in text."""
_SHOWN_MAX = 64


def shown(name: object) -> str:
    """A sender's name as a fault may quote it: encodable, and not without end."""
    return str(name)[:_SHOWN_MAX].encode("utf-8", "replace").decode()


def text_fault(value: object, length_max: int, *, empty: bool) -> tuple[str, str] | None:
    """What is wrong with a value as a text that is stored, as code and message; None: nothing.

    Args:
        value: as sent.
        length_max: in characters.
        empty: whether it may be.
    """
    if not isinstance(value, str):
        return "not_a_string", "must be a string"
    if not value and not empty:
        return "empty", "must not be empty"
    if len(value) > length_max:
        return "too_long", f"has more than {length_max} characters"
    if UNSTORABLE.search(value):
        return "forbidden_character", "holds NUL or a lone surrogate"
    return None


class Reading:
    """What was sent, and what is wrong with it so far."""

    def __init__(self, members: Mapping[str, object]) -> None:
        self.members = members
        self.faults: list[Fault] = []

    def fault(self, field: str, code: str, message: str) -> None:
        """Notes one fault."""
        self.faults.append(Fault(field=field, code=code, message=message))

    def text(
        self, field: str, length_max: int, *, required: bool = False, empty: bool = False
    ) -> str | None:
        """A text; None where it is left out, null or wrong."""
        value = self.members.get(field)
        if value is None:
            if required:
                self.fault(field, "required", "is required")
            return None
        return self.checked(field, value, length_max, empty=empty)

    def checked(self, field: str, value: object, length_max: int, *, empty: bool) -> str | None:
        """A text that can be stored; None where it is wrong."""
        wrong = text_fault(value, length_max, empty=empty)
        if wrong is not None:
            self.fault(field, *wrong)
            return None
        assert isinstance(value, str)
        return value

    def metadata(self) -> dict[str, str]:
        """Texts by name."""
        return self.texts(
            "metadata", METADATA_COUNT_MAX, METADATA_KEY_LENGTH_MAX, METADATA_VALUE_LENGTH_MAX
        )

    def texts(
        self, field: str, count_max: int, key_length_max: int, value_length_max: int
    ) -> dict[str, str]:
        """An object of texts; {} where it is left out, null or wrong."""
        found: dict[str, str] = {}
        for key, value in self.entries(field, count_max).items():
            place = f"{field}.{shown(key)}"
            if self.checked(place, key, key_length_max, empty=False) is None:
                continue
            text = self.checked(place, value, value_length_max, empty=True)
            if text is not None:
                found[key] = text
        return found

    def entries(self, field: str, count_max: int) -> Mapping[str, object]:
        """The members of an object; {} where it is left out, null or wrong."""
        value = self.members.get(field)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.fault(field, "not_an_object", self.not_an_object)
            return {}
        if len(value) > count_max:
            self.fault(field, "too_many", f"has more than {count_max} entries")
            return {}
        return value

    not_an_object = "must be an object"
    """What is said where there is something else."""
