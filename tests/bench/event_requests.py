"""Prebuilt POSTs of events: every request gets its own ids at the price of one `bytes.join`."""

import itertools
import json
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

EVENTS_PATH: Final = "/api/v1/events"
LOAD_TYPE: Final = "bench.request"

_MARK: Final = "@@@@@@@@@@@@"
_COUNTER: Final = b"%012d"
_TEMPLATES: Final = 32
REPEATED: Final = 1000
"""How many requests lie between an event and its repeat; each template comes again by then."""
_MODELS: Final = ("small", "medium", "large", "embedding")
_REGIONS: Final = ("eu-central", "us-east", "us-west")


def _event(shuffle: random.Random, name: str, index: int, event_type: str) -> dict[str, object]:
    """Return one event of about 300 bytes, its id holding the mark that a counter replaces."""
    return {
        "specversion": "1.0",
        "id": f"{name}-{_MARK}-{index:03d}",
        "source": f"bench/gateway-{shuffle.randrange(8)}",
        "type": event_type,
        "subject": f"customer-{shuffle.randrange(2000):05d}",
        "time": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "data": {
            "tokens": shuffle.randrange(1, 4000),
            "model": shuffle.choice(_MODELS),
            "route": "/v1/chat/completions",
            "region": shuffle.choice(_REGIONS),
            "duration_ms": shuffle.randrange(5, 9000),
        },
    }


def _template(events: list[dict[str, object]], *, single: bool) -> list[bytes]:
    """Return the request cut at every mark: joined with a counter of that width it is whole."""
    kind = "cloudevents" if single else "cloudevents-batch"
    body = json.dumps(events[0] if single else events, separators=(",", ":"))
    head = (
        f"POST {EVENTS_PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: application/{kind}+json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return [part.encode() for part in (head + body).split(_MARK)]


def make_event_requests(
    name: str, events_per_request: int, event_type: str = LOAD_TYPE
) -> Callable[[], bytes]:
    """Return a function that gives the next request, none of whose ids was given before.

    Args:
        name: Start of every id; two sources with one name give the same ids.
        events_per_request: 1 sends a structured event, more a batch.
        event_type: CloudEvents type of all events.
    """
    # Same bodies in every run, so that two runs compare; nothing here is secret.
    shuffle = random.Random(7)
    templates = [
        _template(
            [_event(shuffle, name, index, event_type) for index in range(events_per_request)],
            single=events_per_request == 1,
        )
        for _ in range(_TEMPLATES if events_per_request < 10 else _TEMPLATES // 4)
    ]
    counters = itertools.count()
    turn = itertools.cycle(templates)
    return lambda: (_COUNTER % next(counters)).join(next(turn))


def make_repeating_requests(name: str, events_per_request: int) -> Callable[[], bytes]:
    """Return the same with one repeat in each request, an event of the request `REPEATED` before.

    Of n requests every event but one is new; of the last ones, all but the first `REPEATED` are
    repeats: `new_of_repeating`.
    """
    shuffle = random.Random(7)
    firsts = [_event(shuffle, name, 0, LOAD_TYPE) for _ in range(_TEMPLATES // 4)]
    templates = []
    for first in firsts:
        rest = [_event(shuffle, name, n, LOAD_TYPE) for n in range(1, events_per_request - 1)]
        whole = _template([first, *rest, first], single=False)
        templates.append((whole[:-2], whole[-2:]))
    counters = itertools.count(REPEATED)
    turn = itertools.cycle(templates)

    def request() -> bytes:
        (new, (before, after)), number = next(turn), next(counters)
        mark = _COUNTER % number
        return mark.join((*new, before)) + _COUNTER % (number - REPEATED) + after

    return request


def new_of_repeating(requests: int, events_per_request: int) -> int:
    """How many different events so many of those requests hold."""
    return requests * (events_per_request - 1) + min(requests, REPEATED)
