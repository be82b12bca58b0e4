"""Reads untyped members of channels and rules, and collects every fault under the wire's names."""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal

from tollgate.core.errors import Fault

NAME_LENGTH_MAX = 256
METADATA_COUNT_MAX = 64
METADATA_KEY_LENGTH_MAX = 256
METADATA_VALUE_LENGTH_MAX = 4096
WHOLE_DIGITS_MAX = 20
FRACTION_DIGITS_MAX = 18

# No database stores NUL or lone surrogates in text.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class Reading:
    """What was sent, and what is wrong with it so far."""

    def __init__(self, members: Mapping[str, object]) -> None:
        self.members = members
        self.faults: list[Fault] = []

    def fault(self, field: str, code: str, message: str) -> None:
        """Notes one fault."""
        self.faults.append(Fault(field=field, code=code, message=message))

    def text(self, field: str, length_max: int) -> str:
        """A text that is required and not empty; "" where it is wrong."""
        value = self.members.get(field)
        if value is None:
            self.fault(field, "required", "is required")
            return ""
        return self.checked(field, value, length_max, empty=False) or ""

    def flag(self, field: str) -> bool:
        """A boolean; false where it is left out or null."""
        value = self.members.get(field)
        if value is None or isinstance(value, bool):
            return bool(value)
        self.fault(field, "not_a_boolean", "must be true or false")
        return False

    def metadata(self) -> dict[str, str]:
        """Texts by name."""
        return self.texts(
            "metadata", METADATA_COUNT_MAX, METADATA_KEY_LENGTH_MAX, METADATA_VALUE_LENGTH_MAX
        )

    def texts(
        self, field: str, count_max: int, key_length_max: int, value_length_max: int
    ) -> dict[str, str]:
        """An object of texts; {} where it is left out or null."""
        value = self.members.get(field)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.fault(field, "not_an_object", "must be an object")
            return {}
        if len(value) > count_max:
            self.fault(field, "too_many", f"has more than {count_max} entries")
            return {}
        found = {}
        for key, text in value.items():
            place = f"{field}.{key.encode('utf-8', 'replace').decode()[:64]}"
            if self.checked(place, key, key_length_max, empty=False) is None:
                continue
            checked = self.checked(place, text, value_length_max, empty=True)
            if checked is not None:
                found[key] = checked
        return found

    def items(self, field: str, count_max: int, *, required: bool) -> Iterator[tuple[str, object]]:
        """The entries of a list that is not empty, each with its place."""
        value = self.members.get(field)
        if value is None:
            if required:
                self.fault(field, "required", "is required")
        elif not isinstance(value, list):
            self.fault(field, "not_a_list", "must be a list")
        elif not value:
            self.fault(field, "too_few", "must have at least one entry, or be left out")
        elif len(value) > count_max:
            self.fault(field, "too_many", f"has more than {count_max} entries")
        else:
            yield from ((f"{field}.{number}", each) for number, each in enumerate(value))

    def number(self, field: str, value: object) -> Decimal | None:
        """A number with all its digits; None where it is wrong."""
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            self.fault(field, "not_a_number", "must be a number")
            return None
        number = Decimal(value)
        digits, exponent = number.as_tuple()[1:]
        zeros = len(digits) - len("".join(map(str, digits)).rstrip("0"))
        is_bounded = (
            number.is_finite()
            and isinstance(exponent, int)
            and number.adjusted() < WHOLE_DIGITS_MAX
            and exponent + zeros >= -FRACTION_DIGITS_MAX
        )
        if number and not is_bounded:
            bounds = f"{WHOLE_DIGITS_MAX} digits before the point and {FRACTION_DIGITS_MAX} after"
            self.fault(field, "too_many_digits", f"must have at most {bounds} it")
            return None
        return number or Decimal(0)

    def checked(self, field: str, value: object, length_max: int, *, empty: bool) -> str | None:
        """A text that can be stored; None where it is wrong."""
        if not isinstance(value, str):
            self.fault(field, "not_a_string", "must be a string")
        elif not value and not empty:
            self.fault(field, "empty", "must not be empty")
        elif len(value) > length_max:
            self.fault(field, "too_long", f"has more than {length_max} characters")
        elif _UNSTORABLE.search(value):
            self.fault(field, "forbidden_character", "holds NUL or a lone surrogate")
        else:
            return value
        return None
