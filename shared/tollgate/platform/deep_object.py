"""Query parameters with brackets, `filter[time][gte]=…`, as nested objects.

OpenAPI calls the style deepObject and leaves most of it open. Here: a name, then one to three keys
in brackets; a key holds neither bracket nor nothing; every leaf is one text; nothing comes twice.
"""

from collections.abc import Collection, Iterable

from tollgate.core.errors import Fault, InvalidInput

DEPTH_MAX = 3
KEYS_MAX = 100
KEY_LENGTH_MAX = 256

DeepObject = dict[str, "str | DeepObject"]


def parse_deep_objects(
    pairs: Iterable[tuple[str, str]], names: Collection[str]
) -> dict[str, DeepObject]:
    """Nested objects of the parameters that are written with brackets.

    Args:
        pairs: the query's names and values, decoded, in order.
        names: the parameters to read, such as `filter` and `page`; all others are left alone.

    Returns:
        What was sent, by name; a name that was not sent is absent.

    Raises:
        InvalidInput: every fault of the named parameters.
    """
    found: dict[str, DeepObject] = {}
    faults: list[Fault] = []
    count = 0
    for parameter, value in pairs:
        name, bracket, rest = parameter.partition("[")
        if name not in names:
            continue
        count += 1
        if count > KEYS_MAX:
            shown = f"more than {KEYS_MAX} parameters in brackets"
            faults.append(Fault(field=name, code="too_many_parameters", message=shown))
            break
        keys = _split_keys(bracket + rest)
        if keys is None:
            message = f"must be written {name}[key]=value or {name}[key][operator]=value"
            faults.append(_fault(parameter, "malformed_parameter", message))
        elif not _place(found.setdefault(name, {}), keys, value):
            message = "is given twice, or once as a value and once as an object"
            faults.append(_fault(parameter, "repeated_parameter", message))
    if faults:
        raise InvalidInput(tuple(faults))
    return found


def _split_keys(brackets: str) -> list[str] | None:
    """The keys of `[a][b]`, or None where it is written in another way."""
    if not (brackets.startswith("[") and brackets.endswith("]")):
        return None
    keys = brackets[1:-1].split("][")
    if len(keys) > DEPTH_MAX:
        return None
    for key in keys:
        if not key or len(key) > KEY_LENGTH_MAX or "[" in key or "]" in key:
            return None
    return keys


def _place(target: DeepObject, keys: list[str], value: str) -> bool:
    """Put a value at its place; whether the place was free."""
    for key in keys[:-1]:
        inner = target.setdefault(key, {})
        if isinstance(inner, str):
            return False
        target = inner
    if keys[-1] in target:
        return False
    target[keys[-1]] = value
    return True


def _fault(parameter: str, code: str, message: str) -> Fault:
    shown = parameter if len(parameter) <= 100 else parameter[:100] + "…"
    return Fault(field=shown, code=code, message=message)
