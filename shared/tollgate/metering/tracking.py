"""The progress of a client's query, kept while it runs."""

from collections.abc import Iterator
from contextlib import contextmanager

from tollgate.metering.progress import QueryProgressStore
from tollgate.platform.api import Call
from tollgate.platform.database import open_database


@contextmanager
def tracked(call: Call, client_id: str | None) -> Iterator[None]:
    """Keeps the progress of what is done inside under the client's id, if it gave one."""
    if client_id is None:
        yield
        return
    store = QueryProgressStore(call.parts.get(open_database), call.parts.clock)
    store.put(call.namespace, client_id, success=0, failed=0, total=1)
    try:
        yield
    except Exception:
        store.put(call.namespace, client_id, success=0, failed=1, total=1)
        raise
    store.put(call.namespace, client_id, success=1, failed=0, total=1)
