"""What can be asked of a meter, and what is answered."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from typing import NamedTuple

from tollgate.core.clock import us_from_datetime
from tollgate.customers.attribution import Attribution
from tollgate.events.position import Token
from tollgate.metering.window import WindowSize
from tollgate.platform.filters import Filter

SUBJECT, CUSTOMER = "subject", "customer_id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis:
    """What if other events counted.

    Attributes:
        without: trusted SQL of rows of `events` that do not.
        also: the same of rows that do.
        parameters: what both bind.
    """

    without: str
    also: str
    parameters: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretches:
    """Any instants at which a period is cut.

    Attributes:
        bounds: two or more, ascending: from where the period begins to where it ends.
        restarts: some of the bounds, the first among them. A UNIQUE_COUNT then counts each value
            once from each of these on, where it comes first; without any, in every stretch anew.
            They change nothing for other aggregations.
    """

    bounds: tuple[datetime, ...]
    restarts: tuple[datetime, ...] = ()

    def __post_init__(self) -> None:
        assert len(self.bounds) > 1, "a period has two ends"
        assert all(one < two for one, two in pairwise(self.bounds)), "bounds ascend"
        assert not self.restarts or self.restarts[0] == self.bounds[0], "the first bound restarts"


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
        customers: only usage of these customers, by id; None: whosever it is.
        attributions: whose usage is whose, of the customers asked for, or of all if it is grouped
            by customer without any; `attribution_reader.py` adds them.
        as_of: only what was known at this vector of the log; None: all that is known now.
        supposing: that other events counted.
        fill: whether windows without usage are rows too.
        stretches: cut [start, end), which are the first and last of its bounds; not with `window`.
    """

    start: datetime | None = None
    end: datetime | None = None
    window: WindowSize | None = None
    time_zone: str = "UTC"
    subjects: tuple[str, ...] | None = None
    group_by: tuple[str, ...] = ()
    filters: Mapping[str, Filter] = field(default_factory=dict)
    subject_filter: Filter | None = None
    customers: tuple[str, ...] | None = None
    attributions: tuple[Attribution, ...] = ()
    as_of: Token | None = None
    supposing: Hypothesis | None = None
    fill: bool = False
    stretches: Stretches | None = None


@dataclass(frozen=True, slots=True, order=True)
class RowKey:
    """What tells the rows of an answer apart, and what they are ordered by.

    Attributes:
        start_us: begin of the window in microseconds since the epoch; 0 where there is one total.
        groups: values of what is grouped by, in its order.
    """

    start_us: int
    groups: tuple[str, ...]


class QueryRow(NamedTuple):
    """One quantity. A tuple: it is made a hundred thousand times in an answer.

    Attributes:
        dimensions: what was grouped by, subject and customer left out.
        is_gap: nothing counted, and nothing has no such quantity; `value` is to be left out.
    """

    value: Decimal
    start: datetime
    end: datetime
    subject: str | None
    customer_id: str | None
    dimensions: Mapping[str, str]
    is_gap: bool = False

    def key(self, asked: MeterQuery) -> RowKey:
        """The row's place in the answer to a question."""
        own = {SUBJECT: self.subject, CUSTOMER: self.customer_id}
        return RowKey(
            us_from_datetime(self.start) if asked.window else 0,
            tuple(
                own[name] or "" if name in own else self.dimensions[name]
                for name in dict.fromkeys(asked.group_by)
            ),
        )
