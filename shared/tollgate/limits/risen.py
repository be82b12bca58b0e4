"""What a stretch of the log adds to limits: read whole before any of it is added. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from tollgate.core.clock import datetime_from_us
from tollgate.customers.attribution import Attribution
from tollgate.limits.limit_index import Question
from tollgate.limits.limit_state import Amount, LimitState
from tollgate.metering.deltas import Delta

_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Risen:
    """What a stretch of the log adds to the limits of a question.

    Attributes:
        question: whose limits.
        deltas: None: it can't be added, so whose usage it is has to be read anew.
        owners: whose the usage of its subjects is.
    """

    question: Question
    deltas: Collection[Delta] | None
    owners: Mapping[str, tuple[Attribution, ...]]

    def changes(self) -> list[tuple[LimitState, list[Amount] | None]]:
        """What is added to each limit; None: it can't be added to. Changes nothing."""
        of_customer = self.question.of_customer
        changes: dict[str, list[Amount] | None] = {}
        if self.deltas is None:
            owners = {each.customer_id for own in self.owners.values() for each in own}
            changes = dict.fromkeys(owners & of_customer.keys())
        minutes: dict[int, tuple[datetime, datetime]] = {}
        for delta in self.deltas or ():
            minute = minutes.get(delta.minute_us)
            if minute is None:
                start = datetime_from_us(delta.minute_us)
                minute = minutes[delta.minute_us] = (start, start + _MINUTE)
            start, end = minute
            for owner in self.owners[delta.subject]:
                customer, begins, ends = owner.customer_id, owner.begins_at, owner.ends_at
                is_other = (begins and begins >= end) or (ends and ends <= start)
                if is_other or customer not in of_customer:
                    continue
                amounts = changes.setdefault(customer, [])
                if (begins and begins > start) or (ends and ends < end):
                    # Within a minute in which an owner changes, whose it is can't be told.
                    changes[customer] = None
                elif amounts is not None:
                    amounts.append((start, end, delta.quantity))
        return [(state, it) for customer, it in changes.items() for state in of_customer[customer]]
