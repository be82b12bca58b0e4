"""JSON with every digit of its numbers, both ways: no double in between."""

import json
from decimal import Decimal
from typing import Annotated, Any, Final, NoReturn, TypeVar

import msgspec
from pydantic import BaseModel, BeforeValidator, PlainSerializer, ValidationError, WithJsonSchema

from tollgate.core.decimals import plain_text
from tollgate.core.errors import Fault, InvalidInput
from tollgate.platform.api import Reply, faults_of

_DIGITS_MAX = 100
Model = TypeVar("Model", bound=BaseModel)
_encoder: Final = msgspec.json.Encoder(decimal_format="number")


def _read_number(value: object) -> Decimal:
    if isinstance(value, Decimal):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    raise ValueError("must be a number")


def _plain(value: Decimal) -> Decimal:
    return Decimal(plain_text(value))


ExactNumber = Annotated[
    Decimal,
    BeforeValidator(_read_number),
    PlainSerializer(_plain),
    WithJsonSchema({"type": "number"}),
]
"""A JSON number. Read it with `read_exact`, answer with `exact_reply`."""


def exact_members(raw: bytes) -> dict[str, Any]:
    """The members of a JSON object that was read before, its numbers as they were sent.

    Raises:
        InvalidInput: no object, or a number that is none, or has too many digits.
    """
    members = json.loads(
        raw, parse_float=_decimal, parse_int=_integer, parse_constant=_refuse_constant
    )
    if not isinstance(members, dict):
        raise _invalid("must be an object")
    return members


def read_exact(model: type[Model], members: dict[str, Any]) -> Model:
    """The model of an object's members.

    Raises:
        InvalidInput: every fault, with its path.
    """
    try:
        return model.model_validate(members)
    except ValidationError as problem:
        raise InvalidInput(faults_of(problem)) from None


def plain_json(value: Any) -> Any:
    """What nobody counts by, as JSON's usual readers have it: decimals become doubles."""
    match value:
        case dict():
            return {name: plain_json(each) for name, each in value.items()}
        case list():
            return [plain_json(each) for each in value]
        case Decimal():
            return float(value)  # tidy: allow-float -- of no quantity
        case _:
            return value


def exact_reply(body: BaseModel | list[Any]) -> Reply:
    """An answer with models in it, absent members left out."""
    if isinstance(body, list):
        plain: Any = [_dumped(each) for each in body]
    else:
        plain = _dumped(body)
    return Reply(body=_encoder.encode(plain))


def _dumped(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(by_alias=True, exclude_none=True)


def _decimal(text: str) -> Decimal:
    if len(text) > _DIGITS_MAX:
        raise _invalid(f"has a number of over {_DIGITS_MAX} characters")
    return Decimal(text)


def _integer(text: str) -> int:
    if len(text) > _DIGITS_MAX:
        raise _invalid(f"has a number of over {_DIGITS_MAX} characters")
    return int(text)


def _refuse_constant(text: str) -> NoReturn:
    raise _invalid(f"has {text}, which is no number")


def _invalid(message: str) -> InvalidInput:
    return InvalidInput((Fault(field="", code="invalid_json", message=message),))
