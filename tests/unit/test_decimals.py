"""Exact quantities: one rounding place, no exponent on the wire."""

from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.core.decimals import SCALE, divide, plain_text

quantities = st.decimals(
    allow_nan=False, allow_infinity=False, places=SCALE, min_value=-(10**57), max_value=10**57
)


@pytest.mark.parametrize(
    ("total", "count", "quotient"),
    [
        ("10", 4, "2.5"),
        ("1", 3, "0.333333333333333333"),
        ("2", 3, "0.666666666666666667"),
        ("-2", 3, "-0.666666666666666667"),
        ("0.000000000000000001", 2, "0"),
        ("0.000000000000000003", 2, "0.000000000000000002"),
        ("0.000000000000000005", 2, "0.000000000000000002"),
        ("-0.000000000000000003", 2, "-0.000000000000000002"),
        ("0", 7, "0"),
        ("123456789012345678123456789012345678.5", 1, "123456789012345678123456789012345678.5"),
        ("9" * 58 + "." + "9" * 18, 1, "9" * 58 + "." + "9" * 18),
    ],
)
def test_division_by_hand(total: str, count: int, quotient: str) -> None:
    assert plain_text(divide(Decimal(total), count)) == quotient


@given(quantities, st.integers(1, 10**12))
def test_a_quotient_is_the_nearest_with_18_digits(total: Decimal, count: int) -> None:
    found = Fraction(divide(total, count))
    exact = Fraction(total) / count
    unit = Fraction(1, 10**SCALE)
    assert (found / unit).denominator == 1
    assert abs(found - exact) <= unit / 2
    if abs(found - exact) == unit / 2:
        assert (found / unit).numerator % 2 == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("0", "0"),
        ("-0", "0"),
        ("-0.000", "0"),
        ("0E-18", "0"),
        ("0E+5", "0"),
        ("1", "1"),
        ("1.500", "1.5"),
        ("100", "100"),
        ("1E+2", "100"),
        ("1.0E+3", "1000"),
        ("-0.000000000000000001", "-0.000000000000000001"),
        ("1E-18", "0.000000000000000001"),
        ("123456789012345678.123456789012345678", "123456789012345678.123456789012345678"),
    ],
)
def test_texts_by_hand(value: str, text: str) -> None:
    assert plain_text(Decimal(value)) == text


@given(quantities, st.integers(0, 20))
def test_a_text_is_the_value_and_its_shortest_form(value: Decimal, zeros: int) -> None:
    text = plain_text(value)
    assert Decimal(text) == value
    assert "E" not in text
    padded = Context(prec=120, rounding=ROUND_HALF_EVEN).quantize(
        value, Decimal(1).scaleb(-SCALE - zeros)
    )
    assert plain_text(padded) == text
