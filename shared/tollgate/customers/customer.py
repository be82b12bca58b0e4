"""The customer: who pays, and owns subjects.

A customer is checked once, here; all faults are reported at once, under the names of the wire that
it came in by. Names and bounds are the contract's (schema `CustomerCreate`); bounds on what it
leaves open are ours.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from tollgate.core.errors import Fault, InvalidInput
from tollgate.core.reading import Reading
from tollgate.customers.subject import subject_key_fault

KEY_LENGTH_MAX = 256
NAME_LENGTH_MAX = 256
TEXT_LENGTH_MAX = 1024
SUBJECT_COUNT_MAX = 50_000
ADDRESS_FIELDS = ("country", "postal_code", "state", "city", "line1", "line2", "phone_number")

_CURRENCY = re.compile("[A-Z]{3}", re.ASCII)
_COUNTRY = re.compile("[A-Z]{2}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerInput:
    """A customer as a person describes it; one that exists is valid.

    Attributes:
        key: the customer's name in other systems; None: it has none.
        subject_keys: whose usage is the customer's, besides its key and id; each once.
        billing_address: members of `ADDRESS_FIELDS` that are given.
    """

    key: str | None
    name: str
    description: str | None
    metadata: Mapping[str, str]
    subject_keys: tuple[str, ...]
    primary_email: str | None
    currency: str | None
    billing_address: Mapping[str, str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer(CustomerInput):
    """A customer as it is stored."""

    id: str
    namespace: str
    annotations: Mapping[str, object]
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None


def v1_name(name: str) -> str:
    """Our name of a member in v1's spelling: `primary_email` is `primaryEmail`."""
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def v3_name(name: str) -> str:
    """Our name of a member in v3's spelling."""
    return name


def parse_customer(
    members: Mapping[str, object], spell: Callable[[str], str] = v1_name
) -> CustomerInput:
    """Checks a customer, as JSON's plain values. What is left out or null is not there.

    Args:
        members: as sent.
        spell: how the wire spells our names.

    Raises:
        InvalidInput: every fault.
    """
    reading = _Reading(members, spell)
    key = reading.key()
    wanted = CustomerInput(
        key=key,
        name=reading.text("name", NAME_LENGTH_MAX, required=True) or "",
        description=reading.text("description", TEXT_LENGTH_MAX, empty=True),
        metadata=reading.metadata(),
        subject_keys=reading.subject_keys(),
        primary_email=reading.text("primary_email", TEXT_LENGTH_MAX, empty=True),
        currency=reading.matching("currency", _CURRENCY, "three capital letters, such as USD"),
        billing_address=reading.address(),
    )
    if not reading.faults and key is None and not wanted.subject_keys:
        message = f"is needed, or {spell('usage_attribution')} with {spell('subject_keys')}"
        reading.faults.append(Fault(field="key", code="required", message=message))
    if reading.faults:
        raise InvalidInput(tuple(reading.faults))
    return wanted


class _Reading(Reading):
    """Reads the members of a customer, as the wire spells them."""

    def __init__(self, members: Mapping[str, object], spell: Callable[[str], str]) -> None:
        super().__init__(members)
        self._spell = spell

    def key(self) -> str | None:
        # Usage under the key is the customer's too, so it must be one that an event may have.
        value = self.text("key", KEY_LENGTH_MAX)
        wrong = None if value is None else subject_key_fault(value)
        if wrong is not None:
            self.fault("key", *wrong)
        return value

    def text(
        self, field: str, length_max: int, *, required: bool = False, empty: bool = False
    ) -> str | None:
        return super().text(self._spell(field), length_max, required=required, empty=empty)

    def matching(self, name: str, pattern: re.Pattern[str], meaning: str) -> str | None:
        return self._matched(
            self._spell(name), self.members.get(self._spell(name)), pattern, meaning
        )

    def subject_keys(self) -> tuple[str, ...]:
        outer = self._spell("usage_attribution")
        place = f"{outer}.{self._spell('subject_keys')}"
        usage = self._object(outer, self.members.get(outer))
        if usage is None:
            return ()
        keys = usage.get(self._spell("subject_keys"))
        if not isinstance(keys, list):
            self.fault(place, "list_type", "must be a list of strings")
            return ()
        if len(keys) > SUBJECT_COUNT_MAX:
            self.fault(place, "too_many", f"has more than {SUBJECT_COUNT_MAX} entries")
            return ()
        for number, key in enumerate(keys):
            wrong = subject_key_fault(key)
            if wrong is not None:
                self.fault(f"{place}.{number}", *wrong)
        return tuple(dict.fromkeys(key for key in keys if isinstance(key, str)))

    def address(self) -> dict[str, str] | None:
        outer = self._spell("billing_address")
        address = self._object(outer, self.members.get(outer))
        if address is None:
            return None
        found: dict[str, str] = {}
        for name in ADDRESS_FIELDS:
            place, value = f"{outer}.{self._spell(name)}", address.get(self._spell(name))
            if value is None:
                continue
            if name == "country":
                text = self._matched(place, value, _COUNTRY, "two capital letters, such as US")
            else:
                text = self.checked(place, value, TEXT_LENGTH_MAX, empty=True)
            if text is not None:
                found[name] = text
        return found

    def _object(self, field: str, value: object) -> Mapping[str, object] | None:
        if value is None or isinstance(value, Mapping):
            return value
        self.fault(field, "not_an_object", "must be an object")
        return None

    def _matched(
        self, field: str, value: object, pattern: re.Pattern[str], meaning: str
    ) -> str | None:
        if value is None or (isinstance(value, str) and pattern.fullmatch(value)):
            return value
        self.fault(field, "string_pattern_mismatch", f"must be {meaning}")
        return None
