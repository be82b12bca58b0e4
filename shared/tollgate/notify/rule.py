"""The rule: what is to be told, about which features, through which channels.

A rule is checked once, here; all faults are reported at once. Names and bounds are the contract's
(schema `NotificationRuleCreateRequest`); bounds on what it leaves open are ours.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from tollgate.core.errors import InvalidInput
from tollgate.core.reading import NAME_LENGTH_MAX
from tollgate.notify.reading import Reading
from tollgate.notify.threshold import Level, LevelType

LEVEL_COUNT_MAX = 10
CHANNEL_COUNT_MAX = 32
FEATURE_COUNT_MAX = 100

_ULID = re.compile("[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}", re.ASCII)
_FEATURE = re.compile(f"[a-z0-9]+(?:_[a-z0-9]+)*|{_ULID.pattern}", re.ASCII)


class Kind(StrEnum):
    """What a rule, and an event of it, is about."""

    BALANCE_THRESHOLD = "entitlements.balance.threshold"
    ENTITLEMENT_RESET = "entitlements.reset"
    INVOICE_CREATED = "invoice.created"
    INVOICE_UPDATED = "invoice.updated"

    @property
    def is_of_features(self) -> bool:
        """Whether it may be limited to some features."""
        return self in (Kind.BALANCE_THRESHOLD, Kind.ENTITLEMENT_RESET)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureName:
    """A feature, by both its names."""

    id: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleInput:
    """A rule as a person describes it; one that exists is valid.

    Attributes:
        levels: of a threshold rule, at least one; else none.
        features: ids or keys; none: all features.
        channels: ids, in capitals.
    """

    kind: Kind
    name: str
    disabled: bool
    metadata: Mapping[str, str]
    levels: tuple[Level, ...]
    features: tuple[str, ...]
    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule as it is stored.

    Attributes:
        enabled_at: since when it has not been disabled; of one that is, when it was made or last
            enabled.
    """

    id: str
    namespace: str
    kind: Kind
    name: str
    disabled: bool
    metadata: Mapping[str, str]
    levels: tuple[Level, ...]
    features: tuple[FeatureName, ...]
    channels: tuple[str, ...]
    created_at: datetime
    updated_at: datetime
    enabled_at: datetime
    deleted_at: datetime | None

    def is_about(self, feature: FeatureName) -> bool:
        """Whether a feature is one of the rule's; by its key too, which outlives an archiving."""
        return not self.features or any(
            feature.id == each.id or feature.key == each.key for each in self.features
        )


def parse_rule(members: Mapping[str, object]) -> RuleInput:
    """Checks a rule, as JSON's plain values, numbers as int or Decimal.

    Raises:
        InvalidInput: every fault.
    """
    reading = Reading(members)
    kind = _kind(reading)
    wanted = RuleInput(
        kind=kind or Kind.INVOICE_CREATED,
        name=reading.required_text("name", NAME_LENGTH_MAX),
        disabled=reading.flag("disabled"),
        metadata=reading.metadata(),
        levels=_levels(reading) if kind is Kind.BALANCE_THRESHOLD else (),
        features=_features(reading) if kind is not None and kind.is_of_features else (),
        channels=_channels(reading),
    )
    if reading.faults:
        raise InvalidInput(tuple(reading.faults))
    return wanted


def _kind(reading: Reading) -> Kind | None:
    value = reading.members.get("type")
    try:
        return Kind(value)  # type: ignore[arg-type]  # anything else is refused
    except ValueError:
        reading.fault("type", "unknown_type", f"must be one of {', '.join(Kind)}")
        return None


def _levels(reading: Reading) -> tuple[Level, ...]:
    found: list[Level] = []
    for place, item in reading.items("thresholds", LEVEL_COUNT_MAX, required=True):
        if not isinstance(item, Mapping):
            reading.fault(place, "not_an_object", "must be an object with type and value")
            continue
        try:
            named = LevelType(item.get("type"))  # type: ignore[arg-type]
        except ValueError:
            message = f"must be one of {', '.join(LevelType)}"
            reading.fault(f"{place}.type", "unknown_type", message)
            continue
        value = reading.number(f"{place}.value", item.get("value"))
        if value is None:
            continue
        is_of_balance = named is LevelType.BALANCE_VALUE
        if value < 0 or (not value and not is_of_balance):
            message = "must be 0 or more" if is_of_balance else "must be more than 0"
            reading.fault(f"{place}.value", "out_of_range", message)
            continue
        if any(each.type.meaning is named.meaning and each.value == value for each in found):
            reading.fault(place, "repeated", "is there twice")
            continue
        found.append(Level(type=named, value=value))
    return tuple(found)


def _features(reading: Reading) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for place, item in reading.items("features", FEATURE_COUNT_MAX, required=False):
        if not isinstance(item, str) or len(item) > 64 or not _FEATURE.fullmatch(item):
            reading.fault(place, "not_a_feature", "must be a feature's id or key")
        else:
            found[item.upper() if _ULID.fullmatch(item) else item] = None
    return tuple(found)


def _channels(reading: Reading) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for place, item in reading.items("channels", CHANNEL_COUNT_MAX, required=True):
        if not isinstance(item, str) or not _ULID.fullmatch(item):
            reading.fault(place, "not_an_id", "must be the id of a channel")
        else:
            found[item.upper()] = None
    return tuple(found)
