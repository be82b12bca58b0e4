"""The feature: what is sold. With a meter it is metered, and part of the meter's usage is its own.

A feature is checked once, here; all faults are reported at once, under the names that v1 of the
wire contract uses. Names and bounds are the contract's (schema `FeatureCreateInputs`); bounds on
what it leaves open are ours. What depends on the meter, `check_meter` says.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from tollgate.core.errors import Fault, InvalidInput
from tollgate.core.ids import ULID_PATTERN
from tollgate.core.reading import NAME_LENGTH_MAX, Reading, shown
from tollgate.limits.dimension_filter import DimensionFilter, filter_from_v1
from tollgate.limits.unit_cost import LlmUnitCost, UnitCost, parse_unit_cost
from tollgate.limits.usage_kind import usage_kind
from tollgate.metering.meter import SLUG_LENGTH_MAX, Meter
from tollgate.platform.filters import Filter

KEY_LENGTH_MAX = 64
DESCRIPTION_LENGTH_MAX = 1024
FILTER_COUNT_MAX = 10
SIMPLE_FILTERS = "meterGroupByFilters"
FILTERS = "advancedMeterGroupByFilters"

_KEY = re.compile(r"[a-z0-9]+(?:_[a-z0-9]+)*", re.ASCII)
_ULID = re.compile(ULID_PATTERN, re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureMeter:
    """The meter of a feature. It can be deleted only after the feature was archived."""

    id: str
    slug: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureInput:
    """A feature as a person describes it, valid but for what depends on its meter.

    Attributes:
        meter_slug, meter_id: which meter, by one of the two; without both the feature is static.
        conditions: which usage of the meter counts, by dimension; all must hold.
        simple: dimensions of conditions that came as v1's simple filters only, for faults.
    """

    key: str
    name: str
    description: str | None
    metadata: Mapping[str, str]
    meter_slug: str | None
    meter_id: str | None = None
    conditions: Mapping[str, DimensionFilter]
    unit_cost: UnitCost | None
    simple: frozenset[str] = field(default=frozenset(), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """A feature as it is stored. Only its unit cost may change, and it may be archived, once."""

    id: str
    namespace: str
    key: str
    name: str
    description: str | None
    metadata: Mapping[str, str]
    meter: FeatureMeter | None
    conditions: Mapping[str, DimensionFilter]
    unit_cost: UnitCost | None
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None

    @property
    def filters(self) -> dict[str, Filter]:
        """What must hold for the dimensions of the meter; all must."""
        return {name: each.asked for name, each in self.conditions.items()}


def parse_feature(members: Mapping[str, object]) -> FeatureInput:
    """Checks a feature, as JSON's plain values under v1's names; null is absent.

    The same dimension may be in both kinds of filters if they say the same, as answers have them.

    Raises:
        InvalidInput: every fault but those that depend on the meter.
    """
    reading = _Reading(members)
    found = FeatureInput(
        key=reading.key(),
        name=reading.text("name", NAME_LENGTH_MAX, required=True) or "",
        description=reading.text("description", DESCRIPTION_LENGTH_MAX, empty=True),
        metadata=reading.metadata(),
        meter_slug=reading.meter_slug(),
        conditions=reading.conditions(),
        simple=reading.simple,
        unit_cost=parse_unit_cost(members.get("unitCost"), "unitCost", reading.faults),
    )
    if reading.faults:
        raise InvalidInput(tuple(reading.faults))
    return found


def check_meter(wanted: FeatureInput, meter: Meter | None) -> None:
    """Checks what depends on the meter.

    Args:
        wanted: the feature.
        meter: its meter; None: it has none.

    Raises:
        InvalidInput: the meter's usage cannot be limited, or it lacks dimensions: every fault.
    """
    faults: list[Fault] = []
    if meter is not None:
        try:
            usage_kind(meter.aggregation)
        except InvalidInput as refused:
            faults += (replace(fault, field="meterSlug") for fault in refused.faults)
    for name in wanted.conditions:
        outer = SIMPLE_FILTERS if name in wanted.simple else FILTERS
        faults += _dimension_faults(f"{outer}.{shown(name)}", name, meter)
    faults += unit_cost_faults(wanted.unit_cost, meter)
    if faults:
        raise InvalidInput(tuple(faults))


def unit_cost_faults(cost: UnitCost | None, meter: Meter | None) -> list[Fault]:
    """What is wrong with a unit cost for a meter."""
    if not isinstance(cost, LlmUnitCost):
        return []
    if meter is None:
        message = "llm needs a meter, whose tokens it prices; name one, or use manual"
        return [Fault(field="unitCost.type", code="meter_required", message=message)]
    return [
        fault
        for member, name in cost.dimensions().items()
        for fault in _dimension_faults(f"unitCost.{member}", name, meter)
    ]


def dimensions_of(conditions: Mapping[str, DimensionFilter], cost: UnitCost | None) -> list[str]:
    """Names of the meter's dimensions that a feature cannot do without."""
    named = cost.dimensions().values() if isinstance(cost, LlmUnitCost) else ()
    return list(dict.fromkeys((*conditions, *named)))


