"""What one unit of a feature costs: a fixed amount, or the price of a language model's tokens.

Members are named as v1 of the contract names them (schema `FeatureUnitCost`), which is also how
they are stored. Amounts are US dollars, exact.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from tollgate.core.errors import Fault
from tollgate.core.reading import text_fault

AMOUNT_DIGITS_MAX = 20
AMOUNT_FRACTION_DIGITS_MAX = 18
TEXT_LENGTH_MAX = 256
TOKEN_TYPES = (
    *("input", "output", "cache_read", "cache_write", "reasoning"),
    # Other names of input and output.
    *("request", "response"),
)

_NUMERIC = re.compile(r"-?([0-9]+)(?:\.([0-9]+))?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ManualUnitCost:
    """A fixed amount.

    Attributes:
        amount: US dollars for one unit, 0 or more, with the digits that it was sent with.
    """

    amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmUnitCost:
    """A price of tokens, found by provider, model and kind of token.

    Of each pair one is None: the value itself, or the meter's dimension that holds it.
    """

    provider: str | None
    provider_property: str | None
    model: str | None
    model_property: str | None
    token_type: str | None
    token_type_property: str | None

    def dimensions(self) -> dict[str, str]:
        """The meter's dimensions that are needed, by the wire's name of the member."""
        named = {
            "providerProperty": self.provider_property,
            "modelProperty": self.model_property,
            "tokenTypeProperty": self.token_type_property,
        }
        return {member: name for member, name in named.items() if name is not None}


UnitCost = ManualUnitCost | LlmUnitCost


def parse_unit_cost(value: object, place: str, faults: list[Fault]) -> UnitCost | None:
    """Reads a unit cost; other members than the contract's are left alone, null is absent.

    Args:
        value: as sent; None: there is none.
        place: where it stands, for faults.
        faults: what is wrong is added to them; the answer is None then.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping):
        faults.append(Fault(field=place, code="not_an_object", message="must be an object"))
        return None
    match value.get("type"):
        case "manual":
            return _manual(value.get("amount"), f"{place}.amount", faults)
        case "llm":
            return _llm(value, place, faults)
        case _:
            fault = Fault(
                field=f"{place}.type", code="unknown_type", message="must be manual or llm"
            )
            faults.append(fault)
            return None


def members_from_unit_cost(cost: UnitCost) -> dict[str, str]:
    """A unit cost as the wire has it; `parse_unit_cost` reads it back."""
    match cost:
        case ManualUnitCost(amount=amount):
            return {"type": "manual", "amount": format(amount, "f")}
        case LlmUnitCost():
            named = {
                "provider": cost.provider,
                "model": cost.model,
                "tokenType": cost.token_type,
            }
            given = {member: text for member, text in named.items() if text is not None}
            return {"type": "llm"} | given | cost.dimensions()


def _manual(amount: object, place: str, faults: list[Fault]) -> ManualUnitCost | None:
    if amount is None:
        faults.append(Fault(field=place, code="required", message="is required"))
        return None
    if not isinstance(amount, str):
        message = (
            'must be a decimal number as a string, such as "0.005": JSON\'s numbers lose digits'
        )
        faults.append(Fault(field=place, code="not_a_string", message=message))
        return None
    match = _NUMERIC.fullmatch(amount[:100])
    if match is None or len(amount) > 100:
        message = "must be a decimal number without exponent, such as 0.005"
        faults.append(Fault(field=place, code="string_pattern_mismatch", message=message))
        return None
    whole, fraction = match[1].lstrip("0"), match[2] or ""
    if len(whole) > AMOUNT_DIGITS_MAX or len(fraction) > AMOUNT_FRACTION_DIGITS_MAX:
        message = (
            f"must have at most {AMOUNT_DIGITS_MAX} digits before the point and "
            f"{AMOUNT_FRACTION_DIGITS_MAX} after it; it is never rounded"
        )
        faults.append(Fault(field=place, code="too_many_digits", message=message))
        return None
    found = Decimal(amount)
    if found < 0:
        faults.append(Fault(field=place, code="negative", message="must be 0 or more"))
        return None
    return ManualUnitCost(amount=found.copy_abs())


def _llm(value: Mapping[str, object], place: str, faults: list[Fault]) -> LlmUnitCost | None:
    before = len(faults)
    found: dict[str, str | None] = {}
    for name, member in (("provider", "provider"), ("model", "model"), ("token_type", "tokenType")):
        fixed, by_dimension = (_text(value, each, place, faults) for each in _pair(member))
        given = [each for each in _pair(member) if value.get(each) is not None]
        if not given:
            message = f"is required, or {member}Property"
            faults.append(Fault(field=f"{place}.{member}", code="required", message=message))
        elif len(given) > 1:
            message = f"excludes {member}Property; send one of the two"
            faults.append(Fault(field=f"{place}.{member}", code="conflicting", message=message))
        found |= {name: fixed, f"{name}_property": by_dimension}
    token_type = found["token_type"]
    if token_type is not None and token_type not in TOKEN_TYPES:
        message = f"must be one of {', '.join(TOKEN_TYPES)}"
        faults.append(Fault(field=f"{place}.tokenType", code="unknown_token_type", message=message))
    return None if len(faults) > before else LlmUnitCost(**found)


def _pair(member: str) -> tuple[str, str]:
    return member, f"{member}Property"


def _text(value: Mapping[str, object], member: str, place: str, faults: list[Fault]) -> str | None:
    text = value.get(member)
    if text is None:
        return None
    wrong = text_fault(text, TEXT_LENGTH_MAX, empty=False)
    if wrong is None:
        assert isinstance(text, str)
        return text
    code, message = wrong
    faults.append(Fault(field=f"{place}.{member}", code=code, message=message))
    return None
