"""Progress of queries in SQL."""

from datetime import timedelta

import pytest

from tests.support.control_plane import NS, START, SteppingClock
from tollgate.core.errors import (
    NotFound,
)
from tollgate.metering.progress import QueryProgress, QueryProgressStore
from tollgate.platform.sql import Database


def test_the_last_progress_is_kept_until_it_is_stale(
    database: Database, clock: SteppingClock
) -> None:
    store = QueryProgressStore(database, clock)
    with pytest.raises(NotFound):
        store.get(NS, "c")
    store.put(NS, "c", success=1, failed=0, total=2**40)
    store.put("other", "c", success=9, failed=9, total=9)
    store.put(NS, "c", success=5, failed=1, total=2**40)
    assert store.get(NS, "c") == QueryProgress(
        success=5, failed=1, total=2**40, updated_at=START + timedelta(microseconds=3)
    )
    assert store.delete_before(START + timedelta(microseconds=3)) == 1
    assert store.get(NS, "c").success == 5
    with pytest.raises(NotFound):
        store.get("other", "c")
