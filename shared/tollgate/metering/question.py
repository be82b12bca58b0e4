"""What can be asked of a meter, and what is answered."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from tollgate.events.position import Token
from tollgate.metering.filters import Filter
from tollgate.metering.window import WindowSize

SUBJECT, CUSTOMER = "subject", "customer_id"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterQuery:
    """What is asked.

    Attributes:
        start, end: the period [start, end); None is open.
        window: size of the windows; None: one total.
        time_zone: where windows are aligned.
        subjects: only these; None: all.
        group_by: names of the meter's dimensions, `subject`, `customer_id`, in order.
        filters: conditions on dimensions.
        subject_filter: a condition on the subject, besides `subjects`.
        customers: subject to customer, of the customers asked for; None: no customer is asked for.
        as_of: only what was known at this vector of the log; None: all that is known now.
    """

    start: datetime | None = None
    end: datetime | None = None
    window: WindowSize | None = None
    time_zone: str = "UTC"
    subjects: tuple[str, ...] | None = None
    group_by: tuple[str, ...] = ()
    filters: Mapping[str, Filter] = field(default_factory=dict)
    subject_filter: Filter | None = None
    customers: Mapping[str, str] | None = None
    as_of: Token | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRow:
    """One quantity. `dimensions` holds what was grouped by, subject and customer left out."""

    value: Decimal
    start: datetime
    end: datetime
    subject: str | None
    customer_id: str | None
    dimensions: Mapping[str, str]
