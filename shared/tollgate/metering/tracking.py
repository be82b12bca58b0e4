"""The progress of a client's query, kept while it runs."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tollgate.core.errors import Transient
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

    def put(*, success: int = 0, failed: int = 0) -> None:
        # A query needs nobody to know how far it is: SQL may be away meanwhile.
        with suppress(Transient):
            store.put(call.namespace, client_id, success=success, failed=failed, total=1)

    put()
    try:
        yield
    except Exception:
        put(failed=1)
        raise
    put(success=1)
