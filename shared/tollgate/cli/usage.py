"""The made-up usage of `tollgate demo`: an AI company's API over two months.

Every hour's events are a function of that hour alone, so a second run sends the same ids with the
same content for the hours it shares with the first, and changes nothing there.
"""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta

DAYS = 60
_SOURCE = "tollgate-demo"
_MODELS = (
    # name, weight, mean input and output tokens
    ("gpt-5", 5, 900, 350),
    ("gpt-5-mini", 9, 500, 220),
    ("claude-opus", 3, 1600, 600),
    ("claude-haiku", 6, 420, 180),
    ("llama-4", 2, 700, 300),
)
_ROUTES = (("POST", "/v1/chat", 70), ("POST", "/v1/embeddings", 18), ("GET", "/v1/models", 12))
_CUSTOMERS = tuple(
    (f"customer-{number:02d}", max(1, round(40 / number)), f"user-{number:02d}")
    for number in range(1, 21)
)
_REGIONS = ("eu-west-1", "us-east-1")
_BUSY_HOUR, _QUIET_HOUR = 26, 6

Event = dict[str, object]


def hours_until(now: datetime) -> Iterator[datetime]:
    """The starts of the hours of the last `DAYS` days, the running one last."""
    hour = now.replace(minute=0, second=0, microsecond=0) - timedelta(days=DAYS)
    while hour <= now:
        yield hour
        hour += timedelta(hours=1)


def events_of_hour(hour: datetime, now: datetime) -> Iterator[Event]:
    """What happened in an hour, up to now."""
    chance = random.Random(f"tollgate-demo {hour:%Y-%m-%dT%H}")  # noqa: S311 -- no secret
    daytime = 7 <= hour.hour < 19
    weekday = hour.weekday() < 5
    growth = 1 + hour.timetuple().tm_yday / 366
    rate = (_BUSY_HOUR if daytime else _QUIET_HOUR) * (1 if weekday else 0.5) * growth
    for number in range(round(rate * chance.uniform(0.8, 1.2))):
        at = hour + timedelta(microseconds=chance.randrange(3_600_000_000))
        made = list(_request(chance, hour, number, at))
        if at <= now:
            yield from made
    if hour.hour == 0:
        yield from _daily(chance, hour)


def _event(kind: str, name: str, subject: str, at: datetime, data: Event) -> Event:
    return {
        "specversion": "1.0",
        "id": f"{kind}-{name}",
        "source": _SOURCE,
        "type": kind,
        "subject": subject,
        "time": at.replace(tzinfo=None).isoformat() + "Z",
        "data": data,
    }


def _request(chance: random.Random, hour: datetime, number: int, at: datetime) -> Iterator[Event]:
    subject, _, user = chance.choices(_CUSTOMERS, [weight for _, weight, _ in _CUSTOMERS])[0]
    method, route, _ = chance.choices(_ROUTES, [weight for *_, weight in _ROUTES])[0]
    name = f"{hour:%Y%m%d%H}-{number:04d}"
    duration = round(chance.lognormvariate(6, 0.7), 1)
    data: Event = {
        "method": method,
        "route": route,
        "duration_ms": duration,
        "user": f"{user}-{chance.randrange(8)}",
    }
    yield _event("request", name, subject, at, data)
    if route == "/v1/models":
        return
    model, _, mean_in, mean_out = chance.choices(_MODELS, [model[1] for model in _MODELS])[0]
    for kind, mean in (("input", mean_in), ("output", mean_out)):
        if kind == "output" and route == "/v1/embeddings":
            continue
        tokens = max(1, round(chance.expovariate(1 / mean)))
        prompt: Event = {"model": model, "type": kind, "tokens": tokens, "prompt_id": name}
        yield _event("prompt", f"{name}-{kind}", subject, at, prompt)


def _daily(chance: random.Random, hour: datetime) -> Iterator[Event]:
    for subject, weight, _ in _CUSTOMERS:
        kept: Event = {
            "bytes": weight * 10_000_000_000 + chance.randrange(1_000_000_000),
            "region": chance.choice(_REGIONS),
        }
        yield _event("storage", f"{hour:%Y%m%d}-{subject}", subject, hour, kept)
        if chance.random() < 0.2:
            work: Event = {
                "duration_seconds": f"{chance.randrange(60, 7200)}.{chance.randrange(1000):03d}",
                "region": chance.choice(_REGIONS),
                "instance_type": chance.choice(("a100", "h100")),
            }
            yield _event("workload", f"{hour:%Y%m%d}-{subject}", subject, hour, work)
