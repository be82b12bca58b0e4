"""Seals in SQL, on both databases: what moves on from another's state is not written."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tollgate.core.errors import Conflict
from tollgate.events.imbalance import Difference, Imbalance, Slice
from tollgate.events.position import NOTHING, Token
from tollgate.events.recount_store import RecountStore
from tollgate.events.seal import BEGINNING, HOUR, Late, Seal, SealState
from tollgate.events.seal_store import SealStore
from tollgate.platform.sql import Database

NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)


def vector(offset: int) -> Token:
    return Token(generation=2, offsets={0: offset, 3: 7})


def seal_to(end: datetime, offset: int, start: datetime = BEGINNING) -> Seal:
    return Seal(
        start=start,
        end=end,
        revision=1,
        vector=vector(offset),
        sealed_at=end + timedelta(hours=2),
    )


def test_seals_and_revisions_come_back_as_they_were(database: Database) -> None:
    store = SealStore(database)
    first = seal_to(NOON, 1)
    assert store.seal("a", store.state("a"), first, {}) == (first,)
    state = store.state("a")
    assert state == SealState(sealed_through=NOON, vector=vector(1), sealed_at=first.sealed_at)
    forced = replace(
        seal_to(NOON + HOUR, 5, NOON), kind="forced", reason="r", actor="k", missing=("x", "y")
    )
    late = {
        NOON - HOUR: Late(events=3, corrections=1),
        NOON - 900 * HOUR: Late(events=1, corrections=0),
    }
    old, new, last = store.seal("a", state, forced, late)
    assert last == forced
    assert (old.start, old.revision, old.late_events) == (NOON - 900 * HOUR, 2, 1)
    assert (new.previous, new.late_corrections) == (vector(1), 1)
    assert store.list("a") == (first, old, new, forced)
    assert store.list("a", revised=True, after=(old.start, 2)) == (new,)
    assert store.find("a", NOON - HOUR) == new
    assert store.find("a", NOON - HOUR, 1) == first
    assert store.find("a", NOON + HOUR) is None
    assert store.list("b") == ()
    assert store.count_revisions() == 2
    again = seal_to(NOON + 2 * HOUR, 6, NOON + HOUR)
    third, _ = store.seal(
        "a", store.state("a"), again, {NOON - HOUR: Late(events=1, corrections=0)}
    )
    assert third.revision == 3
    # Nothing is extended beyond what a person sealed, nor what another one has sealed meanwhile.
    with pytest.raises(Conflict):
        store.seal("a", state, forced, {})


def test_an_idle_hour_extends_the_last_seal_only(database: Database) -> None:
    store = SealStore(database)
    first = seal_to(NOON, 1)
    store.seal("a", store.state("a"), first, {}, idle=True)
    more = seal_to(NOON + HOUR, 2, NOON)
    (extended,) = store.seal("a", store.state("a"), more, {}, idle=True)
    assert extended == replace(first, end=more.end, extended_at=more.sealed_at)
    assert store.list("a") == (extended,)
    assert store.state("a").vector == vector(2)


def test_the_recount_moves_on_from_where_it_was(database: Database) -> None:
    store = RecountStore(database)
    part = Slice(generation=2, partition=0, after=-1, through=9, since_us=-5, until_us=7)
    off = Imbalance(
        namespace="a",
        hour=NOON,
        part=part,
        differences=(Difference(what="stored", expected=2, found=1),),
        found_at=NOON,
    )
    store.save_recount(NOTHING, vector(1), (off,), ["a", "", "b"])
    assert store.recounted() == vector(1)
    assert SealStore(database).states().keys() == {"a", "b"}
    with pytest.raises(Conflict):
        store.save_recount(NOTHING, vector(1), ())
    store.save_recount(vector(1), vector(2), (), ["b", "c"])
    with pytest.raises(Conflict):
        store.save_recount(vector(1), vector(3), ())
    assert store.imbalances("a") == store.imbalances() == (off,)
    assert store.imbalances("b") == ()
    store.replace_imbalances(part, [replace(off, found_at=NOON + HOUR)])
    assert store.imbalances() == (off,)
    store.replace_imbalances(part, [])
    assert store.imbalances() == ()
