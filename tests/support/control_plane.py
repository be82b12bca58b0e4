"""What the tests of the control plane share: a clock to read order from, and valid inputs."""

from datetime import UTC, datetime, timedelta

from tollgate.core.clock import us_from_datetime
from tollgate.customers.subject import SubjectInput, parse_subjects
from tollgate.metering.meter import MeterChanges, MeterInput

START = datetime(2026, 3, 1, 12, 0, 0, 123457, tzinfo=UTC)
NS = "acme"


class SteppingClock:
    """Each look is a microsecond later than the one before, so that order is visible."""

    def __init__(self) -> None:
        self.instant = START

    def now(self) -> datetime:
        self.instant += timedelta(microseconds=1)
        return self.instant

    def now_us(self) -> int:
        return us_from_datetime(self.now())


def meter_input(slug: str = "tokens_total", **members: object) -> MeterInput:
    raw: dict[str, object] = {
        "slug": slug,
        "aggregation": "SUM",
        "eventType": "prompt",
        "valueProperty": "$.tokens",
    }
    return MeterInput.parse(raw | members)


def renamed(name: str) -> MeterChanges:
    return MeterChanges(name=name, description=None, metadata={}, group_by={})


def subject_inputs(*members: dict[str, object]) -> tuple[SubjectInput, ...]:
    return parse_subjects(members)
