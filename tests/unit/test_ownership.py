"""Owners within a period, against tables by hand."""

from datetime import UTC, datetime

import pytest

from tollgate.core.clock import us_from_datetime
from tollgate.customers.attribution import Attribution
from tollgate.metering.ownership import Ownership, bind_texts, ownership
from tollgate.platform.filters import Parameters


def day(number: int) -> datetime:
    return datetime(2026, 3, number, tzinfo=UTC)


def us(number: int) -> int:
    return us_from_datetime(day(number))


def row(who: str, subject: str, begin: int | None = None, end: int | None = None) -> Attribution:
    return Attribution(
        customer_id=who,
        subject_key=subject,
        begins_at=None if begin is None else day(begin),
        ends_at=None if end is None else day(end),
    )


ROWS = (
    row("A", "kept"),
    row("A", "also"),
    row("A", "moved", None, 10),
    row("B", "moved", 10),
    row("A", "gone", None, 10),
    row("B", "late", 5, 5),
    row("B", "late", 12),
)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, 5, {"kept": "A", "also": "A", "moved": "A", "gone": "A"}),
        (1, 10, {"kept": "A", "also": "A", "moved": "A", "gone": "A"}),
        (13, None, {"kept": "A", "also": "A", "moved": "B", "late": "B"}),
    ],
)
def test_a_period_without_changes_has_one_owner_of_each(
    start: int | None, end: int | None, expected: dict[str, str]
) -> None:
    found = ownership(ROWS, *(None if bound is None else day(bound) for bound in (start, end)))
    assert {name: found.timelines[n][0][1] for name, n in found.subjects} == expected
    assert found.changes == frozenset()
    assert len(found.timelines) == len(set(expected.values()))


def test_changes_are_steps_of_a_timeline_that_alike_subjects_share() -> None:
    found = ownership((*ROWS, row("A", "gone too", None, 10)), day(1), day(20))
    by_subject = {name: found.timelines[number] for name, number in found.subjects}
    assert by_subject == {
        "kept": ((us(1), "A"),),
        "also": ((us(1), "A"),),
        "moved": ((us(1), "A"), (us(10), "B")),
        "gone": ((us(1), "A"), (us(10), "")),
        "gone too": ((us(1), "A"), (us(10), "")),
        "late": ((us(1), ""), (us(12), "B")),
    }
    assert len(found.timelines) == 4
    assert found.changes == {us(10), us(12)}


def test_nobody_asked_for_owns_nothing() -> None:
    found = ownership((), None, None)
    assert found == Ownership(timelines=(), subjects=())


def test_values_are_bound_in_pieces_that_a_server_takes() -> None:
    bound = Parameters()
    texts = ["\\'" * 512] * 400
    sql = bind_texts(bound, texts)
    assert sql.startswith("arrayConcat({")
    pieces = [piece for piece in bound.values.values() if isinstance(piece, list)]
    assert [text for piece in pieces for text in piece] == texts
    assert all(sum(2 * len(text) + 3 for text in piece) < 128 << 10 for piece in pieces)
