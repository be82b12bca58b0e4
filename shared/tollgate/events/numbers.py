"""Numbers in `data` that a binary double would not carry, and the copy of `data` that keeps them.

The engine reads JSON numbers through doubles: one that overflows hides its whole object, a fraction
beyond 17 digits loses some. `exact_copy` gives the same object with those numbers as strings.
"""

import re
from decimal import Decimal

# A number of at least 16 characters of digits and points, or one with an exponent, may be inexact;
# anything shorter has at most 15 significant digits and survives a double (IEEE 754: DBL_DIG).
_DIGITS_RUN = b"0" * 16
_CLASSES = bytes.maketrans(b"0123456789." + b"eE", b"0" * 11 + b"ee")
_EXPONENT = re.compile(rb"[:,\[\s]-?\d[\d.]*[eE]")
_NOT_ZERO = re.compile(r"-?[0.]*[1-9]")
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?', re.DOTALL)


def may_be_inexact(text: bytes) -> bool:
    """A cheap scan: False means that every number survives a double; True means look closer."""
    classes = text.translate(_CLASSES)
    return _DIGITS_RUN in classes or (b"0e" in classes and _EXPONENT.search(text) is not None)


def exact_copy(text: str) -> str:
    """`text` with every number that a double would change written as a string; "" if there is none.

    Args:
        text: valid JSON.
    """
    changed = False

    def replace(match: re.Match[str]) -> str:
        nonlocal changed
        token = match[0]
        if token[0] == '"' or survives_double(token):
            return token
        changed = True
        return f'"{token}"'

    copy = _TOKENS.sub(replace, text)
    return copy if changed else ""


def survives_double(token: str) -> bool:
    """Whether a JSON number comes out of a double as the same decimal value."""
    if len(token) > 400:
        return False
    nearest = float(token)  # tidy: allow-float -- asks what the engine's double would make of it
    if nearest in (_INFINITY, -_INFINITY):
        return False
    if not nearest:
        # Underflow, or a true zero; its exponent may be beyond what a Decimal can hold.
        return _NOT_ZERO.match(token) is None
    return Decimal(repr(nearest)) == Decimal(token)


_INFINITY = float("inf")  # tidy: allow-float -- the double that overflow gives
