"""`tollgate demo`: sends two months of made-up usage and prints what the meters say of it."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from itertools import islice
from json import loads

from rich.console import Console
from rich.progress import track
from rich.table import Table

from tollgate.cli.http import CommandError, Connection
from tollgate.cli.usage import Event, events_of_hour, hours_until
from tollgate.core.clock import Clock

_BATCH = 500
_POSITION = "Tollgate-Position"
_METERS = ("tokens_total", "api_requests_total", "request_latency", "active_users")
_CUSTOMERS_SHOWN = 5


def run_demo(connection: Connection, clock: Clock) -> None:
    """Sends the events in batches, waits until they are loaded, prints two tables.

    Raises:
        CommandError: no answer, a refusal, or the sample meters are not there.
    """
    console = Console()
    _check_meters(connection)
    now = clock.now()
    console.print("Making up two months of an AI API's usage ...")
    events = [event for hour in hours_until(now) for event in events_of_hour(hour, now)]
    positions: dict[int, int] = {}
    generation = ""
    batches = list(_batches(events))
    for batch in track(batches, f"Sending {len(events):,} events", console=console):
        answer = connection.request(
            "POST",
            "/api/v1/events",
            body=batch,
            headers={"Content-Type": "application/cloudevents-batch+json"},
        )
        generation, _, pairs = answer.headers[_POSITION.lower()].partition(";")
        positions |= {int(p): int(o) for p, o in (pair.split(":") for pair in pairs.split(","))}
    token = f"{generation};" + ",".join(f"{p}:{o}" for p, o in sorted(positions.items()))
    _print_models(connection, token, console)
    _print_customers(connection, token, console)
    _print_totals(connection, token, console)


def _batches(events: list[Event]) -> Iterator[list[Event]]:
    rest = iter(events)
    while batch := list(islice(rest, _BATCH)):
        yield batch


def _check_meters(connection: Connection) -> None:
    found = loads(connection.request("GET", "/api/v1/meters", query={"pageSize": "1000"}).body)
    missing = set(_METERS) - {meter["slug"] for meter in found}
    if missing:
        raise CommandError(
            f"the demo needs the sample meters, {', '.join(sorted(missing))} are missing: start "
            "scripts/up with --meters infra/meters/sample.yaml"
        )


def _rows(
    connection: Connection, meter: str, token: str, query: Mapping[str, str]
) -> list[dict[str, object]]:
    answer = connection.request(
        "GET", f"/api/v1/meters/{meter}/query", query=query, headers={_POSITION: token}
    )
    rows: list[dict[str, object]] = loads(answer.body, parse_float=Decimal, parse_int=Decimal)[
        "data"
    ]
    return rows


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, Decimal) else str(value)


def _print_models(connection: Connection, token: str, console: Console) -> None:
    totals: dict[str, dict[str, Decimal]] = {}
    for kind in ("input", "output"):
        query = {"groupBy": "model", "filterGroupBy[type]": kind}
        for row in _rows(connection, "tokens_total", token, query):
            groups = row["groupBy"]
            assert isinstance(groups, dict)
            value = row["value"]
            assert isinstance(value, Decimal)
            totals.setdefault(groups["model"], {})[kind] = value
    table = Table("model", title="Tokens by model")
    for name in ("input", "output"):
        table.add_column(name, justify="right")
    for model, found in sorted(totals.items()):
        table.add_row(model, *(_shown(found.get(kind, Decimal(0))) for kind in ("input", "output")))
    console.print(table)


def _print_customers(connection: Connection, token: str, console: Console) -> None:
    rows = _rows(connection, "tokens_total", token, {"groupBy": "subject"})
    table = Table("customer", title="Largest customers")
    table.add_column("tokens", justify="right")
    values = {str(row["subject"]): row["value"] for row in rows}
    ranked = sorted(values.items(), key=lambda pair: (-Decimal(str(pair[1])), pair[0]))
    for subject, value in ranked[:_CUSTOMERS_SHOWN]:
        table.add_row(subject, _shown(value))
    console.print(table)


def _print_totals(connection: Connection, token: str, console: Console) -> None:
    parts = []
    for meter, name in (
        ("api_requests_total", "requests"),
        ("active_users", "active users"),
        ("request_latency", "ms mean latency"),
    ):
        rows = _rows(connection, meter, token, {})
        value = rows[0]["value"] if rows else Decimal(0)
        assert isinstance(value, Decimal)
        shown = f"{value.quantize(Decimal('0.1')):,}".removesuffix(".0")
        parts.append(f"{shown} {name}")
    console.print("In all: " + ", ".join(parts))
    console.print("Send it again if you like: the same ids change nothing.")
