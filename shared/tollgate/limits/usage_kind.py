"""How usage of a meter meets grants, by the meter's aggregation."""

from enum import StrEnum

from tollgate.core.errors import Fault, InvalidInput
from tollgate.metering.meter import Aggregation


class UsageKind(StrEnum):
    """How quantities of phases make up usage.

    FLOW: each phase has a quantity of its own, they add up, and each unit burns a grant once.
    DISTINCT: counts since the usage period's start; a phase has what the count rose by. A phase's
        own count would count again what an earlier phase has seen.
    LEVEL: a value since the usage period's start. Nothing burns: the sum of the grants is a limit
        that the value stays under, and freeing it gives the balance back.
    """

    FLOW = "FLOW"
    DISTINCT = "DISTINCT"
    LEVEL = "LEVEL"


def usage_kind(aggregation: Aggregation) -> UsageKind:
    """The kind of an aggregation.

    LATEST and MAX are levels: what is in use now, and the most that was since the period began; no
    event yet is 0. MIN is refused because using more never raises it, AVG because a small value
    gives back what a large one took.

    Raises:
        InvalidInput: MIN or AVG.
    """
    match aggregation:
        case Aggregation.SUM | Aggregation.COUNT:
            return UsageKind.FLOW
        case Aggregation.UNIQUE_COUNT:
            return UsageKind.DISTINCT
        case Aggregation.LATEST | Aggregation.MAX:
            return UsageKind.LEVEL
        case Aggregation.MIN | Aggregation.AVG:
            message = f"{aggregation} cannot be limited: more usage does not raise it"
            fault = Fault(field="meter.aggregation", code="not_limitable", message=message)
            raise InvalidInput((fault,))
