"""The one table of functions: hosts, manifests and charts are made from it.

A function is a folder `functions/<name>` with one `main.py` whose functions-framework target has
the same name, and whose `app` is an ASGI application.
"""

import re
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
            `{}` in a prefix is any one segment of the path as it was sent, where an encoded slash
            ends none; such a prefix is of any method.
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
            ("*", "/api/v2/customers"),
            ("*", "/api/v1/customers/{}/entitlements"),
            ("*", "/api/v1/subjects/{}/entitlements"),
        ),
    ),
    Function(
        name="limits",
        title="whether a customer may use features now, and what is held",
        trigger=Trigger.HTTP,
        routes=(
            ("*", "/api/v1/limits"),
            ("*", "/api/v1/customers/{}/access"),
            ("*", "/api/v1/customers/{}/entitlements/{}/value"),
            ("*", "/api/v1/subjects/{}/entitlements/{}/value"),
            ("*", "/api/v2/customers/{}/entitlements/{}/value"),
            ("*", "/api/v3/openmeter/customers/{}/entitlement-access"),
            ("*", "/api/v3/openmeter/entitlement-access"),
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


ANY_SEGMENT = "{}"


def prefix_pattern(prefix: str) -> str:
    """A regular expression, of any dialect, of paths within a prefix that has `{}`."""
    return f"^{prefix.replace(ANY_SEGMENT, '[^/]+')}(/|$)"


def function_for(method: str, path: str, raw_path: str | None = None) -> Function | None:
    """The function that answers a request: longest matching prefix, exact method before `*`.

    Args:
        method: of the request.
        path: decoded.
        raw_path: as it was sent; None: as `path` is.
    """
    best: tuple[int, bool, Function] | None = None
    for function in FUNCTIONS:
        for wanted, prefix in function.routes:
            if wanted not in ("*", method, "GET" if method == "HEAD" else method):
                continue
            if not _is_within(prefix, wanted, path, path if raw_path is None else raw_path):
                continue
            rank = (len(prefix), wanted != "*", function)
            if best is None or rank[:2] > best[:2]:
                best = rank
    return best[2] if best else None


def _is_within(prefix: str, wanted: str, path: str, raw_path: str) -> bool:
    if ANY_SEGMENT in prefix:
        return re.match(prefix_pattern(prefix), raw_path) is not None
    inside = path.startswith(prefix if prefix.endswith("/") else prefix + "/")
    return prefix == path or (inside and (wanted == "*" or prefix == "/"))
