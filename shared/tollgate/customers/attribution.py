"""Usage attribution in time: whose a subject's usage is, from when to when.

A subject's first attribution counts from the beginning of time: events that came before anyone knew
the customer are its. A later one counts from the instant of the change, and the earlier one ends
there. What has ended never changes, so a period that is over says tomorrow what it says today.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Origin(StrEnum):
    """Why a subject's usage is a customer's."""

    SUBJECT = "subject"
    """It is one of the customer's subject keys."""
    KEY = "key"
    """It is the customer's key."""
    ID = "id"
    """It is the customer's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """The usage of a subject in [begins_at, ends_at) is a customer's.

    Attributes:
        begins_at: None: from the beginning of time.
        ends_at: None: it still is. Not after `begins_at`: it never was.
    """

    customer_id: str
    subject_key: str
    begins_at: datetime | None = None
    ends_at: datetime | None = None

    def covers(self, instant: datetime) -> bool:
        """Whether usage of that instant is the customer's."""
        begun = self.begins_at is None or self.begins_at <= instant
        return begun and (self.ends_at is None or instant < self.ends_at)


def owner_at(attributions: Iterable[Attribution], subject: str, instant: datetime) -> str | None:
    """Id of the customer whose a subject's usage of an instant is; None: nobody's."""
    found = (each for each in attributions if each.subject_key == subject)
    return next((each.customer_id for each in found if each.covers(instant)), None)


def origins(customer_id: str, key: str | None, subject_keys: Sequence[str]) -> dict[str, Origin]:
    """All subjects whose usage is a customer's: those listed, in their order, its key, its id."""
    found = dict.fromkeys(subject_keys, Origin.SUBJECT)
    if key is not None:
        found.setdefault(key, Origin.KEY)
    found.setdefault(customer_id, Origin.ID)
    return found
