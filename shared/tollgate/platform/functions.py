"""The one table of functions: hosts, manifests and charts are made from it.

A function is a folder `functions/<name>` with one `main.py` whose functions-framework target has
the same name, and whose `app` is an ASGI application.
"""

from dataclasses import dataclass
from enum import StrEnum


class Trigger(StrEnum):
    """What starts a function."""

    HTTP = "http"
    KAFKA = "kafka"
    SCHEDULE = "schedule"


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """One function.

    Attributes:
        name: folder and target.
        title: what it does, in a few words.
        trigger: what starts it.
        routes: (method, path prefix) pairs it answers; method `*` is any. The longest prefix wins.
        schedule: cron expression (UTC) for scheduled functions.
        needs_stores: whether it can't begin without the schemas of SQL and ClickHouse.
    """

    name: str
    title: str
    trigger: Trigger
    routes: tuple[tuple[str, str], ...] = ()
    schedule: str = ""
    needs_stores: bool = True


FUNCTIONS: tuple[Function, ...] = (
    Function(
        name="ingest",
        title="takes usage events and answers once they are on disk",
        trigger=Trigger.HTTP,
        routes=(("POST", "/api/v1/events"), ("POST", "/api/v3/openmeter/events")),
        needs_stores=False,
    ),
    Function(
        name="load",
        title="moves events from the log into ClickHouse, each counted once",
        trigger=Trigger.KAFKA,
        routes=(("POST", "/_/load"),),
        schedule="* * * * *",
    ),
    Function(
        name="archive",
        title="copies records and the ledger's times into object storage, each once",
        trigger=Trigger.KAFKA,
        routes=(("POST", "/_/archive"),),
        schedule="* * * * *",
        needs_stores=False,
    ),
    Function(
        name="rollup",
        title="checks the ledger, seals hours, keeps rollups",
        trigger=Trigger.SCHEDULE,
        routes=(("POST", "/_/rollup"),),
        schedule="* * * * *",
    ),
    Function(
        name="customers",
        title="customers, and whose usage is theirs; subjects",
        trigger=Trigger.HTTP,
        routes=(
            ("*", "/api/v1/customers"),
            ("*", "/api/v1/subjects"),
            ("*", "/api/v3/openmeter/customers"),
        ),
    ),
    Function(
        name="entitlements",
        title="features, and who may use how much of them",
        trigger=Trigger.HTTP,
        routes=(
            ("*", "/api/v1/features"),
            ("*", "/api/v3/openmeter/features"),
            ("*", "/api/v1/entitlements"),
            ("*", "/api/v2/entitlements"),
            ("*", "/api/v1/grants"),
            ("*", "/api/v2/grants"),
        ),
    ),
    Function(
        name="notify",
        title="notification channels, rules and events; webhooks",
        trigger=Trigger.SCHEDULE,
        routes=(("POST", "/_/notify"), ("*", "/api/v1/notification")),
        schedule="* * * * *",
    ),
    Function(
        name="usage",
        title="meters, usage queries, events, the ledger",
        trigger=Trigger.HTTP,
        routes=(("*", "/api/"),),
        schedule="17 * * * *",
    ),
    Function(
        name="console",
        title="landing page and API document",
        trigger=Trigger.HTTP,
        routes=(("GET", "/"), ("GET", "/api/openapi.json")),
        needs_stores=False,
    ),
)
BY_NAME = {function.name: function for function in FUNCTIONS}


def function_for(method: str, path: str) -> Function | None:
    """The function that answers a request: longest matching prefix, exact method before `*`."""
    best: tuple[int, bool, Function] | None = None
    for function in FUNCTIONS:
        for wanted, prefix in function.routes:
            if wanted not in ("*", method, "GET" if method == "HEAD" else method):
                continue
            exact = prefix == path
            inside = path.startswith(prefix if prefix.endswith("/") else prefix + "/")
            if not (exact or (inside and (wanted == "*" or prefix == "/"))):
                continue
            rank = (len(prefix), wanted != "*", function)
            if best is None or rank[:2] > best[:2]:
                best = rank
    return best[2] if best else None