def _dimension_faults(place: str, name: str, meter: Meter | None) -> Iterator[Fault]:
    if meter is None:
        message = "needs a meter, whose dimensions it filters; name one too"
        yield Fault(field=place, code="meter_required", message=message)
    elif name not in meter.group_by:
        known = ", ".join(meter.group_by) or "none"
        message = f"{shown(name)} is no dimension of the meter {meter.slug}; it has: {known}"
        yield Fault(field=place, code="unknown_dimension", message=message)


class _Reading(Reading):
    """Reads the members of a feature."""

    def __init__(self, members: Mapping[str, object]) -> None:
        super().__init__(members)
        self.simple: frozenset[str] = frozenset()

    def key(self) -> str:
        key = self.text("key", KEY_LENGTH_MAX, required=True) or ""
        if key and not _KEY.fullmatch(key):
            message = (
                "must be lower-case letters and digits, in words joined by single underscores, "
                "such as gpt4_tokens"
            )
            self.fault("key", "invalid_slug", message)
        elif _ULID.fullmatch(key):
            self.fault("key", "looks_like_id", "must not look like an id: 26 digits and letters")
        return key

    def meter_slug(self) -> str | None:
        return self.text("meterSlug", SLUG_LENGTH_MAX)

    def conditions(self) -> dict[str, DimensionFilter]:
        simple: dict[str, DimensionFilter] = {}
        for name, value in self.entries(SIMPLE_FILTERS, FILTER_COUNT_MAX).items():
            place = f"{SIMPLE_FILTERS}.{shown(name)}"
            if isinstance(value, str):
                self._read(simple, name, {"$eq": value}, place)
            else:
                self.fault(place, "not_a_string", f"must be a string; {FILTERS} take operators")
        found: dict[str, DimensionFilter] = {}
        for name, value in self.entries(FILTERS, FILTER_COUNT_MAX).items():
            self._read(found, name, value, f"{FILTERS}.{shown(name)}")
        for name in simple.keys() & found.keys():
            if simple[name].asked != found[name].asked:
                place = f"{FILTERS}.{shown(name)}"
                message = f"says other than {SIMPLE_FILTERS} of the same dimension; send one"
                self.fault(place, "conflicting", message)
        self.simple = frozenset(simple) - found.keys()
        joined = simple | found
        if len(joined) > FILTER_COUNT_MAX:
            self.fault(FILTERS, "too_many", f"have more than {FILTER_COUNT_MAX} dimensions")
        return joined

    def _read(
        self, found: dict[str, DimensionFilter], name: str, value: object, place: str
    ) -> None:
        try:
            found[name] = filter_from_v1(value, place)
        except InvalidInput as invalid:
            self.faults += invalid.faults
