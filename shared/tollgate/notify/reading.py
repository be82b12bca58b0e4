"""Reads untyped members of channels and rules."""

from collections.abc import Iterator
from decimal import Decimal

from tollgate.core import reading

WHOLE_DIGITS_MAX = 20
FRACTION_DIGITS_MAX = 18


class Reading(reading.Reading):
    """What was sent, and what is wrong with it so far."""

    def required_text(self, field: str, length_max: int) -> str:
        """A text that is not empty; "" where it is wrong."""
        return self.text(field, length_max, required=True) or ""

    def flag(self, field: str) -> bool:
        """A boolean; false where it is left out or null."""
        value = self.members.get(field)
        if value is None or isinstance(value, bool):
            return bool(value)
        self.fault(field, "not_a_boolean", "must be true or false")
        return False

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
