"""What is a rule and what is not."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from tollgate.core.errors import InvalidInput
from tollgate.core.ids import new_ulid
from tollgate.notify.rule import FeatureName, Kind, Rule, parse_rule
from tollgate.notify.threshold import Level, LevelType

CHANNEL = new_ulid()
RULE: dict[str, Any] = {
    "type": "entitlements.balance.threshold",
    "name": "Nearly used up",
    "channels": [CHANNEL],
    "thresholds": [{"type": "usage_percentage", "value": 80}],
}


def test_a_whole_rule() -> None:
    feature = new_ulid()
    more = {
        "disabled": True,
        "metadata": {"team": "sales"},
        "features": [feature.lower(), "tokens", "tokens"],
        "channels": [CHANNEL.lower(), CHANNEL],
        "thresholds": [
            {"type": "PERCENT", "value": Decimal("99.999999999999999999")},
            {"type": "balance_value", "value": 0},
        ],
    }
    made = parse_rule(RULE | more)
    assert (made.kind, made.name, made.disabled) == (Kind.BALANCE_THRESHOLD, RULE["name"], True)
    assert made.levels == (
        Level(type=LevelType.PERCENT, value=Decimal("99.999999999999999999")),
        Level(type=LevelType.BALANCE_VALUE, value=Decimal(0)),
    )
    assert (made.features, made.channels) == ((feature, "tokens"), (CHANNEL,))
    assert made.metadata == {"team": "sales"}


def test_what_a_kind_does_not_have_is_left_alone() -> None:
    more = {"features": ["tokens"], "thresholds": ["not looked at"]}
    reset = parse_rule(RULE | more | {"type": "entitlements.reset"})
    assert (reset.levels, reset.features) == ((), ("tokens",))
    invoice = parse_rule(RULE | more | {"type": "invoice.updated"})
    assert (invoice.levels, invoice.features) == ((), ())


def level(value: object, named: object = "usage_value") -> dict[str, object]:
    return {"thresholds": [{"type": named, "value": value}]}


@pytest.mark.parametrize(
    ("more", "faults"),
    [
        ({"type": "meter.threshold"}, ["type unknown_type"]),
        ({"type": ["x"]}, ["type unknown_type"]),
        ({"name": ""}, ["name empty"]),
        ({"name": "x" * 257}, ["name too_long"]),
        ({"name": None, "disabled": "no"}, ["name required", "disabled not_a_boolean"]),
        ({"thresholds": None}, ["thresholds required"]),
        ({"thresholds": []}, ["thresholds too_few"]),
        ({"thresholds": [{"type": "PERCENT", "value": n} for n in range(1, 12)]}, ["too_many"]),
        ({"thresholds": [5]}, ["thresholds.0 not_an_object"]),
        (level(1, "share"), ["thresholds.0.type unknown_type"]),
        (level("1"), ["thresholds.0.value not_a_number"]),
        (level(True), ["thresholds.0.value not_a_number"]),
        (level(0), ["thresholds.0.value out_of_range"]),
        (level(-1, "balance_value"), ["thresholds.0.value out_of_range"]),
        (level(Decimal("1e20")), ["thresholds.0.value too_many_digits"]),
        (level(Decimal("1e999999999")), ["thresholds.0.value too_many_digits"]),
        (level(Decimal("1e-19")), ["thresholds.0.value too_many_digits"]),
        (
            {"thresholds": [{"type": t, "value": 5} for t in ("PERCENT", "usage_percentage")]},
            ["thresholds.1 repeated"],
        ),
        ({"channels": []}, ["channels too_few"]),
        ({"channels": ["x", 5]}, ["channels.0 not_an_id", "channels.1 not_an_id"]),
        ({"features": ["Upper"]}, ["features.0 not_a_feature"]),
        ({"features": []}, ["features too_few"]),
        ({"metadata": {"a": 1}}, ["metadata.a not_a_string"]),
    ],
)
def test_every_fault_is_told(more: dict[str, Any], faults: list[str]) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse_rule(RULE | more)
    found = [f"{fault.field} {fault.code}" for fault in refusal.value.faults]
    assert len(found) == len(faults)
    assert all(want in have for want, have in zip(faults, found, strict=True)), found


def test_trailing_zeros_are_no_digits() -> None:
    made = parse_rule(RULE | level(Decimal("5.00000000000000000000000")))
    assert made.levels[0].value == 5


def test_a_rule_is_about_its_features_by_id_or_key() -> None:
    then = datetime(2026, 1, 1, tzinfo=UTC)
    named = FeatureName(id=new_ulid(), key="tokens")
    rule = Rule(
        id=new_ulid(),
        namespace="acme",
        kind=Kind.ENTITLEMENT_RESET,
        name="r",
        disabled=False,
        metadata={},
        levels=(),
        features=(named,),
        channels=(),
        created_at=then,
        updated_at=then,
        enabled_at=then,
        deleted_at=None,
    )
    assert rule.is_about(named)
    # Archived, and made again under its key.
    assert rule.is_about(FeatureName(id=new_ulid(), key="tokens"))
    assert not rule.is_about(FeatureName(id=new_ulid(), key="calls"))
