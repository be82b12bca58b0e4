"""Numbers that a double would change: the cheap scan may ask too often, never too seldom."""

import json
import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.events.numbers import exact_copy, may_be_inexact, survives_double

# token, and whether a double carries it, by hand: DBL_DIG 15, DBL_MAX 1.797e308, DBL_MIN 4.9e-324.
TOKENS = [
    ("0", True),
    ("-0", True),
    ("-0.0e5", True),
    ("0.1", True),
    ("999999999999999", True),
    ("9007199254740992", True),
    ("9007199254740993", False),
    ("10000000000000000000000", True),
    ("123456789012345678.123456789012345678", False),
    ("0.30000000000000004", True),
    ("0.300000000000000040", True),
    ("0.3000000000000000444", False),
    ("1e22", True),
    ("1e400", False),
    ("-1e400", False),
    ("1.7976931348623157e308", True),
    ("1.7976931348623159e308", False),
    ("5e-324", True),
    ("1e-400", False),
    ("0.000e-400", True),
    ("1e-99999999999999999999", False),
    ("0e-99999999999999999999", True),
    ("0e99999999999999999999", True),
    ("1e99999999999999999999", False),
    ("1" * 400, False),
    ("1" + "0" * 400, False),
]

_digits = st.text("0123456789", min_size=1, max_size=40)
_whole = st.one_of(st.just("0"), st.builds("{}{}".format, st.sampled_from("123456789"), _digits))
_exponent = st.builds(
    "{}{}{}".format,
    st.sampled_from("eE"),
    st.sampled_from(["", "+", "-"]),
    st.integers(0, 420).map(str),
)
number_tokens = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "-"]),
    _whole,
    st.one_of(st.just(""), _digits.map(".{}".format)),
    st.one_of(st.just(""), _exponent),
)


class Token:
    """A number as written, kept apart from strings when a document is read back."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)


def documents(numbers: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """JSON objects as texts, with odd spacing and strings that look like numbers."""
    space = st.sampled_from(["", " ", "\n\t"])
    strings = st.one_of(st.text(max_size=12), numbers, st.sampled_from(['\\"1e400', ",1e400"]))
    leaves = st.one_of(numbers, strings.map(json.dumps), st.sampled_from(["true", "null"]))

    def grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        member = st.builds("{}:{}{}".format, strings.map(json.dumps), space, inner)
        return st.one_of(
            st.builds("[{}{}]".format, space, st.lists(inner, max_size=4).map(" ,".join)),
            st.builds("{{{}}}".format, st.lists(member, max_size=4).map(", ".join)),
        )

    values = st.recursive(leaves, grow, max_leaves=8)
    return st.builds('{{"v":{}{}}}'.format, space, values)


def read(text: str) -> object:
    return json.loads(text, parse_int=Token, parse_float=Token, object_pairs_hook=tuple)


@pytest.mark.parametrize(("token", "survives"), TOKENS, ids=[t[:40] for t, _ in TOKENS])
def test_survives_double_by_hand(token: str, survives: bool) -> None:
    assert survives_double(token) is survives


@given(number_tokens)
def test_a_surviving_number_comes_out_of_a_double_as_it_was(token: str) -> None:
    nearest = float(token)
    exact = math.isfinite(nearest) and Decimal(repr(nearest)) == Decimal(token)
    assert survives_double(token) is exact


@given(documents(number_tokens))
def test_the_scan_never_misses_a_number(text: str) -> None:
    if not may_be_inexact(text.encode()):
        assert exact_copy(text) == ""


@given(documents(st.one_of(st.integers(-(10**15) + 1, 10**15 - 1).map(str), st.just("0.25"))))
def test_short_numbers_need_no_copy(text: str) -> None:
    assert exact_copy(text) == ""


@given(documents(number_tokens))
def test_the_copy_is_the_same_but_for_quoted_numbers(text: str) -> None:
    copy = exact_copy(text)
    if not copy:
        return

    def same(left: object, right: object) -> bool:
        if isinstance(left, Token):
            wanted = left if survives_double(left.text) else left.text
            return right == wanted and type(right) is type(wanted)
        if isinstance(left, tuple | list):
            if not isinstance(right, type(left)) or len(left) != len(right):
                return False
            return all(same(a, b) for a, b in zip(left, right, strict=True))
        return left == right

    assert same(read(text), read(copy))
    assert exact_copy(copy) == "", "the copy has nothing left to quote"


def test_the_copy_by_hand() -> None:
    text = '{"a": [1e400, 1, "1e400", "\\"12345678901234567890"], "b" :12345678901234567890.5 }'
    assert exact_copy(text) == (
        '{"a": ["1e400", 1, "1e400", "\\"12345678901234567890"], "b" :"12345678901234567890.5" }'
    )


@pytest.mark.parametrize("text", ['{"a":1}', '{"model":"gpt-4e","n":12.5}', '{"e":"1e5"}'])
def test_common_payloads_are_not_looked_at_twice(text: str) -> None:
    assert not may_be_inexact(text.encode())
