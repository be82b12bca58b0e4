"""Traffic from a seed, and a plain reading of it that knows nothing of the product.

Values of many digits and kinds, repeats in other bytes, contradictions, every mode of the wire, all
around the ends of summer time in Europe and America.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

SINGLE, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
SEED, EVENTS = 20261124, 1500
# Six days around the end of summer time in Europe, the last ones around that in America.
FIRST, SPAN_US = datetime(2026, 10, 24, tzinfo=UTC), 9 * 86_400_000_000
MODELS, SUBJECTS = ("small", "large", "größer"), ("acme", "beta", "gamma", "délta")
AGGREGATIONS = ("SUM", "COUNT", "AVG", "MIN", "MAX", "UNIQUE_COUNT", "LATEST")
VALUES = [
    "0", "1", "-1", "7", "0.1", "0.2", "-0.000000000000000001", "1e2", "2.5E-3",
    "9007199254740993", "99999999999999999999.123456789012345678", "123456789.123456789",
    '"4.5"', '"1e2"', '"-0.25"', "3.333333333333333333",
]  # fmt: skip
NO_VALUES = ["null", '"many"', "true", "[1]", "{}", '""']
WIDE_DIGITS = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event: what a request says of it, `n` as JSON text."""

    id: str
    n: str | None
    model: str | None
    subject: str
    time: datetime

    @property
    def time_text(self) -> str:
        return self.time.isoformat().replace("+00:00", "Z")

    @property
    def data(self) -> str:
        members = [] if self.n is None else [f'"n":{self.n}']
        members += [] if self.model is None else [f'"model":{json.dumps(self.model)}']
        return "{" + ",".join(members) + "}"

    def text(self, data: str | None = None) -> str:
        head = {"id": self.id, "source": "both", "type": "both", "subject": self.subject}
        head["time"] = self.time_text
        return f'{json.dumps(head)[:-1]},"data":{data or self.data}}}'

    @property
    def value(self) -> Decimal | None:
        """The number that the event brings; strings count if they follow JSON's grammar."""
        if self.n is None or self.n in NO_VALUES:
            return None
        return Decimal(self.n.strip('"'))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What goes over the wire, and how many events of which outcome it adds."""

    body: bytes
    headers: dict[str, str]
    duplicate: int = 0
    conflict: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """All requests, in order, and the events that count."""

    requests: list[Request]
    events: list[Event]


def make_traffic(events: int = EVENTS) -> Traffic:
    chance = random.Random(SEED)
    instants = sorted(chance.sample(range(SPAN_US), events))
    made = [
        Event(
            id=f"{number}-{chance.choice(('plain', 'ümlaut', 'with space'))}",
            n=chance.choice([*VALUES, *VALUES, *NO_VALUES, None]),
            model=chance.choice([*MODELS, *MODELS, None]),
            subject=chance.choice(SUBJECTS),
            time=FIRST + timedelta(microseconds=at),
        )
        for number, at in enumerate(instants)
    ]
    chance.shuffle(made)
    requests: list[Request] = []
    sent: list[Event] = []
    left = list(made)
    while left:
        new, left = left[: (size := chance.choice((1, 1, 1, 40)))], left[size:]
        requests.append(_request(chance, new, sent))
        sent += new
    return Traffic(requests=requests, events=made)


def _request(chance: random.Random, new: Sequence[Event], sent: Sequence[Event]) -> Request:
    if len(new) == 1 and chance.random() < 0.3:
        return _binary(new[0])
    texts = [event.text() for event in new]
    again = chance.sample(sent, min(len(sent), chance.choice((0, 0, 1, 3))))
    # The same value in other bytes is the same event.
    texts += [event.text(data=" " + event.data.replace(",", " , ")) for event in again]
    others = chance.sample(sent, min(len(sent), chance.choice((0, 0, 0, 1))))
    texts += [event.text(data='{"n":31337}') for event in others]
    order = list(range(len(texts)))
    chance.shuffle(order)
    if len(texts) == 1:
        return Request(body=texts[0].encode(), headers={"Content-Type": SINGLE})
    body = "[" + ",".join(texts[place] for place in order) + "]"
    return Request(
        body=body.encode(),
        headers={"Content-Type": BATCH},
        duplicate=len(again),
        conflict=len(others),
    )


def _binary(event: Event) -> Request:
    attributes = {"id": event.id, "source": "both", "type": "both", "subject": event.subject}
    attributes |= {"specversion": "1.0", "time": event.time_text}
    headers = {f"ce-{name}": _percent(text) for name, text in attributes.items()}
    return Request(body=event.data.encode(), headers=headers | {"Content-Type": "application/json"})


def _percent(text: str) -> str:
    return "".join(
        c if 0x20 < ord(c) < 0x7F and c not in '"%' else "".join(f"%{b:02X}" for b in c.encode())
        for c in text
    )


# -- what must come out ----------------------------------------------------------------------------


def quantity(aggregation: str, events: Sequence[Event]) -> Decimal | None:
    """The plain reading of a meter; None: no row."""
    if aggregation == "COUNT":
        return Decimal(len(events)) if events else None
    if aggregation == "UNIQUE_COUNT":
        texts = {_text(e.n) for e in events if e.n is not None and _has_text(e.n)}
        return Decimal(len(texts)) if texts else None
    values = [value for each in events if (value := each.value) is not None]
    if not values:
        return None
    with localcontext() as context:
        context.prec = WIDE_DIGITS
        match aggregation:
            case "SUM":
                return sum(values, Decimal(0))
            case "AVG":
                mean = sum(values, Decimal(0)) / len(values)
                return mean.quantize(Decimal("1e-18"), ROUND_HALF_EVEN)
            case "MIN":
                return min(values)
            case "MAX":
                return max(values)
            case _:
                latest = max((e for e in events if e.value is not None), key=lambda e: e.time)
                return latest.value


def _text(n: str) -> str:
    """What a value is told apart by: the engine writes a number with an exponent without it."""
    return {"1e2": "100", "2.5E-3": "0.0025"}.get(n, n.strip('"'))


def _has_text(n: str) -> bool:
    return n not in ("null", "true", "[1]", "{}")


def expected(
    aggregation: str, events: Sequence[Event], key: Callable[[Event], tuple[object, ...]]
) -> dict[tuple[object, ...], Decimal]:
    groups: dict[tuple[object, ...], list[Event]] = {}
    for event in events:
        groups.setdefault(key(event), []).append(event)
    found = {group: quantity(aggregation, members) for group, members in groups.items()}
    return {group: value for group, value in found.items() if value is not None}
