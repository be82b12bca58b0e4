"""Filters of the events list from a request, whatever the wire's dialect."""

from collections.abc import Callable, Mapping

from tollgate.core.errors import Fault, InvalidInput
from tollgate.core.reading import shown
from tollgate.metering.events_list import EventField
from tollgate.platform.filters import Filter

Filters = tuple[tuple[EventField, Filter], ...]
Fields = Mapping[str, tuple[EventField, Callable[[object, str], Filter]]]
"""The wire's names of filters, what each is about, and who reads its value."""


def read_filters(
    wanted: Mapping[str, object], fields: Fields, spell: Callable[[str], str]
) -> Filters:
    """Every filter of a request; a known name with null counts as absent.

    Args:
        wanted: names and values as sent.
        fields: the dialect.
        spell: how a name is written in the request, for faults.

    Raises:
        InvalidInput: every fault, unknown names among them.
    """
    found: list[tuple[EventField, Filter]] = []
    faults: list[Fault] = []
    for name, value in wanted.items():
        path = spell(shown(name))
        if name not in fields:
            message = f"is not a filter; use one of {', '.join(fields)}"
            faults.append(Fault(field=path, code="unknown_filter", message=message))
            continue
        if value is None:
            continue
        field, parse = fields[name]
        try:
            found.append((field, parse(value, path)))
        except InvalidInput as problem:
            faults += problem.faults
    if faults:
        raise InvalidInput(tuple(faults))
    return tuple(found)
