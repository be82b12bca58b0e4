"""Adds to questions and answers whose usage is whose: one statement of SQL each.

There is none for a question about quantities that names no customer.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from tollgate.core.clock import datetime_from_us
from tollgate.core.errors import Fault, InvalidInput, Transient
from tollgate.core.reading import shown
from tollgate.customers.api_customers_v1 import open_customers
from tollgate.customers.attribution import Attribution, owner_at
from tollgate.metering.event_filters import Filters
from tollgate.metering.events_list import EventField, EventPage
from tollgate.metering.meter import Meter
from tollgate.metering.question import CUSTOMER, MeterQuery
from tollgate.platform.api import Call
from tollgate.platform.filters import And, Comparison, Filter, Membership, Or

ATTRIBUTIONS_MAX = 200_000
"""Of a namespace, in a question that is grouped by customer and names none."""


def customer_ids(asked: Iterable[str] | None) -> tuple[str, ...] | None:
    """Ids as they are stored, each once; None without any."""
    return tuple(dict.fromkeys(each.upper() for each in asked or ())) or None


def with_attributions(call: Call, meter: Meter, asked: MeterQuery) -> MeterQuery:
    """The question with the attributions that it needs.

    Raises:
        InvalidInput: a customer never was, or there are too many of all.
        Transient: SQL is away.
    """
    if asked.customers is None and CUSTOMER not in asked.group_by:
        return asked
    start = max(filter(None, (asked.start, meter.event_from)), default=None)
    store = call.parts.get(open_customers).attributions
    if asked.customers is None:
        everything = store.of_all(call.namespace, start, asked.end, ATTRIBUTIONS_MAX)
        if everything is None:
            message = "there are too many customers to group by; filter by customers, at most 100"
            fault = Fault(field="groupBy", code="customer_filter_required", message=message)
            raise InvalidInput((fault,))
        return replace(asked, attributions=everything)
    found = store.of_customers(call.namespace, asked.customers, start, asked.end)
    faults = [
        Fault(
            field="filterCustomerId",
            code="unknown_customer",
            message=f"there is no customer {shown(each)}",
        )
        for each in asked.customers
        if each not in found
    ]
    if faults:
        raise InvalidInput(tuple(faults))
    attributions = tuple(row for each in asked.customers for row in found[each])
    return replace(asked, attributions=attributions)


def attributions_of_filters(call: Call, filters: Filters) -> tuple[Attribution, ...]:
    """What is attributed to the customers that filters of events name; unknown ones have nothing.

    Raises:
        Transient: SQL is away.
    """
    named = {
        each
        for field, condition in filters
        if field is EventField.CUSTOMER
        for each in _texts(condition)
    }
    if not named:
        return ()
    found = call.parts.get(open_customers).attributions.of_customers(call.namespace, named)
    return tuple(row for rows in found.values() for row in rows)


def with_customers(call: Call, page: EventPage) -> EventPage:
    """The page with the customer whose usage each event is; while SQL is away, as it was."""
    subjects = {event.subject for event in page.events}
    if not subjects:
        return page
    store = call.parts.get(open_customers).attributions
    try:
        found = store.of_subjects(call.namespace, subjects)
    except Transient:
        return page
    events = (
        replace(event, customer_id=owner_at(found, event.subject, datetime_from_us(event.time_us)))
        for event in page.events
    )
    return replace(page, events=tuple(events))


def _texts(condition: Filter) -> Iterator[str]:
    match condition:
        case Comparison(value=str(value)):
            yield value
        case Membership(values=values):
            yield from values
        case And(filters=filters) | Or(filters=filters):
            for each in filters:
                yield from _texts(each)
        case _:
            pass
